"""Just enough of HTTP/2, in clear text, for WebSockets over it (RFC 8441)."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE, ENABLE_CONNECT_PROTOCOL = 4, 8


def literal(name: str, value: str) -> bytes:
    """A header field that is in no table, without Huffman coding."""
    name, value = name.encode(), value.encode()
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Stream:
    """One connection with one stream: a WebSocket."""

    def __init__(self, port: int, path: str, timeout: float = 20, window: int = 1 << 20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.buffer = b""
        self.data = b""
        self.ended = False
        self.reset = None
        settings = struct.pack("!HI", INITIAL_WINDOW_SIZE, window)
        self.socket.sendall(PREFACE + self.frame(SETTINGS, settings))
        self.connects = False
        while not self.connects:
            self.take()
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":path", path),
            (":authority", f"localhost:{port}"),
            ("sec-websocket-version", "13"),
        ]
        block = b"".join(literal(*field) for field in fields)
        self.socket.sendall(self.frame(HEADERS, block, END_HEADERS, 1))
        self.status = None
        while self.status is None:
            self.take()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    @staticmethod
    def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
        return (
            struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload
        )

    def send(self, data: bytes, end: bool = False) -> None:
        """Sends bytes; there is no look at the server's window."""
        while True:
            now, data = data[:16000], data[16000:]
            flags = END_STREAM if end and not data else 0
            self.socket.sendall(self.frame(DATA, now, flags, 1))
            if not data:
                return

    def abandon(self) -> None:
        """Resets the stream."""
        self.socket.sendall(self.frame(RST_STREAM, struct.pack("!I", 8), 0, 1))

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            assert data, "the connection has ended"
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def take(self) -> None:
        """Takes one frame."""
        head = self._exactly(9)
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        payload = self._exactly(length)
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, length, 6):
                name, value = struct.unpack_from("!HI", payload, at)
                self.connects |= name == ENABLE_CONNECT_PROTOCOL and value == 1
            self.socket.sendall(self.frame(SETTINGS, b"", ACK))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(self.frame(PING, payload, ACK))
        elif kind == HEADERS:
            # 200 has a place in the static table; other codes come as text.
            self.status = 200 if payload[:1] == b"\x88" else 0
            self.ended |= bool(flags & END_STREAM)
        elif kind == DATA:
            self.data += payload
            self.ended |= bool(flags & END_STREAM)
            if payload:
                update = struct.pack("!I", length)
                self.socket.sendall(
                    self.frame(WINDOW_UPDATE, update, 0, 0)
                    + self.frame(WINDOW_UPDATE, update, 0, stream)
                )
        elif kind == RST_STREAM:
            self.reset = struct.unpack("!I", payload)[0]
            self.ended = True

    def read_exactly(self, count: int) -> bytes:
        """So many bytes of the WebSocket."""
        while len(self.data) < count:
            assert not self.ended, f"the stream has ended after {self.data!r}"
            self.take()
        data, self.data = self.data[:count], self.data[count:]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the server ends the stream."""
        while not self.ended:
            self.take()
        data, self.data = self.data, b""
        return data
