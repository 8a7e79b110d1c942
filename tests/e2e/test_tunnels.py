"""Tunnels, with a worker that the test plays: httpd's side after a switch of protocols."""

from __future__ import annotations

import os
import re
import select
import socket
import ssl
import time

import pytest
from harness.h2 import Stream
from harness.played import HANDSHAKE, played_group, upgraded

pytestmark = pytest.mark.rwsgi

RESTART = b"\x88\x02\x03\xf4"
THREADS = 4


@pytest.fixture(scope="module", params=["event", "worker", "prefork"])
def httpd(request, new_httpd):
    with new_httpd(mpm=request.param, threads=THREADS, tls=True, modules=("reqtimeout",)) as server:
        server.notes = played_group(server)
        # The main server's Python is of no interest here.
        server.add("WSGIRestrictEmbedded On")
        if request.param == "event":
            server.add("AsyncRequestWorkerFactor 100")
        server.start()
        yield server


@pytest.fixture(params=["plain", "tls"])
def tls(request):
    return request.param == "tls"


def noise(size):
    """Bytes that the worker does not take for an order, however they are cut into pieces."""
    return os.urandom(size).replace(b"!", b"?")


def echo(connection, data):
    """What comes back while it is being sent. OpenSSL's connections do not bear two threads."""
    connection.setblocking(False)
    got, rest = b"", data
    while len(got) < len(data):
        ready = select.select([connection], [connection] if rest else [], [], 20)
        assert ready[0] or ready[1], f"nothing comes after {len(got)} bytes"
        try:
            if ready[1]:
                rest = rest[connection.send(rest[:65536]) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        try:
            while len(got) < len(data):
                now = connection.recv(65536)
                assert now, f"the connection has ended after {len(got)} bytes"
                got += now
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
    return got


def notes(httpd):
    return httpd.notes.read_text().splitlines()


def wait_for_note(httpd, what, more_than):
    httpd.wait_until(lambda: notes(httpd).count(what) > more_than, f"no {what!r}")


def threads_in(httpd, name):
    """How many threads of httpd's children have this name."""
    count = 0
    for pid in httpd.children():
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/comm") as file:
                    count += file.read().strip() == name
            except FileNotFoundError:
                pass
    return count


def test_bytes_go_both_ways(httpd, tls):
    with upgraded(httpd, tls=tls) as connection:
        for size in (1, 100, 5_000, 100_000):
            data = noise(size)
            connection.send(b"." + data)
            assert connection.read_exactly(size + 1) == b"." + data


def test_large_amounts_both_ways_at_once(httpd, tls):
    data = b"." + noise(1 << 16) * 64
    with upgraded(httpd, tls=tls) as connection:
        assert echo(connection.socket, data) == data


def test_what_comes_with_the_handshake_is_part_of_it(httpd, tls):
    with httpd.connect(tls=tls) as connection:
        head = "GET /ws/early HTTP/1.1\r\nHost: localhost\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items()) + "\r\n"
        connection.send(head.encode() + b"at once")
        assert connection.read_head().status == 101
        assert connection.read_exactly(12) == b"earlyat once"


def test_the_worker_ends_it(httpd, tls):
    path = f"/ws/ended-{'tls' if tls else 'plain'}"
    connection = upgraded(httpd, path, tls=tls)
    if tls:
        # An end without TLS saying so would be an error.
        connection.socket.suppress_ragged_eofs = False
    connection.send(b"!end bye")
    assert connection.read_to_end() == b"bye"
    connection.close()
    logged = re.compile(rf"101 \d+ - GET {path}")
    httpd.wait_until(lambda: any(map(logged.fullmatch, httpd.access())), "nothing is logged")


def test_the_client_ends_it(httpd, tls):
    gone = notes(httpd).count("gone")
    upgraded(httpd, tls=tls).close()
    wait_for_note(httpd, "gone", gone)


def test_the_client_vanishes(httpd):
    gone = notes(httpd).count("gone")
    upgraded(httpd).reset()
    wait_for_note(httpd, "gone", gone)


def test_lines_of_the_worker_are_logged_for_the_request(httpd):
    with upgraded(httpd) as connection:
        httpd.expect_log("a line of the application")
        connection.send(b"!log a line of the application")
        assert connection.read_exactly(6) == b"logged"


@pytest.mark.parametrize("order", ["die", "close"])
def test_a_worker_that_ends_without_a_word(httpd, tls, order):
    if order == "die":
        httpd.expect_log(r"RWSGI04\d\d: ", count=None)
    httpd.expect_log(r"RWSGI0321: .*/ws/echo")
    with upgraded(httpd, tls=tls) as connection:
        connection.send(b"!%s" % order.encode())
        assert connection.read_to_end() == RESTART
    if order == "die":
        httpd.wait_until(lambda: httpd.request("/ws/x").status == 200)


def test_a_worker_that_ends_within_a_message(httpd):
    httpd.expect_log("RWSGI0321: ")
    with upgraded(httpd) as connection:
        connection.send(b"!half")
        assert connection.read_to_end() == b"x" * 42


def test_a_worker_that_sends_rubbish(httpd):
    httpd.expect_log("RWSGI0322: ")
    with upgraded(httpd) as connection:
        connection.send(b"!garbage")
        assert connection.read_to_end() == RESTART


def test_a_slow_client_holds_up_nobody_else(httpd, tls):
    size = 30_000_000
    flooded = notes(httpd).count("flooded")
    with upgraded(httpd, tls=tls) as slow, upgraded(httpd) as other:
        slow.send(b"!flood %d" % size)
        first = slow.read_exactly(1000)
        for _ in range(20):
            other.send(b"ping")
            assert other.read_exactly(4) == b"ping"
        httpd.get("/ws/hello")
        # The worker has to wait: neither httpd nor the kernel has taken all.
        assert notes(httpd).count("flooded") == flooded
        slow.read_discarding(size - len(first))
        wait_for_note(httpd, "flooded", flooded)


def test_a_worker_that_does_not_listen_holds_up_its_client_only(httpd, tls):
    with upgraded(httpd, "/ws/deaf", tls=tls) as shouting, upgraded(httpd) as other:
        shouting.socket.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                sent += shouting.socket.send(b"x" * 65536)
                assert sent < 100_000_000, "httpd keeps all of it"
        other.send(b"ping")
        assert other.read_exactly(4) == b"ping"
        httpd.get("/ws/hello")


def test_http_1_0_has_no_switches(httpd):
    httpd.expect_log("RWSGI0320: ")
    with httpd.connect() as connection:
        connection.request("/ws/echo", headers=HANDSHAKE, version="HTTP/1.0")
        assert connection.read_head().status == 502


def test_an_idle_tunnel_outlives_the_timeout(new_httpd):
    with new_httpd(threads=THREADS) as server:
        played_group(server)
        server.add("Timeout 1")
        server.start()
        with upgraded(server) as connection:
            connection.socket.settimeout(2.5)
            with pytest.raises(TimeoutError):
                connection.socket.recv(1)
            connection.send(b"still there")
            assert connection.read_exactly(11) == b"still there"


@pytest.fixture
def event(new_httpd):
    with new_httpd(mpm="event", threads=THREADS, tls=True) as server:
        server.notes = played_group(server)
        server.add("WSGIRestrictEmbedded On\nAsyncRequestWorkerFactor 200")
        server.start()
        yield server


def test_tunnels_hold_no_threads(event, tls):
    connections = [upgraded(event, tls=tls) for _ in range(THREADS * 25)]
    assert threads_in(event, "rwsgi-tunnels") == 1
    for connection in connections:
        connection.send(b"ping")
    event.get("/ws/hello")
    for connection in connections:
        assert connection.read_exactly(4) == b"ping"
        connection.close()
    event.wait_until(lambda: len(event.access()) == len(connections) + 1, "not all are logged")
    # Nothing is left of them.
    (child,) = event.children()
    event.wait_until(lambda: sockets_of(child) < 10, "sockets are left open")


def sockets_of(pid):
    names = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    return sum(name.startswith("socket:") for name in names)


def test_the_mpm_keeps_its_accounts(new_httpd):
    """It takes no more than eight connections, counts them, and must not count those that ended."""
    with new_httpd(mpm="event", threads=THREADS) as server:
        played_group(server)
        server.add("WSGIRestrictEmbedded On\nAsyncRequestWorkerFactor 1")
        server.allow_log("RWSGI0321: ")
        # httpd would start another process then.
        server.allow_log("AH00484: ")
        server.start()
        for _ in range(10):
            with upgraded(server) as connection:
                connection.send(b"!end bye")
                assert connection.read_to_end() == b"bye"
            with upgraded(server) as connection:
                connection.send(b"!close")
                connection.read_to_end()
            upgraded(server).reset()
            upgraded(server).close()
        # And not too few of them either.
        connections = [upgraded(server) for _ in range(2 * THREADS - 1)]
        with server.connect(timeout=1) as connection:
            connection.request("/ws/hello")
            late = server.connect(timeout=1)
            late.request("/ws/hello")
            with pytest.raises(TimeoutError):
                late.read_response()
        for connection in connections:
            connection.close()
        late.socket.settimeout(20)
        assert late.read_response().status == 200
        late.close()


def test_no_tunnel_no_keeper(event):
    event.get("/ws/hello")
    assert threads_in(event, "rwsgi-tunnels") == 0


def test_tunnels_survive_a_graceful_restart(event, tls):
    (old,) = event.children()
    with upgraded(event, tls=tls) as connection:
        event.graceful()
        for _ in range(5):
            connection.send(b"ping")
            assert connection.read_exactly(4) == b"ping"
        event.get("/ws/hello")
        assert old in event.children()
    event.wait_until(lambda: old not in event.children(), "the old child stays")


@pytest.mark.soak
def test_tunnels_end_some_time_after_a_graceful_restart(event, tls):
    (old,) = event.children()
    with upgraded(event, tls=tls) as connection:
        event.graceful()
        began = time.monotonic()
        connection.socket.settimeout(40)
        assert connection.read_to_end() == RESTART
        assert 19 < time.monotonic() - began < 30
    event.wait_until(lambda: old not in event.children(), "the old child stays")


def test_a_stop_ends_all_tunnels_at_once(new_httpd, tls):
    with new_httpd(mpm="event", threads=THREADS, tls=True) as server:
        played_group(server)
        server.add("AsyncRequestWorkerFactor 200")
        server.start()
        connections = [upgraded(server, tls=tls) for _ in range(50)]
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 8
        for connection in connections:
            try:
                connection.read_to_end()
            except (ConnectionError, ssl.SSLError):
                pass
            connection.close()
        assert len(server.access()) == 50


@pytest.fixture(scope="module", params=["event", "worker"])
def h2(request, new_httpd):
    with new_httpd(mpm=request.param, threads=THREADS, http2=True) as server:
        server.notes = played_group(server)
        server.add("WSGIRestrictEmbedded On\nH2WebSockets on")
        server.start()
        yield server


def test_http_2(h2):
    with Stream(h2.port, "/ws/early") as stream:
        assert stream.status == 200
        assert stream.read_exactly(5) == b"early"
        for size in (1, 1000, 40_000):
            data = b"." + noise(size)
            stream.send(data)
            assert stream.read_exactly(len(data)) == data
        stream.send(b"!end bye")
        assert stream.read_to_end() == b"bye"
    assert h2.wait_until(h2.access)[-1].startswith("101 ")


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("how", ["end", "reset", "close"])
def test_http_2_the_client_ends_it(h2, how):
    gone = notes(h2).count("gone")
    with Stream(h2.port, "/ws/echo") as stream:
        stream.send(b"x")
        assert stream.read_exactly(1) == b"x"
        if how == "end":
            stream.send(b"", end=True)
        elif how == "reset":
            stream.abandon()
        else:
            stream.socket.shutdown(socket.SHUT_RDWR)
        wait_for_note(h2, "gone", gone)


def test_http_2_an_idle_stream_costs_nothing(h2):
    with Stream(h2.port, "/ws/echo") as stream:
        stream.send(b"x")
        assert stream.read_exactly(1) == b"x"
        children = h2.children()
        before = sum(map(cpu_ticks, children))
        time.sleep(1)
        assert sum(map(cpu_ticks, children)) - before < 10
