"""What rwsgi has to hold, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import asgi_peers
import asgi_systems
import cputime
import fairness
import idle_websockets
import instructions
import ipc
import own_gil
from systems import SYSTEMS
from workloads import WORKLOADS

DAEMON, PEER, EMBEDDED_PEER = "rwsgi-daemon", "mod_wsgi-daemon", "mod_wsgi"

# CPU time of rwsgi's daemon mode, as a multiple of another server's in the same run.
CPU = [
    ("hello", PEER, 0.30),
    ("django", PEER, 0.60),
    ("django", EMBEDDED_PEER, 0.90),
    ("upload10m", PEER, 0.45),
    ("download10m", PEER, 0.80),
    ("stream1000", PEER, 0.75),
]

# p99 of the crowd: as a multiple of mod_wsgi's, and of the own p50.
CROWD_P99, CROWD_TAIL = 1 / 3, 2.0


# CPU time of an ASGI request in daemon mode, as a multiple of another server's in the same run.
ASGI_CPU = [
    (asgi_peers.RAW, asgi_peers.WSGI, 1.40),
    (asgi_peers.RAW, "uvicorn", 0.75),
    (asgi_peers.FASTAPI, "uvicorn", 0.85),
]

# KiB of memory for an idle WebSocket in httpd's child.
SOCKET_KIB = 24


@dataclass
class Row:
    """One bound; `value` is None where it should have been measured and was not."""

    what: str
    value: float | None
    limit: float

    @property
    def held(self) -> bool:
        return self.value is not None and self.value <= self.limit


def rows(results: dict, workloads: list[str], systems: list[str]) -> Iterator[Row]:
    """Every bound that these workloads and systems, and the kinds of figures in the results, were
    measured for."""
    for system, bounds in instructions.BOUNDS.items():
        for workload, bound in bounds.items():
            if "instructions" in results and system in systems and workload in workloads:
                found = results["instructions"].get(workload, {}).get(system, {})
                label = "daemon" if system == DAEMON else "embedded"
                what = f"{workload}, {label}: instructions"
                yield Row(what, found.get("instructions"), bound)
    for where in ("embedded", "daemon") if "own-gil" in results else ():
        found = results["own-gil"].get(f"{where}, own GIL")
        # A bound is a maximum.
        what = f"two groups with their own GIL, {where}: one group's throughput, times that of two"
        yield Row(what, found["one"] / found["two"] if found else None, 1 / own_gil.WANTED)
    if DAEMON not in systems:
        return
    for workload in ipc.NAMES:
        measured = workload in workloads and SYSTEMS[DAEMON].supports(WORKLOADS[workload])
        if "ipc" in results and measured:
            calls = results["ipc"].get(workload, {}).get(DAEMON)
            between = [n for name, n in (calls or {}).items() if not name.startswith(ipc.OWN)]
            what = f"{workload}, daemon: calls between the processes"
            yield Row(what, sum(between) if calls else None, 5)
    for workload, base, limit in CPU:
        if "cpu" in results and workload in workloads and base in systems:
            row = results["cpu"].get(workload, {})
            if workload in cputime.NAMES:
                what = f"{workload}, daemon: CPU, times that of {base}"
                yield Row(what, _ratio(row, "cpu_us", DAEMON, base), limit)
    if "preload" in results:
        off, on = (results["preload"].get(name, {}) for name in ("off", "on"))
        both = off and on
        value = on["workers"] / off["workers"] if both else None
        yield Row("preload=on, four Django workers: memory, times that without", value, 0.5)
        yield Row("supervisor: MiB", max(off["supervisor"], on["supervisor"]) if both else None, 3)
    if "fairness" in results:
        row = results["fairness"].get(fairness.CROWD, {})
        if PEER in systems:
            what = f"{fairness.CROWD}: p99, times that of {PEER}"
            yield Row(what, _ratio(row, "p99_us", DAEMON, PEER), CROWD_P99)
        own = row.get(DAEMON)
        what = f"{fairness.CROWD}: p99, times its own p50"
        yield Row(what, own["p99_us"] / own["p50_us"] if own else None, CROWD_TAIL)


def asgi_rows(results: dict, systems: dict[str, list[str]]) -> Iterator[Row]:
    """The bounds of the kinds that are about ASGI; `systems` are those that took part in each."""
    own = [system.name for system in asgi_systems.OWN]
    for name in (n for n in systems["asgi"] if n in own and SYSTEMS[n].daemon):
        for application, base, limit in ASGI_CPU if "asgi" in results else ():
            if base in systems["asgi"]:
                what = f"{application}, {SYSTEMS[name].label}: CPU, times that of {base}"
                value = _ratio(results["asgi"].get(application, {}), "cpu_us", name, base)
                yield Row(what, value, limit)
    for name in (n for n in systems["websockets"] if n in own and "websockets" in results):
        row = results["websockets"].get(name, {})
        what = f"idle WebSockets, {SYSTEMS[name].label}"
        if row.get("sockets", 0) >= idle_websockets.GATED:
            yield Row(f"{what}: KiB of httpd's child for each", row["httpd_kib"], SOCKET_KIB)
            yield Row(f"{what}: threads held", row["busy"], 0)
        else:
            yield Row(f"{what}: none or too few measured", None, 0)


def _ratio(row: dict, key: str, system: str, base: str) -> float | None:
    if system not in row or base not in row:
        return None
    return row[system][key] / row[base][key]
