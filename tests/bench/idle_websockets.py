"""Thousands of WebSockets that are open and say nothing until they are asked: what each costs in
memory and threads, how fast all of them echo, and what ordinary requests notice of it."""

from __future__ import annotations

import statistics
import time

from asgi_systems import Proxied
from client import WrongAnswer
from crowd import Answers, CrowdFailed, WebSockets, room_for
from crowd_server import busy_threads, memory, server, system_threads, watch, watch_alone, with_log
from server import ServerFailed
from systems import SYSTEMS

DEFAULT = ["rwsgi-asgi", "rwsgi-asgi-daemon", "uvicorn"]
THREADS = 64
#: The bounds are for at least this many.
GATED = 5000
WARM_UP = 64
ROUNDS = 3
MESSAGE = WebSockets.message(b"how do you do")


def measure(system: str, sockets: int) -> dict:
    """Everything about one server."""
    if isinstance(SYSTEMS[system], Proxied):
        # mod_proxy_http holds a thread for each.
        sockets = min(sockets, THREADS // 2)
    room_for(sockets)
    setting = server(SYSTEMS[system], threads=THREADS, connections=sockets)
    with setting as httpd, with_log(httpd):
        with WebSockets(httpd.port) as crowd:
            crowd.open(min(WARM_UP, sockets), WebSockets.HANDSHAKE)
            crowd.ask(MESSAGE)
        before = watch_alone(httpd)
        busy_threads(httpd)
        memory_before, threads_before = memory(httpd), system_threads(httpd)
        with WebSockets(httpd.port) as crowd:
            start = time.perf_counter()
            crowd.open(sockets, WebSockets.HANDSHAKE)
            opening = time.perf_counter() - start
            busy = busy_threads(httpd)
            # Memory is looked at when another message takes no more of it.
            rounds = [_round(crowd) for _ in range(ROUNDS)]
            busy = max(busy, busy_threads(httpd))
            memory_after, threads_after = memory(httpd), system_threads(httpd)
            beside, more = watch(httpd, crowd, lambda: _round(crowd))
        rounds += more
        rounds.sort()
        child, worker = ((b - a) / sockets for a, b in zip(memory_before, memory_after))
        seconds, p50, p99 = rounds[len(rounds) // 2]
        return {
            "sockets": sockets,
            "httpd_kib": child,
            "worker_kib": worker if httpd.worker_pid else None,
            "busy": busy,
            "new_threads": threads_after - threads_before,
            "handshakes_per_second": sockets / opening,
            "round_ms": seconds * 1e3,
            "echo_p50_ms": p50 * 1e3,
            "echo_p99_ms": p99 * 1e3,
            "ordinary": {"before": before, **beside},
        }


def keep_alive(system: str, connections: int) -> float:
    """KiB of httpd's child for each ordinary connection that has had an answer and stays open: what
    httpd itself takes."""
    room_for(connections)
    # httpd closes kept connections when all its threads are busy.
    at_once = THREADS // 4
    request = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
    setting = server(SYSTEMS[system], threads=THREADS, connections=connections)
    with setting as httpd, with_log(httpd):
        with Answers(httpd.port, b"Hello, world!") as crowd:
            crowd.open(WARM_UP, request, at_once)
        busy_threads(httpd)
        before = memory(httpd)
        with Answers(httpd.port, b"Hello, world!") as crowd:
            crowd.open(connections, request, at_once)
            busy_threads(httpd)
            after = memory(httpd)
    return (after[0] - before[0]) / connections


def _round(crowd: WebSockets) -> tuple[float, float, float]:
    """One echo on every socket: the seconds for all, the median and the 99th percentile."""
    start = time.perf_counter()
    latencies = sorted(crowd.ask(MESSAGE))
    seconds = time.perf_counter() - start
    return seconds, statistics.median(latencies), latencies[len(latencies) * 99 // 100]


def run(systems: list[str], report, sockets: int) -> dict:
    """Every system once."""
    results: dict[str, dict] = {}
    for system in systems:
        report.progress(f"idle WebSockets: {SYSTEMS[system].label}")
        try:
            row = results[system] = measure(system, sockets)
            if not isinstance(SYSTEMS[system], Proxied):
                row["keep_alive_kib"] = keep_alive(system, sockets)
        except (ServerFailed, CrowdFailed, WrongAnswer, OSError) as error:
            report.failure(f"websockets {system}", error)
    return results
