"""Everything that an application must not do, and what the server makes of it."""

import sys

import support

TEXT = [("Content-Type", "text/plain")]


class Closing:
    """An iterable over ``items``; an exception among them is raised. ``close`` is noted."""

    def __init__(self, items, path=None, failing=False):
        self.items = iter(items)
        self.path = path
        self.failing = failing

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self):
        if self.path:
            support.note(self.path, "closed")
        if self.failing:
            raise ValueError("close failed")


# What start_response gets, by name; evaluated with `start`.
CALLS = {
    "status-int": lambda start: start(200, TEXT),
    "status-bytes": lambda start: start(b"200 OK", TEXT),
    "status-none": lambda start: start(None, TEXT),
    "status-empty": lambda start: start("", TEXT),
    "status-word": lambda start: start("OK", TEXT),
    "status-two-digits": lambda start: start("20 OK", TEXT),
    "status-four-digits": lambda start: start("2000 OK", TEXT),
    "status-no-space": lambda start: start("200OK", TEXT),
    "status-tab": lambda start: start("200\tOK", TEXT),
    "status-newline": lambda start: start("200 OK\r\nX-Evil: 1", TEXT),
    "status-nul": lambda start: start("200 O\0K", TEXT),
    "status-not-latin": lambda start: start("200 \u20ac", TEXT),
    "status-interim": lambda start: start("100 Continue", TEXT),
    "status-switching": lambda start: start("101 Switching Protocols", TEXT),
    "headers-tuple": lambda start: start("200 OK", tuple(TEXT)),
    "headers-none": lambda start: start("200 OK", None),
    "headers-dict": lambda start: start("200 OK", {"Content-Type": "text/plain"}),
    "header-list": lambda start: start("200 OK", [["Content-Type", "text/plain"]]),
    "header-string": lambda start: start("200 OK", ["ab"]),
    "header-single": lambda start: start("200 OK", [("X",)]),
    "header-triple": lambda start: start("200 OK", [("X", "1", "2")]),
    "name-bytes": lambda start: start("200 OK", [(b"X", "1")]),
    "value-bytes": lambda start: start("200 OK", [("X", b"1")]),
    "value-int": lambda start: start("200 OK", [("X", 1)]),
    "value-none": lambda start: start("200 OK", [("X", None)]),
    "name-not-latin": lambda start: start("200 OK", [("X\u20ac", "1")]),
    "value-not-latin": lambda start: start("200 OK", [("X", "\u20ac")]),
    "name-empty": lambda start: start("200 OK", [("", "1")]),
    "name-space": lambda start: start("200 OK", [("X Y", "1")]),
    "name-newline": lambda start: start("200 OK", [("X\r\nY", "1")]),
    "name-nul": lambda start: start("200 OK", [("X\0", "1")]),
    "name-colon": lambda start: start("200 OK", [("X:", "1")]),
    "name-parenthesis": lambda start: start("200 OK", [("X(", "1")]),
    "value-newline": lambda start: start("200 OK", [("X", "1\r\nY: 2")]),
    "value-cr": lambda start: start("200 OK", [("X", "1\rY")]),
    "value-lf": lambda start: start("200 OK", [("X", "1\nY")]),
    "value-folded": lambda start: start("200 OK", [("X", "1\r\n 2")]),
    "value-nul": lambda start: start("200 OK", [("X", "1\0")]),
    "value-control": lambda start: start("200 OK", [("X", "1\x01")]),
    "value-delete": lambda start: start("200 OK", [("X", "1\x7f")]),
    "content-type-newline": lambda start: start("200 OK", [("Content-Type", "a/b\r\nX: 1")]),
    "exc-info-string": lambda start: start("200 OK", TEXT, "boom"),
    "exc-info-list": lambda start: start("200 OK", TEXT, [None, None, None]),
    "keyword": lambda start: start(status="200 OK", headers=TEXT),
    "no-arguments": lambda start: start(),
    "one-argument": lambda start: start("200 OK"),
    "four-arguments": lambda start: start("200 OK", TEXT, None, None),
    **{
        "hop-" + name.lower(): (lambda name: lambda start: start("200 OK", [(name, "x")]))(name)
        for name in (
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Trailers",
            "Transfer-Encoding",
            "Upgrade",
        )
    },
}

LENGTHS = {
    "negative": "-1",
    "word": "many",
    "empty": "",
    "list": "1, 2",
    "float": "1.5",
    "plus": "+5",
    "hex": "0x5",
    "huge": "9" * 30,
}


def call(environ, start_response):
    """Answers with the exception that the named call raises, after a good second start."""
    try:
        CALLS[support.query(environ)["name"]](start_response)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return support.answer(start_response, text.encode("ascii", "replace"))
    return [b"accepted"]


