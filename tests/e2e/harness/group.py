"""One process group, and what the tests of daemon mode ask of it."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

import pytest

from .sites import applications

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

#: What the worker says of the request's thread; its stack follows.
STACK = "RWSGI0459: "
#: Lines of a dump of all threads.
DUMP = r"^(main interpreter|sub-interpreter|Thread 0x|Current thread 0x)|^  File |^$"
SUPERVISOR = r"RWSGI04[0-4]\d: "


@contextmanager
def group(new_httpd, options="", text="", threads=16, **more):
    """A server with one group of these options that serves ``/app``."""
    with new_httpd(mode="daemon", threads=threads, daemon=options, **more) as httpd:
        applications(httpd, app="daemon.wsgi", answer="response.wsgi", look="interpreter.wsgi")
        httpd.add(text)
        httpd.start()
        httpd.get("/app/pid")
        yield httpd


def pid(httpd):
    return int(httpd.get("/app/pid").body)


def identity(httpd):
    return httpd.json("/app/identity")


class Request:
    """A request in flight on a connection of its own."""

    def __init__(self, httpd, target, timeout=30):
        self.httpd = httpd
        self.file = httpd.root / "data" / f"begun-{time.monotonic_ns()}"
        self.connection = httpd.connect(timeout=timeout)
        self.connection.request(f"{target}{'&' if '?' in target else '?'}file={self.file}")

    def begun(self):
        self.httpd.wait_until(self.file.exists, "the request does not begin")
        return self

    def response(self):
        response = self.connection.read_response()
        self.connection.close()
        return response


def replaced(httpd, old, timeout=20):
    """Waits until another process answers, without asking it."""

    def other():
        workers = httpd.workers()
        return workers and not set(workers) & set(old)

    httpd.wait_until(other, f"{old} is not replaced", timeout)
    return httpd.workers()


def reason(httpd, word):
    """Announces the line that names the reason of a replacement, of whatever level."""
    return httpd.expect_log(rf"\b{word.replace('_', '[-_]')}\b", count=None)


def shows(expectation, text):
    """Whether a line below the announced one has the text."""
    return any(text in line.message for line in expectation.traceback)


def sockets(httpd):
    return sorted(path.name for path in (httpd.root / "run").glob("*.sock"))
