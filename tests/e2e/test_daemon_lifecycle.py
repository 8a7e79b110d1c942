"""The life of a process group, item by item of the parity checklist (I, 181 to 206); the number is
in each test's docstring."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from harness import paths, processes
from harness.sites import applications

pytestmark = pytest.mark.rwsgi
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


# Processes and identity


def test_processes_and_threads(new_httpd):
    """181: so many processes of so many threads; display-name."""
    options = "processes=3 threads=4 display-name=%{GROUP}"
    with group(new_httpd, options, threads=32) as httpd:
        httpd.wait_until(lambda: len(httpd.workers()) == 3)
        gate = httpd.gate()
        file = httpd.root / "data" / "begun"
        requests = []
        for _ in range(13):
            connection = httpd.connect()
            connection.request(f"/app/hold?gate={gate.path}&file={file}")
            requests.append(connection)
        httpd.wait_until(
            lambda: file.exists() and len(file.read_text().split()) >= 12, "12 do not run at once"
        )
        time.sleep(0.2)
        assert len(file.read_text().split()) == 12
        gate.step(13)
        pids = {int(connection.read_response().body) for connection in requests}
        assert pids == set(httpd.workers())
        assert {processes.title(each) for each in pids} == {"(wsgi:tests)"}
        (supervisor,) = httpd.supervisors()
        assert processes.title(supervisor).startswith("rwsgi-daemon: tests")
        listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert listing.splitlines().count("(wsgi:tests)") >= 3
        facts = identity(httpd)
        assert facts["multiprocess"] is True and facts["multithread"] is True


@pytest.mark.parametrize(
    ("options", "multithread", "multiprocess", "run_once"),
    [
        ("threads=1", False, False, False),
        ("processes=1 threads=2", True, True, False),
        ("threads=1 maximum-requests=1", False, False, True),
    ],
)
def test_wsgi_keys(new_httpd, options, multithread, multiprocess, run_once):
    """181: ``processes=`` given at all makes wsgi.multiprocess true."""
    with group(new_httpd, options) as httpd:
        facts = identity(httpd)
        assert facts["multithread"] is multithread
        assert facts["multiprocess"] is multiprocess
        assert facts["run_once"] is run_once


def test_display_name_of_ones_own(new_httpd):
    """181"""
    with group(new_httpd, 'display-name="my site"') as httpd:
        assert processes.title(httpd.workers()[0]) == "my site"


@ROOT
def test_user_and_group(new_httpd):
    """182: user, group, supplementary groups, umask; nothing of it can be undone."""
    # The home of "nobody" does not exist, and a group must be able to enter its own.
    options = "user=nobody group=nogroup supplementary-groups=daemon,games umask=0027 home=/"
    with group(new_httpd, options) as httpd:
        import grp
        import pwd

        nobody = pwd.getpwnam("nobody")
        nogroup = grp.getgrnam("nogroup").gr_gid
        facts = identity(httpd)
        assert facts["uid"] == [nobody.pw_uid] * 3
        assert facts["gid"] == [nogroup] * 3
        wanted = {nogroup, grp.getgrnam("daemon").gr_gid, grp.getgrnam("games").gr_gid}
        assert set(facts["groups"]) == wanted
        assert facts["umask"] == 0o027
        assert httpd.json("/app/become-root") == {
            "setuid": "PermissionError",
            "setgid": "PermissionError",
        }
        status = processes.status(facts["pid"])
        assert status["CapEff"] == status["CapPrm"] == "0" * 16
        # 177: what programs look at.
        environ = facts["environ"]
        assert environ["USER"] == environ["LOGNAME"] == "nobody"
        assert environ["HOME"] == nobody.pw_dir
        (supervisor,) = httpd.supervisors()
        assert set(processes.status(supervisor)["Uid"].split()) == {str(nobody.pw_uid)}


@ROOT
def test_the_user_is_httpds_own_by_default(new_httpd):
    """182"""
    import pwd

    with group(new_httpd) as httpd:
        user = pwd.getpwnam(paths.httpd_user()[0])
        facts = identity(httpd)
        assert facts["uid"] == [user.pw_uid] * 3 and facts["gid"] == [user.pw_gid] * 3


def test_signals_of_a_worker_are_as_a_program_expects(new_httpd):
    """daemon.md, trap 3: programs started by the application inherit the mask."""
    with group(new_httpd) as httpd:
        facts = identity(httpd)
        assert facts["masked"] == []
        ignored = int(processes.status(facts["pid"])["SigIgn"], 16)
        # Python ignores SIGPIPE and SIGXFSZ by itself; those from 32 on are the C library's.
        found = {number for number in range(1, 32) if ignored & 1 << (number - 1)}
        assert found <= {signal.SIGPIPE, signal.SIGXFSZ}


# Replacement


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


def test_a_held_gil_below_the_deadlock_timeout_is_no_deadlock(new_httpd):
    """188"""
    with group(new_httpd, "deadlock-timeout=4") as httpd:
        old = pid(httpd)
        assert httpd.get("/app/hold-gil?seconds=2").text == str(old)
        assert pid(httpd) == old


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


# Queues


def test_queue_timeout(new_httpd):
    """194: 504, and the application does not run."""
    with group(new_httpd, "threads=1 queue-timeout=1") as httpd:
        gate = httpd.gate()
        holder = Request(httpd, f"/app/hold?gate={gate.path}").begun()
        told = httpd.expect_log("RWSGI0301: .*/app/sleep")
        waiting = Request(httpd, "/app/sleep?seconds=0")
        time.sleep(1.6)
        gate.step()
        assert holder.response().status == 200
        assert waiting.response().status == 504
        assert not waiting.file.exists(), "the application ran"
        httpd.settle_log()
        assert told.lines
        assert httpd.get("/app/pid").status == 200


def test_full_queue(new_httpd):
    """195: 503 with Retry-After once the backlog is full, and it goes on afterwards."""
    options = "threads=1 listen-backlog=1 connect-timeout=1"
    with group(new_httpd, options, threads=32) as httpd:
        gate = httpd.gate()
        holder = Request(httpd, f"/app/hold?gate={gate.path}").begun()
        httpd.expect_log("RWSGI0300: ", count=None)
        waiting = [httpd.connect() for _ in range(20)]
        begin = time.monotonic()
        for connection in waiting:
            connection.request("/app/pid")
        time.sleep(2.5)
        gate.step()
        assert holder.response().status == 200
        answers = [connection.read_response() for connection in waiting]
        assert time.monotonic() - begin < 15
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}, statuses
        for answer in answers:
            retry = answer.header("Retry-After")
            assert (retry is not None and int(retry) >= 1) == (answer.status == 503)
        assert httpd.get("/app/pid").status == 200


# The end


def test_shutdown_timeout(new_httpd):
    """196: an exit handler that hangs is cut, and it is told."""
    with group(new_httpd, "shutdown-timeout=1") as httpd:
        httpd.get("/app/exit-handler?seconds=60")
        httpd.expect_log("RWSGI0108: |RWSGI0410: ")
        begin = time.monotonic()
        httpd.stop()
        assert 0.9 < time.monotonic() - begin < 6


def test_exit_handlers_run_within_it(new_httpd):
    """196"""
    with group(new_httpd, "shutdown-timeout=10") as httpd:
        file = httpd.root / "data" / "exit"
        httpd.get(f"/look/at-exit?file={file}&thread=1")
        httpd.get("/app/exit-handler?seconds=1")
        httpd.stop()
        assert sorted(file.read_text().split()) == ["atexit", "thread"]


def test_graceful_restart_of_httpd(new_httpd):
    """197: idle keep-alive clients go on, new code is loaded, the old generation ends."""
    with group(new_httpd) as httpd:
        old = httpd.workers()
        kept = [httpd.connect() for _ in range(4)]
        for connection in kept:
            connection.request("/app/pid")
            assert connection.read_response().status == 200
        httpd.graceful()
        assert pid(httpd) not in old
        for connection in kept:
            # httpd closes idle connections of its old generation; a new one is as good.
            connection.close()
        httpd.wait_until(
            lambda: len(httpd.supervisors()) == 1 and not set(old) & set(httpd.workers()),
            "the old generation stays",
        )


def sockets(httpd):
    return sorted(path.name for path in (httpd.root / "run").glob("*.sock"))


@pytest.mark.parametrize("rotation", ["On", "Off"])
def test_socket_rotation(new_httpd, rotation):
    """198: Off keeps the path over a graceful restart; in either case nothing is left behind."""
    with group(new_httpd, text=f"WSGISocketRotation {rotation}") as httpd:
        before = sockets(httpd)
        assert len(before) == 1 and f".{httpd.process.pid}." in before[0]
        for _ in range(2):
            httpd.graceful()
            assert pid(httpd)
        httpd.wait_until(lambda: len(sockets(httpd)) == 1, f"{sockets(httpd)}")
        assert (sockets(httpd) == before) == (rotation == "Off")
        httpd.stop()
        assert sockets(httpd) == []


CONNECT = """
import os, socket, sys
os.setgid(65534); os.setgroups([]); os.setuid(65534)
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(10)
try:
    peer.connect(sys.argv[1])