def uncaught_call(environ, start_response):
    """The same, not caught."""
    CALLS[support.query(environ)["name"]](start_response)
    return [b"accepted"]


def content_length(environ, start_response):
    """A Content-Length that is none."""
    value = LENGTHS[support.query(environ)["name"]]
    start_response("200 OK", [*TEXT, ("Content-Length", value)])
    return [b"hello"]


def two_lengths(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "5"), ("Content-Length", "6")])
    return [b"hello!"]


def second_start(environ, start_response):
    """A second call without exc_info, before anything was sent."""
    start_response("200 OK", TEXT)
    start_response("201 Again", TEXT)
    return [b"accepted"]


def second_start_after_output(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"first,")
    try:
        start_response("201 Again", TEXT)
    except Exception as error:
        return [type(error).__name__.encode()]
    return [b"accepted"]


def exc_info_after_output(environ, start_response):
    """With exc_info and the head sent, start_response raises that very exception."""
    write = start_response("200 OK", TEXT)
    write(b"first,")
    try:
        raise KeyError("mine")
    except KeyError as error:
        try:
            start_response("500 Error", TEXT, sys.exc_info())
        except KeyError as again:
            return [b"the same" if again is error else b"another"]
    return [b"accepted"]


def write_types(environ, start_response):
    """``write`` takes bytes only."""
    write = start_response("200 OK", TEXT)
    names = []
    for value in ("text", None, 1, [b"x"]):
        try:
            write(value)
            names.append("accepted")
        except Exception as error:
            names.append(type(error).__name__)
    return [",".join(names).encode()]


RESULTS = {
    "none": lambda: None,
    "int": lambda: 5,
    "list-of-str": lambda: ["text"],
    "list-of-none": lambda: [None],
    "list-of-int": lambda: [1, 2],
    "str": lambda: "text",
    "dict-of-str": lambda: {"a": 1},
    "bytearray": lambda: [bytearray(b"x")],
    "memoryview": lambda: [memoryview(b"x")],
    "iterator-of-str": lambda: iter(["text"]),
    "object": object,
}


def returning(environ, start_response):
    """Returns what is no iterable of bytes."""
    start_response("200 OK", TEXT)
    return RESULTS[support.query(environ)["name"]]()


def never_started(environ, start_response):
    """``start_response`` is never called; the body is empty or not."""
    return [b"body"] if support.query(environ).get("body") else []


def never_started_closing(environ, start_response):
    return Closing([b"body"], support.query(environ)["file"])


def raising(environ, start_response):
    raise ValueError("raised before start_response")


def raising_after_start(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Mine", "1")])
    raise ValueError("raised after start_response")


def raising_first(environ, start_response):
    start_response("200 OK", [*TEXT, ("X-Mine", "1")])
    return Closing([ValueError("raised by the first item")], support.query(environ).get("file"))


def raising_later(environ, start_response):
    """Fails in the middle; ``length`` declares more than comes."""
    query = support.query(environ)
    length = [("Content-Length", query["length"])] if "length" in query else []
    start_response("200 OK", [*TEXT, *length])
    items = [b"first,", b"second,", ValueError("raised by the third item")]
    return Closing(items, query.get("file"))


def str_later(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"first,", "text"], support.query(environ).get("file"))


def raising_after_write(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"first,")
    raise ValueError("raised after write")


def exiting(environ, start_response):
    sys.exit("leaving")


def exiting_later(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"first,", SystemExit(3)], support.query(environ).get("file"))


def interrupting(environ, start_response):
    raise KeyboardInterrupt


def failing_close(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"all is ", b"well"], support.query(environ).get("file"), failing=True)


def underrun(environ, start_response):
    """Less than declared, as a list or as an iterator."""
    start_response("200 OK", [*TEXT, ("Content-Length", "10")])
    return [b"short"] if support.query(environ).get("list") else iter([b"sho", b"rt"])


def overrun(environ, start_response):
    """More than declared; notes how many items it was asked for."""
    query = support.query(environ)
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    if query.get("list"):
        return [b"hello, this is too much"]

    def items():
        for item in (b"hel", b"lo, this", b" is too much"):
            support.note(query["file"], "asked")
            yield item

    return Closing(items(), query["file"])


def overrun_write(environ, start_response):
    write = start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    write(b"hel")
    write(b"lo, this is too much")
    return [b"and more"]


def body_of_bodiless(environ, start_response):
    query = support.query(environ)
    start_response(query["line"], [])
    items = [b"this must not", b" be sent"]
    return iter(items) if query.get("iterate") else items


def surrogate_exception(environ, start_response):
    raise ValueError("odd \udcff text with \x00 and \u20ac")


def recursion(environ, start_response):
    return recursion(environ, start_response)


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
