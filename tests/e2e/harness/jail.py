"""A root directory for the processes of a group (``chroot=``)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from . import paths


def jail(httpd):
    """A directory with the default Python and its gateway in it; skips where it cannot be made."""
    root = httpd.root / "jail"
    record = paths.gateway_record()
    python = Path(record["executable"])
    files = {python, python.resolve()}
    gateways = (paths.MODULE_DIR / "rwsgi").resolve()
    for program in (python, *gateways.glob("*.so")):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        files |= {Path(found) for found in re.findall(r"(/\S+) \(0x", listed)}
    version = ".".join(record["version"].split(".")[:2])
    library = Path(record["prefix"]) / "lib" / f"python{version}"
    if not library.is_dir():
        pytest.skip("the default Python has its library elsewhere")
    for file in files:
        place = root / file.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    ignored = shutil.ignore_patterns("__pycache__", "test", "site-packages", "dist-packages")
    shutil.copytree(library, root / library.relative_to("/"), ignore=ignored, symlinks=True)
    shutil.copytree(gateways, root / gateways.relative_to("/"))
    (root / "srv").mkdir()
    # A Python that finds its library by $ORIGIN needs /proc for that.
    tried = subprocess.run(["chroot", root, python, "-c", ""], capture_output=True)
    if tried.returncode != 0:
        pytest.skip("the default Python does not run in a directory of its own")
    return root
