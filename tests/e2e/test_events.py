"""Events: what subscribers are told of requests and of the process."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from harness.client import Truncated
from harness.config import BOTH
from harness.sites import applications

MODES = BOTH

pytestmark = pytest.mark.rwsgi

STARTED = {
    *("thread_id", "daemon_connects", "daemon_restarts", "server_pid", "request_start"),
    *("queue_start", "daemon_start", "application_object", "callable_object", "request_environ"),
    *("application_start", "request_data"),
}
FINISHED = {
    *("thread_id", "server_pid", "request_start", "queue_start", "daemon_start", "input_reads"),
    *("input_length", "input_time", "output_length", "output_writes", "output_time"),
    *("cpu_user_time", "cpu_system_time", "cpu_time", "application_start", "application_finish"),
    *("application_time", "status", "gil_wait_time", "gil_wait_count", "request_data"),
}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd() as httpd:
        applications(httpd, events="events.wsgi", bare="events.wsgi:bare", wrapping="wrapping.wsgi")
        httpd.add(f'WSGIScriptAlias /sub "{httpd.apps}/events.wsgi" application-group=sub')
        yield httpd.start()


@pytest.fixture(scope="module")
def wrapping(new_httpd):
    with new_httpd() as httpd:
        applications(httpd, wrapping="wrapping.wsgi")
        yield httpd.start()


def events_of(server, path, mount="/events", last="request_finished"):
    """The events of the requests for a path, once the last one has been told of."""

    def told():
        events = server.json(f"{mount}/of?path={path}")
        return any(name == last for name, _ in events) and events

    return server.wait_until(told, f"no {last} of {path}")


def named(events, name):
    return [event for each, event in events if each == name]


@pytest.mark.parametrize("mount", ["/events", "/sub"])
@pytest.mark.checklist(219)
def test_the_events_of_a_request(server, mount):
    before = time.time()
    assert server.get(f"{mount}/fine").body == b"fine"
    events = events_of(server, "/fine", mount)
    assert [name for name, _ in events] == [
        "request_started",
        "response_started",
        "request_finished",
    ]
    started, response, finished = (event for _, event in events)
    optional = {"request_id"}
    assert started.keys() - optional == STARTED
    assert response.keys() - optional == {
        *("response_status", "response_headers", "exception_info", "request_data"),
    }
    assert finished.keys() - optional == FINISHED

    assert started["application_object"] == "function"
    assert started["callable_object"] == "application"
    environ = started["request_environ"]
    assert environ["PATH_INFO"] == "/fine" and environ["tests.event"] == "seen"
    assert started["thread_id"] == environ["mod_wsgi.thread_id"] == finished["thread_id"]
    assert str(started["server_pid"]) == environ["mod_wsgi.server_pid"]
    assert started["server_pid"] in server.children()
    assert response["response_status"] == "200 OK"
    assert ["Content-Length", "4"] in response["response_headers"]
    assert response["exception_info"] is None

    times = [started[key] for key in ("request_start", "application_start")]
    if server.daemon:
        times[1:1] = [started["queue_start"], started["daemon_start"]]
        assert started["daemon_connects"] == 1 and started["daemon_restarts"] == 0
    else:
        assert started["queue_start"] == started["daemon_start"] == 0.0
        assert started["daemon_connects"] == started["daemon_restarts"] == 0
    times.append(finished["application_finish"])
    assert before - 1 < times[0] and times == sorted(times) and times[-1] < time.time() + 1
    for key in ("request_start", "queue_start", "daemon_start", "application_start"):
        assert started[key] == finished[key] == pytest.approx(environ[f"mod_wsgi.{key}"])
    assert finished["status"] == 200
    assert finished["output_length"] == 4 and finished["output_writes"] == 1
    assert finished["input_reads"] == finished["input_length"] == 0
    assert 0 <= finished["output_time"] <= finished["application_time"] < 5
    spent = finished["application_finish"] - finished["application_start"]
    assert finished["application_time"] == pytest.approx(spent, abs=1e-4)
    assert finished["cpu_time"] == pytest.approx(
        finished["cpu_user_time"] + finished["cpu_system_time"]
    )
    assert finished["gil_wait_count"] >= 1 and finished["gil_wait_time"] >= 0


@pytest.mark.checklist(219)
def test_the_request_id_is_that_of_the_log(server):
    server.json("/events/data")
    started, *others = (event for _, event in events_of(server, "/data"))
    identity = started.get("request_id")
    assert identity == started["request_environ"].get("mod_wsgi.request_id")
    assert all(event.get("request_id") == identity for event in others)


@pytest.mark.checklist(219)
def test_input_and_output_are_counted(server):
    body = os.urandom(300_000)
    assert server.request("/events/echo", method="POST", body=body).body == body
    (finished,) = named(events_of(server, "/echo"), "request_finished")
    assert finished["input_length"] == len(body) and finished["input_reads"] >= 1
    assert finished["output_length"] == len(body)
    assert server.request("/events/stream").body == b"one two three"
    (finished,) = named(events_of(server, "/stream"), "request_finished")
    assert finished["status"] == 201
    assert finished["output_length"] == 13 and finished["output_writes"] == 3


@pytest.mark.checklist(219)
def test_the_head_is_told_of_as_it_was_given(server):
    server.request("/events/replacing")
    first, second = named(events_of(server, "/replacing"), "response_started")
    assert first["response_status"] == "200 OK" and first["exception_info"] is None
    assert second["response_status"] == "503 Sorry"
    assert second["exception_info"] == ["RuntimeError", "on the way", "traceback"]
    server.get("/bare/bad-head")
    first, second = named(events_of(server, "/bad-head"), "response_started")
    assert first["response_status"] == "no status"
    assert second["response_status"] == "200 OK"


@pytest.mark.parametrize(
    ("path", "code", "status", "exception", "events"),
    [
        ("/events/raising", "0200", 500, ["KeyError", "'broken'"], 3),
        ("/events/exiting", "0201", 500, ["SystemExit", "3"], 3),
        ("/events/raising-in-close", "020", 200, ["OSError", "not closed"], 4),
    ],
)
@pytest.mark.checklist(222)
def test_an_exception_of_the_application(server, path, code, status, exception, events):
    server.expect_log(f"^RWSGI{code}")
    assert server.request(path).status == status
    told = events_of(server, path.removeprefix("/events"))
    (event,) = named(told, "request_exception")
    assert event["exception_info"] == [*exception, "traceback"]
    assert event.keys() - {"request_id"} == {"exception_info", "request_data"}
    assert len(told) == events
    (finished,) = named(told, "request_finished")
    assert finished["status"] == status
    assert told[-1][0] == "request_finished"


@pytest.mark.checklist(222)
def test_an_exception_after_the_response_has_begun(server):
    server.expect_log("^RWSGI020")
    with server.connect() as connection:
        connection.request("/bare/raising-late")
        with pytest.raises(Truncated):
            connection.read_response()
    told = events_of(server, "/raising-late")
    names = [name for name, _ in told]
    assert names == [
        *("request_started", "response_started", "request_exception", "request_finished")
    ]
    (event,) = named(told, "request_exception")
    assert event["exception_info"][:2] == ["ValueError", "too late"]
    (finished,) = named(told, "request_finished")
    assert finished["status"] == 200 and finished["output_length"] == 5


# request_data and active_requests


@pytest.mark.checklist(221)
def test_request_data(server):
    found = server.json("/events/data")
    assert found == {"same": True, "thread": "no active request for thread"}
    server.get("/events/fine?again")
    finished = named(events_of(server, "/fine"), "request_finished")[-1]
    assert finished["request_data"] == {"path": "/fine", "from": "application"}


@pytest.mark.checklist(221)
def test_active_requests(new_httpd):
    """The first look shows the requests that run, too; what has ended is gone."""
    with new_httpd() as httpd:
        applications(httpd, events="events.wsgi")
        # A line in the log gives a request its id before the application runs.
        httpd.add("<Location />\nLogLevel debug\n</Location>")
        httpd.start()
        gate = httpd.gate()
        file = httpd.root / "data" / "held"
        with httpd.connect() as held:
            held.request(f"/events/hold?gate={gate.path}&file={file}")
            httpd.wait_until(file.exists)
            first = httpd.json("/events/active")
            second = httpd.json("/events/active")
            gate.step()
            held.read_response()
        third = httpd.json("/events/active")
        assert first["dict"] == "dict"
        for answer in (first, second):
            assert len(answer["running"]) == 2 and answer["own"] in answer["running"]
            assert str(file) in [each.get("held") for each in answer["running"].values()]
        assert list(third["running"]) == [third["own"]]


# Subscribers


@pytest.mark.checklist(220)
def test_subscribers_replace_the_application(wrapping):
    response = wrapping.get("/wrapping/")
    # The later one is outside.
    assert response.all("X-Wrapped") == ["first", "second"]


@pytest.mark.checklist(219)
def test_subscribers_may_change_the_head(wrapping):
    assert wrapping.get("/wrapping/headers").all("X-Added") == ["by an event"]


@pytest.mark.parametrize(
    ("path", "exception"), [("failing", "ArithmeticError"), ("exiting", "SystemExit")]
)
@pytest.mark.checklist(223)
def test_what_a_subscriber_raises_disturbs_nothing(wrapping, path, exception):
    names = ["request_started", "response_started", "request_finished"]
    expected = [
        wrapping.expect_log(f"^RWSGI0590: a callback for the event '{name}' raised: {exception} ")
        for name in names
    ]
    assert wrapping.get(f"/wrapping/{path}").all("X-Wrapped") == ["first", "second"]

    def ends(expectation):
        return any(line.message.startswith(exception) for line in expectation.traceback)

    # The last one comes after the response.
    wrapping.wait_until(lambda: wrapping.log.read() is not None and ends(expected[-1]))
    wrapping.settle_log()
    assert all(map(ends, expected))
    # What is logged before the response belongs to the request; after it a worker has let that go.
    assert all(each.lines[0].log_id not in ("", "-") for each in expected[:2])


@pytest.mark.checklist(219)
def test_the_lists_may_be_used_directly(new_httpd):
    with new_httpd() as httpd:
        applications(httpd, wrapping="wrapping.wsgi")
        httpd.start()
        first = httpd.json("/wrapping/")
        assert first == ["once", "request_started"]

        def seen():
            # The first request is over for the application only after its response.
            names = httpd.json("/wrapping/")
            return names.count("request_finished") >= 1 and names

        names = httpd.wait_until(seen)
        assert names.count("once") == 1
        httpd.get("/wrapping/unsubscribe")
        # Nothing is told from here on, not even the rest of that request.
        before = httpd.json("/wrapping/")
        assert httpd.json("/wrapping/") == before


# Events of the process


def noted(file):
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def subscribed(httpd, mount="/events"):
    file = httpd.root / "data" / f"noted{mount.replace('/', '-')}"
    return file, int(httpd.get(f"{mount}/subscribe?file={file}").body)


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.checklist(224)
def test_the_process_stops(new_httpd, mpm):
    """Every interpreter is told, once; the reason is empty where the process is httpd's own."""
    with new_httpd(mpm=mpm, threads=2) as httpd:
        applications(httpd, events="events.wsgi")
        httpd.add(f'WSGIScriptAlias /sub "{httpd.apps}/events.wsgi" application-group=sub')
        httpd.start()
        files = [subscribed(httpd, mount)[0] for mount in ("/events", "/sub")]
        httpd.stop()
        reason = {"shutdown_reason": "shutdown_signal" if httpd.daemon else ""}
        for file in files:
            told = sorted(noted(file))
            assert told == [
                ["events", "process_stopping", reason],
                ["shutdown", "process_stopping", reason],
            ]


@pytest.mark.checklist(225)
def test_signals(new_httpd):
    with new_httpd() as httpd:
        applications(httpd, events="events.wsgi")
        httpd.start()
        if not httpd.daemon:
            httpd.expect_log("subscribe_signals.. was ignored")
            httpd.expect_log("events.wsgi., line", count=None)
        file, pid = subscribed(httpd)
        if not httpd.daemon:
            # The callback is dropped, and nothing is told: such signals are httpd's.
            return
        for number, sign in enumerate((signal.SIGHUP, signal.SIGUSR2), 1):
            os.kill(pid, sign)
            httpd.wait_until(lambda count=number: len(noted(file)) == 2 * count)
            event = {"signame": sign.name, "signum": int(sign)}
            assert sorted(noted(file)[-2:]) == [
                ["events", "process_signal", event],
                ["signals", "process_signal", event],
            ]
        assert httpd.workers() == [pid]
        assert httpd.get("/events/fine").status == 200
