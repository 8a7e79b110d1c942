"""The configurations of apache/examples are accepted, and some of them serve."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
from harness import paths
from harness.server import Httpd

pytestmark = pytest.mark.rwsgi

EXAMPLES = sorted((paths.REPOSITORY / "apache/examples").glob("*.conf"))

SITE = """
import os

def application(environ, start_response):
    body = f"{os.environ['GREETING']} from {os.getpid()}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def adapted(example, server) -> str:
    """The example with this server's directory, port, user and Python instead of a real site's."""
    text = example.read_text().replace("/srv/", f"{server.root}/srv/")
    text = text.replace("*:80", f"127.0.0.1:{server.port}")
    # The tests have no uvloop where they run another Python.
    text = text.replace("loop=uvloop ", "")
    text = text.replace("${APACHE_LOG_DIR}", str(server.root / "logs"))
    owner = paths.httpd_user()
    # Who is not root cannot choose.
    text = re.sub(r"\buser=\w+ group=\w+", "user={} group={}".format(*owner) if owner else "", text)
    return re.sub(r"python-home=\S+", f"python-home={paths.VENV}", text)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_accepted(example):
    with Httpd(modules=["alias", "setenvif"]) as server:
        for script in re.findall(r"/srv/(\S+\.py)", example.read_text()):
            server.write(f"srv/{script}", SITE)
        server.write("srv/mysite/site.env", "")
        server.add(adapted(example, server))
        done = server.check()
        assert done.returncode == 0, done.stderr


def test_serves():
    with Httpd(modules=["alias"]) as server:
        server.vhost_log("mysite-error.log")
        server.write("srv/mysite/config/wsgi.py", SITE)
        server.write("srv/mysite/static/a.txt", "static")
        server.write("srv/mysite/site.env", "GREETING=hello\n")
        server.add(adapted(paths.REPOSITORY / "apache/examples/django-daemon.conf", server))
        server.start()
        assert server.get("/static/a.txt").body == b"static"
        answer = server.get("/")
        assert answer.status == 200
        assert re.fullmatch(rb"hello from \d+", answer.body)
        # Not one of httpd's own children.
        assert int(answer.body.split()[-1]) not in server.children()


@contextmanager
def example(name: str):
    """A server with an example of ASGI, whose script is beside its configuration."""
    source = paths.REPOSITORY / f"apache/examples/{name}"
    with Httpd(modules=["alias", "setenvif"]) as server:
        server.write(f"srv/{name}/{name}.py", source.with_suffix(".py").read_text())
        text = adapted(source.with_suffix(".conf"), server)
        # The script needs no packages.
        server.add(re.sub(rf"python-home={paths.VENV} ", "", text))
        yield server.start()


def test_chat():
    with example("chat") as server:
        page = server.get("/")
        assert b"new WebSocket" in page.body
        one, two = server.websocket("/"), server.websocket("/")
        for text in ("hello", "Grüße"):
            # Each of the two is in the room as soon as he hears himself.
            one.text(text)
            assert one.message() == text
        two.text("here I am")
        assert two.message() in ("hello", "Grüße", "here I am")
        server.wait_until(lambda: one.message() == "here I am")
        one.text("x" * 4097)
        assert one.dropped() == 1009
        two.close()
        two.connection.close()


def test_events():
    with example("events") as server, server.connect() as connection:
        connection.request("/time", headers={"Accept-Encoding": "gzip"})
        head = connection.read_head()
        assert head.header("Content-Type") == "text/event-stream"
        for _ in range(2):
            assert re.fullmatch(rb"data: \d\d:\d\d:\d\d\n\n", connection.read_chunk())
