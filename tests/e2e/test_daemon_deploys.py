"""Deploys that drop nothing: under a steady load no request fails, whatever makes the group replace
its workers.

More threads in httpd than connections: one that is short of threads closes idle connections, with
any handler (daemon.md, trap 7).
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from contextlib import contextmanager

import pytest
from harness.storm import Storm

pytestmark = pytest.mark.rwsgi
SOAK = pytest.mark.soak

CONNECTIONS = 64
APP = """\
import os, time
{extra}
def application(environ, start_response):
    time.sleep({pause})
    body = b"{version} %d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
#: What the supervisor says when new code does not start.
KEPT = "RWSGI0409: "
BROKEN = "def application(environ, start_response:\n"


class Site:
    """A server with one group, and its script, which can be deployed anew."""

    def __init__(self, httpd, pause):
        self.httpd = httpd
        self.pause = pause
        # Every version gets a time of its own, whatever the clock's resolution.
        self.time = time.time() - 100_000
        self.version = ""

    def deploy(self, version, extra="", name="app"):
        """Writes the script; returns the moment after which a request must see it."""
        text = APP.format(version=version, extra=extra, pause=self.pause)
        self.write(text, name)
        self.version = version
        return time.monotonic()

    def write(self, text, name="app"):
        self.time += 10
        fresh = self.httpd.root / "site" / f"{name}.new"
        fresh.write_text(text)
        fresh.chmod(0o644)
        os.utime(fresh, (self.time, self.time))
        fresh.replace(self.httpd.root / "site" / f"{name}.wsgi")

    def answering(self, target="/load/0"):
        """Version and process that answer now."""
        version, pid = self.httpd.get(target).text.split()
        return version, int(pid)

    def await_settled(self, workers=2):
        """Waits until one supervisor with its workers is left, no old one, nobody on trial."""

        def settled():
            return len(self.httpd.supervisors()) == 1 and len(self.httpd.workers()) == workers

        self.httpd.wait_until(settled, f"processes left over: {self.httpd.workers()}")


