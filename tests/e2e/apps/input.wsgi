"""Reads its body in whatever way the request asks for."""

import hashlib
import json
from wsgiref.validate import validator

import support

held = {}


def described(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [described(item) for item in value]
    return value


def perform(stream, operation):
    """Runs ``name`` or ``name:argument`` on the stream; an exception is a result, too."""
    name, _, argument = operation.partition(":")
    arguments = [] if not argument else [None if argument == "None" else int(argument)]
    try:
        if name == "iterate":
            return described(list(stream))
        if name == "next":
            return described(next(iter(stream)))
        return described(getattr(stream, name)(*arguments))
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


def script(environ, start_response):
    """``ops=read:5,readline``: the results of these calls, as JSON."""
    operations = support.query(environ).get("ops", "").split(",")
    results = [perform(environ["wsgi.input"], operation) for operation in operations]
    return support.answer(start_response, json.dumps(results), content_type="application/json")


def digest(environ, start_response):
    """Length and SHA-256 of the body, read in pieces."""
    size = int(support.query(environ).get("size", "65536"))
    total, sha = 0, hashlib.sha256()
    while True:
        piece = environ["wsgi.input"].read(size)
        if not piece:
            break
        total += len(piece)
        sha.update(piece)
    body = json.dumps({"length": total, "sha256": sha.hexdigest()})
    return support.answer(start_response, body, content_type="application/json")


def echo(environ, start_response):
    """Streams the body back while it comes."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(1000), b"")


def ignore(environ, start_response):
    """Reads nothing."""
    return support.answer(start_response, "ignored")


def late_100(environ, start_response):
    """Answers first, reads then."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Early", "1")])

    def body():
        yield b"early\n"
        yield environ["wsgi.input"].read(5)

    return body()


def catching(environ, start_response):
    """Notes what reading gives, and reads again after the error."""
    lines = []
    for _ in range(3):
        try:
            while environ["wsgi.input"].read(1000):
                pass
            lines.append("end")
        except Exception as error:
            lines.append(f"{type(error).__name__}: {isinstance(error, OSError)}")
    support.note(support.query(environ)["file"], " | ".join(lines))
    return support.answer(start_response, "caught")


def not_catching(environ, start_response):
    """Lets the error of a read through."""
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        support.note(support.query(environ)["file"], type(error).__name__)
        raise
    return support.answer(start_response, "read it all")


def hold(environ, start_response):
    """Keeps everything that belongs to this request."""
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    held.update(
        input=environ["wsgi.input"],
        errors=environ["wsgi.errors"],
        write=write,
        start_response=start_response,
    )
    return [b"held"]


def use_held(environ, start_response):
    """Uses what :func:`hold` kept, after its request has ended."""
    calls = {
        "read": lambda: held["input"].read(1),
        "readline": lambda: held["input"].readline(),
        "readlines": lambda: held["input"].readlines(),
        "iterate": lambda: list(held["input"]),
        "close": lambda: held["input"].close(),
        "write": lambda: held["write"](b"x"),
        "start_response": lambda: held["start_response"]("200 OK", []),
        "errors": lambda: (held["errors"].write("late\n"), held["errors"].flush()),
    }
    results = {}
    for name, call in calls.items():
        try:
            call()
            results[name] = "accepted"
        except Exception as error:
            results[name] = type(error).__name__
    return support.answer(start_response, json.dumps(results), content_type="application/json")


ROUTES = {
    "/script": script,
    "/digest": digest,
    "/echo": echo,
    "/ignore": ignore,
    "/late-100": late_100,
    "/catching": catching,
    "/not-catching": not_catching,
    "/hold": hold,
    "/use-held": use_held,
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


validated = validator(application)
