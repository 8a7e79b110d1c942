"""The configurations of apache/examples are accepted, and the first one serves."""

from __future__ import annotations

import re

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
    text = text.replace("${APACHE_LOG_DIR}", str(server.root / "logs"))
    owner = paths.httpd_user()
    # Who is not root cannot choose.
    text = re.sub(r"\buser=\w+ group=\w+", "user={} group={}".format(*owner) if owner else "", text)
    return re.sub(r"python-home=\S+", f"python-home={paths.VENV}", text)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_accepted(example):
    with Httpd(modules=["alias"]) as server:
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
