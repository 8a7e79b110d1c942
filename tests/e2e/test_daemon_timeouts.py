"""What makes a process group replace its workers: timeouts, limits, signals.

Items of the parity checklist (I, 181 to 206); the number is in each test's docstring."""

from __future__ import annotations

import math
import os
import signal
import time

import pytest
from harness.group import DUMP, ROOT, STACK, Request, group, identity, pid, reason, replaced, shows

pytestmark = pytest.mark.rwsgi


# Replacement


@pytest.mark.checklist(185)
def test_inactivity_timeout(new_httpd):
    """185: an idle process is replaced; it counts from the first request on."""
    with group(new_httpd, "inactivity-timeout=1") as httpd:
        told = reason(httpd, "inactivity_timeout")
        old = httpd.workers()
        begin = time.monotonic()
        new = replaced(httpd, old)
        assert 0.8 < time.monotonic() - begin < 6
        httpd.settle_log()
        assert told.lines
        # The new one has had no request.
        time.sleep(2.5)
        assert httpd.workers() == new


@pytest.mark.checklist(185)
def test_inactivity_timeout_and_activity(new_httpd):
    """185: requests postpone it, and so does one that runs; those of WSGIIgnoreActivity do not."""
    text = "<Location /answer>\nWSGIIgnoreActivity On\n</Location>"
    with group(new_httpd, "inactivity-timeout=2", text) as httpd:
        httpd.allow_log("inactivity_timeout")
        old = pid(httpd)
        for _ in range(8):
            time.sleep(0.5)
            assert pid(httpd) == old
        gate = httpd.gate()
        request = Request(httpd, f"/app/hold?gate={gate.path}").begun()
        time.sleep(3.5)
        assert httpd.workers() == [old]
        gate.step()
        assert request.response().body == str(old).encode()
        deadline = time.monotonic() + 10
        while httpd.workers() == [old]:
            assert httpd.get("/answer/hello").status == 200
            assert time.monotonic() < deadline, "ignored requests postpone it"
            time.sleep(0.3)


@pytest.mark.parametrize("deadlock", ["", " deadlock-timeout=0"])
@pytest.mark.checklist(186)
def test_request_timeout(new_httpd, deadlock):
    """186: the process is replaced, with the stack of the thread in the log; independent of the
    other timeouts."""
    options = f"threads=1 request-timeout=1 graceful-timeout=1{deadlock}"
    with group(new_httpd, options) as httpd:
        old = httpd.workers()
        told = httpd.expect_log(r"RWSGI0412: .*/app/sleep")
        stack = httpd.expect_log(STACK)
        httpd.allow_log("RWSGI0303|RWSGI0410|RWSGI0408: .*/app/sleep")
        reason(httpd, "request_timeout")
        begin = time.monotonic()
        request = Request(httpd, "/app/sleep?seconds=30")
        # Warm: others are served while the culprit is given its time.
        assert request.begun()
        replaced(httpd, old)
        assert request.response().status in (502, 504)
        assert 1 < time.monotonic() - begin < 10
        httpd.settle_log()
        assert told.lines and shows(stack, "in sleep")
        assert pid(httpd) not in old


@pytest.mark.checklist(186)
def test_request_timeout_grows_with_the_threads(new_httpd):
    """186: T * (1 + ln(threads))."""
    with group(new_httpd, "threads=8 request-timeout=1") as httpd:
        httpd.expect_log("RWSGI0412: .*/app/sleep")
        httpd.expect_log(STACK)
        httpd.allow_log("request_timeout")
        limit = 1 + math.log(8)
        old = pid(httpd)
        assert httpd.get(f"/app/sleep?seconds={limit - 0.8:.1f}").text == str(old)
        assert pid(httpd) == old
        request = Request(httpd, "/app/sleep?seconds=6").begun()
        begin = time.monotonic()
        replaced_by = httpd.wait_until(
            lambda: [worker for worker in httpd.workers() if worker != old], "no new worker"
        )
        assert limit - 0.8 < time.monotonic() - begin < limit + 3
        # It ends within graceful-timeout.
        assert request.response().body == str(old).encode()
        assert pid(httpd) in replaced_by


