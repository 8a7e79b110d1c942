"""The wire and the control messages of daemon mode, as the Rust sources define them, for tests."""

import array
import socket
import struct
from dataclasses import dataclass, field

VERSION = 3
REQUEST, BODY, BODY_FAILED = 1, 2, 3
READ, REPLY, DATA, FILE, STATUS, LOG, GOAWAY, RETRY, INTERIM, SWITCH = range(16, 26)
WSGI, ASGI, AUTO = range(3)
LIFESPAN_AUTO, LIFESPAN_ON, LIFESPAN_OFF = range(3)
END, CLOSE, BAD, FLUSH, GRANT_DONE = 1, 2, 4, 8, 16
DRAINING, OTHER_VERSION, QUEUE_TIMEOUT, MALFORMED, FORBIDDEN = range(5)

RELOADING, KEEP, IGNORE_ACTIVITY = 2, 4, 8
CALLABLE_IS_DEFAULT, WEBSOCKET, COMPRESSION = 32, 64, 128
HEADER = struct.Struct("<IBBH")
ABSENT = 0xFFFFFFFF


def frame(kind, payload=b"", flags=0, aux=0):
    return HEADER.pack(len(payload), kind, flags, aux) + payload


def request(
    script,
    path="/",
    method="GET",
    body=b"",
    complete=True,
    headers=(),
    variables=(),
    group="",
    mtime_us=None,
    bits=RELOADING | KEEP,
    request_time_us=1_700_000_000_000_000,
    accept_time_us=1_700_000_000_500_000,
    server_pid=4711,
    request_id=b"the-request-id",
    version=VERSION,
    log_level=8,
    connects=1,
    restarts=0,
    interface=WSGI,
    lifespan=LIFESPAN_AUTO,
    ping_s=20,
    queue=32,
    max_message=16 << 20,
):
    """A whole REQUEST frame."""
    script = str(script).encode()
    if mtime_us is None:
        mtime_us = modification_time(script)
    method, path, group = (text.encode() for text in (method, path, group))
    texts = [method, path, b"", path, b"", b"HTTP/1.1", b"192.0.2.7", request_id, None, None]
    site = [b"Apache", b"localhost", b"127.0.0.1", b"80", None, b"/srv", b"", b"/srv"]
    site += [b"http", script, b"test", group, b"application", b"wsgi-script", b"", b"80"]
    site += [script, script]

    def length(text):
        return struct.pack("<I", ABSENT if text is None else len(text))

    payload = struct.pack(
        "<qqqIHBBBHH",
        *(request_time_us, accept_time_us, mtime_us),
        *(server_pid, 40000, bits, 0, log_level, connects, restarts),
    )
    payload += struct.pack("<BBHHI", interface, lifespan, ping_s, queue, max_message)
    payload += struct.pack("<HH", len(headers), len(variables))
    payload += b"".join(map(length, texts)) + struct.pack("<I", len(body))
    payload += b"".join(map(length, site))
    payload += b"".join(text for text in site + texts if text is not None)
    for name, value in [*headers, *variables]:
        name, value = name.encode("latin-1"), value.encode("latin-1")
        payload += struct.pack("<II", len(name), len(value)) + name + value
    return frame(REQUEST, payload + body, END if complete else 0, version)


def modification_time(path):
    import os

    return os.stat(path).st_mtime_ns // 1000


@dataclass
class Frame:
    kind: int
    flags: int
    aux: int
    payload: bytes
    descriptors: list = field(default_factory=list)


@dataclass
class Answer:
    """All that came for one request."""

    status: int = 0
    line: str = ""
    headers: list = field(default_factory=list)
    content_length: int = -1
    body: bytes = b""
    error: int = 0
    retry: int = -1
    log: list = field(default_factory=list)
    files: list = field(default_factory=list)
    flags: int = 0
    load: int = -1
    frames: list = field(default_factory=list)
    eof: bool = False
    reset: bool = False

    @property
    def log_text(self):
        return "\n".join(line for _, line in self.log)


