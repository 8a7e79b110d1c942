"""The Pythons that gateways are there for.

Those of ``build/rwsgi`` and of ``build/several``, which ``make test`` and ``make e2e`` build
(``tests/tools/several.sh``); ``RWSGI_TEST_SEVERAL`` names another directory than the latter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from . import paths

SEVERAL = Path(os.environ.get("RWSGI_TEST_SEVERAL") or paths.REPOSITORY / "build/several/rwsgi")


def records():
    """By version: the gateway's files and its record, the default one first."""
    found = {}
    for directory in (paths.MODULE_DIR / "rwsgi", SEVERAL):
        for conf in sorted(directory.glob("_rwsgi.*.conf")):
            pairs = (line.partition("=") for line in conf.read_text().splitlines())
            record = {name.strip(): value.strip() for name, _, value in pairs}
            short = ".".join(record["version"].split(".")[:2])
            if conf.with_suffix(".so").exists() and usable(record):
                found.setdefault(short, (conf, record))
    return found


def usable(record):
    """Whether the interpreter is there and httpd's user can run it."""
    python = record["executable"]
    if not os.path.exists(python):
        return False
    command = [python, "-c", "import ssl"]
    if os.geteuid() == 0:
        command = ["runuser", "-u", paths.httpd_user()[0], "--", *command]
    return subprocess.run(command, env=environment(record), capture_output=True).returncode == 0


def environment(record):
    """Where an interpreter's library is, if the system's linker does not know."""
    return {
        "LD_LIBRARY_PATH": os.path.dirname(record["libpython"]),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }


def install(directory: Path, pythons) -> Path:
    """One installation of the module with all these gateways, in ``directory``."""
    for parent in [directory, *directory.parents][:3]:
        parent.chmod(0o755)
    gateways = directory / "rwsgi"
    gateways.mkdir()
    shutil.copy(paths.MODULE_DIR / "mod_rwsgi.so", directory)
    for name in ("rwsgi-daemon", "default"):
        shutil.copy(paths.MODULE_DIR / "rwsgi" / name, gateways)
    for conf, _ in pythons.values():
        shutil.copy(conf, gateways)
        shutil.copy(conf.with_suffix(".so"), gateways)
    return directory
