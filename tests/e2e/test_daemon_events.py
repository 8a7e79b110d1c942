"""What the workers of a process group tell their applications."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from harness.group import Request
from harness.sites import applications

pytestmark = pytest.mark.rwsgi


def serve(new_httpd, options):
    httpd = new_httpd(mode="daemon", threads=8, daemon=options)
    return httpd


def noted(file):
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def started(httpd):
    """The server with its application; the file in which that notes events, and the worker."""
    applications(httpd, events="events.wsgi")
    httpd.start()
    file = httpd.root / "data" / "noted"
    return file, int(httpd.get(f"/events/subscribe?file={file}").body)


def by_signal(sign):
    return lambda httpd, pid: os.kill(pid, sign)


def by_requests(httpd, pid):
    for _ in range(6):
        httpd.get("/events/fine")


def by_burning(httpd, pid):
    httpd.allow_log("cpu_time_limit")
    httpd.get("/events/burn")


def by_waiting(httpd, pid):
    pass


def by_change(httpd, pid):
    script = httpd.apps / "events.wsgi"
    httpd.write("apps/events.wsgi", script.read_text() + "\n# changed\n")
    httpd.get("/events/fine")


@pytest.mark.parametrize(
    ("reason", "options", "trigger"),
    [
        ("shutdown_signal", "", by_signal(signal.SIGTERM)),
        ("graceful_signal", "", by_signal(signal.SIGUSR1)),
        ("eviction_signal", "eviction-timeout=5", by_signal(signal.SIGUSR1)),
        ("maximum_requests", "maximum-requests=4", by_requests),
        ("restart_interval", "restart-interval=1", by_waiting),
        ("inactivity_timeout", "inactivity-timeout=1", by_waiting),
        ("cpu_time_limit", "cpu-time-limit=1", by_burning),
        ("script_reload", "", by_change),
    ],
)
@pytest.mark.checklist(224, 192)
def test_the_reason_of_the_end(new_httpd, reason, options, trigger):
    with serve(new_httpd, options) as httpd:
        file, pid = started(httpd)
        trigger(httpd, pid)
        told = {"shutdown_reason": reason}
        httpd.wait_until(lambda: len(noted(file)) == 2, "nothing is told")
        assert sorted(noted(file)) == [
            ["events", "process_stopping", told],
            ["shutdown", "process_stopping", told],
        ]
        httpd.wait_until(lambda: pid not in httpd.workers(), "it does not end")
        assert httpd.get("/events/fine").status == 200
        assert len(noted(file)) == 2


@pytest.mark.checklist(224)
def test_the_end_is_told_while_a_request_hangs(new_httpd):
    """request-timeout: the culprit still runs."""
    with serve(new_httpd, "threads=1 request-timeout=1 graceful-timeout=10") as httpd:
        file, pid = started(httpd)
        httpd.allow_log("RWSGI0412|RWSGI0459|^  |request_timeout")
        gate = httpd.gate()
        request = Request(httpd, f"/events/hold?gate={gate.path}").begun()
        httpd.wait_until(lambda: len(noted(file)) == 2, "nothing is told")
        assert noted(file)[0][2] == {"shutdown_reason": "request_timeout"}
        assert pid in httpd.workers()
        gate.step()
        assert request.response().body == b"held"


@pytest.mark.checklist(223, 187)
def test_a_subscriber_is_interrupted_with_its_request(new_httpd):
    """RequestTimeout is no failure of the callback: it ends the request."""
    with serve(new_httpd, "threads=1 request-timeout=1 interrupt-timeout=5") as httpd:
        _, pid = started(httpd)
        httpd.expect_log("RWSGI0412: .*/events/slow")
        httpd.expect_log("RWSGI0459")
        httpd.allow_log("^  ")
        httpd.expect_log("RWSGI0207: .*RequestTimeout")
        assert httpd.request("/events/slow").status == 504
        assert httpd.workers() == [pid]
        events = httpd.json("/events/of?path=/slow")
        names = [name for name, _ in events]
        assert names == ["request_exception", "request_finished"]
        assert events[0][1]["exception_info"][0] == "RequestTimeout"
        assert events[1][1]["status"] == 504


@pytest.mark.checklist(224)
def test_a_request_may_wait_for_the_end(new_httpd):
    """One that waits for news is told in time to answer."""
    with serve(new_httpd, "") as httpd:
        _, pid = started(httpd)
        request = Request(httpd, "/events/until-stopping").begun()
        begin = time.monotonic()
        os.kill(pid, signal.SIGUSR1)
        assert request.response().body == str(pid).encode()
        assert time.monotonic() - begin < 8


@pytest.mark.checklist(224, 196)
def test_a_subscriber_that_hangs(new_httpd):
    """shutdown-timeout is for it, too; nobody waits for it meanwhile."""
    with serve(new_httpd, "shutdown-timeout=1") as httpd:
        _, pid = started(httpd)
        assert int(httpd.get("/events/hanging").body) == pid
        httpd.expect_log("did not end within 1 s")
        httpd.allow_log("RWSGI0410")
        begin = time.monotonic()
        os.kill(pid, signal.SIGUSR1)
        httpd.wait_until(lambda: pid not in httpd.workers(), "it does not end")
        assert 0.9 < time.monotonic() - begin < 10
        assert httpd.get("/events/fine").status == 200


@pytest.mark.checklist(225)
def test_signals_of_every_worker_and_interpreter(new_httpd):
    with serve(new_httpd, "processes=2") as httpd:
        applications(httpd, events="events.wsgi")
        httpd.add(f'WSGIScriptAlias /sub "{httpd.apps}/events.wsgi" application-group=sub')
        httpd.start()
        files = {}
        deadline = time.monotonic() + 20
        while len(files) < 4 and time.monotonic() < deadline:
            for mount in ("/events", "/sub"):
                file = httpd.root / "data" / f"new{mount.replace('/', '-')}-{len(files)}"
                pid = int(httpd.get(f"{mount}/subscribe?file={file}").body)
                files.setdefault((mount, pid), file)
        if len(files) < 4:
            pytest.skip("one worker answered everything")
        before = {key: len(noted(file)) for key, file in files.items()}
        assert set(before.values()) == {0}
        for pid in httpd.workers():
            os.kill(pid, signal.SIGHUP)
        for file in files.values():
            httpd.wait_until(lambda file=file: len(noted(file)) >= 2, "not all are told")
            assert noted(file)[0][2] == {"signame": "SIGHUP", "signum": 1}


@pytest.mark.checklist(225)
def test_a_process_of_the_application_has_no_such_signals(new_httpd):
    """What the application has forked has inherited the handlers, but is no worker."""
    with serve(new_httpd, "") as httpd:
        file, pid = started(httpd)
        assert httpd.get("/events/forking").body == b"7"
        os.kill(pid, signal.SIGUSR2)
        httpd.wait_until(lambda: len(noted(file)) == 2, "the worker is not told")
        assert [name for _, _, name in noted(file)] == [{"signame": "SIGUSR2", "signum": 12}] * 2


@pytest.mark.checklist(219, 224)
def test_subscriptions_of_a_template(new_httpd):
    """``preload=on``: what the template has subscribed counts in the workers, which alone tell."""
    with serve(new_httpd, "processes=2 preload=on") as httpd:
        file = httpd.root / "data" / "noted"
        script = httpd.write(
            "apps/template.wsgi",
            f"""
            import os
            import mod_wsgi
            import support


            @mod_wsgi.subscribe_events
            def note(name, **event):
                if name in ("request_finished", "process_stopping"):
                    support.note({str(file)!r}, f'["{{name}}", {{os.getpid()}}]')


            def application(environ, start_response):
                return support.answer(start_response, str(os.getpid()))
            """,
        )
        applications(httpd)
        httpd.add(f"""
            WSGIScriptAlias / "{script}" process-group=tests application-group=%{{GLOBAL}}
        """)
        httpd.start()
        answered = {int(httpd.get("/").body) for _ in range(10)}
        httpd.wait_until(lambda: len(noted(file)) == 10, "not all requests are told of")
        assert {tuple(event) for event in noted(file)} == {
            ("request_finished", pid) for pid in answered
        }
        # The template and two workers.
        httpd.wait_until(lambda: len(httpd.workers()) == 3, "too few processes")
        file.unlink()
        httpd.stop()
        told = noted(file)
        assert len(told) == 2 and answered <= {pid for _, pid in told}
        assert {name for name, _ in told} == {"process_stopping"}
