"""CPU time per request, throughput and latency under wrk, server and wrk on a core each."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess

from server import Httpd, ServerFailed
from systems import HERE, SYSTEMS, tool
from workloads import WORKLOADS, Workload

NAMES = [
    "hello",
    "headers",
    "django",
    "download10m",
    "upload10m",
    "stream1000",
    "file10m",
]
SERVER_CORE, WRK_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")


def pinned(core: str) -> tuple[str, ...]:
    """The command prefix that keeps a program on one core."""
    if (os.cpu_count() or 1) < 2:
        return ()
    return (tool("taskset", package="util-linux"), "-c", core)


def wrk_command(port: int, workload: Workload, seconds: int, connections: int) -> list[str]:
    """wrk with the workload's request, one thread, on its own core."""
    return [
        *pinned(WRK_CORE),
        tool("wrk", package="wrk"),
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "20s",
        "-s",
        str(HERE / "wrk" / "workload.lua"),
        f"http://127.0.0.1:{port}{workload.path}",
        "--",
        workload.method,
        str(workload.body_bytes),
        *(f"{name}: {value}" for name, value in workload.headers.items()),
    ]


def wrk_result(output: str) -> dict:
    """The line of JSON that workload.lua writes; times in microseconds."""
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[7:])
    raise ServerFailed(f"wrk reported no result:\n{output}")


def wrk(port: int, workload: Workload, seconds: int, connections: int) -> dict:
    """A bounded run of wrk."""
    command = wrk_command(port, workload, seconds, connections)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    return wrk_result(done.stdout + done.stderr)


def cpu_ticks(pids: list[int]) -> tuple[int, int]:
    """User and system time of these processes and of their children that have ended, in clock
    ticks."""
    user = system = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            fields = [int(field) for field in file.read().rpartition(") ")[2].split()[11:15]]
            user, system = user + fields[0] + fields[2], system + fields[1] + fields[3]
    return user, system


def busy_seconds() -> float:
    """The time that all cores together have worked, and that the hypervisor took from them."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def children_seconds() -> float:
    """CPU time of this program and of its children that have ended: of wrk, not of the server."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def warm_up(server: Httpd) -> None:
    wrk(server.port, server.workload, 1, server.workload.connections)


def once(server: Httpd, seconds: int) -> dict:
    """One run against a server that has been warmed up."""
    workload = server.workload
    before = cpu_ticks(server.pids())
    before_worker = cpu_ticks([server.worker_pid])
    before_others = busy_seconds() - children_seconds()
    result = wrk(server.port, workload, seconds, workload.connections)
    after = cpu_ticks(server.pids())
    after_worker = cpu_ticks([server.worker_pid])
    others = busy_seconds() - children_seconds() - before_others
    others -= (sum(after) - sum(before)) / TICK
    requests = result["requests"]
    if not requests:
        raise ServerFailed(f"{server.system.label}: no request of {workload.name} was answered")
    user, system = ((b - a) * 1e6 / TICK / requests for a, b in zip(before, after))
    worker = (sum(after_worker) - sum(before_worker)) * 1e6 / TICK / requests
    return {
        "cpu_us": user + system,
        "worker_us": worker,
        "noise_percent": 100 * max(others, 0) / result["seconds"],
        "user_us": user,
        "system_us": system,
        "requests_per_second": requests / result["seconds"],
        "p50_us": result["p50"],
        "p99_us": result["p99"],
        "errors": result["socket_errors"] + result["status_errors"],
    }


def median(rows: list[dict]) -> dict:
    """The median of each figure; errors are summed."""
    merged = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    merged["errors"] = sum(row["errors"] for row in rows)
    merged["cpu_us_range"] = [min(r["cpu_us"] for r in rows), max(r["cpu_us"] for r in rows)]
    return merged


def run(workloads: list[str], systems: list[str], report, rounds: int, seconds: int) -> dict:
    """All figures, the systems taking turns in every round."""
    results: dict[str, dict[str, dict]] = {}
    for name in workloads:
        if name not in NAMES:
            continue
        workload = WORKLOADS[name]
        rows: dict[str, list[dict]] = {}
        for number in range(rounds):
            for system in systems:
                if not SYSTEMS[system].supports(workload):
                    continue
                report.progress(f"CPU: {name}, {SYSTEMS[system].label}, round {number + 1}")
                try:
                    with Httpd(SYSTEMS[system], workload, prefix=pinned(SERVER_CORE)) as server:
                        warm_up(server)
                        figures = once(server, seconds)
                    rows.setdefault(system, []).append(figures)
                except ServerFailed as error:
                    report.failure(f"CPU {name} {system}", error)
        results[name] = {system: median(values) for system, values in rows.items()}
    return results


def side_by_side(takers: dict[str, Workload], report, what: str, turns: int) -> dict[str, dict]:
    """The figures of each system with its workload. All servers run, and each in turn is loaded for
    a second, `turns` times: what else goes on in the machine then hits all of them alike."""
    rows: dict[str, list[dict]] = {}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Httpd] = {}
        for system, workload in takers.items():
            report.progress(f"CPU: {what}, {SYSTEMS[system].label} starts")
            try:
                server = Httpd(SYSTEMS[system], workload, prefix=pinned(SERVER_CORE))
                servers[system] = stack.enter_context(server)
                warm_up(server)
            except ServerFailed as error:
                servers.pop(system, None)
                report.failure(f"CPU {what} {system}", error)
        report.progress(f"CPU: {what}, {turns} turns of {len(servers)} servers")
        for _ in range(turns):
            for system, server in list(servers.items()):
                try:
                    rows.setdefault(system, []).append(once(server, 1))
                except ServerFailed as error:
                    del servers[system]
                    report.failure(f"CPU {what} {system}", error)
    return {system: median(values) for system, values in rows.items()}
