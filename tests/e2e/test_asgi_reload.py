"""New code for an ASGI application, restarts of httpd: no request is lost, and WebSockets are told
to come again (1012)."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager

import pytest
from harness.storm import Storm
from harness.websocket_client import Client

pytestmark = pytest.mark.rwsgi
MODES = ("daemon",)

CONNECTIONS = 32
APP = """\
import asyncio, os
{extra}
LONG = []

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        {startup}
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({{"type": "websocket.accept"}})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                if "note" in scope["path"]:
                    with open({note!r}, "a") as file:
                        file.write(str(message["code"]) + "\\n")
                return
            await send({{"type": "websocket.send", "text": "{version} " + message["text"]}})
    if "stream" in scope["path"]:
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        while True:
            piece = {{"type": "http.response.body", "body": b"{version}\\n", "more_body": True}}
            await send(piece)
            await asyncio.sleep(0.05)
    LONG.append(scope["query_string"])
    await asyncio.sleep(float(scope["query_string"] or 0.002))
    body = b"{version} %d" % os.getpid()
    if "long" in scope["path"]:
        body = b"%d" % len([one for one in LONG if one])
    headers = [(b"content-length", b"%d" % len(body))]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": body}})
"""
#: What the supervisor says when new code does not start.
KEPT = "RWSGI0409: "


class Site:
    """A server with one group, and its script, which can be deployed anew."""

    def __init__(self, httpd):
        self.httpd = httpd
        # Every version gets a time of its own, whatever the clock's resolution.
        self.time = time.time() - 100_000

    @classmethod
    def of(cls, httpd):
        """A site on this server, with its first version."""
        (httpd.root / "site").mkdir()
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIApplicationGroup %{{GLOBAL}}
            ASGIScriptAlias /load "{httpd.root}/site/app.py"
        """)
        site = cls(httpd)
        site.deploy("v0")
        return site

    def deploy(self, version, extra="", startup="pass"):
        note = str(self.httpd.root / "data" / "note")
        self.write(APP.format(version=version, extra=extra, startup=startup, note=note))

    def write(self, text):
        self.time += 10
        fresh = self.httpd.root / "site" / "app.new"
        fresh.write_text(text)
        fresh.chmod(0o644)
        os.utime(fresh, (self.time, self.time))
        fresh.replace(self.httpd.root / "site" / "app.py")

    def version(self):
        return self.httpd.get("/load/0").text.split()[0]

    def pid(self):
        return int(self.httpd.get("/load/0").text.split()[1])

    def wait_for(self, version):
        self.httpd.wait_until(lambda: self.version() == version, f"{version} does not come")


@contextmanager
def serve(new_httpd, options="", workers=2, threads=CONNECTIONS + 16, text="", **more):
    daemon = f"processes={workers} threads=2 {options}"
    with new_httpd(threads=threads, daemon=daemon, **more) as httpd:
        site = Site.of(httpd)
        httpd.add(text)
        httpd.start()
        httpd.get("/load/0")
        yield site


def test_new_code_serves(new_httpd):
    with serve(new_httpd) as site:
        for number in range(1, 4):
            site.deploy(f"v{number}")
            site.wait_for(f"v{number}")
            # And goes on to do so, whichever worker answers.
            assert {site.version() for _ in range(10)} == {f"v{number}"}


def test_no_request_is_lost(new_httpd):
    """Under load, from one version to the next and on."""
    with serve(new_httpd) as site:
        with Storm(site.httpd, connections=CONNECTIONS) as storm:
            for number in range(1, 4):
                storm.wait_for(200)
                site.deploy(f"v{number}")
                site.wait_for(f"v{number}")
            storm.wait_for(200)
        storm.judge()
        versions = {answer.body.split()[0].decode() for answer in storm.answers}
        assert versions == {"v0", "v1", "v2", "v3"}


def test_long_requests_end_in_the_old_code(new_httpd):
    with serve(new_httpd, workers=1) as site, site.httpd.connect() as slow:
        slow.request("/load/0?2")
        site.httpd.wait_until(lambda: site.httpd.get("/load/long").body == b"1")
        site.deploy("v1")
        site.wait_for("v1")
        assert slow.read_response().text.startswith("v0 ")


def test_websockets_are_closed_with_1012(new_httpd):
    """Within the bound; until then they work, and their clients find the new code afterwards."""
    with serve(new_httpd, "graceful-timeout=4") as site:
        httpd = site.httpd
        with httpd.websocket("/load/note") as socket:
            socket.text("a")
            assert socket.message() == "v0 a"
            site.deploy("v1")
            begin = time.monotonic()
            site.wait_for("v1")
            assert socket.closed()[0] == 1012
            socket.close(1012)
            assert socket.ended()
            assert time.monotonic() - begin < 8
        file = httpd.root / "data" / "note"
        httpd.wait_until(lambda: file.exists() and file.read_text() == "1012\n", "not told")
        with httpd.websocket("/load/x") as socket:
            socket.text("b")
            assert socket.message() == "v1 b"


def test_client_that_does_not_answer_the_close(new_httpd):
    """The worker ends all the same, in its time."""
    with serve(new_httpd, "graceful-timeout=4", workers=1) as site:
        httpd = site.httpd
        old = site.pid()
        sockets = [httpd.websocket("/load/x") for _ in range(5)]
        site.deploy("v1")
        site.wait_for("v1")
        for socket in sockets:
            assert socket.closed()[0] == 1012
        httpd.wait_until(lambda: old not in httpd.workers(), "the old worker stays")
        for socket in sockets:
            socket.connection.close()


