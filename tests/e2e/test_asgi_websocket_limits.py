"""What bounds a WebSocket: sizes of messages, the queue, the other side's patience, compression."""

from __future__ import annotations

import json
import socket as sockets
import time
import zlib

import pytest
from harness.asgi import line_of, stands_still
from harness.config import BOTH
from harness.processes import resident_kib
from harness.sites import asgi_applications
from harness.websocket import BINARY, PING, PONG, TEXT, WebSocket

pytestmark = pytest.mark.rwsgi
MODES = BOTH

SETTINGS = {
    "small": "ASGIWebSocketMaxMessage 1000",
    "plain": "ASGIWebSocketCompression Off",
    "short": "ASGIWebSocketQueue 4",
    "ping": "ASGIWebSocketPing 1",
    "quiet": "ASGIWebSocketPing 0",
}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=8) as httpd:
        script = "asgi_websocket.py"
        asgi_applications(httpd, ws=script, **dict.fromkeys(SETTINGS, script))
        for mount, line in SETTINGS.items():
            httpd.add(f"<Location /{mount}>\n{line}\n</Location>")
        yield httpd.start()


# The size of a message


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_largest_message(server, opcode):
    with server.websocket("/small/sizes") as socket:
        socket.send(opcode, b"x" * 1000)
        assert socket.message() == ("str 1000" if opcode == TEXT else "bytes 1000")
        socket.send(opcode, b"x" * 1001)
        assert socket.dropped() == 1009


def test_larger_in_fragments(server):
    with server.websocket("/small/sizes") as socket:
        socket.fragments(TEXT, *[b"x" * 100] * 10)
        assert socket.message() == "str 1000"
        socket.fragments(TEXT, *[b"x" * 100] * 11)
        assert socket.dropped() == 1009


def test_larger_by_its_own_account(server):
    """The head of a frame is enough: nobody waits for what is too much anyway."""
    with server.websocket("/small/sizes") as socket:
        socket.connection.send(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
        assert socket.dropped() == 1009


def test_larger_when_unpacked(server):
    """A few bytes that unpack to many."""
    with server.websocket("/small/sizes", deflate="") as socket:
        socket.text("x" * 1000)
        assert socket.message() == "str 1000"
        socket.text("x" * 1_000_000)
        assert socket.dropped() == 1009


def test_default_size(server):
    """16 MiB; what is thrown at it does not fill the memory."""
    with server.websocket("/ws/sizes", deflate="") as socket:
        socket.binary(bytes(16 << 20))
        assert socket.message() == f"bytes {16 << 20}"
        before = max(map(resident_kib, server.pythons()))
        packer = zlib.compressobj(1, wbits=-15)
        bomb = packer.compress(bytes(1 << 28)) + packer.flush(zlib.Z_SYNC_FLUSH)
        socket.send(BINARY, bomb[:-4], rsv=4)
        assert socket.dropped() == 1009
        assert max(map(resident_kib, server.pythons())) - before < 64 << 10


# Compression


def test_no_compression(server):
    with server.websocket("/plain/echo", deflate="") as socket:
        assert socket.extension == ""
        socket.text("plain")
        assert socket.message() == "plain"


def test_compression_where_it_was_not_offered(server):
    with server.websocket("/ws/echo") as socket:
        assert socket.extension == ""
        socket.text("x" * 10_000)
        assert socket.frame().rsv == 0


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("", True),
        ("client_max_window_bits", True),
        ("client_max_window_bits=10", True),
        ("server_no_context_takeover", True),
        ("client_no_context_takeover; server_no_context_takeover", True),
        ("server_max_window_bits=15", True),
        ("unknown_parameter", False),
        ("server_max_window_bits=7", False),
        ("server_max_window_bits=15; server_max_window_bits=15", False),
    ],
)
def test_offers(server, offer, agreed):
    """What is agreed on works in both directions, message after message."""
    with server.websocket("/ws/echo", deflate=offer) as socket:
        assert bool(socket.extension) == agreed
        for i in range(5):
            text = f"message {i} " * 200
            socket.text(text)
            assert socket.message() == text
        if agreed:
            # It does compress.
            socket.text("y" * 10_000)
            assert len(socket.frame().payload) < 1000