except OSError as error:
    print("connect:", type(error).__name__)
else:
    try:
        peer.sendall(b"x" * 8)
        print("received:", peer.recv(100))
    except OSError as error:
        print("exchange:", type(error).__name__)
"""


@ROOT
def test_strangers_are_refused(new_httpd):
    """199: by the mode of the socket, and by their user where that has been changed."""
    with group(new_httpd) as httpd:
        path = httpd.root / "run" / sockets(httpd)[0]

        def connect():
            done = subprocess.run(
                [sys.executable, "-c", CONNECT, str(path)], capture_output=True, text=True
            )
            return done.stdout.strip()

        assert connect() == "connect: PermissionError"
        path.chmod(0o666)
        httpd.expect_log(r"RWSGI04[5-8]\d: .*65534", count=None)
        answer = connect()
        # A frame without a body that says no, or no answer at all; never a reply.
        refusals = (r"received: b''", r"received: b'(\\x00){4}\\x17.*", "exchange: .*")
        assert any(re.fullmatch(refusal, answer) for refusal in refusals), answer
        httpd.settle_log()
        assert httpd.get("/app/pid").status == 200


@ROOT
def test_garbage_on_the_socket(new_httpd):
    """199: a peer that may connect, but speaks something else."""
    with group(new_httpd) as httpd:
        path = httpd.root / "run" / sockets(httpd)[0]
        old = pid(httpd)
        httpd.allow_log(r"RWSGI04[5-8]\d: ")
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0" * 8, b"x"):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(10)
                peer.connect(str(path))
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                try:
                    while peer.recv(1000):
                        pass
                except ConnectionResetError:
                    pass
        assert pid(httpd) == old


# Limits


@pytest.mark.parametrize("option", ["memory-limit", "virtual-memory-limit"])
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
    ("options", "owner", "rights", "status"),
    [
        ("script-user=root", "root", 0o644, 200),
        ("script-user=nobody", "root", 0o644, 403),
        ("script-user=nobody", "nobody", 0o644, 200),
        ("script-user=nobody", "nobody", 0o646, 403),
        ("script-user=nobody", "nobody", 0o664, 403),
        ("script-group=nogroup", "nobody", 0o664, 200),
        ("script-group=nogroup", "nobody", 0o646, 403),
        ("script-group=daemon", "nobody", 0o644, 403),
    ],
)
def test_script_owner(new_httpd, options, owner, rights, status):
    """201"""
    import shutil

    with new_httpd(mode="daemon", daemon=options) as httpd:
        script = httpd.write("own/app.wsgi", (httpd.apps / "response.wsgi").read_text())
        directory = script.parent
        group_of = "nogroup" if owner == "nobody" else "root"
        for path in (directory, script):
            shutil.chown(path, owner, group_of)
        script.chmod(rights)
        directory.chmod(0o755)
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


# Service scripts


SERVICE = """\
import os, sys, time

