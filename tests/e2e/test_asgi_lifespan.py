"""The life of an application: its startup before the first request, its state, its end."""

from __future__ import annotations

import re
import signal
import time
from contextlib import contextmanager

import pytest
from harness.asgi import ANY, line_of
from harness.config import BOTH

pytestmark = pytest.mark.rwsgi
MODES = BOTH

#: An application that notes its life; ``{startup}`` and ``{shutdown}`` are more to do there.
APP = """\
import asyncio, os
import support
from asgi_support import answer_json, introspect

NOTES = {notes!r}
LIFE = []
SHARED = {{"list": []}}

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        LIFE.append(asyncio.get_running_loop())
        support.note(NOTES, f"startup {{os.getpid()}} {{scope['asgi']['version']}}")
        if "state" in scope:
            scope["state"].update(number=1, shared=SHARED)
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        assert (await receive())["type"] == "lifespan.shutdown"
        {shutdown}
        support.note(NOTES, f"shutdown {{os.getpid()}}")
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    state = scope.get("state")
    before = dict(state, shared=list(state["shared"]["list"])) if state else state
    if state:
        state["number"] += 1
        state["mine"] = True
        state["shared"]["list"].append(len(state["shared"]["list"]))
    await answer_json(send, {{
        "state": before,
        "same_loop": LIFE == [asyncio.get_running_loop()],
        "started": len(LIFE),
        "pid": os.getpid(),
    }})
"""
LIFELESS = """\
async def application(scope, receive, send):
    assert scope["type"] == "http", "of HTTP only"
    from asgi_support import answer
    await answer(send, str("state" in scope))
"""


@contextmanager
def serve(new_httpd, text, directives="", **options):
    with new_httpd(threads=12, **options) as httpd:
        httpd.write("site/app.py", text)
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            WSGIApplicationGroup %{{GLOBAL}}
            ASGIScriptAlias / "{httpd.root}/site/app.py"
            <Directory "{httpd.root}/site">
                Require all granted
                {directives}
            </Directory>
        """)
        yield httpd


@contextmanager
def living(new_httpd, directives="", options=(), startup="pass", shutdown="pass"):
    """An application that notes its life, and what else it does then."""
    with serve(new_httpd, "", directives, **dict(options)) as httpd:
        httpd.notes = httpd.root / "data" / "life"
        startup = startup.replace("DATA", str(httpd.root / "data"))
        text = APP.format(notes=str(httpd.notes), startup=startup, shutdown=shutdown)
        httpd.write("site/app.py", text)
        yield httpd


def notes(httpd):
    return httpd.notes.read_text().splitlines() if httpd.notes.exists() else []


@pytest.mark.parametrize("directive", ["", "ASGILifespan Auto", "ASGILifespan On"])
def test_startup_and_shutdown(new_httpd, directive):
    with living(new_httpd, directive) as httpd:
        httpd.start()
        told = httpd.json("/")
        assert told["same_loop"] and told["started"] == 1
        assert notes(httpd) == [f"startup {told['pid']} 3.0"]
        httpd.stop()
        assert notes(httpd) == [f"startup {told['pid']} 3.0", f"shutdown {told['pid']}"]


def test_state(new_httpd):
    """Each request has a copy of its own; what it holds is shared."""
    with living(new_httpd) as httpd:
        httpd.start()
        first, second = httpd.json("/")["state"], httpd.json("/")["state"]
        assert first == {"number": 1, "shared": []}
        assert second == {"number": 1, "shared": [0]}


def test_off(new_httpd):
    """The application is not asked, and has no state."""
    with living(new_httpd, "ASGILifespan Off") as httpd:
        httpd.start()
        assert httpd.json("/")["started"] == 0
        assert not httpd.json("/")["state"]
        httpd.stop()
        assert notes(httpd) == []


@pytest.mark.parametrize("directive", ["", "ASGILifespan Off"])
def test_application_that_knows_no_lifespan(new_httpd, directive):
    """Served all the same, without a word in the log."""
    with serve(new_httpd, LIFELESS, directive) as httpd:
        httpd.start()
        assert httpd.request("/").status == 200


def test_application_that_must_know_it(new_httpd):
    with serve(new_httpd, LIFELESS, "ASGILifespan On") as httpd:
        httpd.start()
        told = httpd.expect_log(ANY, count=None)
        httpd.allow_log("AssertionError|Traceback|^  ")
        assert httpd.request("/").status == 500
        assert httpd.request("/").status == 500
        httpd.settle_log()
        assert told.lines


def test_startup_happens_once(new_httpd):
    """However many requests come first; all of them wait for it."""
    with living(new_httpd, startup="await asyncio.sleep(0.5)") as httpd:
        httpd.start()
        connections = [httpd.connect() for _ in range(10)]
        for connection in connections:
            connection.request("/")
        told = [connection.read_response().json() for connection in connections]
        assert {one["started"] for one in told} == {1}
        for connection in connections:
            connection.close()
        assert len(notes(httpd)) == 1


#: Fails as long as a file is not there.
FAILING = """\
if not os.path.exists("DATA/works"):
            await send({"type": "lifespan.startup.failed", "message": "no database today"})
            return