@pytest.mark.checklist(187)
def test_interrupt_timeout(new_httpd):
    """187: the exception is raised in the thread, the client gets 504, the process lives."""
    with group(new_httpd, "threads=1 request-timeout=1 interrupt-timeout=5") as httpd:
        old = pid(httpd)
        for _ in range(2):
            httpd.expect_log("RWSGI0412: .*/app/sleep")
            httpd.expect_log("RWSGI0207: .*RequestTimeout")
            stack = httpd.expect_log(STACK)
            begin = time.monotonic()
            assert httpd.request("/app/sleep?seconds=30").status == 504
            assert 0.9 < time.monotonic() - begin < 5
            httpd.settle_log()
            assert shows(stack, "in sleep")
        assert pid(httpd) == old


@pytest.mark.checklist(187)
def test_interrupt_timeout_in_mid_body(new_httpd):
    """187: too late for a 504; the cut is visible."""
    with group(new_httpd, "threads=1 request-timeout=1 interrupt-timeout=5") as httpd:
        old = pid(httpd)
        httpd.expect_log("RWSGI0412: .*/app/late-sleep")
        httpd.expect_log("RWSGI0207: .*RequestTimeout")
        httpd.expect_log(STACK)
        with httpd.connect() as connection:
            connection.request("/app/late-sleep?seconds=30")
            assert connection.read_head().status == 200
            assert connection.read_chunk() == b"begun"
            assert connection.read_to_end() == b""
        assert pid(httpd) == old


@pytest.mark.checklist(187)
def test_interrupt_that_is_swallowed(new_httpd):
    """187: the process is replaced after interrupt-timeout."""
    options = "threads=1 request-timeout=1 interrupt-timeout=1 graceful-timeout=1"
    with group(new_httpd, options) as httpd:
        old = httpd.workers()
        httpd.expect_log("RWSGI0412: .*/app/stubborn")
        httpd.expect_log("RWSGI0413: .*/app/stubborn")
        httpd.allow_log("RWSGI0303|RWSGI0410|RWSGI0408: .*/app/stubborn|swallowed")
        httpd.expect_log(STACK)
        reason(httpd, "request_timeout")
        assert httpd.request("/app/stubborn?seconds=30").status in (502, 504)
        replaced(httpd, old)
        assert pid(httpd) not in old


@pytest.mark.checklist(188)
def test_deadlock_timeout(new_httpd):
    """188: a thread that holds the GIL; the process is killed, the stack of the culprit told."""
    with group(new_httpd, "deadlock-timeout=2 shutdown-timeout=1 graceful-timeout=1") as httpd:
        old = httpd.workers()
        httpd.expect_log("RWSGI0414: ")
        httpd.expect_log("RWSGI0408: .*/app/hold-gil")
        stack = httpd.expect_log(r"daemon\.wsgi.* in hold_gil", count=None)
        httpd.expect_log("RWSGI0303: .*/app/hold-gil")
        httpd.allow_log(f"RWSGI0410|{DUMP}")
        with httpd.connect() as connection:
            connection.request("/app/hold-gil?seconds=60")
            begin = time.monotonic()
            replaced(httpd, old)
            assert 1.5 < time.monotonic() - begin < 12
            assert connection.read_response().status == 502
        httpd.settle_log()
        assert stack.lines
        assert pid(httpd) not in old


@pytest.mark.checklist(188)
def test_a_held_gil_below_the_deadlock_timeout_is_no_deadlock(new_httpd):
    """188"""
    with group(new_httpd, "deadlock-timeout=4") as httpd:
        old = pid(httpd)
        assert httpd.get("/app/hold-gil?seconds=2").text == str(old)
        assert pid(httpd) == old


