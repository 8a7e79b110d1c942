"""Conforming answers of every kind; ``validated`` is the same behind wsgiref's validator."""

import gc
import os
import sys
from wsgiref.validate import validator

import support

TEXT = [("Content-Type", "text/plain")]


class Body:
    """An iterable that notes every call of ``close`` in a file."""

    def __init__(self, items, path=None):
        self.items = iter(items)
        self.path = path

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def close(self):
        if self.path:
            support.note(self.path, "closed")


def hello(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "13")])
    return [b"Hello, world\n"]


def listing(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"one,", b"", b"two,", b"three"]


def tupled(environ, start_response):
    start_response("200 OK", TEXT)
    return (b"one,", b"two")


def generator(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"one,"
    yield b""
    yield b"two"


def late_generator(environ, start_response):
    """``start_response`` is called with the first item only."""
    yield b""
    start_response("202 Late", TEXT)
    yield b"late"


def iterator(environ, start_response):
    start_response("200 OK", TEXT)
    return Body([b"one,", b"two"])


def empty_list(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Empty", "list")])
    return []


def empty_generator(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Empty", "generator")])
    return
    yield


def empty_items(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Empty", "items")])
    return [b"", b""]


def writing(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"one,")
    write(b"two,")
    return [b"three,", b"four"]


def only_writing(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"written")
    return []


def writing_with_length(environ, start_response):
    write = start_response("200 OK", [*TEXT, ("Content-Length", "6")])
    write(b"one")
    return [b"two"]


def large(environ, start_response):
    """A body of ``size`` bytes, in pieces of ``piece``, with or without a length."""
    query = support.query(environ)
    size, piece = int(query["size"]), int(query["piece"])
    headers = [*TEXT]
    if query.get("length"):
        headers.append(("Content-Length", str(size)))
    start_response("200 OK", headers)
    starts = enumerate(range(0, size, piece))
    pieces = [bytes([65 + i % 26]) * min(piece, size - at) for i, at in starts]
    return pieces if query.get("list") else iter(pieces)


def sized(environ, start_response):
    """``size`` bytes in pieces, made one at a time; with a length unless ``chunked``."""
    query = support.query(environ)
    size, piece = int(query["size"]), int(query["piece"])
    length = [] if query.get("chunked") else [("Content-Length", str(size))]
    start_response("200 OK", [*TEXT, *length])
    block = b"d" * piece
    return (block for _ in range(size // piece))


def headers(environ, start_response):
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=UTF-8"),
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2; Expires=Thu, 01 Jan 2032 00:00:00 GMT"),
            ("X-Twice", "1"),
            ("X-Twice", "2"),
            ("X-Latin", "gr\xfc\xdfe"),
            ("X-Empty", ""),
            ("x-lower", "3"),
            ("Last-Modified", "Thu, 01 Jan 2004 00:00:00 GMT"),
            ("ETag", '"tag"'),
            ("Cache-Control", "no-cache, private"),
            ("Link", "</style.css>; rel=preload"),
            ("Date", "Thu, 01 Jan 2004 00:00:00 GMT"),
            ("Server", "mine"),
        ],
    )
    return [b"headers"]


def many_headers(environ, start_response):
    fields = [(f"X-Header-{i}", f"value {i}") for i in range(100)]
    start_response("200 OK", [*TEXT, ("X-Long", "x" * 30000), *fields])
    return [b"many"]


def long_header(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Long", "x" * int(support.query(environ)["size"]))])
    return [b"long"]


def status(environ, start_response):
    """The status line that the query asks for."""
    start_response(support.query(environ)["line"], [*TEXT, ("Content-Length", "6")])
    return [b"status"]


def bodiless(environ, start_response):
    """204 and 304 as they should be."""
    start_response(support.query(environ)["line"], [("X-Bodiless", "1")])
    return []


def unauthorized(environ, start_response):
    return support.answer(
        start_response,
        "login",
        status="401 Unauthorized",
        headers=[("WWW-Authenticate", 'Basic realm="a"'), ("WWW-Authenticate", "Bearer")],
    )


def not_found(environ, start_response):
    return support.answer(start_response, "my own 404", status="404 Not Found")


def redirect(environ, start_response):
    return support.answer(
        start_response, "", status="302 Found", headers=[("Location", "/elsewhere?x=1")]
    )


def location_200(environ, start_response):
    return support.answer(start_response, "mine", headers=[("Location", "/raw/hello")])


def status_header(environ, start_response):
    return support.answer(start_response, "mine", headers=[("Status", "404 Not Found")])


def compressible(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/x-compress"), ("Content-Length", "10000")])
    return [b"x" * 10000]


def head_with_length(environ, start_response):
    """What frameworks do for HEAD: the length of the body that GET would have."""
    start_response("200 OK", [*TEXT, ("Content-Length", "12345")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"x" * 12345]


def closing(environ, start_response):
    """Notes its ``close`` calls in ``file``."""
    start_response("200 OK", TEXT)
    return Body([b"one,", b"two"], support.query(environ)["file"])


def closing_without_body(environ, start_response):
    start_response("304 Not Modified", [])
    return Body([], support.query(environ)["file"])


def replaced(environ, start_response):
    """A second start_response with exc_info before anything was sent."""
    start_response("200 OK", [*TEXT, ("X-Old", "1")])
    try:
        raise ValueError("boom")
    except ValueError:
        start_response("409 Replaced", [*TEXT, ("X-New", "1")], sys.exc_info())
    return [b"replaced"]


def streaming(environ, start_response):
    """Each item waits for the gate of the test; ``write=1`` uses the write callable."""
    query = support.query(environ)
    length = [("Content-Length", str(2 * int(query["count"])))] if query.get("length") else []
    write = start_response("200 OK", [*TEXT, *length])
    if query.get("write"):
        for i in range(int(query["count"])):
            support.wait(query["gate"])
            write(b"%d\n" % i)
        return []

    def items():
        for i in range(int(query["count"])):
            support.wait(query["gate"])
            yield b"%d\n" % i

    return items()


def streaming_empty(environ, start_response):
    """Notes when it was asked for the item after an empty one, then waits."""
    query = support.query(environ)
    start_response("200 OK", TEXT)

    def items():
        yield b""
        support.note(query["file"], "asked again")
        support.wait(query["gate"])
        yield b"done"

    return items()


def endless(environ, start_response):
    """Until the client goes; notes the end."""
    query = support.query(environ)
    start_response("200 OK", TEXT)

    def items():
        while True:
            yield b"x" * 10000

    return Body(items(), query["file"])


def endless_writing(environ, start_response):
    """``write`` must raise OSError once the client has gone."""
    query = support.query(environ)
    write = start_response("200 OK", TEXT)
    try:
        while True:
            write(b"x" * 10000)
    except OSError:
        support.note(query["file"], "OSError")
    return []


def collect(environ, start_response):
    """Collects garbage: whatever the validator has to complain about, it says now."""
    gc.collect()
    return support.answer(start_response, str(os.getpid()))


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


validated = validator(application)
