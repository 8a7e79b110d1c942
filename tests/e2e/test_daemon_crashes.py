"""Workers that die: only what they had read fails, it is told what they died of and with which
request, nothing is executed twice, nothing hangs, nothing is left."""

from __future__ import annotations

import collections
import os
import random
import re
import signal
import threading
import time

import pytest
from harness import processes
from harness.client import Truncated
from harness.curl import curl
from harness.sites import applications
from harness.storm import Storm

pytestmark = pytest.mark.rwsgi
SOAK = pytest.mark.soak

THREADS = 15
#: What the supervisor says of a dead worker.
DEATH = r"RWSGI0407: "
#: And of each request that it was serving.
LOST = r"RWSGI0408: "
#: Of one that never got ready.
DEATH_AT_START = r"RWSGI0406: "
#: What httpd's child says of the request.
ANSWERED_502 = r"RWSGI0303: "
CUT = r"RWSGI0304: "


@pytest.fixture(scope="module")
def shared(new_httpd):
    with new_httpd(mode="daemon", threads=16, tls=True, http2=True) as httpd:
        applications(httpd, app="daemon.wsgi", answer="response.wsgi")
        yield httpd.start()


@pytest.fixture
def server(shared):
    """With a worker that may be killed without a pause before the next one."""
    shared.wait_until(lambda: grown_up(shared, 1))
    return shared


# kill -9 under load


def open_things(httpd):
    """Descriptors per process kind, sockets in the file system, processes."""
    return {
        "httpd": sum(len(processes.descriptors(pid)) for pid in httpd.children()),
        "supervisor": sum(len(processes.descriptors(pid)) for pid in httpd.supervisors()),
        "worker": [len(processes.descriptors(pid)) for pid in httpd.workers()],
        "parent": len(processes.descriptors(httpd.process.pid)),
        "sockets": len(list((httpd.root / "run").glob("*.sock"))),
        "workers": len(httpd.workers()),
        "supervisors": len(httpd.supervisors()),
    }


def grown_up(httpd, count):
    """The workers, once there are so many, that have served for more than a second: those that die
    earlier are started again with growing pauses."""
    pids = httpd.workers()
    old = [pid for pid in pids if processes.age(pid) > 1.4]
    return old if len(pids) == count else []


