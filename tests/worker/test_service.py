"""Service scripts (threads=0) and preloading."""

import array
import os
import signal
import socket
import time

import frames
import harness
import pytest

SERVICE = """
import sys, time
print("service runs")
try:
    while True:
        time.sleep(60)
except SystemExit:
    print("service ends")
    raise
"""


@pytest.mark.parametrize("how", ["signal", "drain"])
def test_a_service_script_ends_by_systemexit(start, tmp_path, how):
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    worker = start(threads=0, **{"import": f":{script}"})
    harness.wait_until(lambda: "service runs" in worker.log)
    if how == "signal":
        worker.process.terminate()
    else:
        worker.tell(frames.drain())
    worker.expect("Drained")
    assert worker.process.wait(10) == 0
    assert "service ends" in worker.log
    assert "RWSGI" not in worker.log


def test_a_service_waits_for_its_turn(start, tmp_path):
    script = tmp_path / "service.py"
    script.write_text("print('runs')")
    worker = start(threads=0, go=False, **{"import": f":{script}"})
    assert "runs" not in worker.log
    worker.tell(frames.GO)
    worker.expect("Drained")
    assert "runs" in worker.log
    assert worker.process.wait(10) == 0


def test_a_service_that_fails(start, tmp_path):
    script = tmp_path / "service.py"
    script.write_text("1 / 0")
    other = tmp_path / "other.py"
    other.write_text("print('the other runs')")
    worker = start(threads=0, **{"import": [f":{script}", f":{other}"]})
    worker.expect("Drained")
    assert "ZeroDivisionError" in worker.log and "the other runs" in worker.log


HELLO = 'start_response("200 OK", [])\nreturn [repr((os.getpid(), LOADED_BY)).encode()]'


class Forked(harness.Worker):
    """A worker that a template has forked."""

    def __init__(self, template, directory):
        self.threads = template.threads
        self.path = str(directory / f"f{time.monotonic_ns()}.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(100)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        size = harness.SUMMARY.size + self.threads * harness.ROW.size
        self.board = harness.memfd("board", bytes(size))
        self.stderr_path = template.stderr_path
        self.messages = []
        fds = array.array("i", [theirs.fileno(), self.board, self.listener.fileno()])
        template.control.sendmsg([frames.FORK], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        theirs.close()
        self.process = None
        self.number = self.expect("Ready")[1]
        self.tell(frames.GO)


def is_gone(pid):
    """Also if nobody has asked for its exit code: pid 1 may not."""
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_preloaded_workers(start, app, tmp_path):
    script = app(HELLO, before="import os, signal\nLOADED_BY = os.getpid()")
    template = start(function="template", threads=3, go=False, **{"import": f":{script}"})
    workers = [Forked(template, tmp_path) for _ in range(3)]
    pids = set()
    for worker in workers:
        assert worker.expect("Loaded") == ("Loaded", "", str(script))
        pid, loaded_by = eval(worker.get(script).body)
        assert pid == worker.number
        assert loaded_by == template.pid
        pids.add(pid)
        status = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        assert int(status[1]) != template.pid, "a child of the supervisor"
        with open(f"/proc/{pid}/status") as lines:
            mask = next(line for line in lines if line.startswith("SigBlk"))
        assert int(mask.split()[1], 16) == 0
    assert len(pids) == 3
    # Signals belong to the server in a forked worker, too.
    check = app(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HELLO,
        "check.wsgi",
        before="import os\nLOADED_BY = 0",
    )
    workers[0].get(check)
    assert "RWSGI0109" in workers[0].log
    os.kill(workers[0].number, signal.SIGTERM)
    workers[0].expect("Drained")
    workers[1].tell(frames.drain())
    workers[1].expect("Drained")
    template.tell(frames.drain())
    assert template.process.wait(10) == 0
    # The last one goes on without its template.
    assert eval(workers[2].get(script).body)[0] == workers[2].number
    workers[2].control.close()
    harness.wait_until(lambda: is_gone(workers[2].number))


def test_scripts_of_other_groups_are_loaded_after_the_fork(start, app, tmp_path):
    first = app(HELLO, "first.wsgi", before="import os\nLOADED_BY = os.getpid()")
    second = app(HELLO, "second.wsgi", before="import os\nLOADED_BY = os.getpid()")
    template = start(function="template", go=False, **{"import": [f"a:{first}", f"b:{second}"]})
    worker = Forked(template, tmp_path)
    assert eval(worker.get(first, group="a").body)[1] == template.pid
    assert eval(worker.get(second, group="b").body)[1] == worker.number
    template.tell(frames.drain())
    template.process.wait(10)
    worker.tell(frames.drain())
    worker.expect("Drained")


def test_a_template_that_cannot_load_what_is_required(start, tmp_path):
    script = tmp_path / "bad.wsgi"
    script.write_text("1 / 0")
    template = start(function="template", wait=False, require=f":{script}")
    assert "ZeroDivisionError" in template.expect("Failed")[2]
    assert template.process.wait(10) == 1
