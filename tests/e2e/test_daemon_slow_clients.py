"""Slow clients wait in httpd, not in the workers: once the application has produced its response,
its thread is free."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time

import pytest
from harness import processes
from harness.sites import applications

pytestmark = pytest.mark.rwsgi
MIB = 1 << 20


class SlowReaders:
    """Clients that read one KiB a second each, until they are told to read on."""

    def __init__(self, port, count, target):
        self.target = target
        self.sockets = []
        for _ in range(count):
            client = socket.socket()
            # Before the connection is made: the window that is announced follows from it.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(30)
            client.connect(("127.0.0.1", port))
            self.sockets.append(client)
        self.received = dict.fromkeys(self.sockets, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_slowly)

    def __enter__(self):
        for client in self.sockets:
            client.sendall(f"GET {self.target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        for client in self.sockets:
            client.close()

    def stop(self):
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _read_slowly(self):
        while not self._stop.wait(1):
            for client in self.sockets:
                client.setblocking(False)
                try:
                    self.received[client] += len(client.recv(1024))
                except BlockingIOError:
                    pass

    def read_all(self, seconds=60):
        """Reads the rest at full speed; the bytes each client has got."""
        self.stop()
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for client in self.sockets:
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
            while selector.get_map():
                assert time.monotonic() < deadline, "the rest does not come"
                for key, _ in selector.select(1):
                    data = key.fileobj.recv(1 << 16)
                    self.received[key.fileobj] += len(data)
                    if not data or self.received[key.fileobj] >= self.expected:
                        selector.unregister(key.fileobj)
        return list(self.received.values())

    expected = MIB


def produced(file):
    return len(file.read_text().split()) if file.exists() else 0


def test_a_slow_client_holds_no_thread_of_the_worker(new_httpd):
    """One thread: while four slow clients have their responses, others are served at once."""
    with new_httpd(mode="daemon", threads=16, daemon="threads=1") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        file = httpd.root / "data" / "produced"
        # More than what the system's buffers take.
        size = 4 * MIB
        with SlowReaders(httpd.port, 4, f"/app/sized?size={size}&file={file}") as slow:
            slow.expected = size
            httpd.wait_until(lambda: produced(file) == 4, "the thread is held", timeout=10)
            for _ in range(20):
                begin = time.monotonic()
                assert httpd.get("/app/pid").status == 200
                assert time.monotonic() - begin < 1
            assert max(slow.received.values()) < size / 4
            assert all(count >= size for count in slow.read_all())


def many_slow_clients(new_httpd, count, size):
    """Quick requests beside them are as quick as without."""
    # One thread of httpd per slow client, and some for the quick ones.
    per_child = 64
    children = (count + 63) // per_child + 1
    with new_httpd(
        mode="daemon", threads=per_child, processes=children, daemon="threads=15"
    ) as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.allow_log("AH0048[45]|AH10159|AH00288|AH03269")

        def quick(number):
            taken = []
            for _ in range(number):
                begin = time.monotonic()
                assert httpd.get("/app/pid").status == 200
                taken.append(time.monotonic() - begin)
            return sorted(taken)

        quick(30)
        before = quick(150)
        file = httpd.root / "data" / "produced"
        with SlowReaders(httpd.port, count, f"/app/sized?size={size}&file={file}") as slow:
            slow.expected = size
            httpd.wait_until(
                lambda: produced(file) == count, f"{produced(file)} of {count}", timeout=60
            )
            during = quick(150)
            assert max(slow.received.values()) < size / 4
            # Buffers are bounded by what the clients have not read.
            resident = sum(map(processes.resident_kib, httpd.children()))
            assert resident < (count * size * 2 >> 10) + 400_000
            assert all(each >= size for each in slow.read_all())
        median, slowest = before[len(before) // 2], before[-5]
        assert during[len(during) // 2] < 3 * median + 0.005
        assert during[-5] < 3 * slowest + 0.05, f"{during[-5]:.3f} s, before {slowest:.3f} s"


def test_forty_slow_clients_beside_quick_ones(new_httpd):
    many_slow_clients(new_httpd, 40, 4 * MIB)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_five_hundred_slow_clients_beside_quick_ones(new_httpd):
    many_slow_clients(new_httpd, 500, MIB)


def test_the_buffer_is_bounded(new_httpd):
    """A response without end stops at the documented limit: the application waits."""
    limit = 8 * MIB
    with new_httpd(mode="daemon", threads=8, daemon="threads=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        pids = [*httpd.children(), *httpd.workers()]
        before = sum(map(processes.resident_kib, pids))
        file = httpd.root / "data" / "produced"
        with SlowReaders(httpd.port, 1, f"/app/sized?size={256 * MIB}&file={file}"):
            time.sleep(2.5)
            assert produced(file) == 0
            grown = sum(map(processes.resident_kib, pids)) - before
            assert grown < 3 * (limit >> 10), f"{grown} KiB"
            assert httpd.get("/app/pid").status == 200


def test_a_slow_client_that_leaves(new_httpd):
    """Its buffer and its descriptors go with it."""
    with new_httpd(mode="daemon", threads=16, daemon="threads=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        (child,) = httpd.children()
        file = httpd.root / "data" / "produced"
        rounds = []
        for _ in range(3):
            file.unlink(missing_ok=True)
            with SlowReaders(httpd.port, 8, f"/app/sized?size={4 * MIB}&file={file}"):
                httpd.wait_until(lambda: produced(file) == 8, "the threads are held")
            httpd.wait_until(lambda: processes.connections(httpd.port) == 0)
            httpd.get("/app/pid")
            rounds.append(len(processes.descriptors(child)))
        assert rounds[-1] <= rounds[0] + 2, rounds
        assert os.path.exists(f"/proc/{child}")
