"""HTTP/2 frame by frame (with the ``h2`` package), and WebSockets in its streams (RFC 8441)."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from .client import Truncated
from .websocket import WebSocket


@dataclass
class Stream:
    """One request and what has come for it; ``send`` and ``read_exactly`` make it a connection."""

    connection: Http2
    number: int
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    def header(self, name: str) -> str | None:
        """The first header field of that name."""
        return next((value for field, value in self.headers if field == name.lower()), None)

    def send(self, data: bytes, end: bool = False) -> None:
        """Sends bytes of the request, as the windows allow."""
        self.connection.send_data(self, data, end)

    def read_exactly(self, count: int) -> bytes:
        """So many bytes of the response."""
        while len(self.body) < count:
            if self.over:
                raise Truncated(f"the stream ended after {len(self.body)} of {count} bytes")
            self.connection.turn()
        data, self.body = self.body[:count], self.body[count:]
        return data

    def read_head(self) -> Stream:
        """Waits for the status."""
        while not self.status and not self.over:
            self.connection.turn()
        return self

    def read_response(self) -> Stream:
        """Waits for the end; raises :class:`Truncated` if the stream was reset instead."""
        while not self.over:
            self.connection.turn()
        if self.reset is not None:
            raise Truncated(f"reset with {self.reset}")
        return self

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.ended or self.reset is not None

    def at_end(self) -> bool:
        """Whether the server has ended the stream; waits for one or the other."""
        while not self.body and not self.over:
            self.connection.turn()
        return not self.body

    def cancel(self) -> None:
        """Resets the stream."""
        self.connection.state.reset_stream(self.number, ErrorCodes.CANCEL)
        self.connection.flush()

    def close(self) -> None:
        """Ends the connection, with all its streams."""
        self.connection.close()


class Http2:
    """A connection: with prior knowledge, or with ALPN where ``tls``."""

    def __init__(self, port: int, tls: bool = False, timeout: float = 20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.scheme = "https" if tls else "http"
        self.authority = f"localhost:{port}"
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
        configuration = H2Configuration(client_side=True, validate_outbound_headers=False)
        self.state = H2Connection(configuration)
        self.state.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()

    def begin(self, path: str, method="GET", headers=(), end=True, **pseudo: str) -> Stream:
        """Sends the head of a request; ``pseudo`` are further pseudo header fields."""
        fields = [
            (":method", method),
            (":scheme", self.scheme),
            (":authority", self.authority),
            (":path", path),
            *((f":{name}", value) for name, value in pseudo.items()),
            *(headers.items() if isinstance(headers, dict) else headers),
        ]
        stream = Stream(self, self.state.get_next_available_stream_id())
        self.streams[stream.number] = stream
        self.state.send_headers(stream.number, fields, end_stream=end)
        self.flush()
        return stream

    def request(self, path: str, body: bytes | None = None, **options) -> Stream:
        """One whole exchange."""
        stream = self.begin(path, end=body is None, **options)
        if body is not None:
            stream.send(body, end=True)
        return stream.read_response()

    def websocket(self, path: str, headers=()) -> WebSocket:
        """A WebSocket in a stream; the server must offer that."""
        stream = self.connect_websocket(path, headers)
        assert stream.status == 200, stream
        socket = WebSocket(stream)
        socket.agree(stream.header("sec-websocket-extensions") or "")
        return socket

    def connect_websocket(self, path: str, headers=()) -> Stream:
        """The handshake of a WebSocket, whatever comes of it."""
        while SettingCodes.ENABLE_CONNECT_PROTOCOL not in self.state.remote_settings:
            self.turn()
        fields = [("sec-websocket-version", "13"), *dict(headers).items()]
        stream = self.begin(path, "CONNECT", fields, end=False, protocol="websocket")
        return stream.read_head()

    def send_data(self, stream: Stream, data: bytes, end: bool) -> None:
        """Sends bytes in a stream, waiting for the windows."""
        while data:
            room = self.state.local_flow_control_window(stream.number)
            room = min(room, self.state.max_outbound_frame_size, len(data))
            if room == 0:
                self.turn()
                continue
            self.state.send_data(stream.number, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.state.end_stream(stream.number)
            self.flush()

    def flush(self) -> None:
        """Sends what is to be sent."""
        self.socket.sendall(self.state.data_to_send())

    def turn(self) -> None:
        """Waits for bytes of the server, and notes what they mean."""
        data = self.socket.recv(65536)
        if not data:
            for stream in self.streams.values():
                stream.reset = stream.reset if stream.over else -1
            return
        for event in self.state.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
            if isinstance(event, ConnectionTerminated):
                for stream in self.streams.values():
                    if stream.number > (event.last_stream_id or 0) and not stream.over:
                        stream.reset = int(event.error_code)
            elif stream is not None:
                self._note(stream, event)
        self.flush()

    def _note(self, stream, event):
        if isinstance(event, ResponseReceived):
            stream.headers = _decoded(event.headers)
            stream.status = int(stream.header(":status"))
        elif isinstance(event, InformationalResponseReceived):
            fields = dict(_decoded(event.headers))
            stream.interim.append((int(fields.pop(":status")), fields))
        elif isinstance(event, DataReceived):
            stream.body += event.data
            self.state.acknowledge_received_data(event.flow_controlled_length, stream.number)
        elif isinstance(event, TrailersReceived):
            stream.trailers = dict(_decoded(event.headers))
        elif isinstance(event, StreamEnded):
            stream.ended = True
        elif isinstance(event, StreamReset):
            stream.reset = int(event.error_code)


def _decoded(headers):
    return [
        tuple(part.decode("latin-1") if isinstance(part, bytes) else part for part in field)
        for field in headers
    ]
