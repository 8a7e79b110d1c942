"""Replacements: warm, one after the other, and what happens when they fail."""

import signal
import time

import control
from conftest import alive

APP = ("group", "/srv/app.wsgi")
OTHER = ("group", "/srv/other.wsgi")
CONFIGURED = "group:/srv/app.wsgi"


def test_usr1_replaces_all_workers_one_after_the_other(group):
    one = group(processes=3)
    old = {}
    for _ in range(3):
        worker = one.worker().serves()
        old[worker.introduction["listening"]] = worker
    one.signal(signal.SIGUSR1)
    for _ in range(3):
        new = one.worker()
        # Nobody else is replaced, and nobody drains, before this one is ready.
        one.no_worker(0.2)
        predecessor = old.pop(new.introduction["listening"])
        predecessor.untold(0.1)
        new.serves()
        predecessor.drains("graceful_signal")
    one.no_worker()


def test_a_worker_that_is_to_be_replaced_serves_on_until_its_successor_is_ready(group):
    one = group(eviction_timeout=3)
    old = one.worker().serves()
    old.send(control.retire("eviction_signal"))
    old.send(control.retire("eviction_signal"))
    new = one.worker()
    old.untold()
    new.serves()
    old.drains("eviction_signal")
    one.no_worker()


def test_a_replacement_loads_what_its_predecessor_had(group):
    one = group(**{"import": CONFIGURED})
    old = one.worker().serves()
    assert old.introduction["imports"] == [CONFIGURED]
    old.send(control.loaded(APP))
    old.send(control.loaded(OTHER))
    old.send(control.retire("graceful_signal"))
    new = one.worker()
    assert new.introduction["imports"] == []
    assert new.introduction["required"] == [CONFIGURED, "group:/srv/other.wsgi"]
    new.send(control.loaded(APP))
    new.send(control.loaded(OTHER))
    new.serves()
    old.drains("graceful_signal")
    # And so does one after a death, but nothing is required: nobody could go on with the old code.
    new.kill()
    new = one.worker()
    assert new.introduction["imports"] == [CONFIGURED, "group:/srv/other.wsgi"]
    assert new.introduction["required"] == []


def test_maximum_requests(group):
    one = group()
    old = one.worker().serves()
    old.send(control.retire("maximum_requests"))
    new = one.worker()
    new.ready()
    # Warm, but not before the limit is reached.
    new.untold()
    old.untold(0.1)
    old.send(control.paused("maximum_requests"))
    new.told("go")
    old.drains("maximum_requests")
    # The other way round: the limit is reached first.
    new.send(control.retire("maximum_requests"))
    last = one.worker()
    new.send(control.paused("maximum_requests"))
    new.untold()
    last.serves()
    new.drains("maximum_requests")


def test_a_paused_worker_goes_on_when_its_replacement_fails(group):
    one = group()
    old = one.worker().serves()
    old.send(control.retire("maximum_requests"))
    new = one.worker()
    old.send(control.paused("maximum_requests"))
    old.untold(0.1)
    new.send(control.failed("Traceback:\n  broken", APP))
    old.told("go")
    new.exits(1)
    # It is tried again after a second; a pause meanwhile does not stop the old one.
    old.send(control.paused("maximum_requests"))
    old.told("go")
    start = time.monotonic()
    new = one.worker()
    assert time.monotonic() - start > 0.5
    # The limit has been reached before: the new one is not held back.
    new.serves()
    old.drains("maximum_requests")
    ((level, _, text),) = one.lines(409)
    assert level == "error" and "maximum_requests" in text
    assert "  broken" in [line[2] for line in one.lines()]


def test_a_changed_script_replaces_the_workers_that_have_it(group):
    one = group(processes=3)
    workers = [one.worker().serves() for _ in range(3)]
    first, second, third = workers
    for worker in (first, second):
        worker.send(control.loaded(APP))
    third.send(control.loaded(OTHER))
    third.order("python", "puppet.say(done=1)")
    third.hear()
    one.logged("ready", 3)
    second.send(control.stale(APP, 123))
    new = one.worker()
    assert new.introduction["listening"] == second.introduction["listening"]
    new.serves()
    second.drains("script_reload")
    new = one.worker()
    assert new.introduction["listening"] == first.introduction["listening"]
    new.serves()
    first.drains("script_reload")
    one.no_worker()
    third.untold(0.1)


