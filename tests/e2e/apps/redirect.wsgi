"""Answers that name a path of the same server, and what such a path may answer."""

import json
from wsgiref.validate import validator

import support

TEXT = [("Content-Type", "text/plain")]
#: Everything of it must be gone when another path answers.
OWN = [
    ("X-Own", "1"),
    ("Set-Cookie", "own=1"),
    ("ETag", '"own"'),
    ("WWW-Authenticate", "Own"),
    ("Content-Encoding", "own"),
]


class Body:
    """An iterable that notes its end in a file."""

    def __init__(self, items, path=None):
        self.items = iter(items)
        self.path = path

    def __iter__(self):
        return self.items

    def close(self):
        if self.path:
            support.note(self.path, "closed")


def application(environ, start_response):
    """``to``: the Location; ``status``, ``read``, ``file``, ``length``, ``body``: the rest."""
    query = support.query(environ)
    if query.get("read"):
        environ["wsgi.input"].read(int(query["read"]))
    headers = [*TEXT, *OWN, ("Location", query["to"])]
    body = query.get("body", "empty")
    if query.get("length"):
        headers.append(("Content-Length", query["length"]))
    if body == "raise":
        start_response("200 OK", headers)
        raise RuntimeError("before the first item")
    if body == "replaced":
        start_response("200 OK", headers)
        try:
            raise ValueError
        except ValueError as error:
            info = (ValueError, error, error.__traceback__)
            start_response("409 Replaced", TEXT, info)
        return [b"replaced"]
    write = start_response(query.get("status", "200 OK"), headers)
    if body == "write":
        write(b"written")
        return [b"and returned"]
    if body == "file":
        file = open(query["source"], "rb")
        return environ["wsgi.file_wrapper"](file)
    items = {
        "empty": [],
        "list": [b"mine", b"mine"],
        "large": (b"x" * 100_000 for _ in range(100)),
        "broken": broken(),
    }[body]
    return Body(items, query.get("file"))


def broken():
    yield b"mine"
    raise RuntimeError("in the middle")


def seen(environ, start_response):
    """The request that arrives."""
    body = environ["wsgi.input"].read()
    keys = ["REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "CONTENT_LENGTH"]
    keys += ["CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "REDIRECT_STATUS", "REDIRECT_URL"]
    keys += ["REDIRECT_QUERY_STRING"]
    values = {key: environ.get(key) for key in keys}
    data = json.dumps({**values, "body": len(body)}).encode()
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response("200 OK", [*fields, ("Set-Cookie", "target=1")])
    return [data]


validated = validator(application)
