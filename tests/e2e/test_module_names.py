"""One shared object, two module names: an old configuration keeps its ``<IfModule mod_wsgi.c>``."""

from __future__ import annotations

import pytest
from harness import paths
from harness.config import BOTH

MODES = BOTH
pytestmark = pytest.mark.rwsgi

MODULE = paths.MODULE_DIR / "mod_rwsgi.so"
SITE = """
    <IfModule {name}>
        WSGIScriptAlias /app {script}
    </IfModule>
"""
SCRIPT = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""


@pytest.fixture
def named(new_httpd):
    """A server whose configuration loads the module by another name."""
    with new_httpd(module_under_test=False, log_level="notice", mode="embedded") as httpd:
        httpd.add(load("wsgi_module"))
        yield httpd


def load(symbol):
    """The LoadModule line."""
    return f'LoadModule {symbol} "{MODULE}"'


def group(mode):
    """Daemon mode's, which the harness would declare before the module is loaded."""
    return "WSGIDaemonProcess site threads=2\nWSGIProcessGroup site" if mode == "daemon" else ""


@pytest.mark.parametrize("condition", ["wsgi_module", "mod_wsgi.c"])
def test_the_name_of_mod_wsgi(named, mode, condition):
    script = named.write("app.wsgi", SCRIPT)
    named.add(group(mode)).add("LogLevel wsgi:info")
    named.add(SITE.format(name=condition, script=script))
    named.add(SITE.format(name="rwsgi_module", script="/nowhere"))
    named.start()
    assert named.get("/app").body == b"served"
    # A line of level info: `LogLevel wsgi:info` was this module's.
    lines = named.log
    named.wait_until(lambda: any(line.level == "info" for line in lines.read() + lines.seen))


def test_both_names_at_once_are_refused(named):
    done = named.add(load("rwsgi_module")).check()
    assert done.returncode != 0
    assert "RWSGI0017" in done.stderr and "keep one" in done.stderr


def test_the_name_changes_at_a_restart(named, mode):
    script = named.write("app.wsgi", SCRIPT)
    for symbol in ("wsgi_module", "rwsgi_module", "wsgi_module"):
        named.config.clear()
        named.add(load(symbol)).add(group(mode))
        named.add(SITE.format(name=symbol, script=script))
        if named.process:
            named.rewrite_config()
            named.graceful()
        else:
            named.start()
        assert named.get("/app").body == b"served"
