"""What is yielded or written reaches the client before the application goes on; a client that goes
away ends the iteration. The tests hold the gate of each step: no clock decides."""

from __future__ import annotations

import os
import select
import subprocess
import time

import pytest
from harness.config import BOTH
from harness.sites import applications

MODES = BOTH

MPMS = ["event", "worker", "prefork"]


@pytest.fixture(scope="module", params=MPMS)
def server(new_httpd, request):
    options = {"mpm": request.param, "threads": 3, "tls": True}
    options["http2"] = request.param != "prefork"
    with new_httpd(**options) as httpd:
        applications(httpd, raw="response.wsgi", checked="response.wsgi:validated")
        httpd.request_param = request.param
        yield httpd.start()


@pytest.fixture
def gate(server):
    return server.gate()


@pytest.mark.parametrize("mount", ["raw", "checked"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how", ["", "&write=1"])
@pytest.mark.checklist(134)
def test_each_item_arrives_before_the_next_is_made(server, gate, mount, tls, how):
    with server.connect(tls) as connection:
        connection.request(f"/{mount}/streaming?count=4&gate={gate.path}{how}")
        for i in range(4):
            gate.step()
            if i == 0:
                assert connection.read_head().status == 200
            assert connection.read_chunk() == b"%d\n" % i
        assert connection.read_chunk() == b""


@pytest.mark.checklist(134)
def test_with_a_declared_length(server, gate):
    with server.connect() as connection:
        connection.request(f"/raw/streaming?count=4&length=1&gate={gate.path}")
        for i in range(4):
            gate.step()
            if i == 0:
                assert connection.read_head().header("Content-Length") == "8"
            assert connection.read_exactly(2) == b"%d\n" % i


def test_http_1_0(server, gate):
    with server.connect() as connection:
        connection.request(f"/raw/streaming?count=3&gate={gate.path}", version="HTTP/1.0")
        for i in range(3):
            gate.step()
            if i == 0:
                assert connection.read_head().status == 200
            assert connection.read_exactly(2) == b"%d\n" % i
        assert connection.at_end()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.checklist(134, 156)
def test_http_2(server, gate, tls):
    if server.request_param == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    options = ["--http2"] if tls else ["--http2-prior-knowledge"]
    url = server.url(f"/raw/streaming?count=3&gate={gate.path}", tls=tls)
    command = ["curl", "-s", "-k", "-N", "--noproxy", "*", "--max-time", "20", *options, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as client:
        for i in range(3):
            gate.step()
            ready, _, _ = select.select([client.stdout], [], [], 15)
            assert ready, f"item {i} does not arrive"
            assert os.read(client.stdout.fileno(), 100) == b"%d\n" % i
        assert client.wait(20) == 0


@pytest.mark.checklist(135)
def test_an_empty_item_sends_nothing(server, gate):
    """The head waits for the first byte of the body (PEP 3333)."""
    file = server.root / "data" / "empty-item"
    file.unlink(missing_ok=True)
    with server.connect() as connection:
        connection.request(f"/raw/streaming-empty?file={file}&gate={gate.path}")
        wait_for_line(file)
        # The application is past the empty item, and nothing has come.
        ready, _, _ = select.select([connection.socket], [], [], 0.05)
        assert not ready
        gate.step()
        assert connection.read_response().body == b"done"


def wait_for_line(file, seconds=15):
    deadline = time.monotonic() + seconds
    while not (file.exists() and file.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{file.name} was not written"
        time.sleep(0.01)
    return file.read_text()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.checklist(143, 153)
def test_client_that_goes_away_ends_the_iteration(server, how):
    file = server.root / "data" / f"endless-{how}"
    file.unlink(missing_ok=True)
    connection = server.connect()
    connection.request(f"/raw/endless?file={file}")
    assert connection.read_head().status == 200
    connection.read_chunk()
    getattr(connection, how)()
    assert wait_for_line(file) == "closed\n"
    assert server.get("/raw/hello").body == b"Hello, world\n"
    wait_for_access(server, "/raw/endless", "200")


def wait_for_access(server, path, status):
    """The access log has the status of the application."""
    deadline = time.monotonic() + 15
    while True:
        lines = [line for line in server.access() if path in line]
        if lines:
            assert lines[-1].startswith(status + " ")
            return
        assert time.monotonic() < deadline, f"{path} is not in the access log"
        time.sleep(0.01)


@pytest.mark.checklist(153)
def test_write_to_a_client_that_went_away(server):
    file = server.root / "data" / "endless-writing"
    file.unlink(missing_ok=True)
    connection = server.connect()
    connection.request(f"/raw/endless-writing?file={file}")
    assert connection.read_head().status == 200
    connection.read_chunk()
    connection.reset()
    assert wait_for_line(file) == "OSError\n"


@pytest.mark.checklist(153)
def test_client_that_goes_away_over_http_2(server):
    if server.request_param == "prefork":
        pytest.skip("mod_http2 does not run under prefork")
    file = server.root / "data" / "endless-h2"
    file.unlink(missing_ok=True)
    url = server.url(f"/raw/endless?file={file}")
    command = ["curl", "-s", "-N", "--http2-prior-knowledge", "--noproxy", "*", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout.read(100_000)
        client.kill()
    assert wait_for_line(file) == "closed\n"
