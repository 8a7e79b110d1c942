"""preload=on: a template imports, and workers are forked from it."""

import signal

import control
from conftest import alive, wait_for

APP = ("group", "/srv/app.wsgi")


def started(group, **settings):
    one = group(preload="on", **settings)
    template = one.worker()
    assert template.kind == "template"
    template.ready()
    workers = []
    for _ in range(settings.get("processes", 1)):
        worker = one.worker()
        assert worker.kind == "forked"
        workers.append(worker.serves())
    return one, template, workers


def test_workers_are_forked_and_become_our_children(group):
    one, template, workers = started(group, processes=2, **{"import": "group:/srv/app.wsgi"})
    assert template.introduction["imports"] == ["group:/srv/app.wsgi"]
    assert {w.introduction["listening"] for w in workers} == {
        str(one.directory.parent / f"{n}.sock") for n in (0, 1)
    }
    for worker in workers:
        wait_for(lambda w=worker: parent(w.pid) == one.pid, "the supervisor is not its parent")
    one.signal(signal.SIGTERM)
    template.told("drain")
    template.exits()
    for worker in workers:
        worker.drains("shutdown_signal")
    one.ends()


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_a_killed_worker_is_forked_again(group):
    one, template, (worker,) = started(group)
    worker.kill()
    one.logged("RWSGI0407")
    new = one.worker().serves()
    assert new.kind == "forked"
    assert one.lines(407)[0][1] == worker.pid


def test_new_code_needs_a_new_template(group):
    one, template, (worker,) = started(group)
    worker.send(control.loaded(APP))
    # Not for this reason.
    worker.send(control.retire("maximum_requests"))
    worker.send(control.paused("maximum_requests"))
    new = one.worker().serves()
    assert new.kind == "forked"
    worker.drains("maximum_requests")
    new.send(control.loaded(APP))
    new.send(control.stale(APP, 5))
    second = one.worker()
    assert second.kind == "template"
    assert second.introduction["required"] == ["group:/srv/app.wsgi"]
    second.ready()
    template.told("drain")
    template.exits()
    newest = one.worker()
    assert newest.kind == "forked"
    newest.serves()
    new.drains("script_reload")


def test_a_broken_template_keeps_the_old_one(group):
    one, template, (worker,) = started(group)
    worker.send(control.loaded(APP))
    worker.send(control.stale(APP, 5))
    second = one.worker()
    second.send(control.failed("Traceback", APP))
    worker.told("stays_old", APP, 5, 1000)
    second.exits(1)
    assert alive(template.pid)
    worker.kill()
    assert one.worker().serves().kind == "forked"
    assert len(one.lines(409)) == 1


def test_a_template_that_dies_is_started_again(group):
    one, template, (worker,) = started(group)
    template.kill()
    new = one.worker()
    assert new.kind == "template"
    new.ready()
    worker.untold()
    assert len(one.lines(417)) == 1


def test_a_forked_worker_that_dies_before_it_is_ready(group):
    one = group(preload="on")
    one.worker().ready()
    one.worker().exits(1)
    one.worker().serves()
    assert len(one.lines(406)) == 1


def test_a_first_template_that_fails_is_tried_again(group):
    one = group(preload="on", **{"import": "group:/srv/app.wsgi"})
    template = one.worker()
    template.send(control.failed("no"))
    template.exits(1)
    template = one.worker()
    template.ready()
    one.worker().serves()
    assert len(one.lines(416)) == 1
