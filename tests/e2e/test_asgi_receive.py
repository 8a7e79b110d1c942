"""The body of a request: what ``receive`` gives, when, and how much of it is taken beforehand."""

from __future__ import annotations

import hashlib
import json
import random
import socket

import pytest
from harness.asgi import ANY, line_of
from harness.config import BOTH
from harness.curl import curl
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH
#: Beyond every buffer in between.
LARGE = random.Random(5).randbytes(5_000_000)


@pytest.fixture(scope="module", params=["event", "prefork"])
def server(new_httpd, request):
    with new_httpd(mpm=request.param, threads=4, http2=request.param != "prefork") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.mpm = request.param
        yield httpd.start()


def checked(told, body):
    assert sum(told["sizes"]) == len(body)
    assert told["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_no_body(server, method):
    """One message, empty and the last."""
    told = server.request("/http/digest", method=method).json()
    assert told["sizes"] == [0]


def test_empty_body(server):
    assert server.request("/http/digest", method="POST", body=b"").json()["sizes"] == [0]


@pytest.mark.parametrize("size", [1, 8000, 16384, 16385, 100_000])
def test_sizes(server, size):
    body = LARGE[:size]
    response = server.request("/http/echo", method="POST", body=body)
    assert (response.status, response.body) == (200, body)


def test_large_body_comes_in_pieces(server):
    told = server.request("/http/digest", method="POST", body=LARGE).json()
    checked(told, LARGE)
    assert len(told["sizes"]) > 1
    # No piece is out of proportion.
    assert max(told["sizes"]) <= 1 << 20


@pytest.mark.parametrize("chunks", [1, 3, 200])
def test_chunked(server, chunks):
    body = LARGE[: chunks * 1000]
    with server.connect() as connection:
        headers = {"Transfer-Encoding": "chunked"}
        connection.request("/http/digest", method="POST", headers=headers)
        for i in range(chunks):
            connection.send_chunk(body[i * 1000 : (i + 1) * 1000])
        connection.send_chunk(b"")
        checked(connection.read_response().json(), body)


def test_a_piece_arrives_before_the_next_is_sent(server):
    """What has come is given to the application, complete or not."""
    with server.connect() as connection:
        headers = {"Transfer-Encoding": "chunked"}
        connection.request("/http/first-piece", method="POST", headers=headers)
        connection.send_chunk(b"first")
        assert connection.read_response().json() == ["first", True]


def test_a_beginning_arrives_before_the_rest(server):
    with server.connect() as connection:
        headers = {"Content-Length": "100000"}
        connection.request("/http/first-piece", method="POST", headers=headers)
        connection.send(b"first")
        assert connection.read_response().json() == ["first", True]


def test_expect_100_continue(server):
    """The client is asked for the body when the application asks."""
    with server.connect() as connection:
        headers = {"Expect": "100-continue", "Content-Length": "4"}
        connection.request("/http/echo", method="POST", headers=headers)
        assert connection.read_line() == b"HTTP/1.1 100 Continue"
        assert connection.read_line() == b""
        connection.send(b"body")
        assert connection.read_response().body == b"body"


def test_expect_100_continue_refused(server):
    """An application that does not ask for the body gets none."""
    with server.connect() as connection:
        headers = {"Expect": "100-continue", "Content-Length": "4"}
        connection.request("/http/unread", method="POST", headers=headers)
        response = connection.read_response()
        assert (response.status, response.body, response.interim) == (200, b"unread", [])


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_body_that_nobody_reads(server, size):
    """The answer is whole, and the next request on the connection is not mistaken for the body."""
    with server.connect() as connection:
        connection.request("/http/unread", method="POST", body=LARGE[:size])
        response = connection.read_response()
        assert response.body == b"unread"
        if response.header("Connection") != "close":
            connection.request("/http/hello")
            assert connection.read_response().body == b"Hello, world\n"


def test_keep_alive(server):
    """Requests and answers stay in step on one connection."""
    with server.connect() as connection:
        for size in (0, 3, 50_000, 7, 0):
            connection.request("/http/echo", method="POST", body=LARGE[:size])
            assert connection.read_response().body == LARGE[:size]


def test_pipelined(server):
    with server.connect() as connection:
        for i in range(5):
            connection.request("/http/echo", method="POST", body=b"%d" % i)
        for i in range(5):
            assert connection.read_response().body == b"%d" % i


def test_http_2(server):
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    with server.http2() as connection:
        response = connection.request("/http/echo", LARGE[:1_000_000], method="POST")
        assert response.body == LARGE[:1_000_000]
        response = connection.request("/http/digest", b"", method="POST")
        assert sum(json.loads(response.body)["sizes"]) == 0


def test_http_2_many_uploads_at_once(server):
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    with server.http2() as connection:
        streams = [connection.begin("/http/echo", "POST", end=False) for _ in range(3)]
        for piece in (b"a" * 1000, b"b" * 1000):
            for stream in streams:
                stream.send(piece)
        for stream in reversed(streams):
            stream.send(b"c", end=True)
        for stream in streams:
            assert stream.read_response().body == b"a" * 1000 + b"b" * 1000 + b"c"


def test_http_2_through_curl(server):
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    response = curl(server.url("/http/echo"), "--http2-prior-knowledge", data=LARGE)
    assert (response.code, response.protocol, response.body) == (0, "HTTP/2", LARGE)


def test_nothing_is_taken_before_it_is_asked_for(server):
    """An upload to an application that does not receive stands still in the sockets."""
    if server.mpm == "prefork" and not server.daemon:
        pytest.skip("another process would have to tell")
    gate = server.gate()
    size = 40_000_000
    with server.connect() as connection:
        headers = {"Content-Length": str(size)}
        target = f"/http/slow-reader?name=upload&gate={gate.path}"
        connection.request(target, method="POST", headers=headers)
        connection.socket.settimeout(1)
        sent = 0
        with pytest.raises(socket.timeout):
            while sent < size:
                sent += connection.socket.send(LARGE[: min(65536, size - sent)])
        assert sent < size / 2
        gate.step()
        server.wait_until(lambda: int(server.get("/http/count?name=upload").body) > 0)
        # Once for each piece, of whatever size.
        connection.socket.settimeout(20)
        gate.step(50_000)
        while sent < size:
            sent += connection.socket.send(LARGE[: min(65536, size - sent)])
        assert connection.read_response().body == b"%d" % size


def test_too_large_a_body(new_httpd):
    """LimitRequestBody is httpd's word for both kinds of framing."""
    with new_httpd() as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.add("LimitRequestBody 1000").start()
        # This application takes a body that breaks off for an error.
        httpd.allow_log(f"RWSGI0016: |{ANY}")
        assert httpd.request("/http/echo", method="POST", body=b"x" * 1001).status == 413
        assert httpd.request("/http/echo", method="POST", body=b"x" * 1000).status == 200
        with httpd.connect() as connection:
            headers = {"Transfer-Encoding": "chunked"}
            connection.request("/http/echo", method="POST", headers=headers)
            for _ in range(3):
                connection.send_chunk(b"x" * 500)
            connection.send_chunk(b"")
            assert connection.read_head().status == 413


@pytest.mark.parametrize("how", ["close", "reset"])
def test_body_that_is_cut(server, how):
    """The client goes in mid-body: the application gets a disconnect, no short body."""
    file = server.root / "data" / f"cut-{how}-{server.mpm}"
    connection = server.connect()
    target = f"/http/disconnect-while-reading?file={file}"
    connection.request(target, method="POST", headers={"Content-Length": "1000"})
    connection.send(b"half")
    getattr(connection, how)()
    assert line_of(server, file) == "http.disconnect"


def test_receive_after_the_response(server):
    """``receive`` gives a disconnect when everything is over (ASGI, HTTP connection scope)."""
    file = server.root / "data" / f"after-{server.mpm}"
    assert server.get(f"/http/after-the-body?file={file}").body == b"sent"
    assert line_of(server, file) == "http.disconnect"
