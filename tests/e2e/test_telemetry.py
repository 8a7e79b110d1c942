"""WSGITelemetryService, WSGISlowRequests, WSGITelemetryOptions: what arrives at the receiver."""

from __future__ import annotations

import os
import platform
import signal
import socket
import time
from contextlib import contextmanager

import pytest
from harness.config import BOTH
from harness.sites import applications
from harness.telemetry import Receiver

MODES = BOTH
pytestmark = pytest.mark.rwsgi

MPMS = pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])

#: Field numbers of a sample that are always there; queue and daemon are told in daemon mode only.
IDENTITY = {1, 2, 3, 4, 5, 7}
SAMPLE = {10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 50, 51, 52}
SAMPLE |= {60, 63, 64, 65, 66, 67} | {90, 93, 94, 95, 96, 97}
SAMPLE |= set(range(100, 104)) | set(range(110, 115)) | set(range(120, 125))
RANGES = {70, 73, 74, 75, 76, 77, 80, 83, 84, 85, 86, 87}
DAEMON_SAMPLE = {6, 61, 62, 91, 92}
DAEMON_RANGES = {71, 72, 81, 82}
SLOW = {200, 201, 202, 203, 205, 210, 211, 212, 213, 214, 215, 216}
SLOW |= set(range(220, 226)) | set(range(230, 236)) | {240, 250, 251, 260, 261}


@contextmanager
def reporting(new_httpd, text="", interval="0.5", daemon="threads=4", threads=4, **options):
    """A server that reports to a receiver."""
    with new_httpd(threads=threads, daemon=daemon, **options) as httpd:
        with Receiver(httpd.root / "data" / "telemetry") as receiver:
            applications(httpd, app="metrics.wsgi")
            httpd.add(f"WSGITelemetryService unix:{receiver.path} interval={interval}")
            httpd.add(text)
            httpd.start()
            yield httpd, receiver


def pid_of(httpd):
    return httpd.json("/app/pid")[0]


def total(receiver, pid, number):
    """A counter over all samples."""
    return sum(one.fields[number] for one in receiver.of("request", pid))


@MPMS
@pytest.mark.checklist(233)
def test_the_life_of_a_process(new_httpd, mpm):
    """STARTED, REQUEST, STOPPING, STOPPED, in that order, with the fields that are described."""
    with reporting(new_httpd, mpm=mpm, threads=1 if mpm == "prefork" else 4) as (httpd, receiver):
        parent = int((httpd.root / "run" / "httpd.pid").read_text())
        pid = pid_of(httpd)
        started = receiver.wait_for("started", pid).fields
        daemon = httpd.daemon
        assert started.keys() == IDENTITY | {13} | ({6} if daemon else set())
        assert started[1] == b"6.1.1"
        assert started[2].count(b".") == 2 and started[3].startswith(b"Apache/2.4.")
        assert started[4].decode() == mpm and started[5].decode() == platform.node()
        assert started[7] == parent
        assert started[13] == pytest.approx(0.005)
        if daemon:
            assert started[6] == b"tests"
        for status in (200, 404, 500):
            httpd.request(f"/app/{status}")

        receiver.wait(lambda: total(receiver, pid, 123) >= 1, "the requests are not told of")
        receiver.wait(lambda: total(receiver, pid, 124) >= 1, "the requests are not told of")
        for sample in receiver.of("request", pid):
            expected = IDENTITY | SAMPLE | (DAEMON_SAMPLE if daemon else set())
            if sample.fields[20]:
                expected |= RANGES | (DAEMON_RANGES if daemon else set())
            assert sample.fields.keys() == expected
            assert sample.fields[11] == 0.5 and sample.fields[12] == 0
            assert 0.3 < sample.fields[10] < 10
            assert sum(sample.fields[n] for n in range(120, 125)) == sample.fields[20]
            assert len(sample.fields[94]) == 65 and sum(sample.fields[94]) == sample.fields[20]
            maximum = 4 if daemon or mpm != "prefork" else 1
            assert sample.fields[50] == maximum
            assert all(len(sample.fields[n]) == maximum for n in range(110, 115))
            assert abs(sample.time - time.time()) < 60
        requests = total(receiver, pid, 20)
        httpd.stop()
        stopping = receiver.wait_for("stopping", pid).fields
        stopped = receiver.wait_for("stopped", pid).fields
        assert stopping[133] == 0
        if daemon:
            assert stopping[130] == stopped[130] == b"shutdown_signal"
            assert stopping[6] == stopped[6] == b"tests"
        assert stopped.keys() - {6, 130} == {5, 131, 132, 134, 135}
        assert stopped[132] >= requests and stopped[134] == 0 and stopped[135] == 1
        assert 0 < stopped[131] < 120
        order = [one for one in receiver.all if one.pid == pid]
        assert [one.sequence for one in order] == list(range(1, len(order) + 1))
        kinds = [one.kind for one in order if not one.kind.startswith("gc")]
        assert kinds[0] == "started"
        # The last interval is told of, too.
        assert kinds[-3:] == ["stopping", "request", "stopped"]
        assert set(kinds[1:-3]) == {"request"}