def test_first_acceptable_offer(server):
    fields = {"Sec-WebSocket-Extensions": "x-other, permessage-deflate; bad=1, permessage-deflate"}
    with server.websocket("/ws/echo", fields) as socket:
        assert socket.extension.startswith("permessage-deflate")
        socket.text("hello")
        assert socket.message() == "hello"


def test_data_that_is_no_deflate(server):
    with server.websocket("/ws/echo", deflate="") as socket:
        socket.send(TEXT, b"\xff\xff\xff\xff", rsv=4)
        assert socket.dropped() in (1002, 1007)


# Those who do not keep up


def test_application_that_does_not_receive(server):
    """The queue is short, then the client's messages wait in its own socket; none is lost."""
    gate = server.gate()
    with server.websocket(f"/short/deaf?gate={gate.path}") as socket:
        socket.connection.socket.settimeout(1)
        piece, sent = b"\x82\xff" + (65536).to_bytes(8, "big") + bytes(4) + bytes(65536), 0
        total = 600 * len(piece)
        with pytest.raises(sockets.timeout):
            while sent < total:
                sent += socket.connection.socket.send((piece * 2)[sent % len(piece) :][:65536])
        assert sent < total / 2
        gate.step()
        socket.connection.socket.settimeout(20)
        rest = -sent % len(piece)
        socket.connection.send((piece * 2)[len(piece) - rest :][:rest] if rest else b"")
        count = (sent + rest) // len(piece)
        socket.text("how many")
        assert socket.message() == str(count)


def test_client_that_does_not_read(server):
    """``send`` waits, and memory is bounded."""
    pieces = 1024
    with server.websocket(f"/ws/flood?name=slow&count={pieces}") as socket:
        before = {pid: resident_kib(pid) for pid in server.children() + server.pythons()}
        taken = stands_still(lambda: int(server.get("/ws/count?name=slow").body))
        assert taken < pieces / 2
        for pid, size in before.items():
            assert resident_kib(pid) - size < 24 << 10
        for _ in range(pieces):
            assert len(socket.message()) == 65536
        assert socket.closed()[0] == 1000


def test_client_that_does_not_read_and_goes(server):
    """A sender that waits is freed."""
    before = server.json("/ws/look")["tasks"]
    with server.websocket("/ws/flood?name=gone&count=1024"):
        stands_still(lambda: int(server.get("/ws/count?name=gone").body))
    server.wait_until(lambda: server.json("/ws/look")["tasks"] <= before, "the task is left")


# Pings


def test_client_that_answers_pings(server):
    with server.websocket("/ping/echo") as socket:
        for _ in range(3):
            frame = socket.frame()
            assert frame.opcode == PING
            socket.send(PONG, frame.payload)
        socket.text("still here")
        assert socket.message() == "still here"


def test_client_that_does_not_answer_pings(server):
    """It is gone: the socket is closed, and the application told."""
    file = server.root / "data" / "unanswered"
    begin = time.monotonic()
    with server.websocket(f"/ping/told?file={file}") as socket:
        assert socket.dropped() in (1011, None)
        assert 1 <= time.monotonic() - begin < 6
    assert json.loads(line_of(server, file))[0] in (1006, 1011)


def test_no_pings(server):
    with server.websocket("/quiet/echo") as quiet, server.websocket("/ping/echo") as pinged:
        frames = [pinged.frame() for _ in range(1)]
        assert frames[0].opcode == PING
        quiet.text("first")
        assert quiet.frame().opcode == TEXT


def test_ping_of_the_client(server):
    """Answered at once, in order, though the application is busy elsewhere."""
    gate = server.gate()
    with server.connect() as connection:
        socket = WebSocket(connection).open(f"/ws/deaf?gate={gate.path}")
        for i in range(3):
            socket.send(PING, b"%d" % i)
        for i in range(3):
            frame = socket.frame()
            assert (frame.opcode, frame.payload) == (PONG, b"%d" % i)
        gate.step()
