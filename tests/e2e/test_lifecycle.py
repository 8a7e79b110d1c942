"""Start, graceful restart, restart and stop: nothing is lost, nothing is left, nobody crashes."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from harness import processes
from harness.config import BOTH
from harness.load import Load

MODES = BOTH

MPMS = ["event", "worker", "prefork"]
SOAK = pytest.mark.soak
#: httpd's own words for being at its configured limits, which the load may reach.
AT_LIMIT = "AH00484|AH00161|AH0028[68]|AH0328[0-9]|AH10159"


def setup(httpd, text=""):
    httpd.add(f"""
        WSGIPythonPath "{httpd.apps}"
        <Directory "{httpd.apps}">
            Require all granted
        </Directory>
        WSGIScriptAlias /sub "{httpd.apps}/interpreter.wsgi" application-group=sub
        WSGIScriptAlias /look "{httpd.apps}/interpreter.wsgi" application-group=%{{GLOBAL}}
        WSGIScriptAlias /answer "{httpd.apps}/response.wsgi" application-group=%{{GLOBAL}}
        {text}
    """)
    return httpd


@pytest.fixture(params=MPMS)
def server(new_httpd, request):
    """Fresh for every test: each one ends it in its own way."""
    with new_httpd(mpm=request.param, threads=4) as httpd:
        yield setup(httpd).start()


def wait_until(condition, what, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def notes(path):
    return sorted(path.read_text().split()) if path.exists() else []


def test_start_and_stop_without_a_request(server):
    server.stop()


def test_stop_after_requests(server):
    for mount in ("answer/hello", "sub/count", "look/count"):
        server.get("/" + mount)
    server.stop()


@pytest.mark.rwsgi
def test_python_is_never_in_the_parent(server):
    """Not at the start, not after requests, not after restarts."""
    parent = server.process.pid

    def check():
        maps = processes.maps(parent)
        assert "libpython" not in maps and "/_rwsgi." not in maps
        server.get("/answer/hello")
        assert "libpython" not in processes.maps(parent)

    check()
    server.graceful()
    check()
    server.restart()
    check()
    assert processes.threads(parent) == 1


@pytest.mark.modes("embedded")
def test_python_is_in_the_children(server):
    server.get("/answer/hello")
    loaded = ["libpython" in processes.maps(pid) for pid in server.children()]
    assert any(loaded)


@pytest.mark.checklist(178)
@pytest.mark.parametrize("how", ["stop", "graceful", "restart", "graceful-stop"])
def test_exit_handlers_run(server, how):
    """``atexit`` and non-daemon threads, in the main interpreter and in others."""
    files = {mount: server.root / "data" / f"exit-{mount}" for mount in ("sub", "look")}
    for mount, file in files.items():
        server.get(f"/{mount}/at-exit?file={file}&thread=1")
    if how == "graceful":
        server.graceful()
    elif how == "restart":
        server.restart()
    elif how == "graceful-stop":
        server.stop(signal.SIGWINCH)
    else:
        server.stop()
    for file in files.values():
        wait_until(lambda: len(notes(file)) >= 2, f"{file.name}: {notes(file)}")  # noqa: B023
        assert notes(file) == ["atexit", "thread"]


@pytest.mark.parametrize("mount", ["sub", "look"])
def test_busy_daemon_threads_do_not_hinder(server, mount):
    """One interpreter only: up to 3.12, CPython's busy threads yield to no other interpreter."""
    # The thread may still hold the lock when the other interpreter's turn comes.
    server.allow_log("RWSGI0108")
    server.get(f"/{mount}/daemon-thread")
    server.graceful()
    server.get(f"/{mount}/daemon-thread")
    server.stop()


def test_request_in_flight_survives_a_graceful_restart(server):
    gate = server.gate()
    with server.connect() as connection:
        connection.request(f"/answer/streaming?count=5&gate={gate.path}")
        gate.step()
        assert connection.read_head().status == 200
        assert connection.read_chunk() == b"0\n"
        server.graceful()
        assert server.get("/answer/hello").status == 200
        for i in range(1, 5):
            gate.step()
            assert connection.read_chunk() == b"%d\n" % i
        assert connection.read_chunk() == b""


def test_request_in_flight_survives_a_graceful_stop(server):
    gate = server.gate()
    with server.connect() as connection:
        connection.request(f"/answer/streaming?count=3&gate={gate.path}")
        gate.step()
        assert connection.read_head().status == 200
        assert connection.read_chunk() == b"0\n"
        stopper = threading.Thread(target=server.process.send_signal, args=(signal.SIGWINCH,))
        stopper.start()
        stopper.join()
        for i in range(1, 3):
            gate.step()
            assert connection.read_chunk() == b"%d\n" % i
        assert connection.read_chunk() == b""
    server.stop(signal.SIGWINCH)


