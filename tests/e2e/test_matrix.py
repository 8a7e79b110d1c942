"""``wsgiref.validate`` around every conforming application, under every MPM and protocol: no
violation. A violation is an AssertionError, that is a 500 and a line in the error log; one that
comes too late for that is a line on standard error, which is the error log, too."""

from __future__ import annotations

import subprocess

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH
DAEMON_MPMS = ("event", "prefork")

MPMS = ["event", "worker", "prefork"]
PROTOCOLS = {
    "http/1.1": (False, ["--http1.1"]),
    "http/1.0": (False, ["--http1.0"]),
    "h2c": (False, ["--http2-prior-knowledge"]),
    "h2c-upgrade": (False, ["--http2"]),
    "tls": (True, ["--http1.1"]),
    "h2": (True, ["--http2"]),
}
VERSION = {"http/1.1": "HTTP/1.1", "http/1.0": "HTTP/1.1", "tls": "HTTP/1.1"}


@pytest.fixture(scope="module", params=MPMS)
def server(new_httpd, request):
    http2 = request.param != "prefork"
    with new_httpd(mpm=request.param, threads=4, tls=True, http2=http2) as httpd:
        applications(
            httpd,
            answer="response.wsgi:validated",
            input="input.wsgi:validated",
            files="files.wsgi:checked",
            environ="environ.wsgi",
            where="where.wsgi",
        )
        # After an upgrade, curl 7 fails where more than 32 KiB come with the first answer.
        httpd.file = httpd.write("data/file", "content " * 2000)
        yield httpd.start()


@pytest.fixture(params=PROTOCOLS)
def fetch(server, request):
    """Fetches a path over one protocol and checks that it was this one."""
    tls, options = PROTOCOLS[request.param]
    if server.config.mpm == "prefork" and request.param.startswith("h2"):
        pytest.skip("mod_http2 does not run under prefork")

    def fetch(path, *more, data=None, status=200):
        response = curl(server.url(path, tls=tls), *options, *more, data=data)
        assert (response.code, response.error) == (0, "")
        assert response.protocol == VERSION.get(request.param, "HTTP/2")
        assert response.status == status, f"{path}: {response.body[:500]!r}"
        return response

    yield fetch
    # The validator complains of an iterable that was not closed when that is collected.
    fetch("/answer/collect")


def test_answers(fetch):
    bodies = {
        "hello": b"Hello, world\n",
        "listing": b"one,two,three",
        "generator": b"one,two",
        "iterator": b"one,two",
        "empty-list": b"",
        "empty-generator": b"",
        "writing": b"one,two,three,four",
        "writing-with-length": b"onetwo",
        "headers": b"headers",
        "many-headers": b"many",
        "large?size=20000&piece=700&length=1": None,
        "large?size=20000&piece=700": None,
    }
    for path, body in bodies.items():
        response = fetch(f"/answer/{path}")
        assert response.body == body if body is not None else len(response.body) == 20_000


def test_statuses(fetch):
    fetch("/answer/bodiless?line=204%20No%20Content", status=204)
    fetch("/answer/bodiless?line=304%20Not%20Modified", status=304)
    fetch("/answer/not-found", status=404)
    fetch("/answer/redirect", status=302)
    fetch("/answer/unauthorized", status=401)
    fetch("/answer/replaced", status=409)


def test_head(fetch):
    # More than once: mod_http2 sends a body, now and then, that is passed on after the head.
    for path in ("hello", "listing", "generator", "writing", "head-with-length") * 3:
        assert fetch(f"/answer/{path}", "--head").body == b""


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 1_000_000])
@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]])
def test_bodies(fetch, size, framing, request):
    protocol = request.node.callspec.params["fetch"]
    if protocol == "h2c-upgrade" and size:
        pytest.skip("curl does not upgrade with a body")
    if framing and protocol in ("http/1.0", "h2", "h2c", "h2c-upgrade"):
        pytest.skip("there are no chunks in this protocol")
    response = fetch("/input/digest", *framing, data=b"b" * size)
    assert b'"length": %d,' % size in response.body
    if not protocol.startswith("h2"):
        # Not read at all. (mod_http2 resets the stream then, which curl 7 takes for an error.)
        assert fetch("/input/ignore", *framing, data=b"b" * size).body == b"ignored"


def test_files(fetch, server):
    content = server.file.read_bytes()
    assert fetch(f"/files/whole?file={server.file}").body == content
    assert fetch(f"/files/buffered?file={server.file}").body == content
    assert fetch(f"/files/with-length?file={server.file}&length=100").body == content[:100]
    assert fetch("/files/from-pipe").body == b"through a pipe"


def test_environ(fetch):
    fetch("/environ/some/path?query=1", "-H", "X-Some: header", "-H", "Cookie: a=b")
    fetch("/where/x")


def test_threads_of_mod_http2(new_httpd):
    """More streams than MPM threads at once, on one connection: each gets its own answer."""
    # Below 1 KiB: nghttp rounds what is larger.
    sizes = range(900, 940)
    with new_httpd(threads=2, http2=True) as httpd:
        applications(httpd, answer="response.wsgi")
        httpd.start()
        urls = [httpd.url(f"/answer/large?size={size}&piece=100") for size in sizes]
        # nghttp's table: id, responseEnd, requestStart, process, code, size, path.
        done = subprocess.run(
            ["nghttp", "--null-out", "--stat", *urls], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line.split() for line in done.stdout.splitlines() if "/answer/large" in line]
        seen = sorted((row[-1], row[-2], row[-3]) for row in rows)
        path = "/answer/large?size={}&piece=100"
        assert seen == sorted((path.format(size), str(size), "200") for size in sizes)
