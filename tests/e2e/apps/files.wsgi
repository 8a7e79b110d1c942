"""Files through ``wsgi.file_wrapper``; ``checked`` is the same behind wsgiref's validator."""

import io
import json
import os
import tempfile
from wsgiref.validate import validator

import support

TEXT = [("Content-Type", "application/octet-stream")]


class Noting:
    """Passes everything on to a file and notes its close."""

    def __init__(self, file, path):
        self.file = file
        self.path = path

    def read(self, size=-1):
        return self.file.read(size)

    def close(self):
        support.note(self.path, "closed")
        self.file.close()


def noting_file(query):
    """A real file (it has a descriptor) that notes its close."""

    class File(io.FileIO):
        def close(self):
            if not self.closed and query.get("note"):
                support.note(query["note"], "closed")
            super().close()

    return File(query["file"])


def whole(environ, start_response):
    query = support.query(environ)
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](noting_file(query), 8192)


def buffered(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](open(support.query(environ)["file"], "rb"))


def with_length(environ, start_response):
    query = support.query(environ)
    start_response("200 OK", [*TEXT, ("Content-Length", query["length"])])
    return environ["wsgi.file_wrapper"](noting_file(query))


def from_offset(environ, start_response):
    query = support.query(environ)
    file = open(query["file"], "rb")
    file.seek(int(query["offset"]))
    length = [("Content-Length", query["length"])] if "length" in query else []
    start_response("206 Partial Content", [*TEXT, *length])
    return environ["wsgi.file_wrapper"](file)


def position(environ, start_response):
    """Serves a file that it keeps, and tells later where its position is."""
    global kept
    kept = open(support.query(environ)["file"], "rb")
    kept.seek(100)
    start_response("200 OK", TEXT)

    class Unclosed:
        read, fileno, tell = kept.read, kept.fileno, kept.tell

    return environ["wsgi.file_wrapper"](Unclosed())


def in_memory(environ, start_response):
    query = support.query(environ)
    content = b"0123456789" * int(query["tens"])
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Noting(io.BytesIO(content), query["note"]), 1000)


def from_pipe(environ, start_response):
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    os.close(writer)
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](os.fdopen(reader, "rb"))


def empty(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](tempfile.TemporaryFile())


def after_write(environ, start_response):
    query = support.query(environ)
    write = start_response("200 OK", TEXT)
    write(b"before:")
    return environ["wsgi.file_wrapper"](noting_file(query))


def text_file(environ, start_response):
    """Its ``read`` gives no bytes."""
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](io.StringIO("text"))


def wrapped_again(environ, start_response):
    """A middleware that changes the data: the wrapper must work as an iterable, too."""
    inner = environ["wsgi.file_wrapper"](open(support.query(environ)["file"], "rb"), 1000)
    start_response("200 OK", TEXT)
    try:
        yield from (block.upper() for block in inner)
    finally:
        inner.close()


def subclassed(environ, start_response):
    class Wrapper(environ["wsgi.file_wrapper"]):
        pass

    start_response("200 OK", TEXT)
    return Wrapper(open(support.query(environ)["file"], "rb"), blksize=500)


def deleted(environ, start_response):
    """A file that has no name any more."""
    file = tempfile.TemporaryFile()
    file.write(b"nameless" * 10000)
    file.seek(0)
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](file)


def closed_before(environ, start_response):
    file = open(support.query(environ)["file"], "rb")
    file.close()
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](file)


def attributes(environ, start_response):
    """What the class itself does."""
    wrapper = environ["wsgi.file_wrapper"]
    stream = io.BytesIO(b"abcde")
    one = wrapper(stream, 2)
    result = {
        "same": one.filelike is stream,
        "blksize": one.blksize,
        "default": wrapper(stream).blksize,
        "keyword": wrapper(filelike=stream, blksize=3).blksize,
        "blocks": [block.decode() for block in one],
    }
    one.close()
    result["closes"] = stream.closed
    for name, call in {
        "negative": lambda: wrapper(stream, -1),
        "no file": lambda: wrapper(),
        "after close": lambda: next(iter(one)),
    }.items():
        try:
            call()
            result[name] = "accepted"
        except Exception as error:
            result[name] = type(error).__name__
    return support.answer(start_response, json.dumps(result), content_type="application/json")


def kept_position(environ, start_response):
    return support.answer(start_response, str(kept.tell()))


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


checked = validator(application)
