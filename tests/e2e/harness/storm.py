"""A steady load of numbered requests on many connections, and a strict account of what failed.

A failed request is one with another status than the wanted one, a cut or malformed response, no
answer in time, or a connection that was refused. A keep-alive connection that httpd closes between
two requests is none: the request is sent again on another one. Whether it really was between two
requests is not taken on trust: :meth:`Storm.judge` looks up in the access log that httpd had not
read the request before.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import threading
import time
from dataclasses import dataclass

#: How long an answer may take.
PATIENCE = 30.0


@dataclass
class Answer:
    """One answered request."""

    number: int
    start: float
    end: float
    status: int
    body: bytes


class _Closed(Exception):
    """The connection ended before the first byte of a response."""


class Storm:
    """``connections`` clients that send one request after the other until the block is left.

    The number of a request replaces ``{}`` in ``target``. ``good`` judges an answer; ``pause`` is
    waited between two requests of a client; ``fresh`` clients use a connection per request.
    """

    def __init__(
        self, httpd, target="/load/{}", connections=64, good=None, pause=0.0, fresh=False, head=""
    ):
        self.httpd = httpd
        self.target = target
        self.connections = connections
        self.good = good or (lambda answer: answer.status == 200)
        self.pause = pause
        self.fresh = fresh
        self.head = head
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        #: Requests that were sent again after httpd had closed an idle connection.
        self.repeated: list[int] = []
        self._numbers = itertools.count(1)
        self._access: list[str] = []
        self._stop = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop = True
        self._thread.join()
        self._access = self.httpd.access()

    # What the tests ask

    def wait_for(self, count: int, timeout: float = 60) -> None:
        """Waits until so many more requests have been answered."""
        goal = len(self.answers) + count
        deadline = time.monotonic() + timeout
        while len(self.answers) < goal:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{len(self.answers)} of {goal} answered; failed: {self.failures[:5]}"
                )
            time.sleep(0.01)

    def percentile(self, share: float, begin: float = 0.0, end: float = float("inf")) -> float:
        """The latency that ``share`` of the requests begun in a stretch of time do not exceed."""
        taken = sorted(a.end - a.start for a in self.answers if begin <= a.start < end)
        assert taken, "no answer in this stretch of time"
        return taken[min(len(taken) - 1, int(len(taken) * share))]

    def statuses(self) -> collections.Counter:
        """How often each status came."""
        return collections.Counter(answer.status for answer in self.answers)

    def judge(self) -> None:
        """Fails for every failed request, and for each one that httpd has read twice."""
        assert self.failures == [], f"{len(self.failures)} failed: {self.failures[:10]}"
        assert self.twice() == []

    def twice(self) -> list[str]:
        """The repeated requests that httpd had read the first time already."""
        prefix = self.target.partition("{}")[0]
        counts = collections.Counter(
            path[len(prefix) :]
            for path in (line.rpartition(" ")[2] for line in self._access)
            if path.startswith(prefix)
        )
        return [
            f"{number} was read {counts[number]} times"
            for number in map(str, self.repeated)
            if counts[number] > 1
        ]

    # Inside

    async def _run(self) -> None:
        clients = [asyncio.create_task(self._client()) for _ in range(self.connections)]
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        streams = None
        while not self._stop:
            number = next(self._numbers)
            streams = await self._one(number, streams)
            if self.pause:
                await asyncio.sleep(self.pause)
        if streams:
            streams[1].close()

    async def _one(self, number, streams):
        """Sends one request, again where that is no failure; the streams to go on with."""
        start = time.monotonic()
        while True:
            reused = streams is not None
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self.httpd.port)
                exchange = self._exchange(number, *streams)
                status, body, last = await asyncio.wait_for(exchange, PATIENCE)
            except _Closed as error:
                streams[1].close()
                streams = None
                if not reused:
                    self.failures.append(f"{number}: a new connection was closed: {error}")
                    return None
                self.repeated.append(number)
                continue
            except Exception as error:
                if streams:
                    streams[1].close()
                self.failures.append(f"{number}: {error!r} after {time.monotonic() - start:.2f} s")
                return None
            answer = Answer(number, start, time.monotonic(), status, body)
            self.answers.append(answer)
            if not self.good(answer):
                self.failures.append(f"{number}: {status} {body[:100]!r}")
            if last:
                streams[1].close()
                return None
            return streams

    async def _exchange(self, number, reader, writer):
        target = self.target.format(number)
        closing = "Connection: close\r\n" if self.fresh else ""
        try:
            if reader.at_eof():
                raise ConnectionResetError("at its end already")
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{closing}{self.head}\r\n".encode()
            )
            await writer.drain()
            first = await reader.read(65536)
        except ConnectionError as error:
            raise _Closed(repr(error)) from None
        if not first:
            raise _Closed("end")
        return await _response(reader, first)


async def _response(reader, data):
    """Status, body, and whether the connection ends here."""

    async def more():
        nonlocal data
        fresh = await reader.read(65536)
        if not fresh:
            raise EOFError(f"cut after {data[:200]!r}")
        data += fresh

    while b"\r\n\r\n" not in data:
        await more()
    head, _, data = data.partition(b"\r\n\r\n")
    status = int(head[9:12])
    fields = head.lower()
    last = b"\r\nconnection: close" in fields
    if b"\r\ntransfer-encoding: chunked" in fields:
        body = b""
        while True:
            while b"\r\n" not in data:
                await more()
            line, _, data = data.partition(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            while len(data) < size + 2:
                await more()
            body += data[:size]
            data = data[size + 2 :]
            if size == 0:
                return status, body, last
    at = fields.find(b"\r\ncontent-length:")
    if at < 0:
        # Only the end of the connection ends it.
        body = data
        while fresh := await reader.read(65536):
            body += fresh
        return status, body, True
    length = int(fields[at + 17 :].partition(b"\r\n")[0])
    while len(data) < length:
        await more()
    return status, data[:length], last
