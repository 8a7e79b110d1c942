"""A client on one keep-alive connection, cheap enough not to disturb what it measures."""

from __future__ import annotations

import socket
from collections.abc import Callable

from workloads import Workload


class WrongAnswer(Exception):
    """The server answered, but not what the workload expects."""


class Connection:
    """One keep-alive connection; requests go one after the other."""

    def __init__(self, port: int, timeout: float = 120.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = f"127.0.0.1:{port}"
        self.buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def run(self, workload: Workload, count: int, settle: Callable[[], None] | None = None) -> None:
        """Sends the workload's request `count` times and checks every answer; calls `settle`
        after each."""
        request = workload.request(self.host)
        for _ in range(count):
            self.socket.sendall(request)
            self.check(workload, *self.answer())
            if settle:
                settle()

    def check(self, workload: Workload, status: int, headers: list, body_bytes: int) -> None:
        """Raises WrongAnswer unless status, number of headers and length are as expected."""
        if status != 200:
            raise WrongAnswer(f"{workload.name}: status {status}, expected 200")
        if workload.answer_bytes is not None and body_bytes != workload.answer_bytes:
            raise WrongAnswer(
                f"{workload.name}: {body_bytes} bytes of body, expected {workload.answer_bytes}"
            )
        # Date and Server are httpd's own, and so is Keep-Alive/Connection.
        own = [name for name, _ in headers if name not in HTTPD_OWN]
        if workload.header_count is not None and len(own) != workload.header_count:
            raise WrongAnswer(
                f"{workload.name}: headers {own}, expected {workload.header_count} of them"
            )

    def answer(self) -> tuple[int, list[tuple[str, str]], int]:
        """Reads one answer; returns status, headers (names in lower case) and body length."""
        head, _, self.buffer = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = []
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers.append((name.lower(), value.strip()))
        fields = dict(headers)
        if fields.get("transfer-encoding") == "chunked":
            return status, headers, self._chunks()
        length = int(fields.get("content-length", "0"))
        self._skip(length)
        return status, headers, length

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise WrongAnswer("the server closed the connection in the middle of an answer")
        return data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self.buffer += self._receive()
        return self.buffer

    def _skip(self, length: int) -> None:
        length -= len(self.buffer)
        if length < 0:
            self.buffer = self.buffer[length:]
            return
        self.buffer = b""
        space = memoryview(bytearray(1 << 18))
        while length:
            got = self.socket.recv_into(space[: min(length, len(space))])
            if not got:
                raise WrongAnswer("the server closed the connection in the middle of a body")
            length -= got

    def _chunks(self) -> int:
        total = 0
        while True:
            line, _, self.buffer = self._until(b"\r\n").partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            self._skip(size + 2)
            if size == 0:
                return total
            total += size


HTTPD_OWN = {"date", "server", "connection", "keep-alive"}
