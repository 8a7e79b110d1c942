"""Prints results as tables, and says what is going on meanwhile."""

from __future__ import annotations

import sys

from ipc import OWN
from systems import SYSTEMS


class Report:
    """Tables go to standard output, progress and failures to standard error."""

    def __init__(self):
        self.failures: list[str] = []

    def progress(self, text: str) -> None:
        print(f"... {text}", file=sys.stderr, flush=True)

    def failure(self, what: str, error: Exception) -> None:
        self.failures.append(f"{what}: {error}")
        print(f"FAILED {what}: {error}", file=sys.stderr, flush=True)

    def table(self, title: str, head: list[str], rows: list[list]) -> None:
        """A table in Markdown, its columns aligned for reading as text, too."""
        cells = [head, *([_text(cell) for cell in row] for row in rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        print(f"\n{title}\n")
        for number, row in enumerate(cells):
            parts = [row[0].ljust(widths[0])]
            parts += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
            print("| " + " | ".join(parts) + " |")
            if number == 0:
                rule = [":" + "-" * (widths[0] - 1), *("-" * (w - 1) + ":" for w in widths[1:])]
                print("| " + " | ".join(rule) + " |")
        sys.stdout.flush()


def _text(cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.2f}" if abs(cell) < 10 else f"{cell:,.1f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def _ratio(row: dict, key: str, system: str, base: str) -> float | None:
    if system not in row or base not in row:
        return None
    return row[system][key] / row[base][key]


# What the others are compared with, where it was measured.
BASES = {"c": "x C", "mod_wsgi": "x mod_wsgi", "mod_wsgi-daemon": "x mod_wsgi daemon"}


ASGI_BASES = {"rwsgi-daemon": "x WSGI daemon", "uvicorn": "x uvicorn"}


def _bases(results: dict, known: dict[str, str] = BASES) -> dict[str, str]:
    """The systems to compare with, and the heads of their columns."""
    return {b: head for b, head in known.items() if any(b in row for row in results.values())}


def instructions(report: Report, results: dict, bounds: dict[str, dict[str, int]]) -> None:
    bases = _bases(results)
    rows = []
    for workload, row in results.items():
        for system, figures in row.items():
            rows.append(
                [
                    workload,
                    SYSTEMS[system].label,
                    figures["instructions"],
                    " + ".join(f"{part:,}" for part in figures["parts"]),
                    f"{figures['spread_percent']:.3f} %",
                    *(_ratio(row, "instructions", system, base) for base in bases),
                    bounds.get(system, {}).get(workload),
                ]
            )
    head = ["workload", "server", "instructions", "httpd + worker", "spread"]
    head += [*bases.values(), "bound"]
    report.table("Instructions per request (user space, callgrind)", head, rows)


def cpu(report: Report, results: dict) -> None:
    bases = _bases(results)
    rows = []
    for workload, row in results.items():
        for system, f in row.items():
            label = SYSTEMS[system].label
            if system == "c" and workload == "file10m":
                label = "httpd's static file"
            rows.append(
                [
                    workload,
                    label,
                    f["cpu_us"],
                    "{:,.1f}..{:,.1f}".format(*f["cpu_us_range"]),
                    f"{f['user_us']:,.1f} + {f['system_us']:,.1f}",
                    *(_ratio(row, "cpu_us", system, base) for base in bases),
                    round(f["requests_per_second"]),
                    round(f["p50_us"]),
                    round(f["p99_us"]),
                    round(f["errors"]),
                    f"{f['noise_percent']:.0f} %",
                ]
            )
    head = ["workload", "server", "CPU µs/request", "range", "user + system", *bases.values()]
    head += ["req/s", "p50 µs", "p99 µs", "errors", "noise"]
    report.table("CPU time per request (server on one core, wrk on another)", head, rows)


def asgi(report: Report, results: dict) -> None:
    bases = _bases(results, ASGI_BASES)
    rows = []
    for application, row in results.items():
        for system, f in row.items():
            rows.append(
                [
                    application,
                    SYSTEMS[system].label + ("" if SYSTEMS[system].asgi else ", WSGI"),
                    f["cpu_us"],
                    "{:,.1f}..{:,.1f}".format(*f["cpu_us_range"]),
                    f"{f['cpu_us'] - f['worker_us']:,.1f} + {f['worker_us']:,.1f}",
                    *(_ratio(row, "cpu_us", system, base) for base in bases),
                    round(f["requests_per_second"]),
                    round(f["p50_us"]),
                    round(f["p99_us"]),
                    round(f["errors"]),
                    f"{f['noise_percent']:.0f} %",
                ]
            )
    head = ["application", "server", "CPU µs/request", "range", "httpd + worker", *bases.values()]
    head += ["req/s", "p50 µs", "p99 µs", "errors", "noise"]
    report.table("CPU time per ASGI request (servers on one core, wrk on another)", head, rows)


def websockets(report: Report, results: dict) -> None:
    rows = [
        [
            *_crowd(system, f, "sockets"),
            f.get("keep_alive_kib"),
            round(f["handshakes_per_second"]),
            f["round_ms"],
            f["echo_p50_ms"],
            f["echo_p99_ms"],
        ]
        for system, f in results.items()
    ]
    head = [
        "server",
        "sockets",
        *CROWD_HEAD,
        "KiB, keep-alive",
        "handshakes/s",
        "echo on all, ms",
        "p50",
        "p99",
    ]
    report.table("Idle WebSockets (httpd: one process of 64 threads)", head, rows)
    _ordinary(report, "WebSockets", {SYSTEMS[s].label: f for s, f in results.items()})


def longpoll(report: Report, results: dict) -> None:
    rows = [
        [scene, *_crowd(system, f, "streams"), f["round_ms"], f["event_p50_ms"], f["event_p99_ms"]]
        for scene, row in results.items()
        for system, f in row.items()
    ]
    head = ["scene", "server", "streams", *CROWD_HEAD, "event to all, ms", "p50", "p99"]
    report.table("Streams and long polls (httpd: one process, a thread for each)", head, rows)
    for scene, row in results.items():
        _ordinary(report, scene, {SYSTEMS[s].label: f for s, f in row.items()})


CROWD_HEAD = ["KiB each, httpd", "KiB each, worker", "busy threads", "new threads"]


def _crowd(system: str, f: dict, what: str) -> list:
    """The columns of CROWD_HEAD, behind server and number."""
    columns = [SYSTEMS[system].label, f[what], f["httpd_kib"], f["worker_kib"]]
    return [*columns, f["busy"], f["new_threads"]]


def _ordinary(report: Report, what: str, rows: dict[str, dict]) -> None:
    """What ordinary requests noticed."""
    table = [
        [label, when, *(round(f[key]) for key in ("requests", "p50_us", "p99_us", "max_us"))]
        for label, row in rows.items()
        for when, f in row["ordinary"].items()
    ]
    head = ["server", "when", "requests", "p50 µs", "p99 µs", "max µs"]
    report.table(f"Ordinary requests beside the {what}", head, table)


def syscalls(report: Report, results: dict) -> None:
    totals = {system: sum(calls.values()) for system, calls in results.items()}
    names = {name for calls in results.values() for name in calls}
    most = {name: max(calls.get(name, 0) for calls in results.values()) for name in names}
    rows: list[list] = [["all", *(round(total, 2) for total in totals.values())]]
    for name in sorted(names, key=lambda n: -most[n]):
        if most[name] >= 0.01:
            rows.append([name, *(round(calls.get(name, 0.0), 2) for calls in results.values())])
    head = ["call", *(SYSTEMS[system].label for system in results)]
    title = "System calls per hello of all processes (strace, one keep-alive connection)"
    report.table(title, head, rows)


def fairness(report: Report, results: dict) -> None:
    bases = _bases(results)
    rows = []
    for scene, row in results.items():
        for system, f in row.items():
            rows.append(
                [
                    scene,
                    SYSTEMS[system].label,
                    round(f["per_second"]),
                    round(f["p50_us"]),
                    round(f["p99_us"]),
                    f["p99_us"] / f["p50_us"],
                    *(_ratio(row, "p99_us", system, base) for base in bases),
                    f.get("heavy_per_second"),
                    round(f["errors"]),
                ]
            )
    head = ["scene", "server", "req/s", "p50 µs", "p99 µs", "p99/p50"]
    head += [*(f"p99 {text}" for text in bases.values()), "heavy req/s", "errors"]
    report.table("Fairness (one process on one core; the crowds on all cores)", head, rows)


def ipc(report: Report, results: dict) -> None:
    for workload, row in results.items():
        names = {name for calls in row.values() for name in calls}
        own = sorted(name for name in names if name.startswith(OWN))
        between = sorted(names - set(own))
        rows: list[list] = [
            ["all between", *(_sum(calls, between) for calls in row.values())],
            *([name, *(calls.get(name, 0.0) for calls in row.values())] for name in between),
            ["the worker's own", *(_sum(calls, own) for calls in row.values())],
            *([name, *(calls.get(name, 0.0) for calls in row.values())] for name in own),
        ]
        head = ["call", *(SYSTEMS[system].label for system in row)]
        report.table(f"Calls between httpd's child and the worker per {workload}", head, rows)


def _sum(calls: dict[str, float], names: list[str]) -> float:
    return sum(calls.get(name, 0.0) for name in names)


def preload(report: Report, results: dict) -> None:
    rows = [[f"preload={name}", f["workers"], f["supervisor"]] for name, f in results.items()]
    head = ["", "workers", "supervisor"]
    report.table("Proportional set size of four Django workers, MiB", head, rows)


def own_gil(report: Report, results: dict) -> None:
    scenes = {name: row for name, row in results.items() if isinstance(row, dict)}
    rows = [[name, row["one"], row["two"], round(row["ratio"], 2)] for name, row in scenes.items()]
    title = f"Requests per second that compute, Python {results['python']}"
    report.table(title, ["", "one group", "two groups", "ratio"], rows)


def bounds(report: Report, found: list) -> None:
    rows = [[row.what, row.value, row.limit, "held" if row.held else "BROKEN"] for row in found]
    report.table("Bounds", ["figure", "value", "at most", ""], rows)


def memory(report: Report, results: dict) -> None:
    rows = [
        [SYSTEMS[system].label, row.get("upload"), row.get("download")]
        for system, row in results.items()
    ]
    head = ["server", "1 GiB upload", "1 GiB download"]
    report.table("Growth of the processes' peak resident memory, MiB", head, rows)


# Where httpd's child and a worker begin with a request.
ROOTS = ("ap_process_async_request", "Worker>::on_event")


def profile(report: Report, what: str, data, top: int, function: str) -> None:
    """Where the instructions go: by object, by function, by source line, around a function."""
    title = f"{what}: {data.total:,.0f} instructions per request"

    def share(value: float) -> str:
        return f"{100 * value / data.total:.1f} %"

    rows = [[name or "?", round(own), share(own)] for name, own in data.by_object() if own >= 1]
    report.table(f"{title}, by object", ["object", "exclusive", "share"], rows)
    head = ["function", "object", "inclusive", "exclusive", "share", "calls"]
    for key, what in (("inclusive", "inclusive"), ("own", "exclusive")):
        report.table(
            f"{title}, the top {top} {what}",
            head,
            [_row(f, share, key) for f in data.top(key, top)],
        )
    rows = [
        ["  " * depth + _shortened(f.name), f.object, round(calls, 2), round(cost), share(cost)]
        for depth, f, calls, cost in data.tree(ROOTS, 0.006)
    ]
    head_of_tree = ["call", "object", "calls", "inclusive", "share"]
    if rows:
        report.table(f"{title}, calls that cost more than 0.6 %", head_of_tree, rows)
    rows = [_row(f, share, "own") for f in data.top("own", top, r"^(mod_rwsgi|_rwsgi)")]
    if rows:
        report.table(f"{title}, the top {top} of rwsgi's own functions", head, rows)
    lines = [(place, own) for place, own in data.lines.items() if "/src/" in place[0]]
    lines = [item for item in lines if item[1] >= 1 and place_is_own(item[0][0])]
    if lines:
        lines.sort(key=lambda item: -item[1])
        rows = [[f"{_short(file)}:{line}", round(own)] for (file, line), own in lines[:top]]
        report.table(f"{title}, the top {top} lines of rwsgi's source", ["line", "exclusive"], rows)
    if function:
        _around(report, data, function)


def place_is_own(file: str) -> bool:
    """Whether a source file is this project's, not the standard library's or a crate's."""
    return "/registry/" not in file and "/library/" not in file and file.endswith(".rs")


def _short(file: str) -> str:
    return "src/" + file.rpartition("/src/")[2] if "/src/" in file else file


def _shortened(name: str) -> str:
    return name if len(name) <= 90 else name[:87] + "..."


def _row(f, share, key: str) -> list:
    value = f.inclusive if key == "inclusive" else f.own
    return [
        _shortened(f.name),
        f.object,
        round(f.inclusive),
        round(f.own),
        share(value),
        round(f.calls, 2),
    ]


def _around(report: Report, data, pattern: str) -> None:
    found = data.neighbours(pattern)
    for f, callers, callees in found[:5]:
        rows = [["called by " + n, round(calls, 2), round(cost)] for n, calls, cost in callers[:10]]
        rows.append(["itself", round(f.calls, 2), round(f.own)])
        rows += [["calls " + n, round(calls, 2), round(cost)] for n, calls, cost in callees[:25]]
        report.table(f"{f.name} [{f.object}]", ["", "calls", "inclusive"], rows)
    if not found:
        print(f"\nno function matches {pattern}")
