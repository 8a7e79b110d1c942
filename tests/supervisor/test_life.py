"""Starting, serving, dying and ending."""

import os
import signal
import time

import control
import pytest
from conftest import alive, wait_for

APP = ("group", "/srv/app.wsgi")


def test_workers_start_serve_and_end(group):
    one = group(processes=2)
    workers = [one.worker(), one.worker()]
    sockets = {worker.introduction["listening"] for worker in workers}
    assert sockets == {str(one.directory.parent / f"{n}.sock") for n in (0, 1)}
    for worker in workers:
        worker.serves()
    one.signal(signal.SIGTERM)
    for worker in workers:
        worker.drains("shutdown_signal")
    one.ends()
    assert not (one.directory.parent / "0.sock").exists()
    assert [line for line in one.lines() if line[0] in ("error", "warn")] == []


def test_what_a_worker_finds(group, tmp_path):
    worker = group(
        environ={"FROM_HTTPD": "1", "BOTH": "httpd"},
        env=["BOTH=option", "NEW=a b"],
        lang="C.UTF-8",
        locale="C",
        python_eggs="/eggs",
        python_optimize=2,
        dont_write_bytecode="on",
        python_warnings="ignore",
        cpu_time_limit=1000,
        graceful_timeout=7,
        shutdown_timeout=2,
        memory_limit=1 << 34,
        virtual_memory_limit=1 << 35,
    ).worker()
    found = worker.introduction
    assert list(found["fds"]) == ["0", "1", "2", "3", "4", "5", "6"]
    assert found["fds"]["0"] == "/dev/null"
    assert found["fds"]["1"] == found["fds"]["2"]
    assert found["fds"]["2"].startswith("pipe:")
    assert found["argv"] == ["-c"]
    assert "" not in found["path"] and str(control.__file__) not in found["path"]
    assert os.path.dirname(control.__file__) not in found["path"]
    assert found["flags"] == [2, True, ["ignore"]]
    environ = found["environ"]
    assert environ["FROM_HTTPD"] == "1"
    assert environ["BOTH"] == "option"
    assert environ["NEW"] == "a b"
    assert (environ["LANG"], environ["LC_ALL"]) == ("C.UTF-8", "C")
    assert environ["PYTHON_EGG_CACHE"] == "/eggs"
    limits = found["limits"]
    assert limits["RLIMIT_CPU"] == [1000, 1010]
    assert limits["RLIMIT_DATA"] == [1 << 34, 1 << 34]
    assert limits["RLIMIT_AS"] == [1 << 35, 1 << 35]
    assert limits["RLIMIT_NOFILE"][0] == limits["RLIMIT_NOFILE"][1]
    assert found["mask"] == []
    # Python itself ignores SIGPIPE and SIGXFSZ.
    assert set(found["ignored"]) <= {signal.SIGPIPE, signal.SIGXFSZ}


def test_a_killed_worker_is_replaced_at_once(group):
    one = group()
    worker = one.worker().serves()
    worker.order("row", 0, 1, int(time.monotonic() * 1000), "GET /slow abc\x1b")
    worker.order("print", "half a line")
    worker.order("python", "puppet.say(done=1)")
    worker.hear()
    time.sleep(1.1)  # longer than a short life
    start = time.monotonic()
    worker.kill()
    one.worker().serves()
    assert time.monotonic() - start < 2
    ((level, pid, text),) = one.lines(407)
    assert (level, pid) == ("error", worker.pid)
    assert "by signal 9 (SIGKILL)" in text and "half a line" in text
    ((_, pid, text),) = one.lines(408)
    assert pid == worker.pid and "GET /slow abc\\x1b" in text


def test_exit_codes_and_fatal_errors_are_told(group):
    one = group()
    one.worker().serves().exits(3)
    worker = one.worker().serves()
    worker.order("print", "Fatal Python error: Aborted\n\nCurrent thread\n")
    worker.order("python", "import os; os.abort()")
    one.worker().serves()
    first, second = one.lines(407)
    assert "with exit code 3" in first[2]
    assert "by signal 6 (SIGABRT" in second[2]
    assert "Fatal Python error: Aborted" in second[2]


def test_a_worker_that_dies_at_start_is_held_back(group, tmp_path):
    script = tmp_path / "dies.py"
    starts = tmp_path / "starts"
    script.write_text(f"import os; open({str(starts)!r}, 'a').write('x'); os._exit(7)")
    one = group(processes=2, environ={"SCRIPT": str(script)})
    time.sleep(2.5)
    # 0, 0.1, 0.3, 0.7, 1.5 s, for each of two slots.
    assert 6 <= len(starts.read_text()) <= 10
    assert len(one.lines(406)) == 1, one.log()
    assert "exit code 7" in one.lines(406)[0][2]
    script.write_text("")
    one.worker()


