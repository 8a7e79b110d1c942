"""`start_recording_metrics`, `request_metrics`, `process_metrics`, `server_metrics`."""

from __future__ import annotations

import concurrent.futures
import math
import os
import time

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH

PHASES = ["server", "application", "request", "gil_wait", "input_read", "output_write"]
DAEMON_PHASES = ["queue", "daemon"]
OTHER_KEYS = """
    pid start_time stop_time sample_period request_count request_throughput
    request_threads_maximum request_threads_started request_threads_active capacity_utilization
    request_threads_completed request_threads_buckets request_threads_busy_time
    request_threads_cpu_time request_threads_current_elapsed request_threads_max_duration
    gil_wait_count input_bytes input_reads output_bytes output_writes
    status_1xx status_2xx status_3xx status_4xx status_5xx
    cpu_user_utilization cpu_system_utilization cpu_utilization
    cpu_user_time cpu_system_time cpu_time memory_rss memory_max_rss
""".split()
PROCESS_KEYS = """
    pid request_busy_time request_count memory_max_rss memory_rss cpu_user_time cpu_system_time
    cpu_time restart_time current_time running_time request_threads active_requests threads
""".split()
SERVER_KEYS = """
    server_limit thread_limit running_generation restart_time current_time running_time processes
""".split()
WORKER_KEYS = """
    thread_num generation status access_count bytes_served start_time stop_time last_used
    client request vhost
""".split()


@pytest.fixture(scope="module", params=["event", "worker", "prefork"])
def mpm(request):
    return request.param


@pytest.fixture(scope="module")
def server(new_httpd, mpm):
    """One process that records."""
    threads = 1 if mpm == "prefork" else 8
    with new_httpd(mpm=mpm, threads=threads, daemon="processes=1 threads=8") as httpd:
        applications(httpd, app="metrics.wsgi")
        if mpm == "prefork":
            httpd.add("MaxRequestWorkers 1\nServerLimit 1")
        httpd.start()
        # Before anybody has said that figures are wanted there are none.
        assert httpd.json("/app/request") is None
        assert httpd.json("/app/process") is None
        assert httpd.json("/app/start") is None
        yield httpd


@pytest.fixture
def threads(server, mpm):
    """Threads that serve requests in one process."""
    return 1 if mpm == "prefork" and not server.daemon else 8


@pytest.fixture
def fresh(server):
    """A new interval: it has only the request that has ended the last one."""

    def begin():
        server.json("/app/request")

    return begin


def settled(server, ends):
    """The metrics when the requests that have been answered have ended, too."""
    total = server.json("/app/request")
    deadline = time.monotonic() + 10
    while total["request_count"] < ends and time.monotonic() < deadline:
        more = server.json("/app/request")
        for key, value in more.items():
            if key.startswith(("status_", "input_", "output_")) or key == "request_count":
                if isinstance(value, int) and not key.endswith("_us"):
                    total[key] += value
            elif key.endswith("_time_buckets"):
                total[key] = [a + b for a, b in zip(total[key], value)]
    return total


@pytest.mark.checklist(226)
def test_keys(server, fresh, threads):
    fresh()
    metrics = server.json("/app/request")
    expected = set(OTHER_KEYS)
    for phase in PHASES + DAEMON_PHASES:
        expected |= {f"{phase}_time{end}" for end in ("", "_min_us", "_max_us", "_buckets")}
    assert set(metrics) == expected
    for phase in PHASES + DAEMON_PHASES:
        assert len(metrics[f"{phase}_time_buckets"]) == 65
    for phase in DAEMON_PHASES:
        absent = not server.daemon
        for end in ("", "_min_us", "_max_us"):
            assert (metrics[f"{phase}_time{end}"] is None) == absent
    for key in OTHER_KEYS:
        if key.startswith("request_threads_") and key.rpartition("_")[2] in (
            "completed",
            "buckets",
            "time",
            "elapsed",
            "duration",
        ):
            assert len(metrics[key]) == threads, key
    assert metrics["request_threads_maximum"] == threads
    assert metrics["pid"] == server.json("/app/pid")[0]
    assert 0 < metrics["memory_rss"] <= metrics["memory_max_rss"]
    assert metrics["start_time"] + metrics["sample_period"] == pytest.approx(
        metrics["stop_time"], abs=1e-3
    )


@pytest.mark.checklist(226)
def test_statuses_and_drain(server, fresh):
    """Every request counts once, in one class, in one interval."""
    fresh()
    statuses = [200, 201, 206, 301, 302, 404, 403, 500, 503, 599]
    for status in statuses:
        assert server.request(f"/app/{status}").status == status
    server.expect_log(r"RWSGI0\d+: .*ValueError|meant to be", count=None)
    assert server.request("/app/raise").status == 500
    metrics = settled(server, len(statuses) + 2)
    # Those that have asked are in it.
    asked = metrics["request_count"] - len(statuses) - 1
    assert asked >= 1
    assert metrics["status_1xx"] == 0
    assert metrics["status_2xx"] == 3 + asked
    assert metrics["status_3xx"] == 2
    assert metrics["status_4xx"] == 2
    assert metrics["status_5xx"] == 4
    assert sum(metrics[f"status_{n}xx"] for n in range(1, 6)) == metrics["request_count"]
    assert sum(metrics["request_time_buckets"]) == metrics["request_count"]
    time.sleep(0.05)
    # Only what has happened since.
    server.json("/app/request")
    assert server.json("/app/request")["request_count"] <= 2


