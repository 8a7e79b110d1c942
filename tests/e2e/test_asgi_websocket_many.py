"""Many WebSockets: under the event MPM they hold no thread of httpd; under the others one each."""

from __future__ import annotations

import time

import pytest
from harness.config import BOTH
from harness.load import Load
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH
SOCKETS = 100


def serve(httpd):
    if httpd.config.mpm == "event":
        # Of connections that need no thread, httpd keeps so many for each idle thread.
        httpd.add("AsyncRequestWorkerFactor 100")
    asgi_applications(httpd, ws="asgi_websocket.py")
    return httpd.start()


@pytest.mark.parametrize("tls", [False, True])
def test_more_sockets_than_threads(new_httpd, tls):
    """100 sockets on 4 threads, each echoing, and ordinary requests beside them."""
    with new_httpd(threads=4, tls=True) as httpd:
        serve(httpd)
        sockets = [httpd.websocket("/ws/echo", tls=tls) for _ in range(SOCKETS)]
        for round_ in range(3):
            for i, socket in enumerate(sockets):
                socket.text(f"{round_} {i}")
            for i, socket in enumerate(sockets):
                assert socket.message() == f"{round_} {i}"
            begin = time.monotonic()
            for _ in range(10):
                assert httpd.get("/ws/hello").body == b"Hello, world\n"
            assert time.monotonic() - begin < 2
        for socket in sockets[::2]:
            socket.close()
        for socket in sockets[::2]:
            assert socket.closed()[0] == 1000
            assert socket.ended()
        for socket in sockets[1::2]:
            socket.text("still")
            assert socket.message() == "still"
            socket.connection.close()


def test_large_messages_through_parked_sockets(new_httpd):
    """Both directions, both larger than any buffer, by turns."""
    with new_httpd(threads=3) as httpd:
        serve(httpd)
        sockets = [httpd.websocket("/ws/echo") for _ in range(8)]
        body = bytes(range(256)) * 2000
        for _ in range(2):
            for socket in sockets:
                socket.binary(body)
                assert socket.message() == body
        for socket in sockets:
            socket.connection.close()


def test_traffic_beside_traffic(new_httpd):
    with new_httpd(threads=6) as httpd:
        serve(httpd)
        sockets = [httpd.websocket("/ws/echo") for _ in range(20)]
        with Load(httpd.port, "/ws/hello", clients=2) as load:
            for i in range(50):
                for socket in sockets:
                    socket.text(str(i))
                for socket in sockets:
                    assert socket.message() == str(i)
        assert load.failures == []
        assert load.done > 20
        for socket in sockets:
            socket.connection.close()


def test_all_leave_at_once(new_httpd):
    """No task and no descriptor is left."""
    with new_httpd(threads=4) as httpd:
        serve(httpd)
        base = httpd.json("/ws/look")
        for _ in range(2):
            sockets = [httpd.websocket("/ws/room") for _ in range(SOCKETS)]
            httpd.wait_until(lambda: httpd.json("/ws/look")["room"] == SOCKETS)
            sockets[0].text("all")
            for socket in sockets:
                assert socket.message() == "all"
            for i, socket in enumerate(sockets):
                socket.connection.reset() if i % 2 else socket.connection.close()
            httpd.wait_until(lambda: httpd.json("/ws/look")["room"] == 0, "some are left")

        def like_before():
            now = httpd.json("/ws/look")
            return (
                now["tasks"] <= base["tasks"] + 1 and now["descriptors"] <= base["descriptors"] + 8
            )

        httpd.wait_until(like_before, f"{base} before, {httpd.json('/ws/look')}")


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("mpm", ["worker", "prefork"])
def test_a_thread_each(new_httpd, mpm):
    """As many as there are threads, and as they go there is room again."""
    with new_httpd(mpm=mpm, threads=6) as httpd:
        serve(httpd)
        for _ in range(3):
            sockets = [httpd.websocket("/ws/echo") for _ in range(5)]
            for socket in sockets:
                socket.text("hello")
            assert [socket.message() for socket in sockets] == ["hello"] * 5
            assert httpd.get("/ws/hello").status == 200
            for socket in sockets:
                socket.close()
                assert socket.closed()[0] == 1000
                socket.connection.close()


@pytest.mark.parametrize("tls", [False, True])
def test_http_2(new_httpd, tls):
    """Several in one connection, among ordinary requests (RFC 8441)."""
    with new_httpd(threads=16, tls=True, http2=True) as httpd:
        httpd.add("H2WebSockets On\nH2MaxWorkers 16")
        serve(httpd)
        with httpd.http2(tls) as connection:
            sockets = [connection.websocket("/ws/echo") for _ in range(5)]
            for i, socket in enumerate(sockets):
                socket.text(str(i))
                socket.binary(b"%d" % i * 20_000)
            assert connection.request("/ws/hello").body == b"Hello, world\n"
            for i, socket in enumerate(sockets):
                assert socket.message() == str(i)
                assert socket.message() == b"%d" % i * 20_000
            sockets[0].close(1001)
            assert sockets[0].closed()[0] == 1001
            assert sockets[0].ended()
            sockets[1].text("still")
            assert sockets[1].message() == "still"
            sockets[2].connection.cancel()
            assert connection.request("/ws/hello").status == 200


def test_http_2_refused_and_denied(new_httpd):
    with new_httpd(threads=8, http2=True) as httpd:
        httpd.add("H2WebSockets On")
        serve(httpd)
        with httpd.http2() as connection:
            assert connection.connect_websocket("/ws/refuse").status == 403
            stream = connection.connect_websocket("/ws/deny")
            assert stream.status == 429
            assert stream.header("x-why") == "full"
            assert stream.read_exactly(7) == b"not now"
            socket = connection.websocket("/ws/close?code=4001&reason=why")
            assert socket.closed() == (4001, "why")
