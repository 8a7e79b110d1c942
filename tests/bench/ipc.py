"""System calls between httpd's child and the process of daemon mode, one by one, by strace.

For rwsgi a request takes exactly five: send and recv in the child, epoll_wait, recv and send in the
worker. Anything else is a failure, not a figure.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

from client import Connection
from server import Httpd, ServerFailed
from syscalls import strace
from systems import SYSTEMS
from workloads import WORKLOADS

NAMES = ["hello", "echo4k", "asgi-hello"]
WARM_UP = 300
COUNTED = 200

# What a call is counted as, whatever variant the code or the C library uses.
KINDS = {
    **dict.fromkeys(["send", "sendto", "sendmsg", "write", "writev"], "send"),
    **dict.fromkeys(["recv", "recvfrom", "recvmsg", "read", "readv"], "recv"),
    **dict.fromkeys(["epoll_wait", "epoll_pwait", "epoll_pwait2"], "epoll_wait"),
}
EXPECTED = {"child send": 1, "child recv": 1, "worker epoll_wait": 1}
EXPECTED |= {"worker recv": 1, "worker send": 1}

OWN = "worker's own"

# Calls of the worker that belong to no request (a pulse once a second), per request.
STRAY = 0.1

# "1234 1700000000.123456 recvfrom(7<UNIX-STREAM:[123->124]>, ..."; what ends later has a second
# line, "<... recvfrom resumed>", which does not match.
_LINE = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((?:\d+<([^>]*)>)?")


def measure(system_name: str, workload_name: str) -> dict[str, float]:
    """Calls per request: those of the child on UNIX sockets, and all of the other process."""
    with (
        Httpd(SYSTEMS[system_name], WORKLOADS[workload_name]) as server,
        Connection(server.port) as connection,
    ):
        connection.run(server.workload, WARM_UP, server.settle)
        log = server.run / "strace.txt"
        with strace(server, "-yy", "-ttt", "-s", "0", "-o", str(log)):
            # Some more, since attaching interrupts what every thread was waiting in.
            connection.run(server.workload, 20, server.settle)
            worker_tasks = _tasks(server.worker_pid)
            start = time.time()
            connection.run(server.workload, COUNTED, server.settle)
            end = time.time()
        calls: Counter[str] = Counter()
        for line in log.read_text(errors="replace").splitlines():
            match = _LINE.match(line)
            if match and start <= float(match[2]) < end:
                name = _counted_as(int(match[1]) in worker_tasks, match[3], match[4] or "")
                if name:
                    calls[name] += 1
        return {name: count / COUNTED for name, count in sorted(calls.items())}


def _tasks(pid: int) -> set[int]:
    return {int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}


def _counted_as(in_worker: bool, call: str, file: str) -> str | None:
    """The row of the table that a call belongs to; None: it has nothing to do with the worker."""
    kind = KINDS.get(call, call)
    between = file.startswith("UNIX") and "SEQPACKET" not in file
    if not in_worker:
        return f"child {kind}" if between or call == "connect" else None
    if between or kind == "epoll_wait":
        return f"worker {kind}"
    return f"{OWN} {call}"


def check(calls: dict[str, float]) -> str | None:
    """What is not as expected, in words."""
    between = {name: count for name, count in calls.items() if not name.startswith(OWN)}
    if between != EXPECTED:
        found = ", ".join(f"{count:g} {name}" for name, count in between.items())
        return f"not exactly five calls per request: {found}"
    stray = {name: count for name, count in calls.items() if name.startswith(OWN)}
    if sum(stray.values()) > STRAY:
        found = ", ".join(f"{count:g} {name}" for name, count in stray.items())
        return f"the worker makes calls beside the five: {found}"
    return None


def run(workloads: list[str], systems: list[str], report) -> dict:
    """Calls of each system of daemon mode; what is not as expected of rwsgi is a failure."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for workload in (name for name in NAMES if name in workloads):
        row: dict[str, dict[str, float]] = {}
        takers = (SYSTEMS[name] for name in systems if SYSTEMS[name].daemon)
        for system in (taker.name for taker in takers if taker.supports(WORKLOADS[workload])):
            results[workload] = row
            report.progress(f"calls between the processes: {workload}, {SYSTEMS[system].label}")
            try:
                row[system] = measure(system, workload)
                problem = check(row[system]) if system == "rwsgi-daemon" else None
                if problem:
                    raise ServerFailed(problem)
            except ServerFailed as error:
                report.failure(f"ipc {workload} {system}", error)
    return results