@pytest.mark.checklist(233)
def test_garbage_collectors(new_httpd):
    """A snapshot of each interpreter, and every pass."""
    text = """
        <Location /other>
            WSGIApplicationGroup other
        </Location>
    """
    with reporting(new_httpd, text) as (httpd, receiver):
        pid = pid_of(httpd)
        httpd.get("/app/collect")
        event = receiver.wait_for("gc_event", pid, lambda one: one.fields[322] == 2).fields
        assert event.keys() - {8} == {320, 321, 322, 323, 324}
        assert abs(event[320] - time.time()) < 60 and 0 <= event[321] < 5
        snapshot = receiver.wait_for("gc", pid).fields
        assert snapshot.keys() - {8} == set(range(300, 318))
        assert snapshot[303] > 0 and snapshot[315] == 1 and snapshot[317] == 0
        # Cumulative counters of the oldest generation.
        receiver.wait_for("gc", pid, lambda one: one.fields[308] >= 3)
        # Many at a time, more than a socket's queue holds: none is lost.
        httpd.get("/app/collect?30")
        before = snapshot[308]
        receiver.wait_for("gc", pid, lambda one: one.fields[308] >= before + 30)
        order = [one.sequence for one in receiver.all if one.pid == pid]
        assert order == list(range(1, len(order) + 1))


@pytest.mark.checklist(233)
def test_interpreters_are_named_where_there_are_several(new_httpd):
    with reporting(new_httpd) as (httpd, receiver):
        httpd.add(
            'WSGIScriptAlias /other "%s" application-group=other' % (httpd.apps / "metrics.wsgi")
        )
        httpd.rewrite_config()
        httpd.restart()
        pid = pid_of(httpd)
        assert httpd.json("/other/pid")[0] == pid
        receiver.wait_for("gc", pid, lambda one: one.fields.get(8) == b"other")


@pytest.mark.checklist(234)
def test_slow_requests(new_httpd, mode):
    """One that runs is told of while it does, and once when it has ended."""
    with reporting(new_httpd, "WSGISlowRequests 0.2") as (httpd, receiver):
        gate = httpd.gate()
        file = httpd.root / "data" / "held"
        httpd.get("/app/200")
        with httpd.connect() as connection:
            headers = {"Host": "www.example.org:1234", "User-Agent": "Test/1"}
            target = f"/app/hold?secret=1&gate={gate.path}&file={file}"
            connection.request(target, headers=headers)
            httpd.wait_until(file.exists)
            active = receiver.wait_for("slow", matches=lambda one: one.fields[200] == 0)
            active = active.fields
            # It is told of as long as it lasts.
            first = active[202]
            receiver.wait_for("slow", matches=lambda one: one.fields[202] > first)
            gate.step()
            assert connection.read_response().status == 200
        done = receiver.wait_for("slow", matches=lambda one: one.fields[200] == 1)
        pid, done = done.pid, done.fields
        assert active.keys() - {204} == done.keys() - {204} == SLOW
        for fields in (active, done):
            assert fields[210] == b"GET" and fields[211] == b"http"
            assert fields[212] == b"www.example.org"
            assert (fields[213], fields[214]) == (b"/app", b"/hold")
            assert fields[215] == b"HTTP/1.1" and fields[216] == b"127.0.0.1"
            assert not any(b"secret" in value for value in fields.values() if value is bytes)
            # The thread of the one before may not have noticed that it has ended.
            assert fields[260] in (1, 2) and fields[203] >= 1
        assert active[201] == done[201] and abs(done[201] - time.time()) < 60
        assert active[202] >= 0.2 and done[202] > active[202]
        assert active[240] == 0 and done[240] == 200
        assert active[261] == 0 and done[261] >= 1
        assert done[223] == pytest.approx(done[202], abs=0.2)
        assert done[232] == 4 and done[233] == 1, "null"
        assert done[205] in httpd.children()
        assert (pid in httpd.workers()) == httpd.daemon
        assert done[224] >= 0 and done[225] >= 1
        # Quick ones are not told of, and this one once.
        records = [one.fields for one in receiver.of("slow", pid) if one.fields[200] == 1]
        assert len(records) == 1


