"""Instructions per request: user space, all processes, exact to a fraction of a per cent."""

from __future__ import annotations

from dataclasses import dataclass

import profiler
from callgrind import Callgrind, instructions, keep
from server import ServerFailed
from systems import BUILD, SYSTEMS
from workloads import WORKLOADS

NAMES = ["hello", "headers", "echo4k", "django"]
WARM_UP = 300
COUNTED = 500

# Per cent; what differs more than this between two counts is not a figure.
MAX_SPREAD = 0.5

# What rwsgi may cost at most.
BOUNDS = {"hello": 40_000, "headers": 83_000, "django": 965_000}

# A Django request is nearly all Django's own code, which changes from release to release. The
# distance from mod_wsgi does not: 1,236,000 for mod_wsgi when 965,000 was agreed. Told, not gated.
DJANGO_BELOW_MOD_WSGI = 271_000


@dataclass
class Count:
    """Instructions per request, and by how many per cent two measurements differed."""

    value: float
    spread: float


def measure(system_name: str, workload_name: str) -> Count:
    """Counts twice after the warm-up, in one process; the mean and the difference."""
    system, workload = SYSTEMS[system_name], WORKLOADS[workload_name]
    with Callgrind(system, workload) as callgrind:
        callgrind.count(WARM_UP)
        values = [instructions(callgrind.count(COUNTED)) / COUNTED for _ in range(2)]
        target = BUILD / "callgrind" / f"{system_name}-{workload_name}.out"
        keep(callgrind.last, target)
    mean = sum(values) / 2
    return Count(mean, 100 * abs(values[0] - values[1]) / mean)


def profile(system_name: str, workload_name: str) -> profiler.Profile:
    """Where the instructions of one request go."""
    with Callgrind(SYSTEMS[system_name], WORKLOADS[workload_name]) as callgrind:
        callgrind.count(WARM_UP)
        dump = callgrind.count(COUNTED)
        keep(dump, BUILD / "callgrind" / f"{system_name}-{workload_name}.out")
        return profiler.read(dump, COUNTED)


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
            row[system] = {"instructions": round(count.value), "spread_percent": count.spread}
    return results


def over_bound(results: dict, wanted: list[str]) -> list[str]:
    """What breaks the gate, in words; a wanted figure that was not measured breaks it, too."""
    found = []
    bounds = {name: bound for name, bound in BOUNDS.items() if name in wanted}
    if not bounds:
        found.append("none of the workloads has a bound")
    for workload, bound in bounds.items():
        value = results.get(workload, {}).get("rwsgi", {}).get("instructions")
        if value is None:
            found.append(f"{workload}: not measured")
        elif value > bound:
            found.append(f"{workload}: {value:,} instructions, at most {bound:,}")
    return found


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