def kills_under_load(new_httpd, rounds):
    connections = 64
    options = f"processes=2 threads={THREADS}"
    env = {"LOAD_PAUSE": "0.005"}
    with new_httpd(mode="daemon", threads=96, daemon=options, modules=["env"], env=env) as httpd:
        record = httpd.root / "data" / "executed"
        applications(httpd, load="load.wsgi")
        httpd.add(f'SetEnv load.file "{record}"')
        httpd.start()
        httpd.get("/load/first")
        httpd.wait_until(lambda: len(httpd.workers()) == 2)
        before = open_things(httpd)
        httpd.expect_log(DEATH + r".*SIGKILL", count=rounds)
        told = httpd.allow_log(LOST)
        failed = httpd.allow_log(ANSWERED_502)
        source = random.Random(4)
        killed = []
        with Storm(
            httpd,
            target="/load/k{}",
            connections=connections,
            good=lambda a: a.status in (200, 502),
        ) as storm:
            storm.wait_for(200)
            for _ in range(rounds):
                victim = source.choice(
                    httpd.wait_until(lambda: grown_up(httpd, 2), "no new worker")
                )
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                httpd.wait_until(
                    lambda: not processes.alive(victim),  # noqa: B023
                    "a worker survives SIGKILL",
                )
                storm.wait_for(300)
            storm.wait_for(300)
        storm.judge()
        httpd.settle_log()

        executions = collections.Counter()
        executed_by = {}
        for line in record.read_text().splitlines():
            number, pid = line.split()
            executions[number] += 1
            executed_by[number] = int(pid)
        assert max(executions.values()) == 1, "executed twice"
        good = {f"k{a.number}" for a in storm.answers if a.status == 200}
        bad = {f"k{a.number}" for a in storm.answers if a.status == 502}
        assert good <= set(executions), "answered without having been executed"
        # Executed, but not answered: the process was killed. (Requests that a worker had read, but
        # whose first line of code had not run, fail as well.)
        lost = {number for number in executions if number.startswith("k")} - good
        assert lost <= bad, f"neither answered nor told: {sorted(lost - bad)}"
        assert {executed_by[number] for number in lost} <= set(killed)
        assert len(bad) <= rounds * THREADS
        # Most of what failed had been under way.
        assert len(bad - lost) <= max(4, len(bad) // 4), f"{len(bad - lost)} of {len(bad)}"
        logged = {match for line in failed.lines for match in re.findall(r"\bk\d+\b", line.message)}
        assert logged == bad, "each failed request is logged with its path"
        named = {match for line in told.lines for match in re.findall(r"\bk\d+\b", line.message)}
        # The supervisor names what the worker was serving. An answer may have left before that was
        # noted, and the application may have returned without an answer having left.
        assert len(named ^ lost) <= max(4, len(lost) // 10), f"{named ^ lost} differ"
        # The others did not wait for the dead.
        assert storm.percentile(1.0) < 10

        def as_before():
            now = open_things(httpd)
            # Idle connections to the workers are kept: at most as many for each of them as requests
            # were under way at once.
            return (
                now["httpd"] <= before["httpd"] + 2 * connections
                and sum(now["worker"]) <= sum(before["worker"]) + 2 * connections
                and now["supervisor"] <= before["supervisor"] + 2
                and all(
                    now[k] == before[k] for k in ("parent", "sockets", "workers", "supervisors")
                )
            )

        httpd.wait_until(as_before, f"before {before}, after {open_things(httpd)}")
        zombies = [pid for pid in killed if os.path.exists(f"/proc/{pid}")]
        assert zombies == []


@pytest.mark.checklist(183)
def test_kills_under_load(new_httpd):
    kills_under_load(new_httpd, 15)


@SOAK
@pytest.mark.timeout(600)
def test_fifty_kills_under_load(new_httpd):
    kills_under_load(new_httpd, 50)


@pytest.mark.checklist(183)
def test_queued_requests_are_served_by_the_next_worker(new_httpd):
    """One worker with one thread: what waits in its queue does not die with it."""
    with new_httpd(mode="daemon", threads=16, daemon="threads=1") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        gate = httpd.gate()
        first = httpd.connect()
        file = httpd.root / "data" / "begun"
        first.request(f"/app/hold?gate={gate.path}&file={file}")
        httpd.wait_until(file.exists)
        (old,) = httpd.workers()
        queued = [httpd.connect() for _ in range(6)]
        for connection in queued:
            connection.request("/app/pid")
        # httpd has read them when its threads wait for the worker.
        time.sleep(0.3)
        httpd.expect_log(DEATH + ".*SIGKILL")
        httpd.expect_log(LOST + ".*/app/hold")
        httpd.expect_log(ANSWERED_502 + ".*/app/hold")
        os.kill(old, signal.SIGKILL)
        assert first.read_response().status == 502
        answers = [connection.read_response() for connection in queued]
        assert [answer.status for answer in answers] == [200] * 6
        (new,) = {int(answer.body) for answer in answers}
        assert new != old
        for connection in [first, *queued]:
            connection.close()


# Deaths, and how they are told


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("kill", ["SIGKILL"]),
        ("segfault", ["SIGSEGV"]),
        ("abort", ["SIGABRT"]),
        ("exit", ["7"]),
        ("fatal", ["SIGABRT", "a fatal error of this test"]),
    ],
)
@pytest.mark.checklist(183)
def test_death_before_the_answer(server, how, words):
    (old,) = server.workers()
    told = server.expect_log(DEATH)
    server.expect_log(LOST + ".*/app/dying")
    server.expect_log(ANSWERED_502 + ".*/app/dying")
    # The fatal error text of Python, and the stack below it.
    server.allow_log(r"Fatal Python error|^Python runtime state|^Current thread|^Thread 0x|^  |^$")
    server.allow_log(r"^Extension modules|thread .*most recent call first|<no Python frame>")
    response = server.request(f"/app/dying?how={how}")
    assert response.status == 502
    server.settle_log()
    (line,) = told.lines
    assert line.pid == old or str(old) in line.message
    everything = "\n".join(each.message for each in server.log.seen[-60:])
    for word in words:
        assert word in everything
    assert server.get("/app/pid").text != str(old)


