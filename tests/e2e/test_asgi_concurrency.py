"""Many requests at once in one loop: what they wait for is what they await, and nothing else."""

from __future__ import annotations

import threading
import time

import pytest
from harness import paths, processes
from harness.config import BOTH
from harness.load import Load
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH
#: A thread of httpd for each request in progress.
THREADS = 120


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=THREADS, http2=True, daemon="threads=2") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.add(f'WSGIScriptAlias /wsgi "{httpd.apps}/response.wsgi"')
        yield httpd.start()


def all_of(server, target, count):
    """So many requests at once, and their answers."""
    connections = [server.connect() for _ in range(count)]
    for connection in connections:
        connection.request(target)
    responses = [connection.read_response() for connection in connections]
    for connection in connections:
        connection.close()
    assert [response.status for response in responses] == [200] * count
    return responses


def test_many_wait_together(server):
    """100 requests that wait 0.3 s each are all in progress at once."""
    begin = time.monotonic()
    responses = all_of(server, "/http/wait?seconds=0.3", 100)
    assert time.monotonic() - begin < 3
    assert max(int(response.body) for response in responses) == 100


def test_one_loop_one_thread(server):
    """They need no threads of Python."""
    (pid,) = server.pythons()
    server.get("/http/hello")
    before = processes.threads(pid)
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        connection.request("/http/wait?seconds=1")
    server.wait_until(lambda: waiting(server) >= 50)
    # Those of httpd were there before.
    assert processes.threads(pid) <= before + 2
    for connection in connections:
        assert connection.read_response().status == 200
        connection.close()


def waiting(server):
    return int(server.get("/http/count?name=waiting").body)


def test_http_2_streams_wait_together(server):
    with server.http2() as connection:
        begin = time.monotonic()
        streams = [connection.begin("/http/wait?seconds=0.3") for _ in range(50)]
        for stream in streams:
            assert stream.read_response().status == 200
        assert time.monotonic() - begin < 5


def test_blocking_work_in_a_thread(server):
    """``run_in_executor`` keeps the loop free."""
    with server.connect() as slow:
        slow.request("/http/threaded?seconds=2")
        begin = time.monotonic()
        for _ in range(20):
            server.get("/http/hello")
        assert time.monotonic() - begin < 1.5
        assert slow.read_response().json() == [True, "of the request"]


def test_wsgi_beside(server):
    """A WSGI application of the same process serves while others wait in the loop."""
    connections = [server.connect() for _ in range(50)]
    for connection in connections:
        connection.request("/http/wait?seconds=1")
    for _ in range(20):
        assert server.get("/wsgi/hello").body == b"Hello, world\n"
    for connection in connections:
        assert connection.read_response().status == 200
        connection.close()


def test_no_deadlock_of_long_and_short(server):
    """Long polls and ordinary traffic, up to httpd's last thread and beyond."""
    server.allow_log("AH00484")
    held = THREADS - 6
    connections = [server.connect() for _ in range(held)]
    for connection in connections:
        connection.request("/http/wait?seconds=2")
    with Load(server.port, "/http/hello", clients=8) as load:
        load.wait_for(200)
    assert load.failures == []
    for connection in connections:
        assert connection.read_response().status == 200
        connection.close()


def test_steady_traffic(server):
    with Load(server.port, "/http/hello", clients=4, keep_alive=True) as keep:
        with Load(server.port, "/wsgi/hello", clients=2) as wsgi:
            keep.wait_for(1000)
            wsgi.wait_for(100)
    assert keep.failures == wsgi.failures == []


@pytest.mark.modes("daemon")
def test_concurrency_bounds_what_is_in_progress(new_httpd):
    """``concurrency=3``: the others wait in their sockets, and all are served."""
    with new_httpd(threads=40, daemon="threads=1 concurrency=3") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.start()
        responses = all_of(httpd, "/http/wait?seconds=0.1", 24)
        assert max(int(response.body) for response in responses) == 3


@pytest.mark.modes("daemon")
def test_concurrency_and_several_workers(new_httpd):
    with new_httpd(threads=40, daemon="processes=2 threads=1 concurrency=4") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.start()
        responses = all_of(httpd, "/http/wait?seconds=0.2", 32)
        assert max(int(response.body) for response in responses) <= 4


@pytest.mark.modes("daemon")
def test_no_bound(new_httpd):
    with new_httpd(threads=80, daemon="threads=1 concurrency=0") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.start()
        responses = all_of(httpd, "/http/wait?seconds=0.5", 60)
        assert max(int(response.body) for response in responses) == 60


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_loops(new_httpd, mode, loop):
    if loop == "uvloop" and not paths.same_python():
        pytest.skip("the packages are of another Python")
    option = f"loop={loop}" if mode == "daemon" else ""
    with new_httpd(threads=40, daemon=option) as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        path = f'WSGIPythonPath "{httpd.apps}:{paths.site_packages()}"'
        httpd.config.added[0] = path + httpd.config.added[0][httpd.config.added[0].index("\n") :]
        if mode == "embedded":
            httpd.add(f"ASGILoop {loop}")
        httpd.start()
        assert httpd.json("/http/look")["loop"] == loop
        all_of(httpd, "/http/wait?seconds=0.1", 30)
        assert httpd.get("/http/threaded").json() == [True, "of the request"]
        body = b"x" * 300_000
        assert httpd.request("/http/echo", method="POST", body=body).body == body


def test_application_groups_have_loops_of_their_own(new_httpd):
    """One that blocks its loop does not keep another one from serving."""
    with new_httpd(threads=8) as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.add(f"""
            ASGIScriptAlias /other "{httpd.apps}/asgi_http.py" application-group=other
        """)
        httpd.start()
        assert httpd.get("/other/hello").body == b"Hello, world\n"
        with httpd.connect() as blocked:
            blocked.request("/other/block?seconds=1.5")
            begin = time.monotonic()
            for _ in range(10):
                httpd.get("/http/hello")
            assert time.monotonic() - begin < 1
            assert blocked.read_response().status == 200


def test_state_of_the_module_is_shared(server):
    """All requests run in one interpreter and one loop."""
    threads = [
        threading.Thread(target=server.get, args=("/http/wait?seconds=0.01",)) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waiting(server) == 0
