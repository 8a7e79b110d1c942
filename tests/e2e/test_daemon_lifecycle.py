"""The life of a process group: its processes, its queues, its end, service scripts.

Items of the parity checklist (I, 181 to 206); the number is in each test's docstring."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from harness import paths, processes
from harness.group import ROOT, SUPERVISOR, Request, group, identity, pid, sockets

pytestmark = pytest.mark.rwsgi


# Processes and identity


@pytest.mark.checklist(181)
def test_processes_and_threads(new_httpd):
    """181: so many processes of so many threads; display-name."""
    options = "processes=3 threads=4 display-name=%{GROUP}"
    with group(new_httpd, options, threads=32) as httpd:
        httpd.wait_until(lambda: len(httpd.workers()) == 3)

        def ready():
            httpd.log.read()
            return [line for line in httpd.log.seen if line.message.startswith("ready")]

        # Until then nobody knows how busy they are, and requests may be spread unevenly.
        httpd.wait_until(lambda: len(ready()) == 3, "they are not ready")
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
@pytest.mark.checklist(69, 70)
def test_wsgi_keys(new_httpd, options, multithread, multiprocess, run_once):
    """181: ``processes=`` given at all makes wsgi.multiprocess true."""
    with group(new_httpd, options) as httpd:
        facts = identity(httpd)
        assert facts["multithread"] is multithread
        assert facts["multiprocess"] is multiprocess
        assert facts["run_once"] is run_once


@pytest.mark.checklist(181)
def test_display_name_of_ones_own(new_httpd):
    """181"""
    with group(new_httpd, 'display-name="my site"') as httpd:
        assert processes.title(httpd.workers()[0]) == "my site"


@ROOT
@pytest.mark.checklist(182, 177)
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
@pytest.mark.checklist(182)
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


# Queues


@pytest.mark.checklist(194)
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


@pytest.mark.checklist(195)
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


@pytest.mark.checklist(196)
def test_shutdown_timeout(new_httpd):
    """196: an exit handler that hangs is cut, and it is told."""
    with group(new_httpd, "shutdown-timeout=1") as httpd:
        httpd.get("/app/exit-handler?seconds=60")
        httpd.expect_log("RWSGI0108: |RWSGI0410: ")
        begin = time.monotonic()
        httpd.stop()
        assert 0.9 < time.monotonic() - begin < 6


@pytest.mark.checklist(196)
def test_exit_handlers_run_within_it(new_httpd):
    """196"""
    with group(new_httpd, "shutdown-timeout=10") as httpd:
        file = httpd.root / "data" / "exit"
        httpd.get(f"/look/at-exit?file={file}&thread=1")
        httpd.get("/app/exit-handler?seconds=1")
        httpd.stop()
        assert sorted(file.read_text().split()) == ["atexit", "thread"]


@pytest.mark.checklist(197)
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
            # httpd closes idle connections of its old generation, with nothing in them.
            assert connection.at_end()
            connection.close()
        httpd.wait_until(
            lambda: len(httpd.supervisors()) == 1 and not set(old) & set(httpd.workers()),
            "the old generation stays",
        )


@pytest.mark.parametrize("rotation", ["On", "Off"])
@pytest.mark.checklist(198)
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
@pytest.mark.checklist(199)
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
@pytest.mark.checklist(199)
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


@pytest.mark.checklist(202)
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


@pytest.mark.checklist(176, 202)
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
