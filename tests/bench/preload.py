"""Memory of four Django workers that were imported one by one, and of four that were forked from
one that had imported (`preload=on`); and of the supervisor."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cputime import wrk
from server import Httpd, ServerFailed, tree
from systems import SYSTEMS
from workloads import WORKLOADS

WORKERS = 4
CONNECTIONS = 16
SYSTEM = "rwsgi-daemon"


def pss(pid: int) -> float:
    """The proportional set size in MiB: memory that n processes share counts as one nth."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        # Workers cannot be looked into by their own user.
        raise ServerFailed("only root can read the memory figures of a worker") from None
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE).group(1)) / 1024


def measure(preload: str, seconds: int) -> tuple[float, float]:
    """MiB of all workers, the template among them if there is one, and of their supervisor, after
    some thousand requests."""
    options = (f"processes={WORKERS}", f"preload={preload}")
    with Httpd(SYSTEMS[SYSTEM], WORKLOADS["django"], worker_threads=5, options=options) as server:
        wrk(server.port, server.workload, seconds, CONNECTIONS)
        supervisors = [pid for pid in server.pids() if _is_supervisor(pid)]
        if len(supervisors) != 1:
            raise ServerFailed(f"expected one supervisor, found {supervisors}")
        workers = tree(supervisors[0])[1:]
        expected = WORKERS + (preload == "on")
        if len(workers) != expected:
            raise ServerFailed(f"expected {expected} processes, found {workers}")
        return sum(map(pss, workers)), pss(supervisors[0])


def _is_supervisor(pid: int) -> bool:
    return Path(os.readlink(f"/proc/{pid}/exe")).name == "rwsgi-daemon"


def run(report, seconds: int) -> dict:
    """Both, and the ratio."""
    results = {}
    for preload in ("off", "on"):
        report.progress(f"memory of {WORKERS} Django workers, preload={preload}")
        try:
            workers, supervisor = measure(preload, seconds)
        except (ServerFailed, OSError) as error:
            report.failure(f"preload={preload}", error)
            continue
        results[preload] = {"workers": workers, "supervisor": supervisor}
    return results
