"""One client that sends garbage changes nothing for its neighbours; threads that use the objects of
a request at any time never crash the process."""

from __future__ import annotations

import random
import socket
import subprocess
import threading

import pytest
from harness import processes
from harness.client import Connection
from harness.config import BOTH
from harness.load import Load
from harness.sites import applications

MODES = BOTH

#: httpd's own words about what it refuses.
REFUSED = "AH[0-9]{5}: "
EXPECTED = str(sum(i * i for i in range(2000))).encode()


@pytest.fixture(scope="module", params=["event", "worker", "prefork"])
def server(new_httpd, request):
    with new_httpd(mpm=request.param, threads=8, modules=["reqtimeout"]) as httpd:
        applications(httpd, app="robust.wsgi")
        httpd.add("RequestReadTimeout handshake=0 header=5 body=5")
        # Started, or the first look at its processes comes too early.
        httpd.start().get("/app")
        yield httpd


def garbage(source: random.Random) -> bytes:
    """A request that is malformed in one of many ways."""
    body = b"POST /app/read HTTP/1.1\r\nHost: x\r\n"
    kinds = [
        lambda: source.randbytes(source.randrange(1, 300)),
        lambda: source.randbytes(100) + b"\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\n\r\n",
        lambda: b"GET /app HTTP/9.9\r\nHost: x\r\n\r\n",
        lambda: b"GET /%zz%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /app/%2f%2e%2e/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\n: 1\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\nX: \x00\x01\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 10000 + b"\r\n\r\n",
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        lambda: b"GET /app/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"FOO\x7f /app HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: body + b"Content-Length: x\r\n\r\n",
        lambda: body + b"Content-Length: -5\r\n\r\nhello",
        lambda: body + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        lambda: body + b"Content-Length: 1000\r\n\r\nshort",
        lambda: body + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        lambda: body + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        lambda: body + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        lambda: body + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX3\r\n",
        lambda: body + b"Transfer-Encoding: gzip\r\n\r\n",
        lambda: body + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        lambda: body + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        lambda: body + b"Expect: nonsense\r\nContent-Length: 5\r\n\r\nhello",
        lambda: b"GET /app/stream HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /app/stream HTTP/1.1\r\nHost: x\r\n\r\n" * 5,
        lambda: b"GET /app HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + source.randbytes(50),
        lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + source.randbytes(30),
    ]
    return source.choice(kinds)()


def attack(port: int, count: int, seed: int) -> None:
    """Sends garbage, reads a little or nothing, and leaves in one way or another."""
    source = random.Random(seed)
    for _ in range(count):
        connection = Connection(port, timeout=10)
        try:
            data = garbage(source)
            if source.random() < 0.3:
                data = data[: source.randrange(len(data)) + 1]
            connection.send(data)
            way = source.randrange(4)
            if way == 0:
                connection.socket.shutdown(socket.SHUT_WR)
            if way <= 1:
                connection.socket.settimeout(0.02)
                connection.socket.recv(source.choice([1, 500, 100_000]))
        except OSError:
            pass
        if source.random() < 0.5:
            connection.reset()
        else:
            connection.close()


def neighbours_are_undisturbed(server, count):
    # The attacker makes httpd complain, and applications fail to read; neither is a fault.
    server.allow_log(REFUSED + "|RWSGI001[456]|RWSGI0205")
    before = server.children(), server.pythons()

    def good(response):
        return response.status == 200 and response.body == EXPECTED

    with Load(server.port, "/app", clients=2, good=good) as load:
        attackers = [
            threading.Thread(target=attack, args=(server.port, count // 2, seed))
            for seed in range(2)
        ]
        for thread in attackers:
            thread.start()
        for thread in attackers:
            thread.join()
        load.wait_for(20)
    assert load.failures == []
    if server.config.mpm != "prefork":
        assert (server.children(), server.pythons()) == before, "a process was replaced"
    for _ in range(10):
        assert server.get("/app").body == EXPECTED


@pytest.mark.timeout(120)
def test_malformed_and_aborted_requests(server):
    neighbours_are_undisturbed(server, 1500)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_malformed_and_aborted_requests(server):
    neighbours_are_undisturbed(server, 10_000)


@pytest.mark.parametrize("join", ["", "?join=1"])
def test_foreign_threads(server, join):
    """Whatever the calls come to, the process lives and the next request is served."""
    server.allow_log("from a foreign thread|RWSGI020[56]")
    pids = server.pythons()
    failures = []

    def client(number):
        try:
            with server.connect() as connection:
                connection.request(f"/app/foreign{join}", "POST", body=b"line\n" * 2000)
                response = connection.read_response()
                assert response.status == 200
                assert set(response.body) <= set(b"xyz")
        except Exception as error:
            failures.append(f"{number}: {error!r}")

    for _ in range(3):
        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
    assert failures == []
    # prefork: whichever process answers; the others end their threads with the server.
    report = server.json("/app/report")
    kinds = {"accepted", "RuntimeError", "OSError", "ValueError", "TypeError", "AssertionError"}
    assert set(report) <= kinds, report
    if server.config.mpm != "prefork":
        assert report.get("accepted", 0) > 0
        assert server.pythons() == pids


def test_many_slow_clients(server):
    """Open connections that send nothing, or half a request, take no Python thread."""
    if server.config.mpm == "prefork":
        pytest.skip("under prefork every connection takes a process")
    server.allow_log(REFUSED)
    idle = [server.connect() for _ in range(30)]
    assert server.get("/app").body == EXPECTED
    for connection in idle:
        connection.close()


@pytest.mark.rwsgi
@pytest.mark.timeout(120)
def test_memory_does_not_grow(new_httpd):
    """Thousands of requests of all kinds: the child stays as large as it was."""
    with new_httpd(threads=4) as httpd:
        applications(httpd, app="robust.wsgi", answer="response.wsgi", fault="faulty.wsgi")
        httpd.start()
        httpd.allow_log("RWSGI020[0-6]|RWSGI001[0-9]|AH[0-9]{5}: ")
        targets = ["/app", "/app/stream", "/answer/writing", "/answer/headers"]
        targets += ["/fault/raising", "/fault/raising-later", "/fault/underrun", "/answer/hello"]

        def rounds(count):
            for number in range(count):
                with httpd.connect() as connection:
                    target = targets[number % len(targets)] + f"?x={number}"
                    connection.request(target, headers={"Connection": "close"})
                    connection.read_head()
                    if number % 3:
                        connection.socket.recv(100)

        rounds(800)
        pids = {*httpd.children(), *httpd.pythons()}
        before = {pid: processes.resident_kib(pid) for pid in pids}
        rounds(2400)
        assert {*httpd.children(), *httpd.pythons()} == pids
        for pid in pids:
            assert processes.resident_kib(pid) - before[pid] < 3000


def test_load_over_http_2(new_httpd):
    """h2load: many streams on few connections, on the threads of mod_http2."""
    with new_httpd(threads=4, http2=True) as httpd:
        applications(httpd, app="robust.wsgi")
        httpd.start()
        # As many connections as threads.
        httpd.allow_log("AH00484")
        done = subprocess.run(
            ["h2load", "-n", "2000", "-c", "4", "-m", "20", httpd.url("/app/stream")],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout + done.stderr
        assert "status codes: 2000 2xx" in done.stdout