@pytest.mark.rwsgi
def test_request_in_flight_does_not_delay_a_stop(server):
    """A stop cuts what runs. httpd waits for the thread of a request about 8 s, then kills; a
    process group has shutdown-timeout."""
    gate = server.gate()
    server._gates.remove(gate)
    server.allow_log("RWSGI0108|AH0004[56]|RWSGI04[0-4][0-9]|RWSGI030[0-9]")
    with server.connect() as connection:
        connection.request(f"/answer/streaming?count=2&gate={gate.path}")
        gate.step()
        assert connection.read_head().status == 200
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < (20 if server.daemon else 15)
        server.settle_log()
    os.close(gate.descriptor)


@pytest.mark.rwsgi
def test_endless_exit_handler_is_cut(new_httpd):
    """An exit handler that never ends: logged, and the process ends nevertheless."""
    with new_httpd() as httpd:
        httpd.write(
            "apps/endless.wsgi",
            """\
            import atexit, threading

            atexit.register(threading.Event().wait)

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"ready"]
            """,
        )
        setup(httpd, f'WSGIScriptAlias /endless "{httpd.apps}/endless.wsgi"').start()
        assert httpd.get("/endless").body == b"ready"
        httpd.expect_log("RWSGI0108|RWSGI0410", count=None)
        httpd.stop()
        httpd.settle_log()


@pytest.mark.rwsgi
def test_failing_exit_handler_is_logged(new_httpd):
    with new_httpd() as httpd:
        httpd.write(
            "apps/failing.wsgi",
            """\
            import atexit

            def fail():
                raise ValueError("at exit")

            atexit.register(fail)

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"ready"]
            """,
        )
        setup(httpd, f'WSGIScriptAlias /failing "{httpd.apps}/failing.wsgi"').start()
        assert httpd.get("/failing").body == b"ready"
        # Python reports it by itself on standard error, unless the gateway does.
        httpd.expect_log("RWSGI0107|Exception ignored in atexit|Error in atexit")
        httpd.allow_log("^Traceback|^  |^ValueError: at exit")
        httpd.stop()
        httpd.settle_log()


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("mpm", ["worker", "prefork"])
def test_children_are_replaced_after_some_connections(new_httpd, mpm):
    """``MaxConnectionsPerChild`` under load: each child ends in order, no request is lost.

    Not under the event MPM, which itself resets one connection in some thousands here, with static
    files and without any module of ours.
    """
    with new_httpd(mpm=mpm, threads=4, processes=2) as httpd:
        setup(httpd, "MaxConnectionsPerChild 40").start()
        httpd.allow_log(AT_LIMIT)
        pids = set()

        def good(response):
            pids.add(response.json()["pid"])
            return response.status == 200

        with Load(httpd.port, "/look/flags", clients=3, good=good) as load:
            load.wait_for(300)
        assert load.failures == []
        assert len(pids) > 2


def test_changed_configuration(server):
    """A graceful restart takes the new configuration."""
    assert server.request("/later/hello").status == 404
    server.add(f'WSGIScriptAlias /later "{server.apps}/response.wsgi"')
    server.rewrite_config()
    server.graceful()
    # A process of the old generation may still take a connection.
    wait_until(lambda: server.request("/later/hello").status == 200, "the old configuration")
    assert server.get("/later/hello").body == b"Hello, world\n"


def test_many_virtual_hosts(new_httpd):
    """Configuration of many hosts, merged, over restarts."""
    with new_httpd() as httpd:
        setup(httpd)
        for number in range(50):
            httpd.add(f"""
                <VirtualHost *:{httpd.port}>
                    ServerName host{number}.example
                    WSGIScriptAlias /own{number} "{httpd.apps}/response.wsgi"
                </VirtualHost>
            """)
        httpd.start()
        for _ in range(2):
            for number in (0, 25, 49):
                host = {"Host": f"host{number}.example:{httpd.port}"}
                assert httpd.get(f"/own{number}/hello", headers=host).status == 200
                assert httpd.get("/answer/hello", headers=host).status == 200
                assert httpd.request(f"/own{number + 1}/hello", headers=host).status == 404
            httpd.graceful()


# Under load


