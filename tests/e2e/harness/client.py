"""HTTP/1.1 over a raw socket: exact bytes out, exact bytes in, one chunk at a time."""

from __future__ import annotations

import json
import socket
import ssl
from dataclasses import dataclass, field


class Truncated(Exception):
    """The connection ended in the middle of a message."""


@dataclass
class Response:
    """One response."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The first header field of that name."""
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """All header fields of that name."""
        return [value for field, value in self.headers if field.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)


class Connection:
    """A connection to the server. Every wait is bounded by ``timeout``; ``source`` is the address
    that the server sees."""

    def __init__(
        self, port: int, tls: bool = False, timeout: float = 20, source: str = "127.0.0.1"
    ):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.port = port
        self.buffer = b""
        self.method = "GET"

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Closes the connection with a RST instead of a FIN."""
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )
        self.socket.close()

    # Sending

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def request(
        self,
        target: str,
        method: str = "GET",
        headers: list[tuple[str, str]] | dict[str, str] = (),
        body: bytes | None = None,
        version: str = "HTTP/1.1",
        host: str | None = "localhost:{port}",
    ) -> None:
        """Sends a request; a body gets its Content-Length unless ``headers`` frame it."""
        fields = list(headers.items() if isinstance(headers, dict) else headers)
        names = {name.lower() for name, _ in fields}
        if host is not None and "host" not in names:
            fields.insert(0, ("Host", host.format(port=self.port)))
        if body is not None and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        head = f"{method} {target} {version}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
        self.method = method
        self.send(head.encode("latin-1") + (body or b""))

    def send_chunk(self, data: bytes) -> None:
        """Sends one chunk of a chunked body; an empty one ends it."""
        end = b"\r\n" if not data else data + b"\r\n"
        self.send(b"%x\r\n" % len(data) + end)

    # Receiving

    def _fill(self) -> bool:
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def read_line(self) -> bytes:
        """A line without its end."""
        while b"\n" not in self.buffer:
            if not self._fill():
                raise Truncated(f"end of connection within a line: {self.buffer!r}")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def read_exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < count:
            if not self._fill():
                raise Truncated(f"end of connection after {len(self.buffer)} of {count} bytes")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_discarding(self, count: int) -> None:
        """Reads so many bytes and forgets them."""
        count -= len(self.buffer)
        if count < 0:
            self.buffer = self.buffer[count:]
            return
        self.buffer = b""
        while count:
            data = self.socket.recv(min(count, 1 << 20))
            if not data:
                raise Truncated(f"end of connection, {count} bytes missing")
            count -= len(data)

    def read_to_end(self) -> bytes:
        """Everything until the server closes the connection."""
        while self._fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def read_head(self) -> Response:
        """Status line and header fields; interim responses are noted and skipped."""
        interim: list[int] = []
        while True:
            first = self.read_line().decode("latin-1")
            version, _, rest = first.partition(" ")
            if not version.startswith("HTTP/"):
                raise AssertionError(f"no status line: {first!r}")
            code, _, reason = rest.partition(" ")
            headers = []
            while line := self.read_line().decode("latin-1"):
                name, _, value = line.partition(":")
                headers.append((name, value.strip()))
            if int(code) >= 200 or int(code) == 101:
                return Response(version, int(code), reason, headers, interim=interim)
            interim.append(int(code))

    def read_chunk(self) -> bytes:
        """One chunk of a chunked body, empty for the last one."""
        size = int(self.read_line().partition(b";")[0], 16)
        data = self.read_exactly(size)
        if size == 0:
            while self.read_line():
                pass
        else:
            self.read_line()
        return data

    def read_body(self, response: Response) -> bytes:
        """The body that belongs to ``response``; raises :class:`Truncated` if it is cut short."""
        if self.method == "HEAD" or response.status in (204, 304):
            return b""
        if "chunked" in (response.header("Transfer-Encoding") or ""):
            parts = []
            while chunk := self.read_chunk():
                parts.append(chunk)
            return b"".join(parts)
        length = response.header("Content-Length")
        if length is not None:
            return self.read_exactly(int(length))
        return self.read_to_end()

    def read_response(self) -> Response:
        """A whole response."""
        response = self.read_head()
        response.body = self.read_body(response)
        return response

    def at_end(self) -> bool:
        """Whether the server has closed the connection; waits for one or the other."""
        if self.buffer:
            return False
        try:
            return not self._fill()
        except ConnectionResetError:
            return True
