"""Clients that go away: the application learns it within a second, and nothing is left of them."""

from __future__ import annotations

import subprocess
import time

import pytest
from harness.asgi import line_of
from harness.config import BOTH
from harness.processes import resident_kib
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH
HOW = ["close", "reset"]


@pytest.fixture(scope="module", params=["event", "prefork"])
def server(new_httpd, request):
    options = {"mpm": request.param, "tls": True, "http2": request.param != "prefork"}
    with new_httpd(threads=12, **options) as httpd:
        asgi_applications(httpd, gone="asgi_disconnect.py")
        httpd.mpm = request.param
        yield httpd.start()


@pytest.fixture
def file(server, request):
    return server.root / "data" / f"{abs(hash(request.node.name)):x}"


def inside(server):
    return server.json("/gone/look")["now"]


def wait_for_begin(server, file):
    """Waits until the handler is at work: a client that goes before that was never there."""
    line_of(server, file.with_name(file.name + ".begun"))


def begun(server, file, target, **options):
    """A request whose handler is at work."""
    connection = server.connect(**options)
    connection.request(f"/gone/{target}?file={file}")
    wait_for_begin(server, file)
    return connection


def learns(server, file, since, limit=1.0):
    """What the application has noted; a loaded machine is given a little more than the promise."""
    line = line_of(server, file)
    assert time.monotonic() - since < limit + 0.7
    return line


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("target", ["long-poll", "poll-beside-work"])
def test_waiting_in_receive(server, file, how, target):
    connection = begun(server, file, target)
    getattr(connection, how)()
    assert learns(server, file, time.monotonic()) == "http.disconnect"


def test_over_tls(server, file):
    connection = begun(server, file, "long-poll", tls=True)
    connection.close()
    assert learns(server, file, time.monotonic()) == "http.disconnect"


@pytest.mark.parametrize("tls", [False, True])
def test_http_2(server, file, tls):
    """The connection ends, or only the stream is reset."""
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    with server.http2(tls) as connection:
        stream = connection.begin(f"/gone/long-poll?file={file}")
        wait_for_begin(server, file)
        stream.cancel()
        assert learns(server, file, time.monotonic()) == "http.disconnect"
        # The connection goes on.
        assert connection.request("/gone/look").status == 200
        file = file.with_name(file.name + "-again")
        connection.begin(f"/gone/long-poll?file={file}")
        wait_for_begin(server, file)
    assert learns(server, file, time.monotonic()) == "http.disconnect"


@pytest.mark.parametrize("how", HOW)
def test_while_it_streams(server, file, how):
    connection = server.connect()
    connection.request(f"/gone/stream?file={file}")
    assert connection.read_head().status == 200
    connection.read_chunk()
    getattr(connection, how)()
    assert learns(server, file, time.monotonic()) in ("OSError", "cancelled")


@pytest.mark.parametrize("how", HOW)
def test_silent_stream(server, file, how):
    """Server-sent events with nothing to send: there is no write that could fail."""
    connection = server.connect()
    connection.request(f"/gone/stream-and-listen?file={file}")
    assert connection.read_head().header("Content-Type") == "text/event-stream"
    connection.read_chunk()
    getattr(connection, how)()
    assert learns(server, file, time.monotonic()) == "http.disconnect"


def test_stream_over_http_2(server, file):
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    url = server.url(f"/gone/stream-and-listen?file={file}")
    command = ["curl", "-s", "-N", "--http2-prior-knowledge", "--noproxy", "*", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout.read(9) == b"data: 1\n\n"
        client.kill()
        since = time.monotonic()
    assert learns(server, file, since) == "http.disconnect"


def test_answer_to_nobody(server, file):
    """No error, no word in the log."""
    connection = begun(server, file, "late-answer")
    connection.close()
    assert line_of(server, file) == "done"


def test_told_each_time(server, file):
    connection = begun(server, file, "again")
    connection.close()
    assert line_of(server, file) == " ".join(["http.disconnect"] * 3)


@pytest.mark.parametrize(
    ("how", "code"), [("close", "1006"), ("reset", "1006"), ("in order", "1001")]
)
def test_websocket(server, file, how, code):
    """A WebSocket whose client vanishes ends with 1006, as nobody has sent a code."""
    socket = server.websocket(f"/gone/ws?file={file}")
    socket.text("hello")
    assert socket.message() == "hello"
    if how == "in order":
        socket.close(1001)
        assert socket.closed()[0] == 1001
        assert socket.ended()
    else:
        getattr(socket.connection, how)()
    assert learns(server, file, time.monotonic()) == code


def test_client_that_stays_is_not_disturbed(server, file):
    """A client that has shut its sending side down is still there for the answer."""
    import socket

    with server.connect() as connection:
        connection.request("/gone/look", headers={"Connection": "close"})
        connection.socket.shutdown(socket.SHUT_WR)
        assert connection.read_response().status == 200
    assert not file.exists()


ROUNDS = 150


TARGETS = ["long-poll", "stream", "stream-and-listen", "websocket"]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_left(server, target):
    """After so many clients that vanished at different moments: no task, no descriptor."""
    vanish(server, [target], ROUNDS)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_nothing_is_left_of_ten_thousand(server):
    vanish(server, TARGETS, 10_000)


def vanish(server, targets, rounds):
    if server.mpm == "prefork" and not server.daemon:
        pytest.skip("each process has a life of its own")
    # httpd has few threads, and notices after a while that a client has gone.
    server.allow_log("AH00484|AH00286")
    server.get("/gone/look")
    server.wait_until(lambda: inside(server) == 0)
    base = server.json("/gone/look")
    memory = sum(map(resident_kib, server.pythons()))
    for i in range(rounds):
        target = targets[i % len(targets)]
        connection = server.connect()
        if target == "websocket":
            headers = {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            }
            connection.request("/gone/ws", headers=headers)
        else:
            connection.request(f"/gone/{target}")
        # A third at once, the others within the first answer, if there is one; half with a reset.
        if i % 3 and target != "long-poll":
            connection.read_head()
        getattr(connection, HOW[i // 4 % 2])()
    server.wait_until(lambda: inside(server) == 0, "requests are left")

    def like_before():
        now = server.json("/gone/look")
        # Idle connections are kept, up to one for each thread of httpd.
        return (
            now["tasks"] <= base["tasks"] + 1
            and now["descriptors"] <= base["descriptors"] + 14
            and now["threads"] <= base["threads"] + 1
        )

    server.wait_until(like_before, f"it was {base}, it is {server.json('/gone/look')}")
    if rounds > 1000:
        grown = sum(map(resident_kib, server.pythons())) - memory
        assert grown < 8 * 1024, f"{grown} KiB more"
