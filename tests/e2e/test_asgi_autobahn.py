"""The cases of the Autobahn test suite, by its sections, frame by frame against an echo: over plain
connections, over TLS, and with compression agreed on.

test_asgi_autobahn_suite.py runs the suite itself, where it can be installed. Here sections 9, 12
and 13 are shorter.
"""

from __future__ import annotations

import random
import zlib

import pytest
from harness.client import Truncated
from harness.config import BOTH
from harness.sites import asgi_applications
from harness.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_payload,
    encode,
)

pytestmark = pytest.mark.rwsgi
MODES = BOTH
#: By name: over TLS, and the parameters of permessage-deflate that are offered.
VARIANTS = {"plain": (False, None), "tls": (True, None), "compressed": (False, "")}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=8, tls=True) as httpd:
        asgi_applications(httpd, ws="asgi_websocket.py")
        httpd.add("ASGIWebSocketPing 0")
        yield httpd.start()


@pytest.fixture(params=VARIANTS)
def socket(server, request):
    """A fresh WebSocket to the echo."""
    tls, deflate = VARIANTS[request.param]
    with server.websocket("/ws/echo", tls=tls, deflate=deflate) as socket:
        assert bool(socket.extension) == (deflate is not None)
        socket.variant = request.param
        yield socket


def closes(socket):
    """The closing handshake, begun here."""
    socket.close(1000)
    assert socket.closed()[0] == 1000
    assert socket.ended()


def fails(socket, code, *echoes):
    """The server fails the connection; of what was sent before, some may have been echoed."""
    echoes = list(echoes)
    got = None
    try:
        while True:
            frame = socket.frame()
            if frame.opcode == CLOSE:
                got = frame.code
            elif frame.opcode in (TEXT, BINARY):
                assert echoes and unpacked(socket, frame) == echoes.pop(0)
            else:
                assert frame.opcode == PONG
    except (Truncated, ConnectionError):
        pass
    assert got == code


def unpacked(socket, frame):
    if not frame.rsv & 4:
        return frame.payload
    return socket.decompress.decompress(frame.payload + b"\x00\x00\xff\xff")


def bytewise(socket, data):
    for i in range(len(data)):
        socket.connection.send(data[i : i + 1])


# 1: framing

SIZES = [0, 125, 126, 127, 128, 65535, 65536]


@pytest.mark.parametrize("size", SIZES)
def test_1_1_text(socket, size):
    socket.text("*" * size)
    assert socket.message() == "*" * size
    closes(socket)


@pytest.mark.parametrize("size", SIZES)
def test_1_2_binary(socket, size):
    socket.binary(b"\xfe" * size)
    assert socket.message() == b"\xfe" * size
    closes(socket)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_1_8_in_chops(socket, opcode):
    """65536 bytes in pieces of 997."""
    data = encode(Frame(opcode, b"*" * 65536))
    for i in range(0, len(data), 997):
        socket.connection.send(data[i : i + 997])
    assert len(socket.message()) == 65536
    closes(socket)


# 2: pings and pongs


@pytest.mark.parametrize(
    "payload", [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125]
)
def test_2_1_to_2_4_pings(socket, payload):
    socket.send(PING, payload)
    assert socket.frame() == Frame(PONG, payload)
    closes(socket)


def test_2_5_too_long(socket):
    socket.send(PING, b"\xfe" * 126)
    fails(socket, 1002)


def test_2_6_bytewise(socket):
    bytewise(socket, encode(Frame(PING, b"\xfe" * 125)))
    assert socket.frame() == Frame(PONG, b"\xfe" * 125)
    closes(socket)


@pytest.mark.parametrize("payload", [b"", b"unsolicited pong payload"])
def test_2_7_2_8_unsolicited_pong(socket, payload):
    socket.send(PONG, payload)
    closes(socket)


def test_2_9_pong_then_ping(socket):
    socket.send(PONG, b"unsolicited pong payload")
    socket.send(PING, b"ping payload")
    assert socket.frame() == Frame(PONG, b"ping payload")
    closes(socket)