@pytest.mark.checklist(226)
def test_input_and_output(server, fresh):
    fresh()
    body = b"x" * 4321
    response = server.request("/app/read", method="POST", body=body)
    assert response.json() == 4321
    server.get("/app/200")
    metrics = settled(server, 3)
    assert metrics["input_bytes"] == 4321
    assert metrics["input_reads"] >= 1
    # "first" and "second", beside what tells of it.
    assert metrics["output_writes"] >= 2
    assert metrics["output_bytes"] >= 11


def bucket(microseconds):
    """16 octaves from 1 ms on, four equal parts each."""
    octave = int(math.log2(microseconds / 1000))
    lower = 2**octave
    return octave * 4 + int((microseconds / 1000 - lower) / lower * 4)


@pytest.mark.checklist(226)
def test_times(server, fresh):
    fresh()
    before = time.time()
    server.get("/app/compute")
    took = time.time() - before

    def ended():
        # A worker's thread may still be busy when its answer has arrived.
        metrics = server.json("/app/request")
        return metrics if metrics["application_time_max_us"] >= 190_000 else None

    metrics = server.wait_until(ended)
    assert metrics["application_time_max_us"] / 1e6 <= took + 0.01
    assert metrics["request_time_max_us"] >= metrics["application_time_max_us"]
    assert metrics["server_time"] < took
    assert metrics["application_time_buckets"][bucket(metrics["application_time_max_us"])] >= 1
    assert sum(metrics["request_threads_cpu_time"]) >= 0.15
    assert max(metrics["request_threads_max_duration"]) >= 0.19
    assert metrics["cpu_utilization"] >= 0
    assert 0 < metrics["capacity_utilization"] <= 1
    mean = metrics["application_time"] * metrics["request_count"]
    assert mean * 1e6 >= metrics["application_time_max_us"] - 1


@pytest.mark.checklist(226)
def test_a_request_that_runs(server, mode, threads, fresh):
    """It is seen before it ends."""
    if threads == 1:
        pytest.skip("one request at a time")
    gate = server.gate()
    file = server.root / "data" / f"held-{mode}"
    fresh()
    with server.connect() as connection:
        connection.request(f"/app/hold?gate={gate.path}&file={file}")
        server.wait_until(file.exists)
        time.sleep(0.1)
        assert server.json("/app/process")["active_requests"] == 2
        metrics = server.json("/app/request")
        assert max(metrics["request_threads_current_elapsed"]) >= 0.09
        assert max(metrics["request_threads_busy_time"]) >= 0.09
        assert metrics["request_threads_active"] >= 2
        gate.step()
        assert connection.read_response().status == 200
    # How long it was busy is not told twice.
    busy = max(server.json("/app/request")["request_threads_busy_time"])
    assert busy < 5


@pytest.mark.checklist(227)
def test_process(server, threads):
    process = server.json("/app/process")
    assert set(process) == set(PROCESS_KEYS)
    pid, thread_id, _ = server.json("/app/pid")
    assert process["pid"] == pid
    assert 1 <= process["request_threads"] <= threads
    assert 1 <= process["active_requests"] <= threads
    listed = process["threads"]
    assert len(listed) == process["request_threads"]
    assert all(set(thread) == {"thread_id", "request_count"} for thread in listed)
    assert thread_id in [thread["thread_id"] for thread in server.json("/app/process")["threads"]]
    assert process["request_count"] == sum(thread["request_count"] for thread in listed)
    assert process["restart_time"] < process["current_time"] <= time.time() + 0.01
    assert process["running_time"] == int(process["current_time"] - process["restart_time"])
    assert 0 < process["cpu_time"] < 100
    assert process["request_busy_time"] > 0


@pytest.mark.checklist(226)
def test_many_at_once(server, fresh):
    """Nothing is lost or counted twice."""
    fresh()
    server.allow_log("AH00484|AH00161")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.get("/app/200").status, range(200)))
    assert answers == [200] * 200
    metrics = settled(server, 201)
    assert metrics["status_2xx"] == metrics["request_count"]
    assert metrics["request_count"] >= 201
    assert metrics["output_bytes"] >= 200 * len("firstsecond")


def test_forked_processes_have_none(server):
    assert server.json("/app/fork") == [None, None]


@pytest.mark.checklist(227)
def test_server_metrics_have_to_be_allowed(server):
    assert server.json("/app/server") is None