def note(text):
    with open({file!r}, "a") as file:
        file.write(text + "\\n")

import threading
main = threading.current_thread() is threading.main_thread()
note("begun %d %s" % (os.getpid(), main))
try:
    while not os.path.exists({leave!r}):
        time.sleep(0.02)
    note("left")
except SystemExit:
    note("SystemExit")
    raise
"""


def test_service_script(new_httpd):
    """202: runs on the main thread; SIGTERM is SystemExit; it is started again when it ends."""
    with new_httpd() as httpd:
        file, leave = httpd.root / "data" / "service", httpd.root / "data" / "leave"
        script = httpd.write("site/service.py", SERVICE.format(file=str(file), leave=str(leave)))
        httpd.add(f"""
            WSGIDaemonProcess service threads=0 display-name=%{{GROUP}}
            WSGIImportScript "{script}" process-group=service application-group=%{{GLOBAL}}
        """)
        httpd.start()

        def lines():
            return file.read_text().splitlines() if file.exists() else []

        httpd.wait_until(lambda: len(lines()) == 1, "it does not begin")
        _, first, main = lines()[0].split()
        assert main == "True"
        assert [int(first)] == httpd.workers()
        assert processes.title(int(first)) == "(wsgi:service)"
        # It ends by itself, is started again.
        httpd.allow_log(SUPERVISOR)
        leave.touch()
        httpd.wait_until(lambda: "left" in lines())
        leave.unlink()
        httpd.wait_until(lambda: lines()[-1].startswith("begun"), "it is not started again")
        second = lines()[-1].split()[1]
        assert second != first
        # It is told to end.
        os.kill(int(second), signal.SIGTERM)
        httpd.wait_until(lambda: "SystemExit" in lines(), "no SystemExit")
        httpd.wait_until(lambda: lines()[-1].startswith("begun"), "it is not started again")
        count = lines().count("SystemExit")
        httpd.stop()
        assert lines().count("SystemExit") == count + 1


def test_service_script_may_handle_signals(new_httpd):
    """202, 176"""
    with new_httpd() as httpd:
        file = httpd.root / "data" / "service"
        script = httpd.write(
            "site/service.py",
            f"""\
            import os, signal, time
            def note(text):
                with open({str(file)!r}, "a") as file:
                    file.write(text + "\\n")
            signal.signal(signal.SIGUSR2, lambda *_: note("handled"))
            note("%d" % os.getpid())
            while True:
                time.sleep(0.05)
            """,
        )
        httpd.add(f"""
            WSGIDaemonProcess service threads=0
            WSGIImportScript "{script}" process-group=service application-group=%{{GLOBAL}}
        """)
        httpd.start()
        httpd.wait_until(lambda: file.exists() and file.read_text().endswith("\n"))
        os.kill(int(file.read_text()), signal.SIGUSR2)
        httpd.wait_until(lambda: "handled" in file.read_text(), "the handler is not called")


# Environment


def test_locale(new_httpd):
    """203"""
    with group(new_httpd, "lang=C.UTF-8 locale=C.UTF-8") as httpd:
        facts = identity(httpd)
        assert facts["environ"]["LANG"] == facts["environ"]["LC_ALL"] == "C.UTF-8"
        assert facts["locale"] == "C.UTF-8" or "LC_CTYPE=C.UTF-8" in facts["locale"]
        assert facts["encoding"] == "utf-8"


def test_locale_that_does_not_exist(new_httpd):
    """203: a warning at most."""
    with group(new_httpd, "locale=xx_XX.UTF-8") as httpd:
        httpd.allow_log(r"RWSGI04\d\d: .*xx_XX")
        assert identity(httpd)["environ"]["LC_ALL"] == "xx_XX.UTF-8"


def test_environment(new_httpd, tmp_path):
    """``env-file`` and ``env`` are added to httpd's own environment; the later one wins."""
    with new_httpd(mode="daemon", env={"FROM_HTTPD": "kept", "BOTH": "httpd"}) as httpd:
        file = httpd.write("site.env", "# a comment\nFROM_FILE=file\nBOTH=file\n\nSPACED=a b\n")
        httpd.config.daemon = f'env-file="{file}" env=FROM_OPTION=option env="SPACES=c d"'
        httpd.config.daemon += " env=FROM_FILE=overridden"
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        environ = identity(httpd)["environ"]
        assert environ["FROM_HTTPD"] == "kept" and environ["BOTH"] == "file"
        assert environ["FROM_FILE"] == "overridden" and environ["FROM_OPTION"] == "option"
        assert environ["SPACED"] == "a b" and environ["SPACES"] == "c d"
        # Read again for every worker.
        httpd.write("site.env", "FROM_FILE=file\nBOTH=again\n")
        old = httpd.workers()
        os.kill(old[0], signal.SIGUSR1)
        replaced(httpd, old)
        assert identity(httpd)["environ"]["BOTH"] == "again"


