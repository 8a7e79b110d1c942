"""WebSockets from handshake to close, by a client library and frame by frame."""

from __future__ import annotations

import json
import random
import threading

import pytest
from harness.asgi import ANY, RAISED, line_of
from harness.client import Truncated
from harness.config import BOTH
from harness.sites import asgi_applications
from harness.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame, WebSocket, encode
from harness.websocket_client import Client
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.rwsgi
MODES = BOTH
TLS = [False, True]


@pytest.fixture(scope="module", params=["event", "worker", "prefork"])
def server(new_httpd, request):
    with new_httpd(mpm=request.param, threads=6, tls=True) as httpd:
        asgi_applications(httpd, ws="asgi_websocket.py")
        httpd.add(f"""
            ASGIScriptAlias /off "{httpd.apps}/asgi_websocket.py"
            <Location /off>
                ASGIWebSocket Off
            </Location>
        """)
        httpd.mpm = request.param
        yield httpd.start()


@pytest.fixture
def file(server, request):
    return server.root / "data" / f"{abs(hash(request.node.name)):x}"


def client(server, route, tls=False, **options):
    """The library's client."""
    return Client(server.url(f"/ws/{route}", tls=tls), **options)


# Messages


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_echo(server, tls, compression):
    with client(server, "echo", tls, compression=compression, max_size=None) as socket:
        for message in [
            "hello",
            "",
            "Grüße, 世界 \N{GRINNING FACE}",
            b"",
            b"\0\xff\r\n",
            "x" * 300,
        ]:
            socket.send(message)
            assert socket.recv() == message
        assert bool(socket.client.protocol.extensions) == (compression == "deflate")


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 1_000_000, 10_000_000])
def test_sizes(server, tls, size):
    message = random.Random(size).randbytes(size)
    with client(server, "echo", tls, max_size=None, compression=None) as socket:
        socket.send(message)
        assert socket.recv() == message


def test_large_compressed(server):
    text = "all work and no play " * 100_000
    with client(server, "echo", max_size=None) as socket:
        socket.send(text)
        assert socket.recv() == text


def test_many_messages(server):
    """In order, while the client sends before it reads."""
    with client(server, "echo") as socket:
        for i in range(2000):
            socket.send(str(i))
            if i >= 20:
                assert socket.recv() == str(i - 20)
        for i in range(1980, 2000):
            assert socket.recv() == str(i)


def test_both_directions_at_once(server):
    with client(server, "beside") as socket:
        for i in range(10):
            socket.send(f"mine {i}")
        got = [socket.recv() for _ in range(20)]
        assert [text for text in got if not text.startswith("mine")] == [str(i) for i in range(10)]
        assert [text for text in got if text.startswith("mine")] == [f"mine {i}" for i in range(10)]


def test_fragments(server):
    with server.websocket("/ws/echo") as socket:
        socket.fragments(TEXT, "Grü".encode()[:3], "Grü".encode()[3:], b"", b"!")
        assert socket.message() == "Grü!"
        socket.fragments(BINARY, *[bytes([i]) for i in range(200)])
        assert socket.message() == bytes(range(200))


def test_control_frames_within_a_message(server):
    with server.websocket("/ws/echo") as socket:
        socket.send(TEXT, b"one,", fin=False)
        socket.send(PING, b"are you there")
        pong = socket.frame()
        assert (pong.opcode, pong.payload) == (PONG, b"are you there")
        socket.send(0, b"two")
        assert socket.message() == "one,two"


def test_frames_in_one_packet_and_byte_by_byte(server):
    with server.websocket("/ws/echo") as socket:
        data = b"".join(encode(Frame(TEXT, b"%d" % i)) for i in range(50))
        socket.connection.send(data)
        assert [socket.message() for _ in range(50)] == [str(i) for i in range(50)]
        for i in range(len(data[:40])):
            socket.connection.send(data[i : i + 1])
        for i in range(5):
            assert socket.message() == str(i)


