"""Lets many threads use the objects of each request, while it runs and when it is over."""

import itertools
import json
import os
import sys
import threading

import support

TEXT = [("Content-Type", "text/plain")]
counter = itertools.count(1)


def crowd(work, count=4):
    """Runs `work` in several threads, which may outlive the request; their exceptions are theirs."""

    def quiet():
        try:
            for _ in range(20):
                work()
        except Exception:
            pass

    threads = [threading.Thread(target=quiet, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def facts(environ, start_response):
    found = {"pid": os.getpid(), "requests": next(counter)}
    return support.answer(start_response, json.dumps(found), content_type="application/json")


def input(environ, start_response):
    """All of them read the body, and it arrives once."""
    body = environ["wsgi.input"]
    read = []
    threads = crowd(lambda: read.append(body.readline()))
    read.append(body.read())
    for thread in threads:
        thread.join()
    assert sum(map(len, read)) == int(environ["CONTENT_LENGTH"]), sum(map(len, read))
    return support.answer(start_response, "read")


def errors(environ, start_response):
    stream = environ["wsgi.errors"]
    crowd(lambda: (stream.write("from a thread, "), stream.write("a line\n"), stream.flush()))
    stream.write("the request's own\n")
    return support.answer(start_response, "written")


def head(environ, start_response):
    """Several threads begin the response, with lists that change meanwhile."""
    headers = [("X-Number", str(number)) for number in range(50)]

    def begin():
        headers.append(("X-More", "more"))
        try:
            start_response("200 OK", headers, (ValueError, ValueError(), None))
        except ValueError:
            pass
        del headers[25:]
        headers.extend(("X-Again", str(number)) for number in range(30))

    crowd(begin)
    start_response("200 OK", TEXT, (ValueError, ValueError(), None))
    return [b"begun"]


def result(environ, start_response):
    """The list that is sent loses its items meanwhile."""
    blocks = [b"x" * size for size in (10, 40_000, 0, 100_000)] * 20

    def change():
        blocks.clear()
        blocks.extend([os.urandom(20_000)] * 30)

    crowd(change)
    start_response("200 OK", TEXT)
    return blocks


def globals(environ, start_response):
    """The module's own names are replaced while they are looked up."""

    def replace():
        def application(environ, start_response, _unique=object()):
            return route(environ, start_response)

        sys.modules[__name__].application = application

    crowd(replace)
    return support.answer(start_response, "replaced")


def late(environ, start_response):
    """Everything that was handed out is used when the request is about to end, and later."""
    body, stream = environ["wsgi.input"], environ["wsgi.errors"]

    def use():
        for call in (body.read, stream.flush, lambda: start_response("200 OK", TEXT)):
            try:
                call()
            except Exception:
                pass

    crowd(use, 6)
    write = start_response("200 OK", TEXT, (ValueError, ValueError(), None))
    crowd(lambda: write(b"late"), 2)
    return [b"answer"]


def route(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


ROUTES = {f"/{f.__name__}": f for f in (facts, input, errors, head, result, globals, late)}


def application(environ, start_response):
    return route(environ, start_response)
