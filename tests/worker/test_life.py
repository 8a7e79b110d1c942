"""From the start of a worker to its end."""

import os
import signal
import subprocess
import threading
import time

import frames
import harness
import pytest

HELLO = 'start_response("200 OK", [])\nreturn [b"hello"]'
SLOW = """
import time
time.sleep(float(environ["QUERY"]))
start_response("200 OK", [])
return [b"slow"]
"""


def slow(script, seconds, **options):
    return frames.request(script, variables=[("QUERY", str(seconds))], **options)


def test_requests_wait_until_it_is_told_to_go(start, app):
    script = app(HELLO)
    worker = start(go=False)
    with worker.connect() as client:
        client.send(frames.request(script))
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.frame()
        client.socket.settimeout(10)
        worker.tell(frames.GO)
        assert client.answer().body == b"hello"


def test_imports_come_first_and_failures_are_logged(start, app, tmp_path):
    script = app(HELLO)
    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0")
    worker = start(**{"import": [f"group:{bad}", f"group:{script}"]})
    assert worker.expect("Loaded") == ("Loaded", "group", str(script))
    assert "RWSGI0452" in worker.log and "ZeroDivisionError" in worker.log
    assert worker.summary()["loaded"] == 1
    assert worker.get(script, group="group").body == b"hello"


def test_a_required_script_that_does_not_load(start, tmp_path):
    script = tmp_path / "bad.wsgi"
    script.write_text("this is no python")
    worker = start(wait=False, require=f"group:{script}")
    _, (group, path), text = worker.expect("Failed")
    assert (group, path) == ("group", str(script))
    assert "SyntaxError" in text and "RWSGI" not in text
    assert worker.process.wait(10) == 1


def test_a_required_script_is_loaded_before_ready(start, app):
    script = app(HELLO)
    worker = start(wait=False, require=f"g:{script}")
    worker.expect("Ready")
    assert worker.said("Loaded") == [("Loaded", "g", str(script))]


def test_drain_while_idle(start, app):
    script = app(HELLO)
    worker = start(threads=3)
    clients = [worker.connect() for _ in range(5)]
    for client in clients:
        assert client.get(script).body == b"hello"
    begun = time.monotonic()
    assert worker.end() == 0
    assert time.monotonic() - begun < 1.5
    for client in clients:
        answer = client.answer()
        assert answer.retry == -2, "GOAWAY"
        assert answer.frames[-1].flags & frames.CLOSE


def test_drain_lets_running_requests_end(start, app):
    script = app(SLOW)
    worker = start()
    with worker.connect() as client, worker.connect() as idle:
        idle.send(slow(script, 0))
        assert idle.answer().body == b"slow"
        client.send(slow(script, 1, path="/slow"))
        worker.wait_for_row("/slow")
        worker.tell(frames.drain())
        assert idle.answer().retry == -2
        answer = client.answer()
        assert answer.body == b"slow"
        assert answer.flags == frames.END | frames.CLOSE
        worker.expect("Drained")
        assert worker.process.wait(10) == 0
        assert client.answer().eof


def test_a_request_that_was_not_read_is_never_lost(start, app):
    """All threads are busy, so it is in the socket when the worker ends."""
    script = app(SLOW)
    worker = start(threads=1)
    with worker.connect() as busy, worker.connect() as waiting:
        busy.send(slow(script, 1))
        worker.wait_for_row()
        waiting.send(slow(script, 0))
        time.sleep(0.1)
        worker.tell(frames.drain())
        answer = waiting.answer()
        assert answer.retry == -2 or answer.reset
        assert busy.answer().body == b"slow"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_drains(start, app, signum):
    script = app(SLOW)
    worker = start()
    with worker.connect() as client:
        client.send(slow(script, 0.5))
        worker.wait_for_row()
        worker.process.send_signal(signum)
        assert worker.expect("Retire") == ("Retire", 0)
        assert client.answer().body == b"slow"
        worker.expect("Drained")
        assert worker.process.wait(10) == 0


def test_other_signals(start):
    worker = start()
    worker.process.send_signal(signal.SIGUSR1)
    assert worker.expect("Retire") == ("Retire", 1)
    worker.process.send_signal(signal.SIGXCPU)
    assert worker.expect("Retire") == ("Retire", 9)
    for signum in (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGPIPE):
        worker.process.send_signal(signum)
    time.sleep(0.1)
    assert worker.end() == 0


def test_eviction_has_its_own_reason(start):
    worker = start(eviction_timeout=5)
    worker.process.send_signal(signal.SIGUSR1)
    assert worker.expect("Retire") == ("Retire", 2)