def test_message_in_the_packet_of_the_handshake(server):
    """A client in a hurry: what came with the handshake is not lost."""
    with server.connect() as connection:
        head = (
            f"GET /ws/echo HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        connection.send(head + encode(Frame(TEXT, b"early")))
        response = connection.read_head()
        assert response.status == 101
        assert response.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert WebSocket(connection).message() == "early"


def test_room(server):
    """What one says, all hear: sends from another socket's task."""
    if server.mpm == "prefork" and not server.daemon:
        pytest.skip("each process has a room of its own")
    sockets = [server.websocket("/ws/room") for _ in range(5)]
    server.wait_until(lambda: server.json("/ws/look")["room"] == 5)
    sockets[2].text("hear me")
    for socket in sockets:
        assert socket.message() == "hear me"
    for socket in sockets:
        socket.connection.close()
    server.wait_until(lambda: server.json("/ws/look")["room"] == 0)


# The handshake


def test_subprotocols(server):
    with client(server, "subprotocol", subprotocols=["chat", "superchat"]) as socket:
        assert socket.client.subprotocol == "superchat"
        assert socket.recv() == "superchat"


def test_no_subprotocol_chosen(server):
    with client(server, "echo", subprotocols=["chat"]) as socket:
        assert socket.client.subprotocol is None


def test_header_fields(server):
    with server.websocket("/ws/headers") as socket:
        assert socket.response.header("x-one") == "1"
        assert socket.response.all("set-cookie") == ["a=1", "b=2"]
        assert socket.closed() == (1000, "")


def test_refused(server):
    """A close before the accept is a 403."""
    with pytest.raises(InvalidStatus) as raised:
        client(server, "refuse")
    assert raised.value.response.status_code == 403


def test_denied(server):
    """The application's own answer instead of the handshake."""
    with server.connect() as connection:
        socket = WebSocket(connection)
        response = socket.ask("/ws/deny")
        assert (response.status, response.header("x-why")) == (429, "full")
        assert connection.read_body(response) == b"not now"


def test_switched_off(server):
    with server.connect() as connection:
        assert WebSocket(connection).ask("/off/echo").status == 403
    assert server.get("/off/hello").status == 200


def test_accept_takes_its_time(server):
    gate = server.gate()
    with server.connect() as connection:
        thread = threading.Timer(0.2, gate.step)
        thread.start()
        socket = WebSocket(connection).open(f"/ws/slow-accept?gate={gate.path}")
        assert socket.closed() == (1000, "")
        thread.join()


@pytest.mark.parametrize(
    ("changed", "without", "statuses"),
    [
        ({"Sec-WebSocket-Version": "8"}, [], {426}),
        ({}, ["Sec-WebSocket-Version"], {400, 426}),
        ({}, ["Sec-WebSocket-Key"], {400}),
        ({"Sec-WebSocket-Key": "short"}, [], {400}),
    ],
)
def test_bad_handshake(server, changed, without, statuses):
    with server.connect() as connection:
        response = WebSocket(connection).ask("/ws/echo", changed, without=without)
        assert response.status in statuses
        if response.status == 426:
            assert response.header("Sec-WebSocket-Version") == "13"


@pytest.mark.parametrize("fields", [("keep-alive, Upgrade", "WebSocket"), ("upgrade", "websocket")])
def test_handshake_in_other_words(server, fields):
    connection, upgrade = fields
    with server.websocket("/ws/echo", {"Connection": connection, "Upgrade": upgrade}) as socket:
        socket.text("hello")
        assert socket.message() == "hello"


def test_post_is_no_handshake(server):
    """It is an ordinary request, which this application does not know there."""
    server.expect_log(RAISED)
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    response = server.request("/ws/echo", method="POST", headers=headers, body=b"")
    assert response.status in (400, 405, 500)


# The end


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("", 1000, ""),
        ("?code=1001", 1001, ""),
        ("?code=4321&reason=because%20of%20%C3%A9", 4321, "because of é"),
        ("?code=3000&reason=" + "x" * 123, 3000, "x" * 123),
    ],
)
@pytest.mark.parametrize("tls", TLS)
def test_closed_by_the_application(server, file, query, code, reason, tls):
    joined = f"{query}{'&' if query else '?'}file={file}"
    with server.websocket(f"/ws/close{joined}", tls=tls) as socket:
        assert socket.closed() == (code, reason)
        socket.close(code)
        assert socket.ended()
    # The application's own code comes back to it.
    assert line_of(server, file) == str(code)


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [(1000, "", 1000), (1001, "bye", 1001), (4999, "grüß dich", 4999), (None, "", 1005)],
)
def test_closed_by_the_client(server, file, code, reason, seen):
    with server.websocket(f"/ws/told?file={file}") as socket:
        socket.close(code, reason)
        answer = socket.closed()
        assert answer[0] in ((code,) if code else (None, 1000))
        assert socket.ended()
    assert json.loads(line_of(server, file)) == [seen, reason] or reason == ""


