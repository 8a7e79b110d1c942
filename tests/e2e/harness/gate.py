"""Lets a test decide when an application goes on, in whatever process that runs.

A gate is a FIFO: the application takes one byte per step (``wait`` in ``apps/support.py``), the
test puts them there. So a test of streaming needs no sleep and no clock.
"""

from __future__ import annotations

import os
from pathlib import Path


class Gate:
    """One FIFO at ``path``, which the application finds in its query string."""

    def __init__(self, path: Path):
        self.path = path
        os.mkfifo(path)
        os.chmod(path, 0o666)
        # Opened for both directions, it neither blocks nor ends when an application closes it.
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def step(self, count: int = 1) -> None:
        """Lets the application go ``count`` steps further."""
        os.write(self.descriptor, b"." * count)

    def close(self) -> None:
        """Removes the gate; an application that still waits goes on."""
        self.step(64)
        os.close(self.descriptor)
        self.path.unlink()