@contextmanager
def serve(new_httpd, options="", workers=2, pause=0.002, **more):
    daemon = f"processes={workers} threads=15 {options}"
    with new_httpd(mode="daemon", threads=CONNECTIONS + 32, daemon=daemon, **more) as httpd:
        (httpd.root / "site").mkdir()
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIApplicationGroup %{{GLOBAL}}
            WSGIScriptAlias /load "{httpd.root}/site/app.wsgi"
            WSGIScriptAlias /other "{httpd.root}/site/other.wsgi"
        """)
        site = Site(httpd, pause)
        site.deploy("v0")
        httpd.start()
        # Every worker has the script.
        httpd.wait_until(lambda: len(pids_of(site, 20)) >= workers, "not all workers answer")
        yield site
        if "maximum-requests" not in options:
            # There, the next worker is ready before the last one has served its last request.
            site.await_settled(workers)
        httpd.settle_log()


def pids_of(site, count):
    connections = [site.httpd.connect() for _ in range(count)]
    for connection in connections:
        connection.request("/load/0")
    found = {int(connection.read_response().text.split()[1]) for connection in connections}
    for connection in connections:
        connection.close()
    return found


class Succession:
    """From the log: which worker took over from which, in order."""

    def __init__(self, httpd):
        self.httpd = httpd
        self.start = len(httpd.log.seen)

    def check(self, word):
        """No worker was told to end before another one, ready, had taken over from it."""
        self.httpd.log.read()
        taken, ended = set(), 0
        for line in self.httpd.log.seen[self.start :]:
            match = re.search(r"takes over from process (\d+)", line.message)
            if match:
                taken.add(int(match[1]))
            if f"the worker ends: {word}" in line.message:
                assert line.pid in taken, f"{line.pid} ended before there was another one"
                ended += 1
        return ended


def versions(storm):
    return {answer.body.split()[0].decode() for answer in storm.answers}


def pids(storm):
    return {int(answer.body.split()[1]) for answer in storm.answers}


# A changed script


@pytest.mark.checklist(158)
def test_the_first_request_after_a_touch_gets_the_new_code(new_httpd):
    """Without load: whoever asks next, on whatever connection, gets it."""
    with serve(new_httpd) as site, site.httpd.connect() as kept:
        kept.request("/load/0")
        kept.read_response()
        for number in range(10):
            site.deploy(f"v{number + 1}")
            if number % 2:
                kept.request("/load/0")
                version = kept.read_response().text.split()[0]
            else:
                version = site.answering()[0]
            assert version == site.version
            # And so does everybody after that, in each process.
            assert {site.answering()[0] for _ in range(6)} == {site.version}


def test_twenty_touches_under_load(new_httpd):
    rounds = 20
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        storm.wait_for(3000)
        quiet = storm.percentile(0.99)
        begin = time.monotonic()
        deploys = {}
        succession = Succession(site.httpd)
        for number in range(1, rounds + 1):
            deploys[f"v{number}"] = site.deploy(f"v{number}")
            storm.wait_for(600)
            site.httpd.wait_until(
                lambda: storm.answers[-1].body.split()[0].decode() == site.version,
                "the new code does not come",
            )
        end = time.monotonic()
        storm.wait_for(500)
    storm.judge()
    assert versions(storm) == {f"v{number}" for number in range(rounds + 1)}
    for version, moment in deploys.items():
        # The one that noticed the change waited for the new code: it is among those that were on
        # their way or came next.
        first = min(a.start for a in storm.answers if a.body.startswith(version.encode() + b" "))
        earlier = [a for a in storm.answers if moment <= a.start < first]
        assert len(earlier) <= 2 * CONNECTIONS, f"{version}: {len(earlier)} came before it"
    # Never fewer ready workers than configured.
    assert succession.check("script_reload") >= rounds
    slow = storm.percentile(0.99, begin, end)
    assert slow <= 5 * max(quiet, 0.01), f"p99 {slow * 1000:.1f} ms, quiet {quiet * 1000:.1f} ms"


def test_only_the_request_that_notices_waits_for_a_slow_import(new_httpd):
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        storm.wait_for(500)
        moment = site.deploy("slow", extra="time.sleep(2)")
        site.httpd.wait_until(
            lambda: storm.answers[-1].body.startswith(b"slow "), "the new code does not come"
        )
        storm.wait_for(500)
    storm.judge()
    waiting = [a for a in storm.answers if a.end - a.start > 1]
    # One per old worker; two where the second one noticed while the first was being replaced.
    assert 1 <= len(waiting) <= 4, [f"{a.end - a.start:.2f}" for a in waiting]
    assert all(a.body.startswith(b"slow ") for a in waiting)
    meanwhile = [a for a in storm.answers if moment < a.start and a.end < moment + 1.5]
    assert len(meanwhile) > 200 and all(a.body.startswith(b"v0 ") for a in meanwhile)


def test_modules_of_the_application_are_new_too(new_httpd):
    """What in-place reloading cannot do: the whole application is imported anew."""
    with serve(new_httpd, workers=1) as site:
        extra = f"import sys; sys.path.insert(0, {str(site.httpd.root)!r}); import helper"
        site.httpd.write("helper.py", "VERSION = 1\n", age=1000)
        text = APP.format(version="%d", extra=extra, pause=0).replace(
            "% os.getpid()", "% (helper.VERSION, os.getpid())"
        )
        site.write(text)
        assert site.answering()[0] == "1"
        site.httpd.write("helper.py", "VERSION = 2\n", age=500)
        assert site.answering()[0] == "1"
        site.write(text)
        assert site.answering()[0] == "2"


def test_a_deleted_script_does_not_block_the_others(new_httpd):
    with serve(new_httpd) as site:
        site.deploy("other", name="other")
        assert site.answering("/other")[0] == "other"
        for _ in range(8):
            site.answering("/other")
        (site.httpd.root / "site" / "other.wsgi").unlink()
        site.httpd.allow_log("RWSGI0010|RWSGI0103|RWSGI04[0-9][0-9]")
        site.deploy("v1")
        site.httpd.wait_until(lambda: site.answering()[0] == "v1", "the new code does not come")
        assert site.httpd.request("/other").status == 404


def test_two_scripts_changed_at_once(new_httpd):
    with serve(new_httpd) as site:
        site.deploy("other", name="other")
        for _ in range(8):
            site.answering("/other")
        with Storm(site.httpd, connections=16) as storm:
            for number in range(1, 4):
                site.deploy(f"o{number}", name="other")
                site.deploy(f"v{number}")
                assert site.answering("/other")[0] == f"o{number}"
                storm.wait_for(200)
                site.httpd.wait_until(lambda: site.answering()[0] == site.version)
        storm.judge()


# Broken code


def test_a_syntax_error_deployed_under_load(new_httpd):
    """Zero failed requests, one traceback, the old code answers; the repair needs no restart."""
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        storm.wait_for(500)
        told = site.httpd.expect_log(KEPT)
        site.write(BROKEN)
        broken = time.monotonic()
        storm.wait_for(1000)
        # Some attempts at loading it again.
        while time.monotonic() < broken + 4:
            storm.wait_for(200)
        assert versions(storm) == {"v0"}
        site.httpd.settle_log()
        texts = [line.message for line in [*told.lines, *told.traceback]]
        assert len([text for text in texts if text.startswith("SyntaxError")]) == 1
        assert any("app.wsgi" in text for text in texts)
        site.deploy("repaired")
        site.httpd.wait_until(
            lambda: storm.answers[-1].body.startswith(b"repaired "), "the repair is not picked up"
        )
        storm.wait_for(500)
    storm.judge()
    assert versions(storm) == {"v0", "repaired"}


def test_code_that_breaks_for_a_reason_outside_of_it(new_httpd):
    """The file stays the same: it is tried again until it loads."""
    with serve(new_httpd) as site, Storm(site.httpd, connections=8) as storm:
        storm.wait_for(50)
        missing = site.httpd.root / "data" / "needed"
        site.httpd.expect_log(KEPT)
        site.deploy("needy", extra=f"open({str(missing)!r})")
        storm.wait_for(300)
        site.httpd.settle_log()
        missing.touch()
        site.httpd.wait_until(
            lambda: storm.answers[-1].body.startswith(b"needy "), "it is not tried again"
        )
    storm.judge()


def test_a_script_that_kills_its_worker_while_loading(new_httpd):
    """No exception to catch: the new worker just dies."""
    with serve(new_httpd) as site, Storm(site.httpd, connections=8) as storm:
        storm.wait_for(50)
        site.httpd.expect_log(KEPT + ".*exit code 9")
        site.deploy("deadly", extra="os._exit(9)")
        begin = time.monotonic()
        while time.monotonic() < begin + 3:
            storm.wait_for(100)
        assert versions(storm) == {"v0"}
        site.deploy("repaired")
        site.httpd.wait_until(
            lambda: storm.answers[-1].body.startswith(b"repaired "), "the repair is not picked up"
        )
    storm.judge()


# Restarts


def graceful_restarts(new_httpd, rounds):
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        storm.wait_for(500)
        site.httpd.allow_log("AH00484|AH00161|AH0028[68]|AH0328[0-9]|AH10159")
        for number in range(1, rounds + 1):
            site.deploy(f"v{number}")
            site.httpd.graceful()
            storm.wait_for(300)
        assert site.answering()[0] == site.version
    storm.judge()


@pytest.mark.checklist(197)
def test_five_graceful_restarts_under_load(new_httpd):
    graceful_restarts(new_httpd, 5)


@SOAK
@pytest.mark.timeout(600)
def test_twenty_graceful_restarts_under_load(new_httpd):
    graceful_restarts(new_httpd, 20)


@pytest.mark.checklist(197)
def test_long_requests_survive_a_graceful_restart(new_httpd):
    """The old generation's workers end when their last request has."""
    with serve(new_httpd, pause=1.5) as site:
        old = set(site.httpd.workers())
        with Storm(site.httpd, connections=12) as storm:
            time.sleep(0.3)
            site.httpd.graceful()
            storm.wait_for(36)
        storm.judge()
        site.await_settled()
        assert not old & set(site.httpd.workers())


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGUSR1])
def test_twenty_signals_to_workers_under_load(new_httpd, sign):
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        source = random.Random(7)
        storm.wait_for(500)
        for _ in range(20):
            site.await_settled()
            serving = site.httpd.wait_until(
                lambda: {int(answer.body.split()[1]) for answer in storm.answers[-60:]}
                & set(site.httpd.workers())
            )
            victim = source.choice(sorted(serving))
            os.kill(victim, sign)
            site.httpd.wait_until(
                lambda: victim not in site.httpd.workers(),  # noqa: B023
                f"{victim} does not end",
            )
            storm.wait_for(200)
    storm.judge()
    assert len(pids(storm)) >= 20


