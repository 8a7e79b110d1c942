"""A thousand server-sent-event streams, and as many long polls: what each costs in memory and
threads, how long an event takes to reach all, and what ordinary requests notice of it."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from client import Connection, WrongAnswer
from crowd import OPENING, Answers, CrowdFailed, room_for
from crowd_server import (
    CROWD,
    busy_threads,
    memory,
    server,
    system_threads,
    watch,
    watch_alone,
    with_log,
)
from server import ServerFailed
from systems import SYSTEMS

DEFAULT = ["rwsgi-asgi", "rwsgi-asgi-daemon", "uvicorn"]
#: Threads of httpd that no stream needs.
SPARE_THREADS = 32
WARM_UP = 16


class Scene(Answers):
    """The streams or polls of one httpd, and the connection that tells its application to let them
    have something."""

    path = ""
    mark = b""

    def __init__(self, port: int, control: Connection):
        super().__init__(port, self.mark)
        self.control = control
        self.request = f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def begin(self, count: int) -> None:
        """Opens that many, and returns when the application has them all."""
        raise NotImplementedError

    def again(self) -> None:
        """What the clients do when they have got something."""

    def publish(self) -> tuple[float, float, float]:
        """Lets every client have something: the seconds until all have it, the median, the 99th
        percentile."""
        self.settle(len(self.members))
        for member in self.members.values():
            self.expect(member)
        start = time.perf_counter()
        self.ask_application("/publish")
        latencies = sorted(self.finish())
        seconds = time.perf_counter() - start
        self.again()
        self.settle(len(self.members))
        return seconds, statistics.median(latencies), latencies[len(latencies) * 99 // 100]

    def settle(self, count: int) -> None:
        """Returns when that many wait in the application."""
        self.ask_application(f"/waiting?{count}")

    def ask_application(self, path: str) -> None:
        """An ordinary request."""
        self.control.run(replace(CROWD, path=path), 1)


class Events(Scene):
    path, mark = "/events", b"data: something happened\n\n"

    def begin(self, count: int) -> None:
        # A stream begins with an event.
        self.open(count, self.request)
        self.settle(count)


class Polls(Scene):
    path, mark = "/poll", b"Hello, world!"

    def begin(self, count: int) -> None:
        for number in range(1, count + 1):
            self.tell(self.connect(), self.request)
            if number % OPENING == 0:
                self.settle(number)
        self.settle(count)

    def again(self) -> None:
        for member in self.members.values():
            self.tell(member, self.request)


SCENES = {"server-sent events": Events, "long polls": Polls}


def measure(system: str, scene: type[Scene], streams: int) -> dict:
    """Everything about one server and one of the scenes."""
    room_for(streams)
    setting = server(
        SYSTEMS[system],
        threads=streams + SPARE_THREADS,
        connections=streams,
        options=(f"concurrency={2 * streams + SPARE_THREADS}",),
    )
    with setting as httpd, with_log(httpd), Connection(httpd.port, timeout=60) as control:
        with scene(httpd.port, control) as clients:
            clients.begin(min(WARM_UP, streams))
            clients.publish()
        before = watch_alone(httpd)
        # Those of the warm-up have gone when something is published to them.
        clients.ask_application("/publish")
        busy_threads(httpd)
        memory_before, threads_before = memory(httpd), system_threads(httpd)
        with scene(httpd.port, control) as clients:
            clients.begin(streams)
            rounds = [clients.publish()]
            busy = busy_threads(httpd, streams)
            memory_after, threads_after = memory(httpd), system_threads(httpd)
            beside, more = watch(httpd, clients, clients.publish)
    rounds += more
    rounds.sort()
    child, worker = ((b - a) / streams for a, b in zip(memory_before, memory_after))
    seconds, p50, p99 = rounds[len(rounds) // 2]
    return {
        "streams": streams,
        "httpd_kib": child,
        "worker_kib": worker if SYSTEMS[system].daemon else None,
        "busy": busy,
        "new_threads": threads_after - threads_before,
        "round_ms": seconds * 1e3,
        "event_p50_ms": p50 * 1e3,
        "event_p99_ms": p99 * 1e3,
        "ordinary": {"before": before, **beside},
    }


def run(systems: list[str], report, streams: int) -> dict:
    """Every system in both scenes."""
    results: dict[str, dict[str, dict]] = {}
    for name, scene in SCENES.items():
        row = results[name] = {}
        for system in systems:
            report.progress(f"{streams} {name}: {SYSTEMS[system].label}")
            try:
                row[system] = measure(system, scene, streams)
            except (ServerFailed, CrowdFailed, WrongAnswer, OSError) as error:
                report.failure(f"longpoll {name} {system}", error)
    return results