@pytest.mark.parametrize(
    ("directives", "told"),
    [
        ("", False),
        ("WSGITelemetryOptions +CaptureUserAgent", True),
        ("WSGITelemetryOptions CaptureUserAgent", True),
        ("WSGITelemetryOptions All\nWSGITelemetryOptions -CaptureUserAgent", False),
        ("WSGITelemetryOptions None", False),
    ],
)
@pytest.mark.checklist(234)
def test_user_agent(new_httpd, directives, told):
    with reporting(new_httpd, f"WSGISlowRequests 0.05\n{directives}") as (httpd, receiver):
        agent = "Long/1 " + "x" * 2000
        httpd.get("/app/compute", headers={"User-Agent": agent})
        done = receiver.wait_for("slow", matches=lambda one: one.fields[200] == 1).fields
        if not told:
            assert 217 not in done
            return
        assert done[217] == agent[:508].encode() + b"..."


@pytest.mark.checklist(235)
def test_without_a_receiver(new_httpd):
    """Nobody listens, then somebody does: nothing is logged, requests are served, and the functions
    have nothing to tell."""
    with new_httpd(threads=4, daemon="threads=4", log_level="notice rwsgi:debug") as httpd:
        path = httpd.root / "data" / "telemetry"
        applications(httpd, app="metrics.wsgi")
        httpd.add(f"WSGITelemetryService unix:{path} interval=0.5")
        httpd.start()
        assert httpd.json("/app/start") is None
        assert httpd.json("/app/request") is None
        assert httpd.json("/app/process") is None
        pid = pid_of(httpd)
        time.sleep(0.7)
        with Receiver(path) as receiver:
            sample = receiver.wait_for("request", pid)
            # What was sent before is lost; the number tells.
            assert sample.sequence > 1
            assert not receiver.of("started", pid)
        # And it goes away again.
        time.sleep(0.7)
        assert httpd.get("/app/200").body == b"firstsecond"
        assert httpd.json("/app/request") is None
        httpd.stop()


@pytest.mark.checklist(235)
def test_a_receiver_that_does_not_read(new_httpd):
    """Its queue is full soon: nothing waits for it."""
    with new_httpd(threads=4, daemon="threads=4") as httpd:
        path = httpd.root / "data" / "telemetry"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(str(path))
            path.chmod(0o666)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                with pytest.raises(BlockingIOError):
                    while True:
                        other.sendto(b"x" * 1000, str(path))
            applications(httpd, app="metrics.wsgi")
            httpd.add(f"WSGITelemetryService unix:{path} interval=0.5\nWSGISlowRequests 0.01")
            httpd.start()
            began = time.monotonic()
            for _ in range(5):
                httpd.get("/app/compute")
            time.sleep(0.6)
            httpd.stop()
            assert time.monotonic() - began < 15


@pytest.mark.modes("daemon")
@pytest.mark.checklist(233)
def test_a_worker_that_is_killed_says_so_before(new_httpd):
    """A request does not end: STOPPED with what is cut off, though nothing can be sent then."""
    options = "threads=2 graceful-timeout=1 shutdown-timeout=1"
    with reporting(new_httpd, daemon=options) as (httpd, receiver):
        pid = pid_of(httpd)
        gate = httpd.gate()
        file = httpd.root / "data" / "held"
        with httpd.connect() as connection:
            connection.request(f"/app/hold?gate={gate.path}&file={file}")
            httpd.wait_until(file.exists)
            httpd.expect_log("RWSGI0410: ")
            httpd.expect_log("RWSGI0408: ")
            httpd.expect_log("RWSGI0303: ")
            os.kill(pid, signal.SIGUSR1)
            stopping = receiver.wait_for("stopping", pid).fields
            assert stopping[130] == b"graceful_signal" and stopping[133] == 1
            stopped = receiver.wait_for("stopped", pid).fields
            assert stopped[134] == 1 and stopped[135] == 0
            assert connection.read_response().status == 502
        assert len(receiver.of("stopped", pid)) == 1
        # The successor reports by itself.
        receiver.wait_for("started", pid_of(httpd))


@pytest.mark.modes("daemon")
@pytest.mark.checklist(233)
@pytest.mark.parametrize("preload", ["off", "on"])
def test_replaced_workers(new_httpd, preload):
    """Each process tells of its own life; with ``preload=on`` the template does not."""
    options = f"threads=2 maximum-requests=3 preload={preload}"
    with reporting(new_httpd, daemon=options) as (httpd, receiver):
        pids = {pid_of(httpd) for _ in range(9)}
        assert len(pids) >= 2
        stopped = receiver.wait_for("stopped")
        assert stopped.fields[130] == b"maximum_requests"
        assert stopped.fields[132] == 3
        assert stopped.pid in pids
        httpd.stop()
        for pid in pids:
            receiver.wait_for("stopped", pid)
            assert len(receiver.of("started", pid)) == 1