@pytest.mark.parametrize("slowly", [False, True])
def test_2_10_2_11_ten_pings(socket, slowly):
    for i in range(10):
        data = encode(Frame(PING, b"payload-%d" % i))
        bytewise(socket, data) if slowly else socket.connection.send(data)
    for i in range(10):
        assert socket.frame() == Frame(PONG, b"payload-%d" % i)
    closes(socket)


# 3: reserved bits


def only_without_compression(socket):
    if socket.variant == "compressed":
        pytest.skip("the first reserved bit has a meaning there")


def test_3_1_after_nothing(socket):
    only_without_compression(socket)
    socket.send(TEXT, b"Hello, world!", rsv=1)
    fails(socket, 1002)


@pytest.mark.parametrize(
    ("opcode", "payload", "rsv"),
    [
        (TEXT, b"Hello, world!", 2),
        (TEXT, b"Hello, world!", 3),
        (TEXT, b"Hello, world!", 4),
        (BINARY, b"\x00\xff\xfe\xfd", 5),
        (PING, b"Hello, world!", 6),
        (CLOSE, b"", 7),
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
def test_3_2_to_3_7(socket, opcode, payload, rsv, slowly):
    only_without_compression(socket)
    data = encode(Frame(TEXT, b"first"))
    data += encode(Frame(opcode, payload, rsv=rsv))
    bytewise(socket, data) if slowly else socket.connection.send(data)
    fails(socket, 1002, b"first")


# 4: reserved opcodes


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"])
def test_4(socket, opcode, payload):
    socket.send(TEXT, b"first")
    socket.send(opcode, payload)
    socket.send(PING)
    fails(socket, 1002, b"first")


# 5: fragmentation


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_5_1_5_2_fragmented_control(socket, opcode):
    socket.send(opcode, b"fragment1", fin=False)
    socket.send(CONTINUATION, b"fragment2")
    fails(socket, 1002)


@pytest.mark.parametrize("how", ["packets", "one packet", "bytewise"])
@pytest.mark.parametrize("ping", [False, True])
def test_5_3_to_5_8_two_fragments(socket, how, ping):
    frames = [Frame(TEXT, b"fragment1", fin=False)]
    frames += [Frame(PING, b"ping payload")] * ping
    frames += [Frame(CONTINUATION, b"fragment2")]
    data = [encode(frame) for frame in frames]
    if how == "packets":
        for one in data:
            socket.connection.send(one)
    elif how == "one packet":
        socket.connection.send(b"".join(data))
    else:
        bytewise(socket, b"".join(data))
    if ping:
        assert socket.frame() == Frame(PONG, b"ping payload")
    assert socket.message() == "fragment1fragment2"
    closes(socket)


@pytest.mark.parametrize("fin", [True, False])
@pytest.mark.parametrize("slowly", [False, True])
def test_5_9_to_5_14_continuation_of_nothing(socket, fin, slowly):
    data = encode(Frame(CONTINUATION, b"non-continuation payload", fin=fin))
    data += encode(Frame(TEXT, b"Hello, world!"))
    bytewise(socket, data) if slowly else socket.connection.send(data)
    fails(socket, 1002)


def test_5_15_continuation_after_the_end(socket):
    socket.fragments(TEXT, b"fragment1", b"fragment2")
    socket.send(CONTINUATION, b"fragment3", fin=False)
    socket.send(TEXT, b"fragment4")
    fails(socket, 1002, b"fragment1fragment2")


@pytest.mark.parametrize("fin", [True, False])
def test_5_16_5_17_interleaved_nonsense(socket, fin):
    for _ in range(2):
        socket.send(CONTINUATION, b"fragment1", fin=fin)
        socket.send(TEXT, b"fragment2", fin=False)
        socket.send(CONTINUATION, b"fragment3")
    fails(socket, 1002)


def test_5_18_message_within_a_message(socket):
    socket.send(TEXT, b"fragment1", fin=False)
    socket.send(TEXT, b"fragment2")
    fails(socket, 1002)


@pytest.mark.parametrize("slowly", [False, True])
def test_5_19_5_20_pings_in_between(socket, slowly):
    frames = [
        Frame(TEXT, b"fragment1", fin=False),
        Frame(CONTINUATION, b"fragment2", fin=False),
        Frame(PING, b"pongme 1!"),
        Frame(CONTINUATION, b"fragment3", fin=False),
        Frame(CONTINUATION, b"fragment4", fin=False),
        Frame(PING, b"pongme 2!"),
        Frame(CONTINUATION, b"fragment5"),
    ]
    data = b"".join(map(encode, frames))
    bytewise(socket, data) if slowly else socket.connection.send(data)
    assert socket.frame() == Frame(PONG, b"pongme 1!")
    assert socket.frame() == Frame(PONG, b"pongme 2!")
    assert socket.message() == "".join(f"fragment{i}" for i in range(1, 6))
    closes(socket)


# 6: UTF-8

KOSME = "κόσμε".encode()


def test_6_1_empty_fragments(socket):
    for parts in ([b"", b"", b""], [b"", b"middle frame payload", b""], [b""]):
        socket.fragments(TEXT, *parts)
        assert socket.message() == b"".join(parts).decode()
    closes(socket)


@pytest.mark.parametrize("cuts", ["whole", "in two", "in the middle of a character", "bytewise"])
def test_6_2_valid(socket, cuts):
    data = "Hello-µ@ßöäüàá-UTF-8!!".encode()
    parts = {
        "whole": [data],
        "in two": [data[:12], data[12:]],
        "in the middle of a character": [data[:7], data[7:9], data[9:]],
        "bytewise": [data[i : i + 1] for i in range(len(data))],
    }[cuts]
    socket.fragments(TEXT, *parts)
    assert socket.message() == data.decode()
    closes(socket)


BAD = KOSME + b"\xed\xa0\x80" + b"edited"


@pytest.mark.parametrize("fragmented", [False, True])
def test_6_3_invalid(socket, fragmented):
    parts = [BAD[i : i + 1] for i in range(len(BAD))] if fragmented else [BAD]
    try:
        socket.fragments(TEXT, *parts)
    except ConnectionError:
        # It has not waited for the end.
        pass
    fails(socket, 1007)


@pytest.mark.parametrize(
    "parts",
    [
        [KOSME, b"\xf4\x90\x80\x80", b"edited"],
        [KOSME + b"\xf4", b"\x90", b"\x80\x80edited"],
    ],
)
def test_6_4_fails_fast(socket, parts):
    """A fragment that cannot be the beginning of anything is enough."""
    for part in parts[:2]:
        socket.send(TEXT if part is parts[0] else CONTINUATION, part, fin=False)
    fails(socket, 1007)


def sequences():
    """Sections 6.5 to 6.23: what is valid UTF-8, and what is not."""
    valid = [
        KOSME,
        b"HELLO",
        # First and last of each length.
        b"\x00",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        # Beside surrogates and at the end of Unicode.
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        # Noncharacters are characters here.
        b"\xef\xbf\xbe",
        *[
            chr(0x10000 * plane + low).encode()
            for plane in range(1, 17)
            for low in (0xFFFE, 0xFFFF)
        ],
    ]
    invalid = [
        # Too large.
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        # Continuation bytes without a beginning.
        *[b"\x80\xbf"[:1] + b"\x80\xbf" * n for n in range(4)],
        b"\xbf",
        bytes(range(0x80, 0xC0)),
        # Beginnings without continuation.
        *[
            bytes(byte for first in group for byte in (first, 0x20))
            for group in (
                range(0xC0, 0xE0),
                range(0xE0, 0xF0),
                range(0xF0, 0xF8),
                range(0xF8, 0xFC),
                range(0xFC, 0xFE),
            )
        ],
        # Cut short.
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf4\x8f\xbf",
        KOSME[:-1],
        # Impossible bytes.
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        # Overlong.
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        # Surrogates, alone and in pairs.
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xaf\xbf",
        b"\xed\xb0\x80",
        b"\xed\xbe\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
    ]
    return valid, invalid


VALID, INVALID = sequences()


def test_6_5_to_6_23_valid(socket):
    for data in VALID:
        socket.send(TEXT, data)
        assert socket.message() == data.decode()
        if socket.variant == "compressed":
            socket.text(data.decode())
            assert socket.message() == data.decode()
    closes(socket)


@pytest.mark.parametrize("data", INVALID, ids=bytes.hex)
def test_6_5_to_6_23_invalid(socket, data):
    if socket.variant == "compressed":
        socket.send(TEXT, socket.compressed(data), rsv=4)
    else:
        socket.send(TEXT, data)
    fails(socket, 1007)


# 7: the end


def test_7_1_1_message_then_close(socket):
    socket.text("Hello World!")
    assert socket.message() == "Hello World!"
    closes(socket)


def test_7_1_2_two_closes(socket):
    socket.close()
    socket.close()
    assert socket.closed()[0] == 1000


@pytest.mark.parametrize("opcode", [PING, TEXT])
def test_7_1_3_7_1_4_after_the_close(socket, opcode):
    socket.close()
    socket.send(opcode, b"Hello World!")
    assert socket.closed()[0] == 1000
    with pytest.raises((Truncated, ConnectionError)):
        socket.frame()


def test_7_1_5_close_within_a_message(socket):
    socket.send(TEXT, b"fragment1", fin=False)
    socket.close()
    socket.send(CONTINUATION, b"fragment2")
    assert socket.closed()[0] == 1000


def test_7_1_6_close_behind_much(socket):
    """Messages before the close may still be echoed, or not; the close is answered."""
    size = 256 * 1024
    socket.text("BAsd7&jh23" * (size // 10))
    socket.text("Hello World!")
    socket.close()
    frame = socket.frame()
    while frame.opcode != CLOSE:
        frame = socket.frame()
    assert frame.code == 1000
    assert socket.ended()


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", None),
        (b"a", 1002),
        (close_payload(1000), 1000),
        (close_payload(1000, "Hello World!"), 1000),
        (close_payload(1000, "*" * 123), 1000),
        (close_payload(1000, "*" * 124), 1002),
        (close_payload(1000) + KOSME + b"\xed\xa0\x80", 1007),
    ],
)
def test_7_3_7_5_payloads(socket, payload, code):
    socket.send(CLOSE, payload)
    if code is None:
        # An empty close is answered by one, or by 1000.
        assert socket.closed()[0] in (None, 1000)
    else:
        assert socket.closed()[0] == code
    assert socket.ended()


GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", GOOD_CODES)
def test_7_7_codes(socket, code):
    socket.close(code)
    assert socket.closed()[0] == code
    assert socket.ended()


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535])
def test_7_9_7_13_bad_codes(socket, code):
    socket.close(code)
    assert socket.closed()[0] == 1002
    assert socket.ended()


