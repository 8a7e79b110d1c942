"""What is wrong outside of the application: each case is refused at the start or answered and told,
and nothing spins."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from harness import paths, processes
from harness.sites import applications

pytestmark = pytest.mark.rwsgi
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SUPERVISOR = r"RWSGI04[0-4]\d: "


def refused(httpd, *words):
    """The configuration fails configtest, with a message that has these words."""
    done = httpd.check()
    assert done.returncode != 0, "accepted"
    assert "panicked" not in done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in {done.stderr!r}"


@ROOT
@pytest.mark.parametrize(
    "option", ["user=nosuchuser", "group=nosuchgroup", "socket-user=nosuchuser"]
)
def test_unknown_user(new_httpd, option):
    with new_httpd(mode="daemon", daemon=option) as httpd:
        refused(httpd, option.partition("=")[2])


@ROOT
@pytest.mark.parametrize("option", ["user=root", "user=#0"])
def test_root_is_refused(new_httpd, option):
    with new_httpd(mode="daemon", daemon=option) as httpd:
        refused(httpd, "root")


def test_missing_virtual_environment(new_httpd):
    with new_httpd(mode="daemon", daemon='python-home="/does/not/exist"') as httpd:
        refused(httpd, "/does/not/exist")


def test_python_without_a_gateway(new_httpd):
    """An interpreter of another version: the message names the remedy."""
    with new_httpd(mode="daemon", threads=4) as httpd:
        home = httpd.root / "other"
        (home / "bin").mkdir(parents=True)
        # Reports itself as a Python that nobody has built a gateway for.
        python = home / "bin" / "python"
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
        (home / "lib" / "python3.99").mkdir(parents=True)
        httpd.config.daemon = f'python-home="{home}"'
        applications(httpd, app="daemon.wsgi")
        done = httpd.check()
        if done.returncode != 0:
            assert "python" in done.stderr.lower()
            return
        httpd.expect_log(r"RWSGI04\d\d: |make gateway", count=None)
        httpd.allow_log(r"RWSGI03\d\d: ")
        httpd.start()
        with httpd.connect(timeout=30) as connection:
            connection.request("/app/pid")
            assert connection.read_response().status in (503, 504)


@ROOT
def test_unreadable_script(new_httpd):
    """500 and a message; readable again, it serves without a restart."""
    with new_httpd(mode="daemon", daemon="user=nobody group=nogroup home=/") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        script = httpd.apps / "daemon.wsgi"
        script.chmod(0o600)
        httpd.expect_log(r"RWSGI0103: .*daemon\.wsgi", count=None)
        assert httpd.request("/app/pid").status == 500
        httpd.settle_log()
        script.chmod(0o644)
        assert httpd.get("/app/pid").status == 200


def sick_sockets(httpd, prefix):
    httpd.add(f'WSGISocketPrefix "{prefix}"')
    applications(httpd, app="daemon.wsgi")
    return httpd.start_failing()


def test_socket_directory_that_does_not_exist(new_httpd):
    with new_httpd(mode="daemon") as httpd:
        said = sick_sockets(httpd, httpd.root / "nowhere" / "wsgi")
        assert "RWSGI03" in said and "nowhere" in said


def test_socket_directory_that_is_a_file(new_httpd):
    with new_httpd(mode="daemon") as httpd:
        (httpd.root / "file").write_text("")
        said = sick_sockets(httpd, httpd.root / "file" / "wsgi")
        assert "RWSGI03" in said


@ROOT
def test_full_disk_for_sockets(new_httpd):
    """A file system without room for another name."""
    with new_httpd(mode="daemon") as httpd:
        place = httpd.root / "full"
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "tmpfs", str(place)],
            capture_output=True,
        )
        if mounted.returncode != 0:
            pytest.skip("may not mount a file system here")
        try:
            for number in range(10):
                try:
                    (place / f"file{number}").touch()
                except OSError:
                    break
            else:
                pytest.skip("the file system does not get full")
            said = sick_sockets(httpd, place / "wsgi")
            assert "RWSGI03" in said and "space" in said
        finally:
            subprocess.run(["umount", str(place)], check=True)


def test_socket_path_that_is_too_long(new_httpd):
    with new_httpd(mode="daemon") as httpd:
        directory = httpd.root / ("d" * 90)
        directory.mkdir()
        httpd.add(f'WSGISocketPrefix "{directory}/wsgi"')
        refused_or_failed = httpd.check()
        said = refused_or_failed.stderr
        if refused_or_failed.returncode == 0:
            said = httpd.start_failing()
        assert "long" in said or "107" in said or "108" in said


def test_memory_that_does_not_suffice_for_python(new_httpd):
    """The worker cannot even start: told once, tried again with pauses, requests are answered."""
    options = "virtual-memory-limit=20000000 socket-timeout=2 connect-timeout=1"
    with new_httpd(mode="daemon", threads=4, daemon=options) as httpd:
        applications(httpd, app="daemon.wsgi")
        told = httpd.expect_log(SUPERVISOR, count=None)
        httpd.allow_log(r"RWSGI03\d\d: |memory|Memory|failed to map|shared|Python|^  |python")
        httpd.start()
        begin = time.monotonic()
        assert httpd.request("/app/pid").status in (503, 504)
        assert time.monotonic() - begin < 15
        time.sleep(2)
        httpd.log.read()
        assert len(told.lines) <= 4, "told again and again"
        assert len(processes.marked(httpd.mark)) < 8


def test_memory_exhausted_by_an_application(new_httpd):
    """MemoryError is the application's; the process goes on."""
    with new_httpd(mode="daemon", threads=4, daemon="virtual-memory-limit=600000000") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        old = httpd.get("/app/pid").text
        for _ in range(5):
            assert httpd.get("/app/allocate?mib=2000").text == "MemoryError"
        assert httpd.get("/app/pid").text == old


