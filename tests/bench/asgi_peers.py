"""CPU time per ASGI request: rwsgi beside the servers that are put behind Apache's proxy, and
beside its own WSGI."""

from __future__ import annotations

import asgi_systems
import cputime
from systems import SYSTEMS
from workloads import WORKLOADS

#: What a hello in daemon mode is measured against, beside the peers.
WSGI = "rwsgi-daemon"
DEFAULT = [WSGI, *(system.name for system in (*asgi_systems.OWN, *asgi_systems.PEERS))]
RAW, FASTAPI = "raw hello", "FastAPI hello"


def run(systems: list[str], report, rounds: int, seconds: int) -> dict:
    """Both applications, all systems in one run."""

    def takers(asgi: str, wsgi: str | None) -> dict:
        names = {name: asgi if SYSTEMS[name].asgi else wsgi for name in systems}
        return {name: WORKLOADS[workload] for name, workload in names.items() if workload}

    turns = rounds * seconds
    return {
        RAW: cputime.side_by_side(takers("asgi-hello", "hello"), report, RAW, turns),
        FASTAPI: cputime.side_by_side(takers("fastapi", None), report, FASTAPI, turns),
    }