# 9: large messages, many messages


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [64 << 10, 1 << 20, 8 << 20])
def test_9_1_9_2_large(socket, opcode, size):
    if opcode == TEXT:
        socket.text("*" * size)
    else:
        socket.binary(bytes(size))
    assert len(socket.message()) == size
    closes(socket)


@pytest.mark.parametrize("piece", [64, 1024, 65536, 1 << 20])
def test_9_3_9_4_large_in_fragments(socket, piece):
    size = 256 * piece if piece < 65536 else 4 << 20
    parts = [b"*" * piece] * (size // piece)
    frames = [
        encode(Frame(BINARY if i == 0 else CONTINUATION, part, fin=i == len(parts) - 1))
        for i, part in enumerate(parts)
    ]
    socket.connection.send(b"".join(frames))
    assert len(socket.message()) == size
    closes(socket)


@pytest.mark.parametrize("chop", [64, 512, 2048])
def test_9_5_9_6_large_in_chops(socket, chop):
    data = encode(Frame(BINARY, bytes(256 << 10)))
    for i in range(0, len(data), chop):
        socket.connection.send(data[i : i + chop])
    assert len(socket.message()) == 256 << 10
    closes(socket)


@pytest.mark.parametrize("size", [0, 16, 256, 4096])
def test_9_7_9_8_round_trips(socket, size):
    for _ in range(200):
        socket.text("*" * size)
        assert len(socket.message()) == size
    closes(socket)


# 10: fragments by themselves


def test_10_1_fragments_of_1300(socket):
    data = b"*" * 65536
    socket.fragments(TEXT, *[data[i : i + 1300] for i in range(0, len(data), 1300)])
    assert socket.message() == data.decode()
    closes(socket)


# 12 and 13: compression

TEXTS = {
    "json": '{"name": "value", "list": [1, 2, 3], "text": "the quick brown fox"}\n' * 2000,
    "random": random.Random(12).randbytes(100_000).hex(),
    "words": " ".join(random.Random(13).choices(["alpha", "beta", "gamma", "δέλτα"], k=40_000)),
}
OFFERS = [
    "",
    "client_no_context_takeover",
    "server_no_context_takeover",
    "client_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits; server_max_window_bits=9",
    "client_max_window_bits; server_max_window_bits=15",
    "client_max_window_bits=9; server_no_context_takeover; server_max_window_bits=9",
    "client_max_window_bits=15; client_no_context_takeover; server_max_window_bits=12",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("size", [16, 64, 256, 1024, 4096, 8192, 32768, 131072])
def test_12_13_compressed(server, offer, size):
    """Many messages of each size; with and without a context, whatever the windows."""
    count = 30 if size > 4096 else 100
    with server.websocket("/ws/echo", deflate=offer) as socket:
        assert socket.extension
        for i in range(count):
            text = TEXTS[list(TEXTS)[i % 3]]
            at = i * 17 % max(1, len(text) - size)
            text = text[at : at + size]
            socket.text(text)
            assert socket.message() == text
        closes(socket)


@pytest.mark.parametrize("fragment", [1, 7, 1000])
def test_12_2_compressed_in_fragments(server, fragment):
    """Cut anywhere; only the first frame carries the bit."""
    with server.websocket("/ws/echo", deflate="") as socket:
        for text in (TEXTS["json"][:3000], "", TEXTS["words"][:500]):
            data = socket.compressed(text.encode())
            parts = [data[i : i + fragment] for i in range(0, len(data), fragment)]
            for i, part in enumerate(parts):
                opcode = TEXT if i == 0 else CONTINUATION
                socket.send(opcode, part, fin=i == len(parts) - 1, rsv=0 if i else 4)
                if i == 1:
                    socket.send(PING, b"in between")
            if len(parts) > 1:
                assert socket.frame() == Frame(PONG, b"in between")
            assert socket.message() == text
        closes(socket)


def test_12_blocks_of_all_kinds(server):
    """Stored blocks, fixed codes, final blocks: whatever DEFLATE has."""
    with server.websocket("/ws/echo", deflate="client_no_context_takeover") as socket:
        for level, strategy in [(0, zlib.Z_DEFAULT_STRATEGY), (9, zlib.Z_FIXED), (6, zlib.Z_RLE)]:
            packer = zlib.compressobj(level, wbits=-15, strategy=strategy)
            data = packer.compress(TEXTS["json"][:5000].encode())
            data += packer.flush(zlib.Z_SYNC_FLUSH)
            socket.send(TEXT, data[:-4], rsv=4)
            assert socket.message() == TEXTS["json"][:5000]
        # A final block, as RFC 7692 (7.2.3.4) has it.
        packer = zlib.compressobj(6, wbits=-15)
        data = packer.compress(b"Hello") + packer.flush(zlib.Z_FINISH)
        socket.send(TEXT, data + b"\x00", rsv=4)
        assert socket.message() == "Hello"
        closes(socket)


@pytest.mark.parametrize("where", ["continuation", "ping"])
def test_13_bit_where_it_may_not_be(server, where):
    with server.websocket("/ws/echo", deflate="") as socket:
        if where == "ping":
            socket.send(PING, b"x", rsv=4)
        else:
            data = socket.compressed(b"Hello, hello, hello")
            socket.send(TEXT, data[:4], fin=False, rsv=4)
            socket.send(CONTINUATION, data[4:], rsv=4)
        fails(socket, 1002)


def test_handshakes_are_independent(server):
    """Each connection has a context of its own."""
    one = server.websocket("/ws/echo", deflate="")
    two = server.websocket("/ws/echo", deflate="")
    for i in range(20):
        for socket in (one, two):
            socket.text(f"message {i}")
        assert one.message() == two.message() == f"message {i}"
    closes(one)
    closes(two)
