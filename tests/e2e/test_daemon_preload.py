"""``preload=on``: the application is imported once, the workers are forked from that and share its
memory."""

from __future__ import annotations

import os
import signal

import pytest
from harness import paths, processes
from harness.group import ROOT
from harness.sites import applications
from harness.storm import Storm
from test_django import install

pytestmark = pytest.mark.rwsgi

SUPERVISOR_KIB = 3 * 1024


def workers_of(httpd, count=4):
    """The workers that answer; the template is a process, too."""
    httpd.wait_until(lambda: len(httpd.workers()) >= count, "too few workers")
    return httpd.workers()


WARM = """\
from wsgiref.util import setup_testing_defaults

from django.core.wsgi import get_wsgi_application
from django.db import connections

# A request of its own: what Django loads with the first one only is then shared as well.
environ = {"HTTP_HOST": "localhost"}
setup_testing_defaults(environ)
response = get_wsgi_application()(environ, lambda status, headers, error=None: None)
assert b"".join(response)
response.close()
# Connections must not be shared by processes.
connections.close_all()
"""


def memory_of_django(new_httpd, preload):
    options = f"processes=4 threads=5 preload={preload}"
    with new_httpd(mode="daemon", threads=32, daemon=options, modules=["alias", "mime"]) as httpd:
        install(httpd)
        # Loaded at the start, or there would be nothing to share; with what Django itself loads
        # with the first request only.
        httpd.write("site/warm.py", WARM)
        httpd.add(f"""
            WSGIApplicationGroup %{{GLOBAL}}
            WSGIImportScript "{httpd.root}/site/config/wsgi.py" process-group=tests \\
                application-group=%{{GLOBAL}}
            WSGIImportScript "{httpd.root}/site/warm.py" process-group=tests \\
                application-group=%{{GLOBAL}}
        """)
        httpd.start()
        with Storm(httpd, target="/?{}", connections=16) as storm:
            storm.wait_for(1200)
        storm.judge()
        pids = workers_of(httpd)
        (supervisor,) = httpd.supervisors()
        assert processes.proportional_kib(supervisor) < SUPERVISOR_KIB
        assert processes.resident_kib(supervisor) < 2 * SUPERVISOR_KIB
        # The template is the oldest.
        return [processes.proportional_kib(pid) for pid in pids]


@ROOT
def test_four_django_workers_share_their_memory(new_httpd):
    """At most half of the proportional set size; and with the template still much less."""
    template, *shared = memory_of_django(new_httpd, "on")
    separate = memory_of_django(new_httpd, "off")
    assert (len(shared), len(separate)) == (4, 4)
    assert sum(shared) <= sum(separate) / 2, f"{shared} KiB, without preload {separate} KiB"
    assert template + sum(shared) <= 0.65 * sum(separate), f"{template} + {shared}, {separate}"


APP = """\
import os, random, threading
LOADED_BY = os.getpid()
FORKED = []
os.register_at_fork(after_in_child=lambda: FORKED.append(os.getpid()))
TOKEN = random.random()

def application(environ, start_response):
    import json, subprocess
    done = subprocess.run(["true"])
    facts = dict(
        loaded_by=LOADED_BY, pid=os.getpid(), parent=os.getppid(), forked=FORKED, token=TOKEN,
        random=random.random(), version={version!r}, subprocess=done.returncode,
        main=threading.main_thread().is_alive(), name=threading.main_thread().name,
    )
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]
"""


@pytest.fixture
def site(new_httpd):
    options = "processes=2 threads=4 preload=on display-name=%{GROUP}"
    with new_httpd(mode="daemon", threads=48, daemon=options) as httpd:
        script = httpd.write("site/app.wsgi", APP.format(version=1), age=1000)
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{script}" process-group=tests application-group=%{{GLOBAL}}
        """)
        httpd.start()
        yield httpd


def facts_of_all(httpd, count=2):
    found = {}

    def ask():
        connections = [httpd.connect() for _ in range(8)]
        for connection in connections:
            connection.request("/load")
        for connection in connections:
            facts = connection.read_response().json()
            found[facts["pid"]] = facts
            connection.close()
        return len(found) >= count

    httpd.wait_until(ask, "not all workers answer")
    return list(found.values())


def test_workers_are_forks_of_one_template(site):
    facts = facts_of_all(site)
    assert len({each["loaded_by"] for each in facts}) == 1
    assert len({each["token"] for each in facts}) == 1
    for each in facts:
        assert each["loaded_by"] != each["pid"]
        # What Python promises after a fork.
        assert each["forked"] == [each["pid"]]
        assert each["subprocess"] == 0
        assert each["main"] and each["name"] == "MainThread"
        assert each["parent"] in site.supervisors()
        assert processes.title(each["pid"]) == "(wsgi:tests)"
    # The random numbers differ from process to process.
    assert len({each["random"] for each in facts}) == len(facts)


def test_killed_worker_is_forked_anew(site):
    before = facts_of_all(site)
    site.expect_log(r"RWSGI0407: .*SIGKILL")
    # The answer has left, and the thread may just be about to note that.
    site.allow_log("RWSGI0408: ")
    os.kill(before[0]["pid"], signal.SIGKILL)
    site.wait_until(lambda: before[0]["pid"] not in site.workers())
    site.wait_until(lambda: len(site.workers()) == 3)
    after = facts_of_all(site)
    assert {each["loaded_by"] for each in after} == {before[0]["loaded_by"]}


def test_touch_makes_a_new_template(site):
    before = facts_of_all(site)
    with Storm(site, connections=16) as storm:
        storm.wait_for(100)
        site.write("site/app.wsgi", APP.format(version=2), age=500)
        site.wait_until(
            lambda: storm.answers[-1].body.count(b'"version": 2'), "the new code does not come"
        )
        storm.wait_for(200)
    storm.judge()
    after = facts_of_all(site)
    assert {each["version"] for each in after} == {2}
    assert not {each["loaded_by"] for each in after} & {each["loaded_by"] for each in before}
    site.wait_until(lambda: len(site.workers()) == 3, "old processes stay")


def test_broken_code_keeps_the_old(site):
    facts_of_all(site)
    with Storm(site, connections=8) as storm:
        storm.wait_for(50)
        site.expect_log("RWSGI0409: ")
        site.write("site/app.wsgi", "def broken(:\n", age=400)
        storm.wait_for(500)
        site.settle_log()
        site.write("site/app.wsgi", APP.format(version=3), age=300)
        site.wait_until(
            lambda: storm.answers[-1].body.count(b'"version": 3'), "the repair is not picked up"
        )
    storm.judge()


def test_killed_template(site):
    """The workers go on; the next ones come from a new template."""
    before = facts_of_all(site)
    (template,) = set(site.workers()) - {each["pid"] for each in before}
    assert template == before[0]["loaded_by"]
    site.expect_log("RWSGI0417: .*SIGKILL")
    os.kill(template, signal.SIGKILL)
    with Storm(site, connections=8) as storm:
        storm.wait_for(200)
        os.kill(before[0]["pid"], signal.SIGTERM)
        site.wait_until(lambda: before[0]["pid"] not in site.workers())
        storm.wait_for(200)
    storm.judge()
    assert len(facts_of_all(site)) == 2


def test_without_anything_to_import(new_httpd):
    """There is nothing to share, but it works."""
    with new_httpd(mode="daemon", daemon="processes=2 preload=on") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        assert httpd.get("/app/pid").status == 200
    assert paths.E2E
