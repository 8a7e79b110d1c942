"""System calls per request of the processes that it passes, by strace."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

from client import Connection
from server import Httpd, ServerFailed
from systems import SYSTEMS, tool
from workloads import WORKLOADS

WARM_UP = 300
COUNTED = 300
ATTACH_SECONDS = 30


def measure(system_name: str) -> dict[str, float]:
    """Calls per hello by name, each request beginning when the server is at rest."""
    with (
        Httpd(SYSTEMS[system_name], WORKLOADS["hello"]) as server,
        Connection(server.port) as connection,
    ):
        connection.run(server.workload, WARM_UP, server.settle)
        table = server.run / "strace.txt"
        with strace(server, "-c", "-o", str(table)):
            connection.run(server.workload, COUNTED, server.settle)
        return {name: calls / COUNTED for name, calls in _parse(table.read_text()).items()}


@contextlib.contextmanager
def strace(server: Httpd, *options: str):
    """strace of all threads of the serving processes, while the context lasts."""
    command = [tool("strace", package="strace"), "-f", *options]
    for pid in server.serving():
        command += ["-p", str(pid)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_traced(server.serving(), process)
        yield
    finally:
        # SIGINT: detach, and write the table.
        process.send_signal(signal.SIGINT)
        process.wait(ATTACH_SECONDS)


def _wait_until_traced(pids: list[int], process: subprocess.Popen) -> None:
    """Returns when strace holds all threads; the kernel says so in their status."""
    deadline = time.monotonic() + ATTACH_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
        states = [(task / "status").read_text() for task in tasks]
        if all("TracerPid:\t0\n" not in state for state in states):
            return
        time.sleep(0.01)
    raise ServerFailed("strace could not attach (in a container it needs CAP_SYS_PTRACE)")


def _parse(table: str) -> dict[str, int]:
    """The calls column of `strace -c`."""
    calls = {}
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


def run(systems: list[str], report) -> dict:
    """Calls of each system."""
    results = {}
    for system in systems:
        report.progress(f"system calls: {SYSTEMS[system].label}")
        try:
            results[system] = measure(system)
        except ServerFailed as error:
            report.failure(f"system calls {system}", error)
    return results