def test_home_and_python_path(new_httpd):
    """174: ``home`` is the working directory and the first of sys.path; ``python-path`` as the
    directive, for the group."""
    with new_httpd() as httpd:
        home = httpd.root / "home"
        home.mkdir()
        (home / "at_home.py").write_text("x = 1\n")
        extra = httpd.root / "extra"
        extra.mkdir()
        (extra / "more.pth").write_text(f"{httpd.root}/data\n")
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess mine home="{home}" python-path="{extra}:{httpd.apps}"
            WSGIScriptAlias /mine "{httpd.apps}/daemon.wsgi" process-group=mine \\
                application-group=%{{GLOBAL}}
        """)
        httpd.start()
        facts = httpd.json("/mine/identity")
        assert facts["cwd"] == str(home)
        assert facts["path"][0] == str(home)
        assert facts["path"][1:3] == [str(extra), str(httpd.apps)]
        assert f"{httpd.root}/data" in facts["path"]
        assert "" not in facts["path"] and str(paths.MODULE_DIR / "rwsgi") not in facts["path"]
        assert facts["argv"] == httpd.json("/app/identity")["argv"]


def test_small_options(new_httpd):
    """python-eggs, switch-interval; and options without effect are accepted."""
    options = "python-eggs=/tmp/eggs switch-interval=0.02 send-buffer-size=65536"
    options += " receive-buffer-size=65536 header-buffer-size=8192 response-flush-delay=0"
    options += " response-socket-timeout=5 server-metrics=On"
    with group(new_httpd, options) as httpd:
        facts = identity(httpd)
        assert facts["environ"]["PYTHON_EGG_CACHE"] == "/tmp/eggs"
        assert facts["switch_interval"] == 0.02
        response = httpd.get("/answer/many-headers")
        assert response.header("X-Long") == "x" * 30000
        size = 2_000_000
        target = f"/answer/large?size={size}&piece=70000"
        assert len(httpd.get(target).body) == size


@pytest.mark.parametrize("kib", [64, 0])
def test_response_buffer_size(new_httpd, kib):
    """With 64 KiB, a client that does not read 7 MiB holds its thread; by default it does not."""
    size = 7 << 20
    with group(new_httpd, f"threads=2 response-buffer-size={kib << 10}") as httpd:
        file = httpd.root / "data" / "produced"
        with httpd.connect() as connection:
            connection.request(f"/app/sized?size={size}&file={file}")
            if kib:
                time.sleep(1)
                assert not file.exists()
            else:
                httpd.wait_until(file.exists, "the thread is held")
            assert len(connection.read_response().body) == size
        httpd.wait_until(file.exists)


def test_response_socket_timeout(new_httpd):
    """A client that takes nothing for so long is given up, and its thread is free again."""
    options = "threads=1 response-buffer-size=65536 response-socket-timeout=1"
    with group(new_httpd, options) as httpd:
        with httpd.connect() as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.request(f"/app/sized?size={64 << 20}")
            connection.read_head()
            begin = time.monotonic()
            assert httpd.get("/app/pid").status == 200
            assert time.monotonic() - begin < 8


@pytest.mark.skipif(not paths.VENV.exists(), reason="no virtual environment")
def test_virtual_environment(new_httpd):
    """173: ``python-home``; the interpreter is the environment's own."""
    if not paths.same_python():
        pytest.skip("the default gateway is of another Python than the virtual environment")
    with group(new_httpd, f'python-home="{paths.VENV}"') as httpd:
        facts = identity(httpd)
        assert facts["prefix"] == str(paths.VENV)
        assert facts["executable"].startswith(f"{paths.VENV}/bin/python")
        assert str(paths.site_packages()) in facts["path"]
        assert httpd.get("/look/imports?module=numpy").text == "48"
        assert httpd.get("/look/subprocesses").text.strip() == "42"
        # The interpreter was never run as root.
        assert "libpython" not in processes.maps(httpd.process.pid)


