"""What the test applications share. On ``sys.path`` through ``WSGIPythonPath``."""

import os
import select
from urllib.parse import parse_qs


def query(environ):
    """The query string as a dictionary, last value of each name."""
    return {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


def wait(path, seconds=20):
    """Waits until the test opens its gate (harness/gate.py) for one step."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if not ready:
            raise RuntimeError("the test did not open the gate")
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def answer(start_response, body, status="200 OK", content_type="text/plain", headers=()):
    """A plain answer of known length."""
    if isinstance(body, str):
        body = body.encode("utf-8")
    start_response(
        status,
        [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers],
    )
    return [body]


def note(path, text):
    """Appends a line to a file, in one system call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, (text + "\n").encode())
    finally:
        os.close(descriptor)