def test_signal_to_the_supervisor_under_load(new_httpd):
    """SIGUSR1 replaces all workers, one after the other."""
    with serve(new_httpd) as site, Storm(site.httpd, connections=CONNECTIONS) as storm:
        storm.wait_for(300)
        (supervisor,) = site.httpd.supervisors()
        for number in range(1, 4):
            before = set(site.httpd.workers())
            site.deploy(f"v{number}")
            os.kill(supervisor, signal.SIGUSR1)
            site.httpd.wait_until(
                lambda: not before & set(site.httpd.workers()),  # noqa: B023
                "the old workers stay",
            )
            site.await_settled()
            storm.wait_for(200)
        assert site.httpd.supervisors() == [supervisor]
    storm.judge()


@pytest.mark.checklist(184)
def test_twenty_cycles_of_maximum_requests_under_load(new_httpd):
    limit = 400
    with serve(new_httpd, f"maximum-requests={limit}") as site:
        succession = Succession(site.httpd)
        with Storm(site.httpd, connections=CONNECTIONS) as storm:
            site.httpd.wait_until(
                lambda: len(storm.answers) > 22 * limit and len(pids(storm)) >= 22,
                "too few cycles",
                timeout=90,
            )
        storm.judge()
        served = {pid: 0 for pid in pids(storm)}
        for answer in storm.answers:
            served[int(answer.body.split()[1])] += 1
        assert max(served.values()) <= limit
        assert succession.check("maximum_requests") >= 20


@pytest.mark.checklist(184)
def test_maximum_requests_one_by_one(new_httpd):
    """Exactly so many requests per process, none failed."""
    with serve(new_httpd, "maximum-requests=5", workers=1, pause=0) as site:
        # The requests that awaited the start may have used up the first one.
        seen = [site.answering()[1] for _ in range(48)]
        runs = [seen.count(pid) for pid in dict.fromkeys(seen)]
        assert set(runs[1:-1]) == {5}, runs


def test_jitter_of_maximum_requests(new_httpd):
    options = "maximum-requests=5 max-requests-jitter=5"
    with serve(new_httpd, options, workers=1, pause=0) as site:
        seen = [site.answering()[1] for _ in range(100)]
        runs = [seen.count(pid) for pid in dict.fromkeys(seen)][1:-1]
        assert all(5 <= run <= 10 for run in runs), runs
        assert len(set(runs)) > 1, runs


@pytest.mark.checklist(190)
def test_restart_interval_under_load(new_httpd):
    with serve(new_httpd, "restart-interval=1") as site:
        with Storm(site.httpd, connections=16) as storm:
            site.httpd.wait_until(lambda: storm.answers and len(pids(storm)) >= 6, "no restarts")
        storm.judge()