def test_python_in_httpd_only_where_it_is_needed(new_httpd):
    """47: with WSGIRestrictEmbedded, httpd's processes have no Python at all."""
    with group(new_httpd, text="WSGIRestrictEmbedded On") as httpd:
        assert httpd.get("/app/pid").status == 200
        for child in httpd.children():
            assert "libpython" not in processes.maps(child)


def test_preloaded_by_import_script(new_httpd):
    """163, 164: before the first request, in every process; the module of the requests."""
    with new_httpd(mode="daemon", daemon="processes=2 threads=2") as httpd:
        log = httpd.root / "data" / "loads"
        script = httpd.write(
            "site/app.wsgi",
            f"""\
            import os
            with open({str(log)!r}, "a") as file:
                file.write("%d\\n" % os.getpid())

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(os.getpid()).encode()]
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIImportScript "{script}" process-group=tests application-group=%{{GLOBAL}}
            WSGIScriptAlias / "{script}" application-group=%{{GLOBAL}}
        """)
        httpd.start()
        httpd.wait_until(lambda: log.exists() and len(log.read_text().split()) == 2)
        assert sorted(map(int, log.read_text().split())) == httpd.workers()
        for _ in range(8):
            httpd.get("/")
        assert len(log.read_text().split()) == 2


# Logs