@pytest.mark.checklist(189)
def test_startup_timeout(new_httpd):
    """189: an application that never finishes loading."""
    with new_httpd(mode="daemon", threads=8, daemon="startup-timeout=1") as httpd:
        hanging = httpd.root / "data" / "hanging"
        hanging.touch()
        httpd.write(
            "site/slow.wsgi",
            f"""\
            import os, time
            while os.path.exists({str(hanging)!r}):
                time.sleep(0.05)

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"loaded"]
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.root}/site/slow.wsgi"
        """)
        httpd.start()
        httpd.wait_until(lambda: httpd.workers())
        old = httpd.workers()
        httpd.expect_log("RWSGI0415: ")
        httpd.expect_log(r"slow\.wsgi.*in <module>", count=None)
        httpd.allow_log(f"RWSGI0303|RWSGI0410|RWSGI0408|RWSGI0300|startup_timeout|{DUMP}")
        with httpd.connect() as connection:
            connection.request("/")
            replaced(httpd, old)
            assert connection.read_response().status in (502, 503, 504)
        hanging.unlink()
        httpd.wait_until(lambda: httpd.request("/").status == 200, "it does not recover")
        # Loaded once, it is never taken for hanging again.
        time.sleep(1.5)
        assert httpd.get("/").body == b"loaded"


@pytest.mark.checklist(190)
def test_restart_interval(new_httpd):
    """190: regularly, and a request that runs is waited for."""
    with group(new_httpd, "restart-interval=1") as httpd:
        reason(httpd, "restart_interval")
        gate = httpd.gate()
        old = httpd.workers()
        request = Request(httpd, f"/app/hold?gate={gate.path}").begun()
        httpd.wait_until(lambda: set(httpd.workers()) - set(old), "no restart")
        gate.step()
        assert request.response().status == 200
        replaced(httpd, old)
        replaced(httpd, httpd.workers())


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.checklist(191)
def test_graceful_timeout(new_httpd, within):
    """191: running requests have that long; after it they are cut, and it is told which."""
    with group(new_httpd, f"graceful-timeout={10 if within else 1} shutdown-timeout=1") as httpd:
        reason(httpd, "graceful_signal")
        gate = httpd.gate()
        old = httpd.workers()
        request = Request(httpd, f"/app/hold?gate={gate.path}").begun()
        if not within:
            httpd.expect_log("RWSGI0410: ")
            httpd.expect_log("RWSGI0408: .*/app/hold")
            httpd.expect_log("RWSGI0303: .*/app/hold")
        begin = time.monotonic()
        os.kill(old[0], signal.SIGUSR1)
        httpd.wait_until(lambda: set(httpd.workers()) - set(old), "no new worker")
        # Served meanwhile, and by the new one.
        httpd.wait_until(lambda: pid(httpd) not in old, "the old one goes on")
        if within:
            gate.step()
            assert request.response().body == str(old[0]).encode()
        else:
            assert request.response().status == 502
            assert 0.8 < time.monotonic() - begin < 8
        replaced(httpd, old)


@pytest.mark.parametrize("who", ["worker", "supervisor"])
@pytest.mark.parametrize("option", ["", "eviction-timeout=5"])
@pytest.mark.checklist(192)
def test_graceful_signal(new_httpd, who, option):
    """192: SIGUSR1, and the word for why."""
    with group(new_httpd, option) as httpd:
        reason(
            httpd, "eviction_signal" if option and who == "worker" else "(graceful|eviction)_signal"
        )
        old = httpd.workers()
        os.kill(old[0] if who == "worker" else httpd.supervisors()[0], signal.SIGUSR1)
        replaced(httpd, old)
        assert pid(httpd) not in old


def test_other_signals_to_the_supervisor_do_nothing(new_httpd):
    """192: HUP, WINCH and USR2 belong to httpd."""
    with group(new_httpd) as httpd:
        (supervisor,) = httpd.supervisors()
        old = httpd.workers()
        for sign in (signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR2):
            os.kill(supervisor, sign)
        time.sleep(0.5)
        assert httpd.supervisors() == [supervisor]
        assert httpd.workers() == old