def test_broken_new_code_keeps_the_old_worker(group):
    one = group(processes=2)
    workers = [one.worker().serves() for _ in range(2)]
    for worker in workers:
        worker.send(control.loaded(APP))
        worker.order("python", "puppet.say(done=1)")
        worker.hear()
    reporter, other = workers
    reporter.send(control.stale(APP, 123))
    new = one.worker()
    new.send(control.failed("Traceback\nSyntaxError: no", APP))
    for worker in workers:
        worker.told("stays_old", APP, 123, 1000)
    new.exits(1)
    one.no_worker()
    # Others that find the same are told so at once.
    other.send(control.stale(APP, 123))
    message = other.told("stays_old", APP, 123)
    assert 0 < message[3] <= 1000
    # After a while it is tried again, less often, and not logged again.
    time.sleep(1)
    other.send(control.stale(APP, 123))
    new = one.worker()
    new.send(control.failed("Traceback\nSyntaxError: no", APP))
    reporter.told("stays_old", APP, 123, 2000)
    other.told("stays_old", APP, 123, 2000)
    assert len(one.lines(409)) == 1
    # The repair is a new state, and is taken over at once.
    reporter.send(control.stale(APP, 456))
    one.worker().serves()
    reporter.drains("script_reload")
    one.worker().serves()
    other.drains("script_reload")
    one.no_worker()


def test_a_change_during_a_replacement_is_not_lost(group):
    one = group()
    old = one.worker().serves()
    old.send(control.stale(APP, 1))
    new = one.worker()
    old.send(control.stale(APP, 2))
    old.order("python", "puppet.say(done=1)")
    old.hear()
    new.serves()
    old.drains("script_reload")
    newest = one.worker()
    newest.serves()
    new.drains("script_reload")
    one.no_worker()


def test_a_replacement_that_dies_leaves_the_old_worker(group):
    one = group()
    old = one.worker().serves()
    old.send(control.retire("graceful_signal"))
    one.worker().kill()
    one.logged("RWSGI0409")
    old.untold()
    one.no_worker()
    # Asked for again, it is tried again.
    old.send(control.retire("graceful_signal"))
    one.worker().serves()
    old.drains("graceful_signal")


def test_what_did_not_load_is_not_required(group):
    one = group(**{"import": [CONFIGURED, "group:/srv/other.wsgi"]})
    worker = one.worker()
    # The first one did not, which the worker has logged.
    worker.send(control.loaded(OTHER))
    worker.serves()
    worker.send(control.retire("graceful_signal"))
    new = one.worker()
    assert new.introduction["imports"] == [CONFIGURED]
    assert new.introduction["required"] == ["group:/srv/other.wsgi"]


def test_a_worker_that_cannot_begin_is_tried_again(group):
    one = group()
    for _ in range(3):
        worker = one.worker()
        worker.send(control.failed("RWSGI0450: this is why"))
        worker.exits(1)
    one.worker().serves()
    ((_, _, text),) = one.lines(405)
    assert "RWSGI0450: this is why" in text
    assert one.lines(406) == []


def test_restart_interval(group):
    one = group(restart_interval=1, processes=2)
    workers = [one.worker().serves() for _ in range(2)]
    new = one.worker()
    one.no_worker(0.2)
    new.serves()
    one.worker().serves()
    for worker in workers:
        worker.drains("restart_interval")


def test_a_replaced_worker_that_does_not_end_is_killed(group):
    one = group(graceful_timeout=1, shutdown_timeout=1)
    old = one.worker().serves()
    old.order("row", 1, 1, int(time.monotonic() * 1000), "GET /hangs")
    old.send(control.retire("graceful_signal"))
    one.worker().serves()
    old.told("drain", "graceful_signal")
    start = time.monotonic()
    old.ended()
    assert 1.8 < time.monotonic() - start < 4
    one.logged("ended by signal 9")
    assert one.lines(410)[0][1] == old.pid
    assert "GET /hangs" in one.lines(408)[0][2]


def test_exit_handlers_have_their_own_time(group):
    one = group(graceful_timeout=1, shutdown_timeout=1)
    old = one.worker().serves()
    old.send(control.retire("graceful_signal"))
    one.worker().serves()
    old.told("drain")
    old.order("python", "import threading; threading.Event().wait(1.6); puppet.say(done=1)")
    old.send(control.DRAINED)
    old.hear()
    assert alive(old.pid)
    # Drained after 1.6 s: one more second from there.
    old.untold(0.7)
    assert alive(old.pid)
    old.ended()
