"""Who waits for whom: tails under load, waiting applications, short requests beside long ones."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess

from cputime import SERVER_CORE, pinned, wrk, wrk_command, wrk_result
from server import Httpd, ServerFailed
from systems import SYSTEMS
from workloads import WORKLOADS

CROWD = "hello, 64 connections on 15 threads"
LIGHT_CONNECTIONS, HEAVY_CONNECTIONS = 8, 3

HEAVY = dataclasses.replace(WORKLOADS["hello"], path="/heavy", answer_bytes=None)


def tail(system: str, workload: str, seconds: int) -> dict:
    """Latency of 16 connections on one process of 25 threads on one core."""
    with Httpd(SYSTEMS[system], WORKLOADS[workload], prefix=pinned(SERVER_CORE)) as server:
        wrk(server.port, server.workload, 1, 16)
        return _figures(wrk(server.port, server.workload, seconds, 16))


def crowd(system: str, workload: str, seconds: int) -> dict:
    """64 connections on one process of daemon mode with 15 threads, on all cores. httpd has more
    threads than there are connections, since otherwise its own shedding is measured."""
    with Httpd(SYSTEMS[system], WORKLOADS[workload], threads=128) as server:
        wrk(server.port, server.workload, 1, 64)
        return _figures(wrk(server.port, server.workload, seconds, 64))


def sleeping(system: str, seconds: int) -> dict:
    """64 threads that each wait for 10 ms, 64 connections: more than 6,000 requests a second."""
    # httpd's threads wait as well while an application in daemon mode does.
    threads = 128 if SYSTEMS[system].daemon else 64
    server = Httpd(
        SYSTEMS[system],
        WORKLOADS["sleep10ms"],
        threads=threads,
        worker_threads=64,
        prefix=pinned(SERVER_CORE),
    )
    with server:
        wrk(server.port, server.workload, 1, 64)
        return _figures(wrk(server.port, server.workload, seconds, 64))


def mixed(system: str, seconds: int) -> dict:
    """Short requests while three others compute for some 30 ms each, all in one process."""
    server = Httpd(
        SYSTEMS[system],
        WORKLOADS["hello"],
        prefix=pinned(SERVER_CORE),
        before=(("/heavy", "heavy.py"),),
    )
    with server:
        wrk(server.port, HEAVY, 1, HEAVY_CONNECTIONS)
        wrk(server.port, server.workload, 1, LIGHT_CONNECTIONS)
        # The heavy load surrounds the light one, so that no light request is without it.
        command = wrk_command(server.port, HEAVY, seconds + 1, HEAVY_CONNECTIONS)
        heavy = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            light = wrk(server.port, server.workload, seconds, LIGHT_CONNECTIONS)
            output = heavy.communicate(timeout=seconds + 60)[0]
        finally:
            if heavy.poll() is None:
                heavy.kill()
                heavy.wait()
        return {**_figures(light), "heavy_per_second": _figures(wrk_result(output))["per_second"]}


def _figures(result: dict) -> dict:
    return {
        "per_second": result["requests"] / result["seconds"],
        "p50_us": result["p50"],
        "p99_us": result["p99"],
        "errors": result["socket_errors"] + result["status_errors"],
    }


def run(systems: list[str], report, rounds: int, seconds: int) -> dict:
    """All scenes, the systems taking turns; medians."""
    scenes = {
        CROWD: lambda s: crowd(s, "hello", seconds),
        "django, 64 connections on 15 threads": lambda s: crowd(s, "django", seconds),
        "hello, 16 connections": lambda s: tail(s, "hello", seconds),
        "django, 16 connections": lambda s: tail(s, "django", seconds),
        "sleep10ms, 64 threads": lambda s: sleeping(s, seconds),
        "light beside heavy": lambda s: mixed(s, seconds),
    }
    results: dict[str, dict[str, dict]] = {}
    for scene, measure in scenes.items():
        rows: dict[str, list[dict]] = {}
        for number in range(rounds):
            for system in systems:
                if system == "c" and scene != "hello, 16 connections":
                    continue
                if "on 15 threads" in scene and not SYSTEMS[system].daemon:
                    continue
                report.progress(f"fairness: {scene}, {SYSTEMS[system].label}, round {number + 1}")
                try:
                    figures = measure(system)
                    rows.setdefault(system, []).append(figures)
                except ServerFailed as error:
                    report.failure(f"fairness {scene} {system}", error)
        if not rows:
            continue
        results[scene] = {
            system: {key: statistics.median(row[key] for row in found) for key in found[0]}
            for system, found in rows.items()
            if found
        }
    return results
