"""Instructions per request: user space, all processes, exact to a fraction of a per cent."""

from __future__ import annotations

from dataclasses import dataclass

import profiler
from callgrind import Callgrind, instructions, keep
from server import ServerFailed
from systems import BUILD, SYSTEMS
from workloads import WORKLOADS

NAMES = ["hello", "headers", "echo4k", "django", "asgi-hello", "fastapi"]
WARM_UP = 300
COUNTED = 500

# Per cent; what differs more than this between two counts is not a figure.
MAX_SPREAD = 0.5

# What rwsgi may cost at most.
BOUNDS = {
    "rwsgi": {"hello": 40_000, "headers": 83_000, "django": 965_000},
    "rwsgi-daemon": {"hello": 48_000, "headers": 100_000, "echo4k": 60_000, "django": 900_000},
}

# A Django request is nearly all Django's own code, which changes from release to release. The
# distance from mod_wsgi does not: 1,236,000 for mod_wsgi when 965,000 was agreed. Told, not gated.
DJANGO_BELOW_MOD_WSGI = 271_000


@dataclass
class Count:
    """Instructions per request of each process that it passes, and by how many per cent two
    measurements of their sum differed."""

    parts: list[float]
    spread: float

    @property
    def value(self) -> float:
        return sum(self.parts)


def measure(system_name: str, workload_name: str) -> Count:
    """Counts twice after the warm-up, in one process; the mean and the difference."""
    system, workload = SYSTEMS[system_name], WORKLOADS[workload_name]
    with Callgrind(system, workload) as callgrind:
        callgrind.count(WARM_UP)
        first, second = (
            [instructions(dump) / COUNTED for dump in callgrind.count(COUNTED)] for _ in range(2)
        )
        keep(callgrind.last, BUILD / "callgrind", f"{system_name}-{workload_name}")
    count = Count([(a + b) / 2 for a, b in zip(first, second)], 0.0)
    count.spread = 100 * abs(sum(first) - sum(second)) / count.value
    return count


def profile(system_name: str, workload_name: str) -> list[profiler.Profile]:
    """Where the instructions of one request go: httpd's child, then the process of daemon mode."""
    with Callgrind(SYSTEMS[system_name], WORKLOADS[workload_name]) as callgrind:
        callgrind.count(WARM_UP)
        dumps = callgrind.count(COUNTED)
        keep(dumps, BUILD / "callgrind", f"{system_name}-{workload_name}")
        return [profiler.read(dump, COUNTED) for dump in dumps]


def run(workloads: list[str], systems: list[str], report) -> dict:
    """All figures; the report gets the table as it grows."""
    results: dict[str, dict[str, dict]] = {}
    for workload in workloads:
        if workload not in NAMES:
            continue
        row = results[workload] = {}
        for system in systems:
            if not SYSTEMS[system].supports(WORKLOADS[workload]):
                continue
            report.progress(f"instructions: {workload}, {SYSTEMS[system].label}")
            try:
                count = measure(system, workload)
            except ServerFailed as error:
                report.failure(f"instructions {workload} {system}", error)
                continue
            if count.spread > MAX_SPREAD:
                error = ServerFailed(f"two counts differ by {count.spread:.2f} %")
                report.failure(f"instructions {workload} {system}", error)
            row[system] = {
                "instructions": round(count.value),
                "parts": [round(part) for part in count.parts],
                "spread_percent": count.spread,
            }
    return results


def remark(results: dict) -> str | None:
    """How far Django's figure is from where its bound would be with the Django it was set for."""
    django = results.get("django", {})
    if "rwsgi" not in django or "mod_wsgi" not in django:
        return None
    saved = django["mod_wsgi"]["instructions"] - django["rwsgi"]["instructions"]
    return (
        f"django: {saved:,} instructions below mod_wsgi; "
        f"the bound was set as {DJANGO_BELOW_MOD_WSGI:,} below it"
    )