def test_a_worker_that_dies_soon_after_its_start_is_held_back(group):
    one = group()
    for _ in range(4):
        one.worker().serves().exits(1)
    # The fifth comes after 0.8 s only.
    one.no_worker(0.4)
    one.worker()


def test_term_to_a_worker_frees_its_slot_at_once(group):
    one = group()
    old = one.worker().serves()
    old.send(control.retire("shutdown_signal"))
    new = one.worker().serves()
    old.send(control.DRAINED)
    old.exits()
    assert alive(new.pid)
    one.no_worker()


def test_the_supervisor_ends_at_its_lifeline(group):
    read, write = os.pipe()
    one = group(lifeline_fd=read, pass_fds=[read])
    os.close(read)
    worker = one.worker().serves()
    assert one.process.poll() is None
    os.close(write)
    worker.drains("shutdown_signal")
    one.ends()


def test_workers_that_do_not_end_are_killed(group):
    one = group(shutdown_timeout=1, processes=2)
    worker, starting = one.worker().serves(), one.worker()
    starting.order("python", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    starting.order("python", "puppet.say(done=1)")
    starting.hear()
    worker.order("row", 0, 1, int(time.monotonic() * 1000), "GET /hangs")
    start = time.monotonic()
    one.signal(signal.SIGTERM)
    worker.told("drain")
    one.ends()
    assert 0.9 < time.monotonic() - start < 4
    assert {line[1] for line in one.lines(410)} == {worker.pid, starting.pid}
    assert "GET /hangs" in one.lines(408)[0][2]


def test_a_second_signal_kills(group):
    one = group(shutdown_timeout=100)
    worker = one.worker().serves()
    one.signal(signal.SIGTERM)
    worker.told("drain")
    one.signal(signal.SIGINT)
    one.ends()
    assert len(one.lines(411)) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR2])
def test_other_signals_are_ignored(group, number):
    one = group()
    worker = one.worker().serves()
    one.signal(number)
    worker.untold()
    assert one.process.poll() is None


def test_workers_end_with_their_supervisor(group):
    one = group()
    worker = one.worker().serves()
    one.signal(signal.SIGKILL)
    wait_for(lambda: not alive(worker.pid), "the worker lives")


def test_output_and_log_messages(group):
    one = group(log_level=6)
    worker = one.worker()
    worker.order("print", "one\ntwo\x07\n")
    worker.send(control.log(6, "life"))
    worker.send(control.log(7, "debug"))
    worker.send(b"\x63")
    one.logged("RWSGI0419")
    lines = [line for line in one.lines() if line[1] == worker.pid]
    assert ("error", worker.pid, "one") in lines
    assert ("error", worker.pid, "two\\x07") in lines
    assert ("info", worker.pid, "life") in lines
    assert "debug" not in one.log()


def test_an_interpreter_without_gateway(group, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    one = group(gateway_directory=empty)
    one.logged("RWSGI0406")
    text = next(line[2] for line in one.lines() if "RWSGI0402" in line[2])
    assert "make gateway PYTHON=" in text and str(empty) in text
    assert "exit code 78" in one.lines(406)[0][2]


def test_an_interpreter_that_cannot_be_executed(group, tmp_path):
    python = tmp_path / "python"
    python.write_text("no program")
    python.chmod(0o755)
    one = group(python=python)
    one.logged("RWSGI0406")
    assert any("RWSGI0403" in line[2] for line in one.lines())


def test_env_file(group, tmp_path):
    file = tmp_path / "env"
    file.write_text("# secret\nexport A='x y'\nbroken\nB=1\n")
    one = group(env_file=file, env="B=2")
    worker = one.worker().serves()
    assert worker.introduction["environ"]["A"] == "x y"
    assert worker.introduction["environ"]["B"] == "2"
    assert "line 3" in one.lines(418)[0][2]
    file.write_text("A=new\n")
    one.signal(signal.SIGUSR1)
    new = one.worker()
    assert new.introduction["environ"]["A"] == "new"
    new.serves()
    worker.drains("graceful_signal")
    file.unlink()
    one.signal(signal.SIGUSR1)
    one.logged("RWSGI0409")
    one.no_worker()
    new.untold()


def test_service_scripts(group):
    one = group(threads=0, socket=None, **{"import": "group:/srv/service.py"})
    worker = one.worker()
    assert worker.introduction["imports"] == ["group:/srv/service.py"]
    assert worker.introduction["listening"] is None
    worker.serves()
    worker.exits()
    worker = one.worker()
    one.signal(signal.SIGUSR1)
    worker.ended()
    worker = one.worker()
    one.signal(signal.SIGTERM)
    worker.ended()
    one.ends()


def test_start_delay(group):
    start = time.monotonic()
    one = group(start_delay=800)
    one.worker()
    assert time.monotonic() - start > 0.8


def test_the_supervisor_is_small(group):
    one = group(processes=4)
    for _ in range(4):
        one.worker().serves()
    with open(f"/proc/{one.pid}/smaps_rollup") as file:
        pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert pss <= 3 * 1024
