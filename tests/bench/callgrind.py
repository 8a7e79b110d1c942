"""Runs httpd under callgrind and cuts the counting between requests."""

from __future__ import annotations

import os
import re
import select
import shutil
from pathlib import Path

from client import Connection
from server import Httpd, ServerFailed
from systems import System, build_c_module, tool
from workloads import Workload

DUMP_SECONDS = 120


class Callgrind:
    """httpd under callgrind with one keep-alive connection; use it as a context manager.

    `count(n)` sends n requests and returns the files with what was executed since the last cut,
    one per process of the tree that has one.
    """

    def __init__(self, system: System, workload: Workload):
        self.workload = workload
        module = build_c_module("mod_callgrind")
        self.server = Httpd(
            system,
            workload,
            prefix=(
                tool("valgrind", package="valgrind"),
                "--tool=callgrind",
                "--vgdb=no",
                "--callgrind-out-file=callgrind.%p",
                "--cache-sim=no",
                "--branch-sim=no",
            ),
            extra=(f"LoadModule callgrind_module {module}",),
            fifos=("dump.request", "dump.done"),
        )
        self.files: list[int] = []
        self.dumps = 0

    def __enter__(self) -> Callgrind:
        self.server.__enter__()
        try:
            flags = os.O_RDWR | os.O_CLOEXEC
            self.files = [
                os.open(self.server.run / f, flags) for f in ("dump.request", "dump.done")
            ]
            self.connection = Connection(self.server.port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for file in self.files:
            os.close(file)
        self.server.__exit__()

    def count(self, requests: int) -> Path:
        """Sends the requests; returns callgrind's file about them (gone when the server stops)."""
        self.connection.run(self.workload, requests, self.server.settle)
        os.write(self.files[0], b"d")
        if not select.select([self.files[1]], [], [], DUMP_SECONDS)[0]:
            raise ServerFailed(f"callgrind wrote no dump:\n{self.server.log()}")
        os.read(self.files[1], 1)
        self.dumps += 1
        self.last = self.server.run / f"callgrind.{self.server.child_pid}.{self.dumps}"
        return self.last


def instructions(dump: Path) -> int:
    """The instructions of one dump."""
    match = re.search(r"^totals: (\d+)", dump.read_text(errors="replace"), re.MULTILINE)
    if not match:
        raise ServerFailed(f"{dump} holds no total")
    return int(match.group(1))


def keep(dump: Path, target: Path) -> Path:
    """Copies a dump to where it outlives the server."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(dump, target)
    return target
