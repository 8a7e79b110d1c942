"""Limits of time and memory."""

import time

import pytest
from conftest import alive


def ago(seconds):
    return int((time.monotonic() - seconds) * 1000)


def test_a_request_that_runs_for_too_long(group):
    # With one thread the factor is 1.
    one = group(threads=1, request_timeout=5)
    old = one.worker().serves()
    old.order("row", 0, 7, ago(3.7), "GET /soon")
    start = time.monotonic()
    old.told("dump_request", 0, 7)
    # On time: not only with the next look at the board.
    assert 1.2 < time.monotonic() - start < 1.8
    new = one.worker()
    old.untold(1.2)
    new.serves()
    old.drains("request_timeout")
    assert "GET /soon" in one.lines(412)[0][2]
    assert len(one.lines(412)) == 1


def test_more_threads_have_more_patience(group):
    one = group(threads=3, request_timeout=5)
    worker = one.worker().serves()
    worker.order("row", 2, 1, ago(9), "GET /short")
    # 5 * (1 + ln 3) = 10.5
    worker.untold(1.1)
    worker.told("dump_request", 2, 1)


def test_a_request_is_interrupted_and_ends(group):
    one = group(threads=1, request_timeout=1, interrupt_timeout=1)
    worker = one.worker().serves()
    worker.order("row", 0, 1, ago(2), "GET /wakes")
    worker.told("dump_request", 0, 1)
    worker.told("interrupt", 0, 1)
    worker.order("row", 0, 2, 0, "")
    worker.untold(2.2)
    one.no_worker()


def test_a_request_that_ignores_the_interruption(group):
    one = group(threads=1, request_timeout=1, interrupt_timeout=1, shutdown_timeout=1)
    worker = one.worker().serves()
    worker.order("row", 0, 1, ago(2), "GET /sleeps")
    worker.told("dump_request", 0, 1)
    worker.told("interrupt", 0, 1)
    one.worker().serves()
    worker.told("drain", "request_timeout")
    # It is hopeless, so graceful-timeout (15 s) is not waited for.
    start = time.monotonic()
    worker.ended()
    assert time.monotonic() - start < 5
    assert "GET /sleeps" in one.lines(413)[0][2]


def test_a_held_gil(group):
    one = group(deadlock_timeout=3)
    worker = one.worker().serves()
    worker.order("summary", 1, 0, 1, ago(0), 0, 0)
    worker.untold(1.2)
    worker.order("summary", 1, 0, 1, ago(5), 0, 0)
    worker.told("dump_all")
    # The next one comes while the stacks are still written.
    one.worker().serves()
    assert alive(worker.pid)
    worker.ended()
    assert one.lines(414)[0][1] == worker.pid


def test_idleness(group):
    one = group(inactivity_timeout=3, **{"import": "g:/srv/a"})
    worker = one.worker().serves()
    worker.order("summary", 1, 0, 1, 0, ago(9), 0)
    worker.order("row", 0, 1, ago(9), "GET /runs")
    worker.untold(1.2)
    worker.order("row", 0, 2, 0, "")
    one.worker().serves()
    worker.drains("inactivity_timeout")


def test_loading_that_never_ends(group):
    one = group(startup_timeout=2)
    worker = one.worker()
    worker.told("dump_all")
    worker.ended()
    one.logged("RWSGI0406")
    worker = one.worker().serves()
    worker.order("summary", 1, 1, 0, 0, 0, ago(9))
    worker.told("dump_all")
    one.worker().serves()
    worker.drains("startup_timeout")
    assert len(one.lines(415)) == 2


def test_memory(group):
    one = group(max_rss=80 << 20)
    worker = one.worker().serves()
    worker.order("summary", 1, 0, 1, 0, 0, 0)
    worker.order("python", "puppet.blob = bytearray(100 << 20); puppet.say(done=1)")
    worker.hear()
    # One sample is not enough.
    worker.order("python", "del puppet.blob")
    one.no_worker(1.5)
    worker.order("python", "puppet.blob = bytearray(100 << 20)")
    start = time.monotonic()
    one.worker().serves()
    assert time.monotonic() - start > 1.8
    worker.drains("max_rss")


@pytest.mark.parametrize("timeout", ["deadlock_timeout", "inactivity_timeout"])
def test_zero_is_no_limit(group, timeout):
    one = group(deadlock_timeout=0, **{} if timeout == "deadlock_timeout" else {timeout: 0})
    worker = one.worker().serves()
    worker.order("summary", 1, 0, 1, ago(900), ago(900), 0)
    worker.untold(1.5)
