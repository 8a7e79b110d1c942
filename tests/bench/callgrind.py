"""Runs httpd under callgrind and cuts the counting between requests."""

from __future__ import annotations

import os
import re
import select
import shutil
from pathlib import Path

from asgi_systems import Proxied
from client import Connection
from server import Httpd, ServerFailed
from systems import System, build_c_module, build_worker_helper, tool
from workloads import Workload

DUMP_SECONDS = 120

# In the script of a process of daemon mode.
DUMPS = (
    "assert __import__('ctypes').CDLL('{}')"
    ".start(b'{{run}}/worker.request', b'{{run}}/worker.done') == 0"
)


def _valgrind(directory: str = "") -> tuple[str, ...]:
    return (
        tool("valgrind", package="valgrind"),
        "--tool=callgrind",
        "--vgdb=no",
        f"--callgrind-out-file={directory}callgrind.%p",
        "--cache-sim=no",
        "--branch-sim=no",
    )


class Callgrind:
    """httpd under callgrind with one keep-alive connection; use it as a context manager.

    valgrind follows a fork, which covers httpd's child and mod_wsgi's daemon processes, but no
    exec. rwsgi's supervisor, which a request does not pass, therefore runs as it is; the Python
    that it execs is a script that calls valgrind again. A server behind httpd is followed from its
    start.
    """

    def __init__(self, system: System, workload: Workload):
        self.workload = workload
        module = build_c_module("mod_callgrind")
        worker = _valgrind("{run}/")
        if isinstance(system, Proxied):
            worker = (*worker, "--trace-children=yes")
        self.server = Httpd(
            system,
            workload,
            prefix=_valgrind(),
            extra=(f"LoadModule callgrind_module {module}",),
            fifos=("dump.request", "dump.done", "worker.request", "worker.done"),
            worker_prefix=worker if system.daemon else (),
            script_line=DUMPS.format(build_worker_helper()) if system.daemon else "",
        )
        self.fifos: list[tuple[int, int]] = []
        self.dumps = 0

    def __enter__(self) -> Callgrind:
        self.server.__enter__()
        try:
            flags = os.O_RDWR | os.O_CLOEXEC
            roles = ["dump", "worker"] if self.server.worker_pid else ["dump"]
            for role in roles:
                names = (self.server.run / f"{role}.{end}" for end in ("request", "done"))
                self.fifos.append(tuple(os.open(name, flags) for name in names))
            self.connection = Connection(self.server.port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for file in (file for pair in self.fifos for file in pair):
            os.close(file)
        self.server.__exit__()

    def count(self, requests: int) -> list[Path]:
        """Sends the requests; returns callgrind's files about them, that of httpd's child first
        (gone when the server stops)."""
        self.connection.run(self.workload, requests, self.server.settle)
        self.dumps += 1
        self.last = []
        for pid, (request, done) in zip(self.server.serving(), self.fifos):
            os.write(request, b"d")
            if not select.select([done], [], [], DUMP_SECONDS)[0]:
                raise ServerFailed(f"callgrind wrote no dump:\n{self.server.log()}")
            os.read(done, 1)
            self.last.append(self.server.run / f"callgrind.{pid}.{self.dumps}")
        return self.last


def instructions(dump: Path) -> int:
    """The instructions of one dump."""
    match = re.search(r"^totals: (\d+)", dump.read_text(errors="replace"), re.MULTILINE)
    if not match:
        raise ServerFailed(f"{dump} holds no total")
    return int(match.group(1))


def keep(dumps: list[Path], directory: Path, name: str) -> None:
    """Copies the dumps to where they outlive the server."""
    directory.mkdir(parents=True, exist_ok=True)
    for role, dump in zip(("", "-worker"), dumps):
        shutil.copyfile(dump, directory / f"{name}{role}.out")
