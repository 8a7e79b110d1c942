"""Answers with its environ as JSON."""

import json
from wsgiref.validate import validator


def dump(environ, start_response):
    values, types = {}, {}
    for key, value in environ.items():
        types[key] = type(value).__name__
        plain = isinstance(value, (str, int, float, bool, tuple, type(None)))
        values[key] = value if plain else repr(value)
    body = json.dumps({"values": values, "types": types}).encode("ascii")
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("X-Method", environ["REQUEST_METHOD"]),
        ],
    )
    return [body]


application = validator(dump)
unchecked = dump