def test_library_closes(server, file):
    with client(server, f"told?file={file}") as socket:
        socket.close(4000, "enough")
        assert socket.client.close_code == 4000
    assert json.loads(line_of(server, file))[0] == 4000


def test_exception(server):
    told = server.expect_log(ANY)
    with client(server, "broken") as socket:
        with pytest.raises(ConnectionClosed) as raised:
            socket.recv()
        assert raised.value.rcvd.code == 1011
    server.settle_log()
    assert any("broken on purpose" in line.message for line in told.traceback)


def test_exception_before_the_accept(server):
    server.expect_log(ANY)
    with server.connect() as connection:
        assert WebSocket(connection).ask("/ws/broken-before").status == 500


def test_exception_at_the_end(server):
    """When the client has gone; the log has it."""
    server.expect_log(ANY)
    with client(server, "broken-at-the-end"):
        pass


def test_returning_without_an_answer(server):
    server.allow_log(ANY)
    with server.connect() as connection:
        assert WebSocket(connection).ask("/ws/silent").status in (403, 500)


def test_returning_without_close(server):
    server.allow_log(ANY)
    with server.websocket("/ws/leaves") as socket:
        assert socket.closed()[0] in (1000, 1011)


NAMES = [
    "send-first",
    "accept-twice",
    "unknown-type",
    "http",
    "send-nothing",
    "text-that-is-bytes",
    "bytes-that-are-text",
    "text-with-surrogate",
    "close-code-5",
    "close-code-1005",
    "deny-after-accept",
    "bad-subprotocol",
    "bad-header",
]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_message(server, name):
    """``send`` raises, which ends the WebSocket or the handshake."""
    server.expect_log(ANY)
    with server.connect() as connection:
        socket = WebSocket(connection)
        if socket.ask(f"/ws/wrong?name={name}").status == 101:
            assert socket.closed()[0] == 1011
        else:
            assert socket.response.status == 500


@pytest.mark.parametrize("name", NAMES)
def test_wrong_message_that_is_handled(server, name):
    with server.websocket(f"/ws/wrong?name={name}&caught=1") as socket:
        assert socket.message() != "not refused"
        assert socket.closed()[0] == 1000


def test_send_after_close(server, file):
    server.allow_log(ANY)
    with server.websocket(f"/ws/send-after-close?file={file}") as socket:
        assert socket.closed()[0] == 1000
    assert line_of(server, file)


def test_send_to_nobody(server, file):
    with server.websocket(f"/ws/send-to-nobody?file={file}") as socket:
        socket.close()
        socket.closed()
    assert line_of(server, file) in ("OSError", "nothing")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        # Text that is no UTF-8, a reserved bit, an unknown opcode, a fragmented ping, a stray
        # continuation, a message within a message, a close code nobody may send.
        ([(TEXT, b"\xff", True, 0)], 1007),
        ([(TEXT, b"x", True, 4)], 1002),
        ([(3, b"x", True, 0)], 1002),
        ([(PING, b"x", False, 0)], 1002),
        ([(0, b"x", True, 0)], 1002),
        ([(TEXT, b"x", False, 0), (TEXT, b"x", True, 0)], 1002),
        ([(CLOSE, b"\x03\xed", True, 0)], 1002),
        ([(PING, b"x" * 126, True, 0)], 1002),
    ],
)
def test_violations(server, frames, code):
    """The connection is failed with the code of RFC 6455, and httpd goes on."""
    with server.websocket("/ws/echo") as socket:
        for opcode, payload, fin, rsv in frames:
            socket.send(opcode, payload, fin, rsv)
        assert socket.dropped() == code
    assert server.get("/ws/hello").status == 200


def test_unmasked(server):
    with server.websocket("/ws/echo") as socket:
        socket.send(TEXT, b"x", mask=False)
        assert socket.dropped() == 1002


def test_nothing_after_close(server):
    """What a client sends after its close frame is not looked at."""
    with server.websocket("/ws/echo") as socket:
        socket.close()
        socket.text("late")
        assert socket.closed()[0] == 1000
        with pytest.raises((Truncated, ConnectionError)):
            socket.message()
