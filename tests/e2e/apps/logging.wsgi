"""Writes to every stream that ends in the error log."""

import io
import json
import logging
import sys
import threading
import traceback

import support


def errors(environ, start_response):
    """Writes what the query says to wsgi.errors, piece by piece."""
    stream = environ["wsgi.errors"]
    for piece in json.loads(support.query(environ)["pieces"]):
        if piece is None:
            stream.flush()
        else:
            stream.write(piece)
    return support.answer(start_response, "written")


def long_line(environ, start_response):
    environ["wsgi.errors"].write("y" * 50_000 + "\n")
    return support.answer(start_response, "written")


def lines(environ, start_response):
    environ["wsgi.errors"].writelines(["first of two\n", "second of two\n"])
    return support.answer(start_response, "written")


def printing(environ, start_response):
    print("printed", "by", "print")
    print("printed to stderr", file=sys.stderr)
    sys.stdout.write("written to ")
    sys.stdout.write("stdout\n")
    return support.answer(start_response, "printed")


def interleaved(environ, start_response):
    """Half a line on each of two streams."""
    environ["wsgi.errors"].write("half of errors ")
    sys.stdout.write("half of stdout ")
    environ["wsgi.errors"].write("rest of errors\n")
    sys.stdout.write("rest of stdout\n")
    return support.answer(start_response, "interleaved")


def binary(environ, start_response):
    buffer = environ["wsgi.errors"].buffer
    buffer.write(b"as bytes\n")
    buffer.write(bytearray(b"as bytearray\n"))
    buffer.write(memoryview(b"as memoryview\n"))
    buffer.flush()
    return support.answer(start_response, "written")


def facts(environ, start_response):
    stream = environ["wsgi.errors"]
    found = {"name": stream.name, "encoding": stream.encoding, "errors": stream.errors}
    found["isatty"] = stream.isatty()
    try:
        stream.fileno()
        found["fileno"] = "accepted"
    except OSError:
        found["fileno"] = "OSError"
    found["text"] = isinstance(stream, io.TextIOBase) or hasattr(stream, "write")
    return support.answer(start_response, json.dumps(found), content_type="application/json")


def standard_logging(environ, start_response):
    logger = logging.getLogger("site")
    logger.handlers[:] = [logging.StreamHandler()]
    logger.propagate = False
    logger.warning("through %s", "logging")
    return support.answer(start_response, "logged")


def printed_traceback(environ, start_response):
    try:
        raise KeyError("printed")
    except KeyError:
        traceback.print_exc(file=environ["wsgi.errors"])
    return support.answer(start_response, "printed")


class Site(Exception):
    """An exception of the application's own."""


def raising(environ, start_response):
    try:
        raise KeyError("cause")
    except KeyError as cause:
        raise Site("first line\nsecond line \u20ac") from cause


def thread(environ, start_response):
    """A thread of the request prints; it is not the request's own thread."""

    def work():
        print("from a thread")

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    return support.answer(start_response, "joined")


def thread_exception(environ, start_response):
    def work():
        raise ValueError("in a thread")

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    return support.answer(start_response, "joined")


def unraisable(environ, start_response):
    class Failing:
        def __del__(self):
            raise ValueError("in __del__")

    Failing()
    return support.answer(start_response, "deleted")


def warning(environ, start_response):
    import warnings

    warnings.warn("be warned", UserWarning, stacklevel=1)
    return support.answer(start_response, "warned")


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