def test_log_of_a_virtual_host(new_httpd):
    """204: requests log to their virtual host, what belongs to none to the group's."""
    with new_httpd() as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                ErrorLog "{httpd.vhost_log("second.log")}"
                WSGIDaemonProcess second threads=2 python-path="{httpd.apps}"
                WSGIProcessGroup second
            </VirtualHost>
        """)
        httpd.start()
        host = {"Host": f"second.example:{httpd.port}"}
        expected = [
            httpd.expect_log(f"by {what}$")
            for what in ("wsgi.errors", "print", "a thread", "descriptor 2")
        ]
        httpd.get("/app/talking", headers=host)
        httpd.expect_log("RWSGI0200: .*ValueError")
        assert httpd.request("/app/raising", headers=host).status == 500
        httpd.settle_log()
        second = (httpd.root / "logs" / "second.log").read_text()
        main = (httpd.root / "logs" / "error.log").read_text()
        for expectation in expected:
            (line,) = expectation.lines
            assert line.raw in second and line.raw not in main
        assert "ValueError: raised" in second and "ValueError: raised" not in main
        # Of the request: its id, and the virtual host's name.
        assert {expectation.lines[0].vhost for expectation in expected[:2]} == {"second.example"}
        assert len({expectation.lines[0].log_id for expectation in expected[:2]}) == 1


def test_priority(new_httpd):
    """205: nice."""
    with group(new_httpd, "cpu-priority=5") as httpd:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        assert identity(httpd)["nice"] == 5


def test_stack_size(new_httpd):
    """205: the threads that serve have so much stack."""
    size = 1 << 20
    with group(new_httpd, f"threads=7 stack-size={size}") as httpd:
        (worker,) = httpd.workers()
        sizes = []
        for line in processes.maps(worker).splitlines():
            first, last = line.split()[0].split("-")
            if line.split()[1] == "rw-p" and len(line.split()) == 5:
                sizes.append(int(last, 16) - int(first, 16))
        # glibc takes the guard page out of it, or adds it; neighbours may have been joined.
        assert sum(abs(each - size) <= 8192 for each in sizes) >= 7, sorted(sizes)[-20:]


@ROOT
@pytest.mark.parametrize(("option", "owner"), [("", None), ("socket-user=#1234", 1234)])
def test_owner_of_the_socket(new_httpd, option, owner):
    """206"""
    import pwd

    with new_httpd(mode="daemon", daemon=option) as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        status = (httpd.root / "run" / sockets(httpd)[0]).stat()
        assert status.st_mode & 0o777 == 0o600
        user = pwd.getpwnam(paths.httpd_user()[0]).pw_uid
        assert status.st_uid == (user if owner is None else owner)
        if owner is None:
            assert httpd.get("/app/pid").status == 200
        else:
            # Whoever may not connect is told so.
            httpd.expect_log("RWSGI0310: .*Permission denied")
            assert httpd.request("/app/pid").status == 503


# Routing


def test_error_override(new_httpd):
    """WSGIErrorOverride: httpd's own page instead of the application's, in daemon mode."""
    text = """
        <Location /app/failing>
            WSGIErrorOverride On
            ErrorDocument 503 "the page of the server"
        </Location>
    """
    with group(new_httpd, text=text) as httpd:
        response = httpd.request("/app/failing")
        assert response.status == 503
        assert response.body == b"the page of the server"
        # Without it the application's own answer stands.
    with group(new_httpd) as httpd:
        response = httpd.request("/app/failing")
        assert (response.status, response.reason) == (503, "My Own")
        assert response.body == b"my own error"


def test_several_groups(new_httpd):
    """Groups are apart: processes, threads, replacement."""
    with new_httpd() as httpd:
        applications(httpd, embedded="daemon.wsgi")
        for name in ("one", "two"):
            httpd.add(f"""
                WSGIDaemonProcess {name} threads=2 display-name=%{{GROUP}} \\
                    python-path="{httpd.apps}"
                WSGIScriptAlias /{name} "{httpd.apps}/daemon.wsgi" process-group={name} \\
                    application-group=%{{GLOBAL}}
            """)
        httpd.start()
        assert len(httpd.supervisors()) == 2
        pids = {name: int(httpd.get(f"/{name}/pid").body) for name in ("one", "two", "embedded")}
        assert len(set(pids.values())) == 3
        assert pids["embedded"] in httpd.children()
        assert {processes.title(pids[name]) for name in ("one", "two")} == {
            "(wsgi:one)",
            "(wsgi:two)",
        }
        os.kill(pids["one"], signal.SIGUSR1)
        httpd.wait_until(lambda: int(httpd.get("/one/pid").body) != pids["one"])
        assert int(httpd.get("/two/pid").body) == pids["two"]


def test_one_group_from_every_process_of_httpd(new_httpd):
    """Several processes of httpd share the workers."""
    with new_httpd(mode="daemon", mpm="prefork", threads=6, daemon="processes=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        gate = httpd.gate()
        requests = [Request(httpd, f"/app/hold?gate={gate.path}") for _ in range(6)]
        for request in requests:
            request.begun()
        gate.step(6)
        assert {int(r.response().body) for r in requests} <= set(httpd.workers())


def test_load_is_shared(new_httpd):
    """The less loaded of two: with half of the threads held, the rest serves without waiting."""
    with group(new_httpd, "processes=2 threads=4", threads=24) as httpd:
        gate = httpd.gate()
        held = [Request(httpd, f"/app/hold?gate={gate.path}") for _ in range(4)]
        for request in held:
            request.begun()
        begin = time.monotonic()
        results = []
        threads = [threading.Thread(target=lambda: results.append(pid(httpd))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begin < 5 and len(results) == 20
        gate.step(4)
        for request in held:
            assert request.response().status == 200


def test_message_of_start_and_end(new_httpd):
    """What a person reads in the log at level info: who started, who ended and why."""
    with group(new_httpd) as httpd:
        old = httpd.workers()[0]
        os.kill(old, signal.SIGTERM)
        replaced(httpd, [old])
        new = httpd.workers()[0]
        httpd.stop()
        httpd.log.read()
        ours = [line for line in httpd.log.seen if line.module == "rwsgi"]
        for worker in (old, new):
            about = [
                line
                for line in ours
                if line.pid == worker or re.search(rf"\b{worker}\b", line.message)
            ]
            assert len(about) >= 2, f"nothing about {worker}"
        assert any("shutdown_signal" in line.message for line in ours)
