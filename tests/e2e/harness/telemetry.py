"""A receiver of telemetry, with a decoder of its own: written from the format's description, not
from the code that makes it."""

from __future__ import annotations

import os
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

KINDS = {
    2: "request",
    4: "slow",
    5: "started",
    6: "stopping",
    7: "stopped",
    8: "gc",
    9: "gc_event",
}
SCALARS = {1: "<Q", 2: "<d", 3: "<q"}


@dataclass
class Datagram:
    """One, taken apart; ``fields`` by number."""

    kind: str
    pid: int
    sequence: int
    time: float
    fields: dict[int, int | float | bytes | list]
    size: int


def decode(data: bytes) -> Datagram:
    """Takes a datagram apart; whatever is not as described is an error."""
    magic, version, kind, flags, pid, sequence, time = struct.unpack_from("<4sBBHIId", data)
    assert magic == b"WSGI" and version == 1 and flags == 0
    assert len(data) <= 8192
    fields = {}
    position = 24
    while position < len(data):
        number, form = struct.unpack_from("<HB", data, position)
        position += 3
        assert number not in fields, f"field {number} twice"
        if form in SCALARS:
            (fields[number],) = struct.unpack_from(SCALARS[form], data, position)
            position += 8
            continue
        (count,) = struct.unpack_from("<H", data, position)
        position += 2
        if form == 4:
            fields[number] = data[position : position + count]
            assert len(fields[number]) == count
            position += count
        elif form == 5:
            fields[number] = list(struct.unpack_from(f"<{count}i", data, position))
            position += 4 * count
        elif form == 6:
            fields[number] = list(struct.unpack_from(f"<{count}d", data, position))
            position += 8 * count
        else:
            raise AssertionError(f"type {form} of field {number}")
    assert position == len(data)
    return Datagram(KINDS[kind], pid, sequence, time, fields, len(data))


class Receiver:
    """Collects what is sent to the socket ``path``."""

    def __init__(self, path: Path):
        self.path = path
        self.all: list[Datagram] = []
        self.error: BaseException | None = None
        self._arrived = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        os.chmod(path, 0o666)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self):
        while data := self._socket.recv(65536):
            with self._arrived:
                try:
                    self.all.append(decode(data))
                except BaseException as error:
                    self.error = error
                self._arrived.notify_all()

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()
        self.path.unlink()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        if self.error:
            raise self.error

    def of(self, kind: str, pid: int | None = None) -> list[Datagram]:
        """What has arrived of this kind, of this process."""
        with self._arrived:
            return [one for one in self.all if one.kind == kind and pid in (None, one.pid)]

    def wait(self, condition, what: str, timeout: float = 20):
        """Waits until ``condition()`` gives something, which it returns."""
        found = None

        def fulfilled():
            nonlocal found
            found = self.error or condition()
            return found

        with self._arrived:
            assert self._arrived.wait_for(fulfilled, timeout), f"{what}; there are {self.kinds()}"
        if self.error:
            raise self.error
        return found

    def wait_for(self, kind: str, pid: int | None = None, matches=lambda one: True) -> Datagram:
        """The first datagram of this kind for which ``matches``."""

        def first():
            for one in self.all:
                if one.kind == kind and pid in (None, one.pid) and matches(one):
                    return one
            return None

        return self.wait(first, f"no {kind}")

    def kinds(self) -> dict[str, int]:
        """How many there are of each kind."""
        kinds = [one.kind for one in self.all]
        return {kind: kinds.count(kind) for kind in set(kinds)}
