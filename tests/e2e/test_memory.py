"""A gibibyte in, a gibibyte out: the memory of all processes stays where it was."""

from __future__ import annotations

import socket
import threading

import pytest
from harness import processes
from harness.config import BOTH
from harness.sites import applications

MODES = BOTH

GIB = 1 << 30
LIMIT_KIB = 16 * 1024


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=2) as httpd:
        applications(httpd, input="input.wsgi", answer="response.wsgi", files="files.wsgi")
        yield httpd.start()


class Peak:
    """The largest growth of httpd's child, and of the worker, while the block runs."""

    def __init__(self, server):
        self.start = {pid: processes.resident_kib(pid) for pid in self._all(server)}
        self.growth = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @staticmethod
    def _all(server):
        return [*server.children(), *server.workers()]

    def _watch(self):
        while not self._stop.wait(0.02):
            for pid, start in self.start.items():
                self.growth = max(self.growth, processes.resident_kib(pid) - start)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def read_rest(connection, expected):
    """Counts a chunked body's bytes without keeping them."""
    total = 0
    while chunk := connection.read_chunk():
        total += len(chunk)
    assert total == expected


def test_upload(server):
    server.get("/input/ignore")
    block = b"u" * (1 << 20)
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        connection.request("/input/digest?size=65536", "POST", {"Content-Length": str(GIB)})
        for _ in range(GIB // len(block)):
            connection.socket.sendall(block)
        assert connection.read_response().json()["length"] == GIB
    assert peak.growth < LIMIT_KIB


def test_chunked_upload(server):
    server.get("/input/ignore")
    size = GIB // 4
    block = b"u" * (1 << 20)
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        target = "/input/digest?size=65536"
        connection.request(target, "POST", {"Transfer-Encoding": "chunked"})
        for _ in range(size // len(block)):
            connection.send_chunk(block)
        connection.send_chunk(b"")
        assert connection.read_response().json()["length"] == size
    assert peak.growth < LIMIT_KIB


def test_download(server):
    server.get("/answer/hello")
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        connection.request(f"/answer/sized?size={GIB}&piece=65536")
        assert connection.read_head().header("Content-Length") == str(GIB)
        connection.read_discarding(GIB)
    assert peak.growth < LIMIT_KIB


def test_slow_reader(server):
    """A client that does not read stops the application instead of filling memory."""
    server.get("/answer/hello")
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.request(f"/answer/sized?size={GIB // 4}&piece=65536")
        connection.read_head()
        for _ in range(20):
            connection.read_discarding(1 << 20)
        threading.Event().wait(0.3)
        connection.reset()
    assert peak.growth < LIMIT_KIB


@pytest.mark.parametrize("piece", [100, 65536])
def test_many_pieces(server, piece):
    server.get("/answer/hello")
    size = piece * 20_000 if piece < 1000 else GIB // 4
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        connection.request(f"/answer/sized?size={size}&piece={piece}&chunked=1")
        connection.read_head()
        read_rest(connection, size)
    assert peak.growth < LIMIT_KIB


def test_file(server):
    big = server.root / "data" / "big"
    with open(big, "wb") as file:
        file.truncate(GIB)
    big.chmod(0o644)
    server.get("/answer/hello")
    with Peak(server) as peak, server.connect(timeout=60) as connection:
        connection.request(f"/files/whole?file={big}")
        assert connection.read_head().header("Content-Length") == str(GIB)
        connection.read_discarding(GIB)
    big.unlink()
    assert peak.growth < LIMIT_KIB
