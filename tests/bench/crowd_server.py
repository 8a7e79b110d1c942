"""A server that a crowd connects to, and what shows on it from outside: memory, busy threads."""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from client import WrongAnswer
from crowd import Crowd, CrowdFailed
from preload import pss
from probe import Probe
from server import Httpd, ServerFailed
from systems import System
from workloads import WORKLOADS

CROWD = WORKLOADS["crowd"]
STATUS = "/server-status"
#: Seconds that ordinary requests are watched for in each situation.
WATCHED = 2
#: Seconds between two rounds, where they have a pause.
PAUSE = 0.4
#: Seconds that httpd's threads may take to come to rest after the last answer.
REST = 5


def server(
    system: System, *, threads: int, connections: int, options: tuple[str, ...] = ()
) -> Httpd:
    """httpd with that many threads, which keeps that many connections for as long as they like."""
    # Of connections that need no thread httpd keeps this many for each idle thread, and one for
    # each thread.
    factor = 2 + 2 * connections // threads
    extra = (
        "LoadModule status_module modules/mod_status.so",
        f"<Location {STATUS}>\n  SetHandler server-status\n</Location>",
        f"AsyncRequestWorkerFactor {factor}",
        "KeepAliveTimeout 600",
    )
    return Httpd(system, CROWD, threads=threads, extra=extra, options=options)


@contextlib.contextmanager
def with_log(server: Httpd):
    """A failure of the crowd tells what the server logged."""
    try:
        yield
    except (CrowdFailed, WrongAnswer) as error:
        raise ServerFailed(f"{error}\n{server.log()}") from error


def busy_threads(server: Httpd, expected: int = 0) -> int:
    """httpd's threads that are busy, without the one that answers this question. It has some time
    to become what is expected."""
    deadline = time.monotonic() + REST
    while True:
        url = f"http://127.0.0.1:{server.port}{STATUS}?auto"
        with urllib.request.urlopen(url, timeout=30) as answer:
            busy = int(re.search(r"^BusyWorkers: (\d+)", answer.read().decode(), re.M).group(1)) - 1
        if busy == expected or time.monotonic() > deadline:
            return busy
        time.sleep(0.1)  # a thread that becomes idle tells nobody


def memory(server: Httpd) -> tuple[float, float]:
    """KiB of httpd's child and of the process that runs the application (0: it is the same)."""
    return tuple(pss(pid) * 1024 if pid else 0.0 for pid in (server.child_pid, server.worker_pid))


def system_threads(server: Httpd) -> int:
    """All threads of httpd's child, whoever started them."""
    return len(list(Path(f"/proc/{server.child_pid}/task").iterdir()))


def watch(server: Httpd, crowd: Crowd, one_round: Callable[[], tuple]) -> tuple[dict, list]:
    """What one ordinary connection with a request every few milliseconds notices beside a crowd:
    idle, asked with pauses, asked without; and what `one_round` returned each time."""
    figures, rounds = {}, []
    for what, pause in (("idle", WATCHED), ("rounds, pauses", PAUSE), ("rounds, no pause", 0)):
        with Probe(server.port, "/hello") as probe:
            end = time.monotonic() + WATCHED
            while time.monotonic() < end:
                if pause < WATCHED:
                    rounds.append(one_round())
                crowd.pump(pause)
        figures[what] = probe.figures
    return figures, rounds


def watch_alone(server: Httpd) -> dict:
    """The same without a crowd."""
    with Probe(server.port, "/hello") as probe:
        time.sleep(WATCHED)
    return probe.figures
