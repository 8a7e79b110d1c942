"""Many connections to one server at once, all served by one thread of this program."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time

#: Connections that wait for their first answer at the same time; fewer than the server's backlog.
OPENING = 128
#: Answers that are awaited for at most this long, in seconds.
PATIENCE = 60


class CrowdFailed(Exception):
    """The server refused, closed or forgot connections; the message says how many."""


class Member:
    """One connection: what it has received and not yet used, and when it last asked."""

    __slots__ = ("socket", "buffer", "asked", "waits")

    def __init__(self, sock: socket.socket):
        self.socket = sock
        self.buffer = bytearray()
        self.asked = 0.0
        self.waits = False


class Crowd:
    """Connections that each send something and get an answer; use it as a context manager.

    A subclass says in `answered` what a complete answer is.
    """

    def __init__(self, port: int):
        self.port = port
        self.epoll = select.epoll()
        self.members: dict[int, Member] = {}
        self.waiting = 0
        self.latencies: list[float] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_) -> None:
        for member in self.members.values():
            member.socket.close()
        self.members.clear()
        self.epoll.close()

    def answered(self, member: Member) -> bool:
        """Whether `member.buffer` holds a complete answer, which it then takes out."""
        raise NotImplementedError

    def connect(self) -> Member:
        """One more connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        member = self.members[sock.fileno()] = Member(sock)
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return member

    def open(self, count: int, request: bytes, at_once: int = OPENING) -> None:
        """Connects, sends the request on each connection, and returns when all are answered;
        never more than `at_once` wait for that."""
        for _ in range(count):
            self.tell(self.connect(), request)
            while self.waiting >= at_once:
                self._step(PATIENCE)
        self.finish()

    def tell(self, member: Member, message: bytes) -> None:
        """Sends a message; the member now waits for an answer."""
        self.expect(member)
        if member.socket.send(message) != len(message):
            raise CrowdFailed("a message did not go out at once")

    def expect(self, member: Member) -> None:
        """The member waits for an answer, from now on."""
        member.asked = time.perf_counter()
        if not member.waits:
            member.waits = True
            self.waiting += 1

    def ask(self, message: bytes) -> list[float]:
        """Sends the message on every connection, as fast as it goes, and returns when all are
        answered: the seconds that each took."""
        for number, member in enumerate(list(self.members.values())):
            self.tell(member, message)
            if number % 32 == 31:
                self._step(0)
        return self.finish()

    def finish(self) -> list[float]:
        """Returns when nobody waits any more: the seconds that each has waited since this was last
        asked for."""
        while self.waiting:
            self._step(PATIENCE)
        latencies, self.latencies = self.latencies, []
        return latencies

    def pump(self, seconds: float, until: int = -1) -> None:
        """Answers what the server asks for by itself (pings), for some time or until the file
        descriptor `until` is readable."""
        if until >= 0:
            self.epoll.register(until, select.EPOLLIN)
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                if self._step(left, quietly=True, until=until):
                    return
        finally:
            if until >= 0:
                self.epoll.unregister(until)

    def _step(self, timeout: float, *, quietly: bool = False, until: int = -1) -> bool:
        """Handles what is there, or comes within the time; True: `until` is readable."""
        ready = self.epoll.poll(timeout)
        if not ready and timeout >= 1 and not quietly:
            raise CrowdFailed(f"{self.waiting} of {len(self.members)} got no answer")
        found = False
        for descriptor, _ in ready:
            if descriptor == until:
                found = True
            else:
                self._receive(self.members[descriptor])
        return found

    def _receive(self, member: Member) -> None:
        try:
            data = member.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            raise CrowdFailed(f"a connection of {len(self.members)} broke: {error}") from None
        if not data:
            seen = bytes(member.buffer[:200])
            raise CrowdFailed(f"the server closed one of {len(self.members)} connections {seen}")
        member.buffer += data
        while member.buffer and self.answered(member):
            if member.waits:
                member.waits = False
                self.waiting -= 1
                self.latencies.append(time.perf_counter() - member.asked)


class WebSockets(Crowd):
    """WebSockets whose server echoes what they send; pings are answered."""

    HANDSHAKE = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA

    def answered(self, member: Member) -> bool:
        buffer = member.buffer
        if buffer.startswith(b"HTTP/"):
            head, mark, _ = bytes(buffer).partition(b"\r\n\r\n")
            if not mark:
                return False
            if not head.startswith(b"HTTP/1.1 101 ") or self.ACCEPTED not in head:
                raise CrowdFailed(f"handshake {len(self.members)} was refused: {head[:200]}")
            del buffer[: len(head) + 4]
            return True
        while (frame := self._frame(buffer)) is not None:
            opcode, payload = frame
            if opcode == self.PING:
                member.socket.send(self.message(payload, self.PONG))
            elif opcode == self.TEXT:
                return True
            else:
                raise CrowdFailed(f"the server sent a frame of type {opcode}: {payload}")
        return False

    @staticmethod
    def message(payload: bytes, opcode: int = TEXT) -> bytes:
        """A client's frame, masked with zeros."""
        assert len(payload) < 126
        return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload

    @staticmethod
    def _frame(buffer: bytearray) -> tuple[int, bytes] | None:
        """Takes a short frame out of the buffer, if it is all there."""
        if len(buffer) < 2:
            return None
        if buffer[1] > 125 or not buffer[0] & 0x80:
            raise CrowdFailed(f"not a short unmasked frame: {bytes(buffer[:20])}")
        size = 2 + buffer[1]
        if len(buffer) < size:
            return None
        opcode, payload = buffer[0] & 0xF, bytes(buffer[2:size])
        del buffer[:size]
        return opcode, payload


class Answers(Crowd):
    """Connections with ordinary requests, each answered with the text `mark`: the whole body of an
    answer, or one event of a stream."""

    def __init__(self, port: int, mark: bytes):
        super().__init__(port)
        self.mark = mark

    def answered(self, member: Member) -> bool:
        buffer = member.buffer
        if buffer.startswith(b"HTTP/") and not buffer.startswith(b"HTTP/1.1 200 "[: len(buffer)]):
            raise CrowdFailed(f"refused: {bytes(buffer[:200])}")
        found = buffer.find(self.mark)
        if found < 0:
            return False
        del buffer[: found + len(self.mark)]
        return True


def room_for(sockets: int) -> None:
    """Raises the limit of open files, which servers inherit, as far as it goes, so that one process
    can hold both ends of a connection to the worker beside each of these connections. Raises
    CrowdFailed if that is not enough."""
    needed = 3 * sockets + 500
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < needed:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, needed))
            return
        raise CrowdFailed(f"{sockets} connections need {needed} open files; the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