def test_home_that_does_not_exist(new_httpd):
    with new_httpd(mode="daemon", daemon='home="/does/not/exist"', threads=4) as httpd:
        applications(httpd, app="daemon.wsgi")
        done = httpd.check()
        if done.returncode != 0:
            assert "/does/not/exist" in done.stderr
            return
        httpd.expect_log("RWSGI0[34].*/does/not/exist", count=None)
        httpd.allow_log(r"RWSGI0[34]\d\d: ")
        httpd.start()
        time.sleep(1)
        assert len(processes.marked(httpd.mark)) < 8


def test_env_file_that_does_not_exist(new_httpd):
    with new_httpd(mode="daemon", daemon='env-file="/does/not/exist"', threads=4) as httpd:
        applications(httpd, app="daemon.wsgi")
        done = httpd.check()
        if done.returncode != 0:
            assert "/does/not/exist" in done.stderr
            return
        httpd.expect_log("RWSGI0[34].*/does/not/exist", count=None)
        httpd.allow_log(r"RWSGI0[34]\d\d: ")
        httpd.start()


def test_interpreter_that_disappears(new_httpd):
    """A broken upgrade of Python: running workers serve on, and the reason is told."""
    if not paths.same_python():
        pytest.skip("needs a virtual environment of the default gateway's Python")
    with new_httpd(mode="daemon", threads=8) as httpd:
        home = httpd.root / "venv"
        subprocess.run(
            [str(paths.VENV / "bin" / "python"), "-m", "venv", "--without-pip", str(home)],
            check=True,
        )
        httpd.config.daemon = f'threads=2 python-home="{home}"'
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        old = int(httpd.get("/app/pid").body)
        hidden = httpd.root / "hidden"
        (home / "bin").rename(hidden)
        httpd.expect_log(SUPERVISOR, count=None)
        httpd.allow_log("RWSGI04")
        os.kill(old, signal.SIGUSR1)
        time.sleep(1.5)
        assert httpd.get("/app/pid").text == str(old)
        hidden.rename(home / "bin")
        os.kill(old, signal.SIGUSR1)
        httpd.wait_until(lambda: int(httpd.get("/app/pid").body) != old, "it does not heal")


@ROOT
def test_too_many_processes_for_the_user(new_httpd):
    """No storm of forks, whatever the reason for which workers cannot start."""
    with new_httpd(mode="daemon", threads=4, daemon="processes=4 threads=2") as httpd:
        starts = httpd.root / "data" / "starts"
        httpd.write(
            "apps/dying.py",
            f"""\
            import os
            with open({str(starts)!r}, "a") as file:
                file.write("start\\n")
            os._exit(1)
            """,
        )
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            WSGIImportScript "{httpd.apps}/dying.py" process-group=tests \\
                application-group=%{{GLOBAL}}
        """)
        told = httpd.expect_log("RWSGI0406: ", count=None)
        httpd.start()
        time.sleep(4)
        httpd.log.read()
        # Four slots, each after 0.1, 0.2, 0.4, 0.8, 1.6 s.
        count = len(starts.read_text().split())
        assert 8 <= count <= 36, f"{count} starts within four seconds"
        assert len(told.lines) <= 12


def test_mistyped_process_group(new_httpd):
    with new_httpd() as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.add("<Location /app>\nWSGIProcessGroup missing\n</Location>")
        httpd.start()
        httpd.expect_log("RWSGI0009: .*missing")
        assert httpd.request("/app/pid").status == 500
