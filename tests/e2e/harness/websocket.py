"""WebSockets (RFC 6455) over a raw socket: exact frames out, exact frames in.

The client itself checks nothing that it is not asked for, and it will send whatever a test wants,
right or wrong. Tests of ordinary behaviour use the ``websockets`` package instead.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass

from .client import Connection, Response, Truncated

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: What ends the data of a compressed message, and is not sent (RFC 7692, 7.2.1).
TAIL = b"\x00\x00\xff\xff"


@dataclass
class Frame:
    """One frame."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int | None:
        """The code of a close frame, None if it has none."""
        assert self.opcode == CLOSE, f"{self} is no close frame"
        return struct.unpack_from("!H", self.payload)[0] if self.payload else None

    @property
    def reason(self) -> str:
        """The reason of a close frame."""
        return self.payload[2:].decode("utf-8")


def encode(frame: Frame, mask: bool = True) -> bytes:
    """A frame as a client sends it."""
    head = bytes([frame.fin << 7 | frame.rsv << 4 | frame.opcode])
    size, masked = len(frame.payload), mask << 7
    if size < 126:
        head += bytes([masked | size])
    elif size < 65536:
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + frame.payload
    key = os.urandom(4)
    return head + key + masked_with(key, frame.payload)


def masked_with(key: bytes, data: bytes) -> bytes:
    """``data`` with the mask on it, or off it."""
    if not data:
        return data
    pad = (key * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(len(data), "big")


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame holds."""
    return struct.pack("!H", code) + reason.encode("utf-8")


class WebSocket:
    """A WebSocket on ``connection``, or on anything else with its ``send`` and ``read_exactly``.

    ``deflate`` names the parameters of permessage-deflate to offer; an empty text offers it without
    any, None does not offer it.
    """

    def __init__(self, connection: Connection):
        self.connection = connection
        self.response: Response | None = None
        self.compress = None
        self.decompress = None
        self.extension = ""

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_) -> None:
        self.connection.close()

    # The handshake

    def ask(self, path: str, headers=(), deflate: str | None = None, without=()) -> Response:
        """Sends the handshake and reads the head of the answer, whatever it is."""
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        if deflate is not None:
            offer = f"permessage-deflate; {deflate}" if deflate else "permessage-deflate"
            fields["Sec-WebSocket-Extensions"] = offer
        fields.update(headers)
        for name in without:
            del fields[name]
        self.connection.request(path, headers=fields)
        self.response = self.connection.read_head()
        if self.response.status == 101:
            wanted = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
            assert self.response.header("Sec-WebSocket-Accept") == wanted
            self.agree(self.response.header("Sec-WebSocket-Extensions") or "")
        return self.response

    def open(self, path: str, headers=(), deflate: str | None = None) -> WebSocket:
        """A handshake that must succeed."""
        response = self.ask(path, headers, deflate)
        if response.status != 101:
            body = self.connection.read_body(response)
            raise AssertionError(f"{path}: {response.status} {body[:2000]!r}")
        assert (response.header("Upgrade") or "").lower() == "websocket"
        assert (response.header("Connection") or "").lower() == "upgrade"
        assert response.header("Content-Length") is None
        assert response.header("Transfer-Encoding") is None
        return self

    def agree(self, extension: str) -> None:
        """Takes up the extension that the server has chosen."""
        self.extension = extension
        if not extension:
            return
        name, *parameters = [part.strip() for part in extension.split(";")]
        assert name == "permessage-deflate", extension
        chosen = dict(part.partition("=")[::2] for part in parameters)
        bits = int(chosen.get("client_max_window_bits") or 15)
        # zlib does not know a raw window of 8 bits.
        self._client = lambda: zlib.compressobj(wbits=-max(bits, 9))
        self.compress = self._client()
        self.decompress = zlib.decompressobj(wbits=-15)
        self._fresh = "client_no_context_takeover" in chosen
        self._fresh_server = "server_no_context_takeover" in chosen

    # Sending

    def send(self, opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, mask=True):
        """Sends one frame as it is."""
        self.connection.send(encode(Frame(opcode, payload, fin, rsv), mask))

    def text(self, text: str) -> None:
        """Sends a text message, compressed where that was agreed on."""
        self._message(TEXT, text.encode("utf-8"))

    def binary(self, data: bytes) -> None:
        """Sends a binary message, compressed where that was agreed on."""
        self._message(BINARY, data)

    def fragments(self, opcode: int, *parts: bytes) -> None:
        """Sends a message in so many frames."""
        for i, part in enumerate(parts):
            self.send(opcode if i == 0 else CONTINUATION, part, fin=i == len(parts) - 1)

    def compressed(self, data: bytes) -> bytes:
        """The payload of a message, compressed."""
        if self._fresh:
            self.compress = self._client()
        packed = self.compress.compress(data) + self.compress.flush(zlib.Z_SYNC_FLUSH)
        return packed[: -len(TAIL)]

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Sends a close frame."""
        self.send(CLOSE, b"" if code is None else close_payload(code, reason))

    def _message(self, opcode, data):
        if self.compress:
            self.send(opcode, self.compressed(data), rsv=4)
        else:
            self.send(opcode, data)

    # Receiving

    def frame(self) -> Frame:
        """The next frame; a server masks none."""
        first, second = self.connection.read_exactly(2)
        assert not second & 0x80, "a server must not mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.connection.read_exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.connection.read_exactly(8))
        payload = self.connection.read_exactly(size)
        return Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7)

    def message(self) -> str | bytes:
        """The next message, put together and unpacked; pings are answered on the way."""
        whole, kind, packed = [], None, False
        while True:
            frame = self.frame()
            if frame.opcode == PING:
                self.send(PONG, frame.payload)
                continue
            if frame.opcode == CLOSE:
                raise AssertionError(f"closed: {frame.code} {frame.reason!r}")
            assert frame.opcode in (CONTINUATION, TEXT, BINARY), frame
            assert (frame.opcode == CONTINUATION) == (kind is not None), frame
            if kind is None:
                kind, packed = frame.opcode, bool(frame.rsv & 4)
                assert not packed or self.decompress, "compressed without agreement"
            whole.append(frame.payload)
            if frame.fin:
                break
        data = b"".join(whole)
        if packed:
            if self._fresh_server:
                self.decompress = zlib.decompressobj(wbits=-15)
            data = self.decompress.decompress(data + TAIL)
        return data.decode("utf-8") if kind == TEXT else data

    def closed(self) -> tuple[int | None, str]:
        """Code and reason of the close frame, which must be the next one but for pings."""
        frame = self.frame()
        while frame.opcode in (PING, PONG):
            frame = self.frame()
        assert frame.opcode == CLOSE, frame
        return frame.code, frame.reason

    def ended(self) -> bool:
        """Whether the server ends the connection, without any byte more."""
        return self.connection.at_end()

    def dropped(self) -> int | None:
        """How the server ends the connection: the code of its close frame, or None if it sends none
        (which RFC 6455 allows where it has failed the connection); other frames are skipped."""
        code = None
        try:
            while True:
                frame = self.frame()
                if frame.opcode == CLOSE:
                    code = frame.code
        except (Truncated, ConnectionError):
            return code