def restarts_under_load(httpd, rounds):
    with (
        Load(httpd.port, "/answer/hello", clients=2) as fresh,
        Load(httpd.port, "/sub/count", clients=2, keep_alive=True) as kept,
    ):
        for _ in range(rounds):
            fresh.wait_for(20)
            kept.wait_for(20)
            httpd.graceful()
        fresh.wait_for(20)
        kept.wait_for(20)
    assert fresh.failures == [] and kept.failures == []


def test_graceful_restarts_under_load(server):
    server.allow_log(AT_LIMIT)
    restarts_under_load(server, 5)


@SOAK
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mpm", MPMS)
def test_fifty_graceful_restarts_under_load(new_httpd, mpm):
    """The parent does not grow more than that of an httpd without the module."""
    growth = {}
    for ours in (False, True):
        level = "notice rwsgi:info" if ours else "notice"
        with new_httpd(mpm=mpm, threads=4, module_under_test=ours, log_level=level) as httpd:
            if ours:
                setup(httpd)
            httpd.start()
            httpd.allow_log(AT_LIMIT)

            def rounds(count):
                if ours:  # noqa: B023
                    restarts_under_load(httpd, count)  # noqa: B023
                else:
                    for _ in range(count):
                        httpd.graceful()  # noqa: B023

            rounds(5)
            before = processes.resident_kib(httpd.process.pid)
            rounds(50)
            growth[ours] = processes.resident_kib(httpd.process.pid) - before
    assert growth[True] - growth[False] < 512, f"KiB by module: {growth}"


SCRIPT = """\
import os

def application(environ, start_response):
    headers = [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))]
    start_response("200 OK", headers)
    return [b"version {number}"]
"""


def changes_under_load(httpd, rounds):
    """Changes the script; every third time it is broken, and the old one goes on."""
    age = 10_000.0
    httpd.write("scripts/app.wsgi", SCRIPT.format(number=0), age=age)
    seen = set()
    warm_up(httpd)

    def good(response):
        seen.add(response.body)
        return response.status == 200 and response.body.startswith(b"version ")

    with Load(httpd.port, "/changing", clients=3, good=good) as load:
        load.wait_for(20)
        for number in range(1, rounds + 1):
            age -= 1
            broken = number % 3 == 0
            text = "raise RuntimeError('broken')\n" if broken else SCRIPT.format(number=number)
            httpd.write("scripts/app.wsgi", text, age=age)
            load.wait_for(40)
            wanted = b"version %d" % (number - 1 if broken else number)
            if httpd.daemon:
                # The request that notices waits for the new code, the others go on with the old.
                httpd.wait_until(lambda: httpd.get("/changing").body == wanted)  # noqa: B023
            answer = httpd.get("/changing").body
            # A process that has not seen the version before keeps an older one.
            stale = broken and len(httpd.pythons()) > 1
            assert answer == wanted or (stale and answer.startswith(b"version "))
    assert load.failures == []
    assert len(seen) == rounds + 1 - rounds // 3


def warm_up(httpd):
    """Has every process load the script: one that never did has no old code to keep."""
    pids = set()

    def all_have():
        connections = [httpd.connect() for _ in httpd.pythons()]
        for connection in connections:
            connection.request("/changing")
        for connection in connections:
            pids.add(int(connection.read_response().header("X-Pid")))
            connection.close()
        return pids == set(httpd.pythons())

    wait_until(all_have, "a process does not answer")


def serve_changing(new_httpd, mpm, rounds):
    with new_httpd(mpm=mpm, threads=4) as httpd:
        (httpd.root / "scripts").mkdir()
        setup(httpd, f'WSGIScriptAlias /changing "{httpd.root}/scripts/app.wsgi"')
        httpd.add(f'<Directory "{httpd.root}/scripts">\nRequire all granted\n</Directory>')
        if mpm == "prefork":
            # As many processes as connections below, and never another one.
            httpd.add("StartServers 4\nMaxRequestWorkers 4\nMaxSpareServers 4\nKeepAliveTimeout 1")
            httpd.allow_log(AT_LIMIT)
        httpd.start()
        # Once per change, process and interpreter.
        httpd.allow_log("RWSGI0104.*app.wsgi|RWSGI0409")
        changes_under_load(httpd, rounds)


@pytest.mark.rwsgi
@pytest.mark.parametrize("mpm", MPMS)
def test_changed_scripts_under_load(new_httpd, mpm):
    serve_changing(new_httpd, mpm, 10)


@SOAK
@pytest.mark.rwsgi
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mpm", MPMS)
def test_fifty_changed_scripts_under_load(new_httpd, mpm):
    serve_changing(new_httpd, mpm, 50)
