"""What ends ASGI requests and their processes: timeouts, limits, signals."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

import pytest
from harness.asgi import ANY, TOO_LONG, line_of
from harness.group import DUMP, STACK, shows
from harness.sites import asgi_applications
from harness.websocket import TEXT

pytestmark = pytest.mark.rwsgi
MODES = ("daemon",)


@contextmanager
def group(new_httpd, options="", text="", threads=24, **more):
    with new_httpd(threads=threads, daemon=f"threads=2 {options}", **more) as httpd:
        asgi_applications(httpd, http="asgi_http.py", ws="asgi_websocket.py", t="asgi_timeouts.py")
        httpd.add(text)
        httpd.start()
        httpd.get("/http/pid")
        yield httpd


def pid(httpd):
    return int(httpd.get("/http/pid").body)


def test_request_timeout(new_httpd):
    """The task is cancelled, the client gets 504, the process goes on."""
    with group(new_httpd, "request-timeout=1") as httpd:
        old = pid(httpd)
        file = httpd.root / "data" / "cancelled"
        told = httpd.expect_log(TOO_LONG)
        begin = time.monotonic()
        response = httpd.request(f"/t/sleep?file={file}")
        assert response.status == 504
        assert 0.9 < time.monotonic() - begin < 5
        assert line_of(httpd, file) == "cancelled"
        httpd.settle_log()
        assert told.lines
        assert pid(httpd) == old


def test_request_timeout_in_mid_body(new_httpd):
    """Too late for a 504: the cut is visible."""
    with group(new_httpd, "request-timeout=1") as httpd:
        old = pid(httpd)
        httpd.expect_log(TOO_LONG)
        with httpd.connect() as connection:
            connection.request("/t/late-sleep")
            assert connection.read_head().status == 200
            assert connection.read_chunk() == b"begun"
            assert connection.read_to_end() == b""
        assert pid(httpd) == old


def test_others_are_not_disturbed(new_httpd):
    """One of many takes too long."""
    with group(new_httpd, "request-timeout=1") as httpd:
        httpd.expect_log(TOO_LONG)
        with httpd.connect() as slow, httpd.connect() as quick:
            slow.request("/t/sleep")
            quick.request("/http/wait?seconds=0.5")
            assert quick.read_response().status == 200
            assert httpd.get("/http/hello").status == 200
            assert slow.read_response().status == 504


def test_cancellation_that_is_handled(new_httpd):
    """The application may still answer in its own words."""
    with group(new_httpd, "request-timeout=1") as httpd:
        httpd.allow_log(ANY)
        response = httpd.request("/t/handles")
        assert response.status in (200, 504)


def test_cancellation_that_is_ignored(new_httpd):
    """It is not waited for; the worker lives on or is replaced, and others are served."""
    with group(new_httpd, "request-timeout=1 graceful-timeout=2") as httpd:
        httpd.expect_log(TOO_LONG, count=None)
        httpd.allow_log("RWSGI04|request_timeout")
        begin = time.monotonic()
        assert httpd.request("/t/stubborn").status in (502, 504)
        assert time.monotonic() - begin < 10
        assert httpd.get("/http/hello").status == 200
        httpd.settle_log()
        httpd.allow_log("RWSGI04|request_timeout")


def test_websockets_have_no_request_timeout(new_httpd):
    with group(new_httpd, "request-timeout=1") as httpd, httpd.websocket("/ws/echo") as socket:
        socket.text("first")
        assert socket.message() == "first"
        # Longer than the limit, by the clock of another request.
        assert httpd.get("/http/wait?seconds=0.7").status == 200
        assert httpd.get("/http/wait?seconds=0.7").status == 200
        socket.text("second")
        assert socket.message() == "second"


def test_loop_that_is_blocked(new_httpd):
    """A coroutine that does not await: the worker is replaced, and the log says where it hangs."""
    options = "request-timeout=2 graceful-timeout=1 shutdown-timeout=1 deadlock-timeout=3"
    with group(new_httpd, options) as httpd:
        old = httpd.workers()
        stack = httpd.expect_log(f"{STACK}|RWSGI0658: |RWSGI0414: ", count=None)
        httpd.allow_log(
            f"RWSGI0303|RWSGI0408|RWSGI0410|RWSGI041[24]|RWSGI065|_timeout|deadlock|{DUMP}"
        )
        with httpd.connect(timeout=40) as connection:
            connection.request("/http/block?seconds=60")
            httpd.wait_until(
                lambda: httpd.workers() and not set(httpd.workers()) & set(old), "not replaced", 30
            )
            assert connection.read_response().status in (502, 504)
        assert httpd.get("/http/hello").status == 200
        httpd.settle_log()
        httpd.allow_log(DUMP)
        assert stack.lines
        assert shows(stack, "in block") or any("block" in line.message for line in httpd.log.seen)


def test_maximum_requests(new_httpd):
    """The worker is replaced after so many; nothing is lost, WebSockets are closed with 1012."""
    with group(new_httpd, "maximum-requests=20 graceful-timeout=3") as httpd:
        httpd.allow_log("maximum.requests")
        old = pid(httpd)
        with httpd.websocket("/ws/echo") as socket:
            seen = set()
            deadline = time.monotonic() + 20
            while len(seen) < 3:
                seen.add(pid(httpd))
                assert time.monotonic() < deadline, f"{seen} only"
            assert old in seen
            assert socket.closed()[0] == 1012


def test_eviction(new_httpd):
    """SIGUSR1 to a worker: it finishes what it has."""
    with group(new_httpd, "eviction-timeout=5 graceful-timeout=5") as httpd:
        httpd.allow_log("eviction|graceful")
        old = pid(httpd)
        with httpd.connect() as slow:
            slow.request("/http/wait?seconds=1")
            httpd.wait_until(lambda: httpd.get("/http/count?name=waiting").body == b"1")
            os.kill(old, signal.SIGUSR1)
            httpd.wait_until(lambda: pid(httpd) != old, "not replaced")
            assert slow.read_response().status == 200
        httpd.wait_until(lambda: old not in httpd.workers(), "the old worker stays")


def test_restart_interval_and_inactivity(new_httpd):
    """A worker with an open WebSocket is not idle."""
    with group(new_httpd, "inactivity-timeout=1") as httpd:
        httpd.allow_log("inactivity_timeout")
        old = pid(httpd)
        with httpd.websocket("/ws/echo") as socket:
            for _ in range(3):
                socket.text("x")
                assert socket.message() == "x"
                assert httpd.get("/http/wait?seconds=0.7").status == 200
            assert pid(httpd) == old


def test_worker_that_dies(new_httpd):
    """Requests in progress get 502, WebSockets are told to come again, new ones are served."""
    with group(new_httpd) as httpd:
        old = pid(httpd)
        with httpd.connect() as slow, httpd.websocket("/ws/echo") as socket:
            socket.send(TEXT, b"x")
            assert socket.message() == "x"
            slow.request("/http/wait?seconds=30")
            httpd.wait_until(lambda: httpd.get("/http/count?name=waiting").body == b"1")
            httpd.expect_log("RWSGI0407: ")
            httpd.expect_log("RWSGI0303: .*/http/wait")
            httpd.allow_log("RWSGI0408|RWSGI0321|exit signal")
            os.kill(old, signal.SIGKILL)
            assert slow.read_response().status == 502
            assert socket.closed()[0] == 1012
        httpd.wait_until(lambda: httpd.request("/http/hello").status == 200)
        assert pid(httpd) != old


def test_no_deadlock_between_kinds(new_httpd):
    """WSGI and ASGI of one group, more of both than there are threads."""
    text = 'WSGIScriptAlias /wsgi "{apps}/response.wsgi"'
    with new_httpd(threads=40, daemon="threads=2") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.add(text.format(apps=httpd.apps))
        httpd.start()
        connections = []
        for i in range(30):
            connection = httpd.connect()
            connection.request("/http/wait?seconds=0.3" if i % 2 else "/wsgi/hello")
            connections.append(connection)
        for connection in connections:
            assert connection.read_response().status == 200
            connection.close()