def test_endless_responses_are_ended(new_httpd):
    """The cut is visible; until then they go on."""
    with serve(new_httpd, "graceful-timeout=4", workers=1) as site, site.httpd.connect() as stream:
        old = site.pid()
        stream.request("/load/stream")
        assert stream.read_head().status == 200
        site.httpd.allow_log(r"RWSGI065\d|RWSGI0304")
        site.deploy("v1")
        site.wait_for("v1")
        assert stream.read_chunk() == b"v0\n"
        assert not stream.read_to_end().endswith(b"0\r\n\r\n")
        site.httpd.wait_until(lambda: old not in site.httpd.workers(), "the old worker stays")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"extra": "async def broken(:"}, id="syntax"),
        pytest.param({"extra": "raise RuntimeError('not today')"}, id="import"),
        pytest.param({"startup": "raise RuntimeError('not today')"}, id="startup"),
    ],
)
def test_broken_new_code_keeps_the_old(new_httpd, broken):
    text = "<Location /load>\nASGILifespan On\n</Location>"
    with serve(new_httpd, workers=1, text=text) as site:
        httpd = site.httpd
        site.deploy("v1", **broken)
        told = httpd.expect_log(KEPT, count=None)
        httpd.allow_log(r"RWSGI0[146]\d\d: |SyntaxError|RuntimeError|^  |Traceback|^\s*\^")
        with Storm(httpd, connections=4) as storm:
            httpd.wait_until(lambda: told.lines or httpd.log.read() is None, "nothing is said")
            storm.wait_for(100)
        storm.judge()
        assert {answer.body.split()[0] for answer in storm.answers} == {b"v0"}
        httpd.settle_log()
        httpd.allow_log(r"RWSGI0[146]\d\d: |SyntaxError|RuntimeError|^  |Traceback|^\s*\^")
        site.deploy("v2")
        site.wait_for("v2")


def test_graceful_restart(new_httpd):
    """httpd's own: nothing is lost, long requests end, WebSockets go on with their old worker as
    long as httpd's old process lets them (20 seconds)."""
    with serve(new_httpd, "graceful-timeout=4") as site:
        httpd = site.httpd
        httpd.allow_log("AH00485|AH03490|AH10393")
        with httpd.websocket("/load/x") as socket, httpd.connect() as slow:
            slow.request("/load/0?2")
            with Storm(httpd, connections=8, fresh=True) as storm:
                storm.wait_for(50)
                httpd.graceful()
                site.deploy("v1")
                storm.wait_for(100)
            storm.judge()
            assert slow.read_response().status == 200
            socket.text("still")
            assert socket.message().endswith(" still")
            socket.close()
            assert socket.closed()[0] == 1000
        httpd.wait_until(lambda: len(httpd.supervisors()) == 1, "the old generation stays")


@pytest.mark.modes("embedded")
def test_graceful_restart_embedded(new_httpd):
    """The same without process groups: the old child ends its WebSockets after a bound."""
    with new_httpd(threads=16, processes=1) as httpd:
        site = Site.of(httpd)
        httpd.start()
        httpd.allow_log("AH00485|AH03490|AH10393")
        with httpd.websocket("/load/x") as socket, httpd.connect() as slow:
            socket.text("a")
            assert socket.message() == "v0 a"
            slow.request("/load/0?2")
            site.httpd.wait_until(lambda: httpd.get("/load/long").body == b"1")
            old = site.pid()
            httpd.graceful()
            assert slow.read_response().status == 200
            assert socket.closed()[0] == 1012
        httpd.wait_until(lambda: old not in httpd.children(), "the old child stays")
        assert site.pid() != old


@pytest.mark.modes("embedded", "daemon")
def test_stop_with_open_websockets(new_httpd, mode):
    """httpd stops in time, whoever is connected."""
    options = {"daemon": "graceful-timeout=3 shutdown-timeout=3"} if mode == "daemon" else {}
    with new_httpd(threads=16, **options) as httpd:
        site = Site.of(httpd)
        httpd.start()
        httpd.allow_log("AH0|RWSGI0321|RWSGI0304")
        sockets = [httpd.websocket("/load/x") for _ in range(5)]
        assert site.version() == "v0"
        begin = time.monotonic()
        httpd.stop()
        assert time.monotonic() - begin < 12
        for socket in sockets:
            assert socket.dropped() in (1012, None)


@pytest.mark.soak
@pytest.mark.modes("embedded")
def test_graceful_stop_with_open_websockets(new_httpd):
    with new_httpd(threads=16) as httpd:
        Site.of(httpd)
        httpd.start()
        with httpd.websocket("/load/x") as socket:
            begin = time.monotonic()
            httpd.stop(signal.SIGWINCH)
            assert time.monotonic() - begin < 15
            assert socket.dropped() == 1012


def test_a_reconnecting_client_sees_each_version(new_httpd):
    """As a browser's page does it: on 1012 it connects again."""
    with serve(new_httpd, "graceful-timeout=2", workers=1) as site:
        url = site.httpd.url("/load/x")
        for number in range(3):
            with Client(url) as client:
                client.send("hello")
                assert client.recv() == f"v{number} hello"
                site.deploy(f"v{number + 1}")
                site.wait_for(f"v{number + 1}")
                client.wait_closed()
                assert client.client.close_code == 1012


def test_lines_of_the_log(new_httpd):
    """Each replacement is told of, with the reason."""
    with serve(new_httpd, workers=1) as site:
        site.deploy("v1")
        site.wait_for("v1")
        site.httpd.wait_until(
            lambda: site.httpd.log.read() is not None
            and any(re.search("takes over", line.message) for line in site.httpd.log.seen)
        )