def test_sigterm_while_starting_ends_it_at_once(start, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(f"open({str(tmp_path / 'begun')!r}, 'w')\nimport time\ntime.sleep(60)")
    worker = start(wait=False, **{"import": f":{script}"})
    harness.wait_until(lambda: (tmp_path / "begun").exists())
    worker.process.terminate()
    assert worker.process.wait(5) == 0


def test_the_end_of_the_supervisor_is_its_end(start, app):
    worker = start()
    worker.control.close()
    assert worker.process.wait(10) == 0


def test_exit_handlers_run_and_are_watched(start, app, tmp_path):
    out = tmp_path / "out"
    before = f"import atexit\natexit.register(lambda: open({str(out)!r}, 'w').write('done'))"
    worker = start()
    assert worker.get(app(HELLO, before=before)).body == b"hello"
    assert worker.end() == 0
    assert out.read_text() == "done"

    before = "import atexit, time\natexit.register(time.sleep, 60)"
    worker = start(shutdown_timeout=1)
    assert worker.get(app(HELLO, "other.wsgi", before=before)).body == b"hello"
    begun = time.monotonic()
    assert worker.end() == 0
    assert 0.9 < time.monotonic() - begun < 5
    assert "RWSGI0108" in worker.log


def test_subprocesses_have_default_signals_and_no_descriptors(start, app):
    body = """
import subprocess
start_response("200 OK", [])
return [subprocess.check_output(
    "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd", shell=True, close_fds=False
)]
"""
    lines = start().get(app(body)).body.decode().split("\n")
    assert lines[0] == "SigBlk:\t0000000000000000"
    # What the tests themselves have been started with passes through.
    ours = subprocess.check_output("ls /proc/self/fd", shell=True, close_fds=False, text=True)
    assert set(lines[2:-1]) - {"0", "1", "2", "3"} <= set(ours.split())


def test_forked_children_keep_no_connection(start, app):
    body = """
import os, sys, time
if pid := os.fork():
    start_response("200 OK", [])
    return [str(pid).encode()]
print("in the child")
time.sleep(60)
os._exit(0)
"""
    worker = start()
    with worker.connect() as client:
        pid = int(client.get(app(body)).body)
        try:
            worker.kill()
            # The child lives, and the end is seen all the same.
            os.kill(pid, 0)
            answer = client.answer()
            assert answer.eof or answer.reset
            harness.wait_until(lambda: "in the child" in worker.stderr)
        finally:
            os.kill(pid, signal.SIGKILL)


def test_children_of_the_application_end_by_sigterm(start, app):
    body = """
import os, signal, time
pid = os.fork()
if not pid:
    time.sleep(60)
    os._exit(0)
time.sleep(0.1)
os.kill(pid, signal.SIGTERM)
_, status = os.waitpid(pid, 0)
start_response("200 OK", [])
return [str(os.WTERMSIG(status)).encode()]
"""
    worker = start()
    assert worker.get(app(body)).body == str(int(signal.SIGTERM)).encode()
    assert worker.said("Retire") == []


def test_python_as_the_application_sees_it(start, app, tmp_path):
    body = """
import sys, os, threading
start_response("200 OK", [])
return [repr({
    "argv": sys.argv,
    "path": sys.path,
    "main": threading.main_thread() is threading.current_thread(),
    "executable": sys.executable,
    "group": __import__("mod_wsgi").process_group,
    "threads": __import__("mod_wsgi").threads_per_process,
    "cwd": os.getcwd(),
    "interval": sys.getswitchinterval(),
    "gateway": "_rwsgi" in sys.modules,
}).encode()]
"""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    worker = start(
        threads=3, home=tmp_path, python_path=[libraries], switch_interval=0.02, name="the name"
    )
    seen = eval(worker.get(app(body)).body)
    assert seen["argv"] == ["mod_wsgi"]
    assert seen["path"][:2] == [str(tmp_path), str(libraries)]
    assert str(harness.GATEWAYS) not in seen["path"] and "" not in seen["path"]
    assert seen["main"] is False
    assert os.path.realpath(seen["executable"]) == os.path.realpath(harness.PYTHON)
    assert (seen["group"], seen["threads"]) == ("the name", 3)
    assert abs(seen["interval"] - (0.005 if harness.FREE else 0.02)) < 1e-6


def test_deep_recursion_has_the_stack_of_the_system(start, app):
    body = """
import sys, re
sys.setrecursionlimit(20000)
def deep(n):
    return n and sorted([n], key=lambda _: deep(n - 1)) and n
deep(1200)
start_response("200 OK", [])
return [b"deep"]
"""
    answer = start().get(app(body))
    assert answer.body == b"deep", answer.log_text


def test_titles(start):
    worker = start(display_name="(wsgi:test)")
    command = subprocess.check_output(["ps", "-o", "args=", "-p", str(worker.pid)], text=True)
    assert command.strip() == "(wsgi:test)"
    assert open(f"/proc/{worker.pid}/comm").read() == "(wsgi:test)\n"


def test_it_is_not_dumpable_unless_wanted(start):
    def owner(worker):
        return os.stat(f"/proc/{worker.pid}/environ").st_mode

    status = start().pid
    text = open(f"/proc/{status}/status").read()
    assert "CoreDumping" in text
    assert start(core_dumps="on").pid


def test_an_unknown_locale_is_a_warning(start, app):
    worker = start(locale="xx_YY.UTF-8")
    assert "RWSGI0457" in worker.log
    assert worker.get(app(HELLO)).body == b"hello"


@pytest.mark.parametrize("missing", [4, 5, 6])
def test_descriptors_are_checked(tmp_path, missing):
    reads, writes = os.pipe()
    wanted = harness.memfd("config", b"name=x\nthreads=1\n")
    config = os.dup2(wanted, 103, inheritable=True)
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    board = harness.memfd("board", bytes(1000))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    fds = {3: config, 4: theirs.fileno(), 5: board, 6: listener.fileno()}
    high = {target: os.dup2(fd, 110 + target, inheritable=True) for target, fd in fds.items()}
    high[missing] = os.dup2(writes, 110 + missing, inheritable=True)

    def place():
        for target, fd in high.items():
            os.dup2(fd, target)

    bootstrap = harness.BOOTSTRAP.format(directory=str(harness.GATEWAYS), function="worker")
    process = subprocess.run(
        [harness.PYTHON, "-c", bootstrap],
        close_fds=False,
        preexec_fn=place,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert process.returncode == 1
    said = process.stderr
    if missing != 4:
        said = frames.from_worker(ours.recv(100_000))[2]
    assert "RWSGI0450" in said and f"descriptor {missing}" in said
    for fd in (*high.values(), reads, writes, wanted, config, board):
        try:
            os.close(fd)
        except OSError:
            pass


def test_requests_under_a_drain_are_all_answered_or_refused(start, app):
    """64 connections on 4 threads; each request is executed exactly once or refused."""
    script = app(
        'start_response("200 OK", [])\nSEEN.append(environ["PATH_INFO"])\n'
        'return [environ["PATH_INFO"].encode()]',
        before="SEEN = []\nimport atexit\n"
        "atexit.register(lambda: open(__file__ + '.seen', 'w').write('\\n'.join(SEEN)))",
    )
    worker = start(threads=4)
    outcomes = []
    stop = threading.Event()

    def client(number):
        with worker.connect() as connection:
            for index in range(100_000):
                path = f"/{number}-{index}"
                try:
                    answer = connection.get(script, path=path)
                except (BrokenPipeError, ConnectionResetError):
                    outcomes.append((path, "refused"))
                    return
                if answer.body == path.encode() and answer.flags & frames.END:
                    outcomes.append((path, "done"))
                    if not answer.flags & frames.CLOSE:
                        continue
                elif answer.retry != -1 or answer.reset:
                    outcomes.append((path, "refused"))
                else:
                    outcomes.append((path, f"lost: {answer}"))
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    worker.tell(frames.drain())
    for thread in threads:
        thread.join()
    stop.set()
    worker.expect("Drained")
    assert worker.process.wait(10) == 0
    seen = script.with_name(script.name + ".seen").read_text().split("\n")
    done = sorted(path for path, what in outcomes if what == "done")
    assert len(done) > 500
    assert sorted(seen) == done
    assert {what for _, what in outcomes} <= {"done", "refused"}


def test_signal_handlers_of_applications(start, app, tmp_path):
    out = tmp_path / "out"
    before = f"""
import signal
def handler(signum, frame):
    open({str(out)!r}, "w").write(str(signum))
    raise ValueError("in a handler")
signal.signal(signal.SIGUSR2, handler)
"""
    script = app(HELLO, before=before)
    worker = start(restrict_signal="off", **{"import": f":{script}"})
    worker.process.send_signal(signal.SIGUSR2)
    harness.wait_until(lambda: "RWSGI0460" in worker.log)
    assert out.read_text() == str(int(signal.SIGUSR2))
    assert worker.get(script).body == b"hello"
    # Those of the server stay its own unless the application takes them.
    worker.process.terminate()
    worker.expect("Drained")


def test_a_required_script_that_is_gone_is_left_out(start, app, tmp_path):
    script = app(HELLO)
    worker = start(require=[f":{tmp_path}/deleted.wsgi", f":{script}"])
    assert worker.said("Loaded") == [("Loaded", "", str(script))]
    assert "deleted" in worker.log
