"""The harness itself: what it must not let through."""

from __future__ import annotations

import pytest
from harness import paths, processes
from harness.errorlog import ErrorLogs

pytestmark = pytest.mark.skipif(bool(paths.PEER), reason="error logs of a peer are not judged")


def line(level, message, pid=7, log_id="abc"):
    return (
        f"[2026-01-01 00:00:00.0] [rwsgi:{level}] [pid {pid}] [id {log_id}] [vhost x] {message}\n"
    )


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "error.log"
    file.touch()
    logs = ErrorLogs([file])

    def append(*lines):
        with open(file, "a") as stream:
            stream.writelines(lines)

    logs.append = append
    return logs


def fails(log, *words):
    with pytest.raises(AssertionError) as failure:
        log.settle(timeout=0.05)
    for word in words:
        assert word in str(failure.value)


def test_quiet_lines_pass(log):
    log.append(line("notice", "resuming"), line("info", "hello"), line("debug", "x"))
    log.settle()


@pytest.mark.parametrize("level", ["warn", "error", "crit", "alert", "emerg"])
def test_unannounced_line_fails(log, level):
    log.append(line(level, "something"))
    fails(log, "not announced", "something")
    # Told once only.
    log.settle()


def test_announced_line_passes(log):
    log.expect("RWSGI0200", count=2)
    log.append(line("error", "RWSGI0200: a"), line("error", "RWSGI0200: b"))
    log.settle()


def test_announced_line_that_does_not_come_fails(log):
    log.expect("RWSGI0200", count=2)
    log.append(line("error", "RWSGI0200: a"))
    fails(log, "came 1 of 2")


def test_one_line_too_many_fails(log):
    log.expect("RWSGI0200", count=1)
    log.append(line("error", "RWSGI0200: a"), line("error", "RWSGI0200: b"))
    fails(log, "not announced", "RWSGI0200: b")


@pytest.mark.parametrize(
    "text",
    [
        "thread 'main' panicked at src/lib.rs:1:1:\n",
        "Fatal Python error: Segmentation fault\n",
        "free(): invalid pointer\n",
    ],
)
def test_unformatted_line_fails(log, text):
    log.append(text)
    fails(log, text.strip())


def test_death_of_a_child_fails_whatever_its_level(log):
    log.allow("RWSGI0200")
    log.append(line("notice", "AH00052: child pid 8 exit signal Segmentation fault (11)"))
    fails(log, "never allowed")


TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "x.py", line 1, in f',
    "    raise KeyError",
    "KeyError: 1",
    "",
    "The above exception was the direct cause of the following exception:",
    "",
    "Traceback (most recent call last):",
    '  File "x.py", line 2, in f',
    "    raise ValueError",
    "ValueError: 2",
]


def test_traceback_belongs_to_its_header(log):
    expected = log.expect("RWSGI0200")
    log.append(line("error", "RWSGI0200: failed"), *(line("error", text) for text in TRACEBACK))
    log.settle()
    assert [each.message for each in expected.traceback] == TRACEBACK


def test_traceback_does_not_hide_what_follows(log):
    log.expect("RWSGI0200")
    lines = [line("error", text) for text in TRACEBACK]
    log.append(line("error", "RWSGI0200: failed"), *lines, line("error", "another thing"))
    fails(log, "another thing")


def test_traceback_does_not_hide_another_header(log):
    log.expect("RWSGI0200")
    log.append(line("error", "RWSGI0200: failed"), line("error", "RWSGI0204: close failed"))
    fails(log, "RWSGI0204")


def test_traceback_without_announcement_fails(log):
    log.append(*(line("error", text) for text in TRACEBACK))
    fails(log, "KeyError: 1")


def test_process_left_behind_fails(new_httpd):
    """A process that has left the session, as a daemon does, is found nevertheless."""
    with new_httpd() as httpd:
        httpd.write(
            "apps/leaving.wsgi",
            """\
            import subprocess

            def application(environ, start_response):
                process = subprocess.Popen(["sleep", "60"], start_new_session=True)
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(process.pid).encode()]
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.apps}/leaving.wsgi" application-group=%{{GLOBAL}}
        """)
        httpd.start()
        pid = int(httpd.get("/").body)
        assert processes.alive(pid)
        with pytest.raises(AssertionError, match="left behind"):
            httpd.stop()
        assert not processes.alive(pid)


def test_server_that_does_not_start_is_told(new_httpd):
    with new_httpd() as httpd:
        httpd.add("NoSuchDirective On")
        with pytest.raises(AssertionError, match="NoSuchDirective"):
            httpd.start()
        assert "NoSuchDirective" in httpd.stderr()
        (httpd.root / "logs" / "stderr").unlink()
        httpd.process = None