@pytest.mark.modes("embedded")
@pytest.mark.checklist(233)
def test_processes_without_python_say_nothing(new_httpd):
    with new_httpd(mode="daemon", threads=4, daemon="threads=2") as httpd:
        with Receiver(httpd.root / "data" / "telemetry") as receiver:
            applications(httpd, app="metrics.wsgi")
            httpd.add(f"WSGITelemetryService unix:{receiver.path}\nWSGIRestrictEmbedded On")
            # A service script serves no requests.
            script = httpd.write("apps/service.wsgi", "import time\ntime.sleep(60)\n")
            # Python runs in httpd's own processes, too, but not for requests.
            early = httpd.write("apps/early.wsgi", "")
            httpd.add(
                f"WSGIImportScript {early} process-group=%{{GLOBAL}} application-group=%{{GLOBAL}}"
            )
            httpd.add(
                "WSGIDaemonProcess service threads=0\n"
                f"WSGIImportScript {script} process-group=service application-group=%{{GLOBAL}}"
            )
            httpd.start()
            pid = pid_of(httpd)
            receiver.wait_for("request", pid)
            assert {one.pid for one in receiver.all} == {pid}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.modes("daemon")
@pytest.mark.checklist(233)
def test_a_group_of_another_user(new_httpd):
    """The socket must let it; then it reports as any other."""
    with reporting(new_httpd, daemon="threads=2 user=nobody group=nogroup") as (httpd, receiver):
        receiver.wait_for("request", pid_of(httpd))


@pytest.fixture
def checked(new_httpd):
    with new_httpd() as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            return "" if done.returncode == 0 else done.stderr

        yield check


@pytest.mark.modes("embedded")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "takes 1-2 arguments"),
        ("udp:localhost:1000", "unix:/path"),
        ("/run/socket", "unix:/path"),
        ("unix:socket", "absolute"),
        ("unix:", "absolute"),
        ("unix:/" + "x" * 107, "at most 107"),
        ("unix:/x interval=0.1", "at least 0.5"),
        ("unix:/x interval=soon", "number of seconds"),
        ("unix:/x 5", "interval=SECONDS"),
        ("unix:/x interval=1 again", "takes 1-2 arguments"),
    ],
)
@pytest.mark.checklist(24)
def test_bad_services(checked, mode, arguments, words):
    assert words in checked(f"WSGITelemetryService {arguments}")


@pytest.mark.modes("embedded")
@pytest.mark.checklist(24)
def test_good_services(checked, mode):
    for arguments in ("unix:/run/x", "unix:/run/x interval=0.5", '"unix:/run/a b" interval=60'):
        assert checked(f"WSGITelemetryService {arguments}") == ""


@pytest.mark.modes("embedded")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "at least one flag"),
        ("+CaptureUserAgent CaptureUserAgent", "mixed"),
        ("None +CaptureUserAgent", "mixed"),
        ("Everything", "unknown flag 'Everything'"),
        ("+Everything", "unknown flag 'Everything'"),
        ("+", "no flag"),
        ("-None", "takes no + or -"),
        ("+All", "takes no + or -"),
    ],
)
@pytest.mark.checklist(25)
def test_bad_options(checked, mode, arguments, words):
    assert words in checked(f"WSGITelemetryOptions {arguments}")


@pytest.mark.modes("embedded")
@pytest.mark.checklist(25)
def test_good_options(checked, mode):
    for arguments in ("All", "none", "+captureuseragent", "-CaptureUserAgent", "CaptureUserAgent"):
        assert checked(f"WSGITelemetryOptions {arguments}") == ""


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("value", ["", "-1", "fast", "1 2", "inf", "nan"])
def test_bad_thresholds(checked, mode, value):
    assert "WSGISlowRequests" in checked(f"WSGISlowRequests {value}")


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("value", ["maybe", ""])
@pytest.mark.checklist(16)
def test_bad_switch(checked, mode, value):
    assert "WSGIServerMetrics" in checked(f"WSGIServerMetrics {value}")
    assert checked("WSGIServerMetrics on") == ""


@pytest.mark.modes("embedded")
@pytest.mark.parametrize(
    "line",
    [
        "WSGITelemetryService unix:/run/x",
        "WSGITelemetryOptions All",
        "WSGISlowRequests 1",
        "WSGIServerMetrics On",
    ],
)
@pytest.mark.checklist(21)
def test_main_server_only(checked, mode, line):
    assert "cannot occur within" in checked(f"<VirtualHost *:1>\n{line}\n</VirtualHost>")