class Client:
    """One connection, as an httpd child has it."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer = b""
        self.descriptors = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        room = socket.CMSG_SPACE(4)
        data, control, _, _ = self.socket.recvmsg(1 << 20, room)
        for level, kind, payload in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self.descriptors += array.array("i", payload)
        if not data:
            raise EOFError
        self.buffer += data

    def frame(self):
        """The next frame; EOFError at the end."""
        while len(self.buffer) < HEADER.size:
            self._more()
        length, kind, flags, aux = HEADER.unpack_from(self.buffer)
        end = HEADER.size + length
        while len(self.buffer) < end:
            self._more()
        payload, self.buffer = self.buffer[HEADER.size : end], self.buffer[end:]
        descriptors = [self.descriptors.pop(0)] if kind == FILE else []
        return Frame(kind, flags, aux, payload, descriptors)

    def answer(self, body=None):
        """Reads to the end of the reply; `body(wanted, limit)` gives what answers a READ."""
        answer = Answer()
        while True:
            try:
                got = self.frame()
            except EOFError:
                answer.eof = True
                return answer
            except ConnectionResetError:
                answer.reset = True
                return answer
            answer.frames.append(got)
            if got.kind == REPLY:
                self._head(answer, got.payload)
            elif got.kind == DATA:
                answer.body += got.payload
            elif got.kind == FILE:
                answer.files.append((*got.descriptors, *struct.unpack("<QQ", got.payload)))
            elif got.kind == STATUS:
                answer.error = got.aux
            elif got.kind == LOG:
                answer.log.append((got.aux, got.payload.decode(errors="replace")))
            elif got.kind == READ:
                self.send(body(*struct.unpack("<II", got.payload)))
            elif got.kind == RETRY:
                answer.retry = got.aux
                return answer
            elif got.kind == GOAWAY:
                answer.retry = -2
                return answer
            if got.kind in (REPLY, DATA, FILE, STATUS) and got.flags & END:
                answer.flags, answer.load = got.flags, got.aux
                return answer

    @staticmethod
    def _head(answer, payload):
        status, count, length, _, line = struct.unpack_from("<HHqII", payload)
        at = 20
        answer.status, answer.content_length = status, length
        answer.line = payload[at : at + line].decode("latin-1")
        at += line
        for _ in range(count):
            name, value = struct.unpack_from("<II", payload, at)
            at += 8
            pair = payload[at : at + name], payload[at + name : at + name + value]
            answer.headers.append(tuple(text.decode("latin-1") for text in pair))
            at += name + value
        answer.body += payload[at:]

    def get(self, script, **options):
        body = options.pop("answer_reads", None)
        self.send(request(script, **options))
        return self.answer(body)


# Control messages.


def _texts(data):
    texts = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        texts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return texts


def from_worker(packet):
    """A tuple: the message's name, then its fields."""
    kind, rest = packet[0], packet[1:]
    if kind == 1:
        return "Ready", *struct.unpack("<I", rest)
    if kind == 2:
        texts = _texts(rest[1:])
        script = (texts[0].decode(), texts[1].decode()) if rest[0] else None
        return "Failed", script, texts[-1].decode()
    if kind == 3:
        return "Loaded", *(text.decode() for text in _texts(rest))
    if kind == 4:
        texts = [text.decode() for text in _texts(rest[:-8])]
        return "Stale", *texts, *struct.unpack("<q", rest[-8:])
    if kind in (5, 6):
        return ("Retire", "Paused")[kind - 5], rest[0]
    if kind == 7:
        return ("Drained",)
    if kind == 8:
        return "Log", rest[0], _texts(rest[1:])[0].decode()
    raise ValueError(packet)


GO = b"\x01"
DUMP_ALL = b"\x06"
FORK = b"\x07"


def drain(reason=0):
    return bytes([2, reason])


def _text(value):
    value = value.encode()
    return struct.pack("<I", len(value)) + value


def stays_old(group, script, mtime_us, retry_ms):
    return b"\x03" + _text(group) + _text(str(script)) + struct.pack("<qI", mtime_us, retry_ms)


def interrupt(row, number):
    return b"\x04" + struct.pack("<HI", row, number)


def dump_request(row, number):
    return b"\x05" + struct.pack("<HI", row, number)