@pytest.mark.checklist(227)
def test_server_metrics(new_httpd, mpm):
    threads = 1 if mpm == "prefork" else 4
    with new_httpd(mpm=mpm, threads=threads, daemon="threads=4 server-metrics=On") as httpd:
        applications(httpd, app="metrics.wsgi")
        # Without it, httpd notes neither requests nor clients.
        httpd.add("WSGIServerMetrics On\nExtendedStatus On")
        httpd.start()
        httpd.get("/app/200")
        # A worker sees a copy that may be a second old.
        pids = set(httpd.children())

        def seen():
            metrics = httpd.json("/app/server")
            alive = {process["pid"] for process in metrics["processes"]} - {0}
            workers = [worker for process in metrics["processes"] for worker in process["workers"]]
            served = any(worker["access_count"] for worker in workers)
            asked = any("/app/server" in worker["request"] for worker in workers)
            return metrics if alive & pids and served and asked else None

        metrics = httpd.wait_until(seen)
        assert set(metrics) == set(SERVER_KEYS)
        assert metrics["server_limit"] == len(metrics["processes"])
        assert metrics["running_generation"] == 0
        for number, process in enumerate(metrics["processes"]):
            assert set(process) == {"process_num", "pid", "generation", "quiescing", "workers"}
            assert process["process_num"] == number
            assert process["quiescing"] in (True, False)
            assert len(process["workers"]) == metrics["thread_limit"]
            for worker in process["workers"]:
                assert set(worker) == set(WORKER_KEYS)
                assert worker["status"] in "._SRWKLDCGI" and len(worker["status"]) == 1
        now = time.time()
        assert now - 60 < metrics["restart_time"] <= metrics["current_time"] <= now + 1
        assert metrics["running_time"] == int(metrics["current_time"] - metrics["restart_time"])
        workers = [worker for process in metrics["processes"] for worker in process["workers"]]
        assert "127.0.0.1" in [worker["client"] for worker in workers]
        httpd.graceful()
        httpd.wait_until(lambda: httpd.json("/app/server")["running_generation"] == 1)


@pytest.mark.modes("daemon")
@pytest.mark.checklist(227)
@pytest.mark.rwsgi
def test_only_the_group_that_may(new_httpd):
    """The descriptor goes to the group with the option only, and cannot be written."""
    with new_httpd(threads=4, daemon="threads=2 server-metrics=On preload=on") as httpd:
        applications(httpd, app="metrics.wsgi", other="metrics.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess other threads=2 python-path={httpd.apps}
            <Location /other>
                WSGIProcessGroup other
            </Location>
        """)
        httpd.start()
        assert httpd.wait_until(lambda: httpd.json("/app/server"))
        assert httpd.json("/other/server") is None
        pids = {name: httpd.json(f"/{name}/pid")[0] for name in ("app", "other")}

        def has_page(pid):
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            return any("rwsgi-scoreboard" in link for link in links)

        if os.geteuid() == 0:
            assert has_page(pids["app"]) and not has_page(pids["other"])


@pytest.mark.checklist(226)
@pytest.mark.rwsgi
def test_recording_that_begins_early(new_httpd):
    """In an imported script, before there are requests; also in a template that is forked."""
    with new_httpd(threads=4, daemon="threads=4 preload=on") as httpd:
        applications(httpd, app="metrics.wsgi")
        early = httpd.write(
            "apps/early.wsgi", "import mod_wsgi\nmod_wsgi.start_recording_metrics()\n"
        )
        group = "tests" if httpd.daemon else "%{GLOBAL}"
        httpd.add(f"WSGIImportScript {early} process-group={group} application-group=%{{GLOBAL}}")
        httpd.start()
        for _ in range(3):
            httpd.get("/app/200")
        process = httpd.json("/app/process")
        # httpd's own children may be more than one after a start.
        assert process["request_count"] >= 1
        assert process["restart_time"] > time.time() - 60


@pytest.mark.checklist(226)
def test_other_interpreters_and_http2(new_httpd):
    """The figures are those of the process, whoever asks, and whichever threads serve."""
    with new_httpd(threads=4, http2=True, daemon="processes=1 threads=4") as httpd:
        applications(httpd, app="metrics.wsgi", other="metrics.wsgi")
        httpd.add("""
            <Location /other>
                WSGIApplicationGroup other
            </Location>
        """)
        httpd.start()
        httpd.json("/other/start")
        pid, _, group = httpd.json("/other/pid")
        assert group == "other"
        for _ in range(5):
            response = curl(httpd.url("/app/206"), "--http2-prior-knowledge")
            assert (response.protocol, response.status) == ("HTTP/2", 206)
        counted = 0

        def all_counted():
            nonlocal counted
            metrics = httpd.json("/other/request")
            counted += metrics["request_count"]
            assert metrics["pid"] == pid
            assert sum(metrics["request_threads_completed"]) <= metrics["request_count"]
            return counted >= 7

        httpd.wait_until(all_counted)
        process = httpd.json("/app/process")
        assert (process["pid"], process["request_count"] >= 7) == (pid, True)
