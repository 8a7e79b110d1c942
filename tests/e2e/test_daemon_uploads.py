"""Request bodies in daemon mode: both directions at once without a deadlock, and nothing is sent to
an application that does not ask for it."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time

import pytest
from harness import processes
from harness.sites import applications

pytestmark = pytest.mark.rwsgi
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(mode="daemon", threads=8, daemon="threads=4", tls=True) as httpd:
        applications(httpd, app="daemon.wsgi", input="input.wsgi")
        yield httpd.start()


def full_duplex(server, size, framing):
    """The application writes what it has read before it reads on; the client does both at once."""
    block = random.Random(size).randbytes(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()
    problems = []
    with server.connect(timeout=60) as connection:
        head = {"Transfer-Encoding": "chunked"}
        if framing == "length":
            head = {"Content-Length": str(size)}
        connection.request("/app/echo", "POST", head)

        def send():
            try:
                for _ in range(size // MIB):
                    sent.update(block)
                    if framing == "length":
                        connection.send(block)
                    else:
                        connection.send_chunk(block)
                if framing == "chunked":
                    connection.send_chunk(b"")
            except OSError as error:
                problems.append(repr(error))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert connection.read_head().status == 200
            total = 0
            while chunk := connection.read_chunk():
                received.update(chunk)
                total += len(chunk)
        finally:
            sender.join(60)
    assert problems == []
    assert total == size
    assert received.digest() == sent.digest()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_hundred_mebibytes_each_way(server, framing):
    full_duplex(server, 100 * MIB, framing)


def test_two_full_duplex_uploads_at_once(server):
    failures = []

    def run():
        try:
            full_duplex(server, 10 * MIB, "length")
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_nobody_reads_is_not_pumped(server, framing):
    """The client gets rid of what the system's buffers take, and no more."""
    server.get("/app/pid")
    pids = [*server.children(), *server.workers()]
    before = sum(map(processes.resident_kib, pids))
    gate = server.gate()
    file = server.root / "data" / f"unread-{framing}"
    block = b"x" * 65536
    with server.connect(timeout=30) as connection:
        head = {"Content-Length": str(256 * MIB)}
        if framing == "chunked":
            head = {"Transfer-Encoding": "chunked"}
            block = b"%x\r\n%s\r\n" % (len(block), block)
        connection.request(f"/app/unread?file={file}&gate={gate.path}", "POST", head)
        server.wait_until(file.exists)
        connection.socket.settimeout(1)
        total = 0
        with pytest.raises(socket.timeout):
            while total < 256 * MIB:
                total += connection.socket.send(block)
        assert total < 32 * MIB
        grown = sum(map(processes.resident_kib, pids)) - before
        assert grown < 4096, f"{grown} KiB were buffered"
        gate.step()
        server.wait_until(lambda: file.read_text().split() == ["begun", "ended"])
        # httpd itself would go on reading the body before it answers; nobody waits for that here.
        connection.reset()


def test_the_thread_is_free_while_the_rest_of_a_body_is_dropped(server):
    """After the answer nobody waits for what the client goes on sending."""
    (worker,) = server.workers()
    uploads = []
    for _ in range(6):
        connection = server.connect()
        connection.request("/input/ignore", "POST", {"Content-Length": "1000000"})
        connection.send(b"x" * 1000)
        uploads.append(connection)
    begin = time.monotonic()
    for _ in range(10):
        assert server.get("/app/pid").text == str(worker)
    assert time.monotonic() - begin < 2
    for connection in uploads:
        connection.close()


def test_slow_upload_of_many(server):
    """Bodies that trickle in hold a thread only while the application reads: with as many of them
    as threads, the others wait and are then served."""
    uploads = []
    for _ in range(3):
        connection = server.connect()
        connection.request("/input/digest", "POST", {"Content-Length": "1000"})
        connection.send(b"x" * 500)
        uploads.append(connection)
    assert server.get("/app/pid").status == 200
    for connection in uploads:
        connection.send(b"y" * 500)
        assert connection.read_response().json()["length"] == 1000
        connection.close()


def test_uploads_reuse_their_connection_to_the_worker(server):
    """daemon.md, trap 4: the end of a body rides on its last frame, or each upload would cost a
    connection."""
    (child,) = server.children()

    def to_workers():
        return {
            target
            for target in processes.descriptors(child).values()
            if target.startswith("socket:")
        }

    with server.connect() as connection:
        for size in (10, 100_000, 1_000_000):
            connection.request("/input/digest", "POST", body=b"x" * size)
            assert connection.read_response().json()["length"] == size
        before = to_workers()
        for size in (10, 16_384, 16_385, 100_000, 1_000_000) * 3:
            connection.request("/input/digest", "POST", body=b"x" * size)
            assert connection.read_response().json()["length"] == size
            connection.request("/input/digest", "POST", {"Transfer-Encoding": "chunked"})
            connection.send_chunk(b"x" * size)
            connection.send_chunk(b"")
            assert connection.read_response().json()["length"] == size
        assert to_workers() == before, "connections to the worker were replaced"