@pytest.mark.checklist(193)
def test_cpu_time_limit(new_httpd):
    """193: the process is replaced; nothing fails."""
    with group(new_httpd, "threads=2 cpu-time-limit=1 graceful-timeout=10") as httpd:
        old = pid(httpd)
        assert identity(httpd)["limits"]["RLIMIT_CPU"][0] == 1
        reason(httpd, "cpu_time_limit")
        assert httpd.get("/app/burn?seconds=1.3").status == 200
        replaced(httpd, [old])
        assert pid(httpd) != old


def test_max_rss(new_httpd):
    """The process is replaced when it stays large, after its request, and nothing fails."""
    with group(new_httpd, "max-rss=120000000") as httpd:
        old = pid(httpd)
        # A short peak is none.
        assert httpd.get("/app/allocate?mib=150").text == str(old)
        time.sleep(3.5)
        assert pid(httpd) == old
        reason(httpd, "max_rss")
        assert httpd.get("/app/allocate?mib=150&keep=1").text == str(old)
        replaced(httpd, [old])
        assert pid(httpd) != old


# Limits


@pytest.mark.parametrize("option", ["memory-limit", "virtual-memory-limit"])
@pytest.mark.checklist(200)
def test_memory_limits(new_httpd, option):
    """200: MemoryError in the application, which goes on."""
    with group(new_httpd, f"threads=2 {option}=700000000") as httpd:
        old = pid(httpd)
        name = "RLIMIT_DATA" if option == "memory-limit" else "RLIMIT_AS"
        assert identity(httpd)["limits"][name] == [700000000] * 2
        httpd.allow_log("RWSGI0200: .*MemoryError")
        assert httpd.get("/app/allocate?mib=900").text == "MemoryError"
        assert httpd.get("/app/allocate?mib=50").text == str(old)


@ROOT
@pytest.mark.parametrize(
    ("options", "owner", "rights", "around", "status"),
    [
        ("script-user=root", "root", 0o644, ("root", 0o755), 200),
        ("script-user=nobody", "root", 0o644, ("nobody", 0o755), 403),
        ("script-user=nobody", "nobody", 0o644, ("nobody", 0o755), 200),
        ("script-user=nobody", "nobody", 0o646, ("nobody", 0o755), 403),
        ("script-user=nobody", "nobody", 0o664, ("nobody", 0o755), 403),
        ("script-group=nogroup", "nobody", 0o664, ("nobody", 0o755), 200),
        ("script-group=nogroup", "nobody", 0o646, ("nobody", 0o755), 403),
        ("script-group=daemon", "nobody", 0o644, ("nobody", 0o755), 403),
        # Whoever may write to the directory may put another script there.
        ("script-user=nobody", "nobody", 0o644, ("root", 0o755), 403),
        ("script-user=nobody", "nobody", 0o644, ("nobody", 0o775), 403),
        ("script-user=nobody", "nobody", 0o644, ("nobody", 0o757), 403),
        ("script-group=nogroup", "nobody", 0o644, ("root", 0o755), 403),
        ("script-group=nogroup", "nobody", 0o644, ("nobody", 0o775), 200),
        ("script-group=nogroup", "nobody", 0o644, ("nobody", 0o757), 403),
    ],
)
@pytest.mark.checklist(201)
def test_script_owner(new_httpd, options, owner, rights, around, status):
    """201: the script and its directory."""
    import shutil

    with new_httpd(mode="daemon", daemon=options) as httpd:
        script = httpd.write("own/app.wsgi", (httpd.apps / "response.wsgi").read_text())
        directory = script.parent
        for path, user, mode in ((script, owner, rights), (directory, *around)):
            shutil.chown(path, user, "nogroup" if user == "nobody" else "root")
            path.chmod(mode)
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{directory}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{script}"
        """)
        httpd.start()
        if status != 200:
            httpd.expect_log(r"RWSGI03[3-6]\d: .*own")
        assert httpd.request("/hello").status == status