"""


@pytest.mark.parametrize("directive", ["", "ASGILifespan On"])
def test_failed_startup(new_httpd, directive):
    """Its message is logged and requests get 500, until it works."""
    with living(new_httpd, directive, startup=FAILING) as httpd:
        works = httpd.root / "data" / "works"
        httpd.start()
        httpd.expect_log("no database today", count=None)
        httpd.allow_log(ANY)
        assert httpd.request("/").status == 500
        assert httpd.request("/").status == 500
        httpd.settle_log()
        works.touch()
        httpd.allow_log(r"RWSGI0\d\d\d: |no database")
        httpd.wait_until(lambda: httpd.request("/").status == 200, "it does not recover")
        assert httpd.json("/")["state"]["number"] == 1


def test_exception_in_startup(new_httpd):
    """With On it is a failure, and the log has the traceback."""
    with living(new_httpd, "ASGILifespan On", startup="raise RuntimeError('on purpose')") as httpd:
        httpd.start()
        told = httpd.expect_log(ANY, count=None)
        assert httpd.request("/").status == 500
        httpd.settle_log()
        assert any("on purpose" in line.message for line in told.traceback + told.lines)


def test_shutdown_at_a_graceful_restart(new_httpd):
    with living(new_httpd) as httpd:
        httpd.start()
        first = httpd.json("/")["pid"]
        httpd.graceful()
        httpd.wait_until(lambda: f"shutdown {first}" in notes(httpd), "no shutdown")
        second = httpd.json("/")["pid"]
        assert second != first
        httpd.stop(signal.SIGWINCH)
        assert f"shutdown {second}" in notes(httpd)


@pytest.mark.modes("daemon")
def test_shutdown_of_a_replaced_worker(new_httpd):
    """The new one starts up before the old one is shut down."""
    with living(new_httpd) as httpd:
        httpd.start()
        first = httpd.json("/")["pid"]
        text = (httpd.root / "site" / "app.py").read_text()
        httpd.write("site/app.py", text + "# changed\n", age=-2)
        httpd.wait_until(lambda: httpd.json("/")["pid"] != first, "no new worker")
        second = httpd.json("/")["pid"]
        httpd.wait_until(lambda: f"shutdown {first}" in notes(httpd), "no shutdown")
        order = notes(httpd)
        assert order.index(f"startup {second} 3.0") < order.index(f"shutdown {first}")


@pytest.mark.modes("daemon")
def test_each_worker_has_a_life(new_httpd):
    with living(new_httpd, options={"daemon": "processes=3"}) as httpd:
        httpd.start()
        httpd.wait_until(lambda: httpd.json("/") and len(notes(httpd)) >= 2, "one only")
        httpd.stop()
        pids = [re.match(r"startup (\d+)", note)[1] for note in notes(httpd) if "startup" in note]
        assert len(set(pids)) == len(pids)
        assert sorted(note for note in notes(httpd) if "shutdown" in note) == sorted(
            f"shutdown {pid}" for pid in pids
        )


def test_shutdown_that_hangs(new_httpd):
    """It is waited for within a bound."""
    options = {"daemon": "shutdown-timeout=2 graceful-timeout=2"}
    with living(new_httpd, shutdown="await asyncio.sleep(3600)", options=options) as httpd:
        httpd.start()
        httpd.json("/")
        httpd.allow_log(ANY)
        begin = time.monotonic()
        httpd.stop()
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    "how",
    [
        "raise RuntimeError('at the end')",
        "await send({'type': 'lifespan.shutdown.failed', 'message': 'at the end'}); return",
    ],
)
def test_shutdown_that_fails(new_httpd, how):
    with living(new_httpd, shutdown=how) as httpd:
        httpd.start()
        httpd.json("/")
        told = httpd.expect_log(ANY, count=None)
        httpd.stop()
        httpd.settle_log()
        assert any("at the end" in line.message for line in told.lines + told.traceback)


def test_task_of_the_startup(new_httpd):
    """A task that startup makes runs between the requests."""
    body = """
        async def tick():
            for i in range(3):
                await asyncio.sleep(0.01)
                support.note(NOTES + "-ticks", str(i))
        scope["keep"] = asyncio.create_task(tick())
    """
    with living(new_httpd, startup=body.strip()) as httpd:
        httpd.start()
        httpd.json("/")
        ticks = httpd.root / "data" / "life-ticks"
        assert line_of(httpd, ticks) == "0"
        httpd.wait_until(lambda: ticks.read_text().split() == ["0", "1", "2"], "it stands still")