@pytest.mark.parametrize(
    ("how", "tls"), [("kill", False), ("kill", True), ("segfault", False), ("exit", False)]
)
@pytest.mark.parametrize("length", ["", "&length=100"])
def test_death_in_mid_body_is_visible(server, how, length, tls):
    """The part before it arrives; no last chunk, no reused connection."""
    gate = server.gate()
    server.expect_log(DEATH)
    server.expect_log(LOST + ".*/app/dying-later")
    server.expect_log(CUT + ".*/app/dying-later")
    server.allow_log(r"Fatal Python error|^Current thread|^Thread 0x|^  |^$|^Extension modules")
    with server.connect(tls) as connection:
        connection.request(f"/app/dying-later?how={how}{length}&gate={gate.path}")
        head = connection.read_head()
        assert head.status == 200
        if length:
            assert head.header("Content-Length") == "100"
            assert connection.read_exactly(13) == b"first,second,"
        else:
            begun = b""
            while len(begun) < 13:
                begun += connection.read_chunk()
            assert begun == b"first,second,"
        gate.step()
        assert connection.read_to_end() == b""


@pytest.mark.parametrize("length", ["", "&length=100"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("path", ["dying-later?how=kill", "truncated?"])
def test_truncation_is_visible_over_http_2(server, path, length, tls):
    died = path.startswith("dying")
    server.expect_log(DEATH if died else r"RWSGI0206: .*ValueError")
    if died:
        server.expect_log(LOST + ".*/app/dying-later")
        # What has come so far is collected: nothing may have been sent on yet.
        server.expect_log(f"({CUT}|{ANSWERED_502}).*/app/dying-later")
    options = ["--http2"] if tls else ["--http2-prior-knowledge"]
    response = curl(server.url(f"/app/{path}{length}", tls=tls), *options)
    if died and response.status == 502:
        return
    assert response.code in (18, 92), "curl takes the response for complete"
    assert response.status in (0, 200)
    assert response.protocol in ("", "HTTP/2")


@pytest.mark.parametrize("length", ["", "&length=100"])
@pytest.mark.parametrize("tls", [False, True])
def test_truncation_by_an_exception_is_visible(server, length, tls):
    server.expect_log(r"RWSGI0206: .*ValueError")
    (pid,) = server.workers()
    with server.connect(tls) as connection:
        connection.request(f"/app/truncated?x{length}")
        with pytest.raises(Truncated):
            connection.read_response()
    # That is no reason for a new process.
    assert server.get("/app/pid").text == str(pid)


def test_death_during_an_upload(server):
    """The worker has asked for the body: it had started, so the request fails and is not sent
    again."""
    file = server.root / "data" / "upload-begun"
    gate = server.gate()
    (old,) = server.workers()
    server.expect_log(DEATH)
    server.expect_log(LOST + ".*/app/unread")
    server.expect_log(ANSWERED_502 + ".*/app/unread")
    with server.connect() as connection:
        connection.request(
            f"/app/unread?file={file}&gate={gate.path}", "POST", {"Content-Length": "1000000"}
        )
        connection.send(b"x" * 1000)
        server.wait_until(file.exists)
        os.kill(old, signal.SIGKILL)
        assert connection.read_head().status == 502
    assert file.read_text() == "begun\n"
    assert server.get("/app/pid").text != str(old)


# Workers that die at the start


def test_worker_that_dies_at_start(new_httpd):
    """Started again with growing pauses, logged once per cause; healed by itself."""
    with new_httpd(mode="daemon", threads=4, daemon="threads=2") as httpd:
        starts = httpd.root / "data" / "starts"
        broken = httpd.root / "data" / "broken"
        broken.touch()
        script = httpd.write(
            "site/start.wsgi",
            f"""\
            import os
            with open({str(starts)!r}, "a") as file:
                file.write("start\\n")
            if os.path.exists({str(broken)!r}):
                os._exit(5)

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"healed"]
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{script}" process-group=tests application-group=%{{GLOBAL}}
        """)
        told = httpd.expect_log(DEATH_AT_START, count=None)
        httpd.start()
        time.sleep(4)
        count = len(starts.read_text().split())
        # 0.1, 0.2, 0.4, 0.8, 1.6 s after one another.
        assert 3 <= count <= 9, f"{count} starts within 4 seconds"
        httpd.log.read()
        assert 1 <= len(told.lines) <= 3, "logged more than once per cause"
        assert len(processes.marked(httpd.mark)) <= 6
        # A request waits for a worker; this one gets it.
        with httpd.connect() as connection:
            connection.request("/")
            broken.unlink()
            assert connection.read_response().body == b"healed"


@pytest.mark.checklist(163)
def test_import_script_that_raises_does_not_prevent_the_start(new_httpd):
    with new_httpd(mode="daemon", threads=4) as httpd:
        httpd.write("apps/raising.py", "raise RuntimeError('at start')\n")
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            WSGIImportScript "{httpd.apps}/raising.py" process-group=tests \\
                application-group=%{{GLOBAL}}
        """)
        httpd.expect_log(r"RWSGI0452: .*raising\.py")
        httpd.start()
        assert httpd.get("/app/pid").status == 200


# The supervisor and httpd itself


def test_killed_supervisor_under_load(new_httpd):
    """httpd starts another one; its workers drain, so nothing fails."""
    options = f"processes=2 threads={THREADS}"
    with new_httpd(mode="daemon", threads=96, daemon=options) as httpd:
        applications(httpd, load="load.wsgi")
        httpd.start()
        with Storm(httpd, connections=32) as storm:
            storm.wait_for(300)
            for _ in range(2):
                (old,) = httpd.supervisors()
                workers = httpd.workers()
                httpd.expect_log(r"RWSGI03[3-6]\d: .*tests")
                os.kill(old, signal.SIGKILL)
                httpd.wait_until(
                    lambda: httpd.supervisors() not in ([], [old]),  # noqa: B023
                    "no new supervisor",
                )
                httpd.wait_until(lambda: len(httpd.workers()) == 2, "no new workers")
                httpd.wait_until(
                    lambda: not any(map(processes.alive, workers)),  # noqa: B023
                    "orphaned workers",
                )
                httpd.settle_log()
                storm.wait_for(300)
        storm.judge()


def test_killed_httpd_takes_everything_along(new_httpd):
    with new_httpd(mode="daemon", threads=4, daemon="processes=2 threads=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        daemons = [*httpd.supervisors(), *httpd.workers()]
        children = httpd.children()
        assert len(daemons) == 3
        parent, httpd.process = httpd.process, None
        parent.kill()
        parent.wait(10)
        try:
            httpd.wait_until(lambda: not any(map(processes.alive, daemons)), "left behind")
        finally:
            # httpd's own children stay, with any handler; they are ours to end.
            for pid in [*children, *daemons]:
                if processes.alive(pid):
                    os.kill(pid, signal.SIGKILL)
            httpd.log.problems.clear()
            httpd.allow_log(".*")


def test_no_thread_of_httpd_hangs_on_a_stopped_worker(new_httpd):
    """A worker that is stopped (SIGSTOP) answers nothing: 504 after socket-timeout, told so."""
    with new_httpd(mode="daemon", threads=8, daemon="threads=2 socket-timeout=1") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        (worker,) = httpd.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            httpd.expect_log("RWSGI0302: .*/app/pid")
            begin = time.monotonic()
            assert httpd.request("/app/pid").status == 504
            assert 0.9 < time.monotonic() - begin < 5
            httpd.settle_log()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert httpd.get("/app/pid").text == str(worker)


def test_client_that_leaves_while_its_request_waits(new_httpd):
    """It frees its place; the request may run or not, nobody else is disturbed."""
    with new_httpd(mode="daemon", threads=8, daemon="threads=1") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        gate = httpd.gate()
        file = httpd.root / "data" / "begun"
        holder = threading.Thread(
            target=lambda: httpd.get(f"/app/hold?gate={gate.path}&file={file}")
        )
        holder.start()
        httpd.wait_until(file.exists)
        leaving = httpd.connect()
        leaving.request("/app/pid")
        time.sleep(0.2)
        leaving.reset()
        gate.step()
        holder.join()
        for _ in range(5):
            assert httpd.get("/app/pid").status == 200
