"""What httpd knows the module by: a configuration of mod_wsgi tests for that module's names, and
must find its blocks read and its log levels accepted."""

from __future__ import annotations

import re
import subprocess

import pytest
from harness import paths
from harness.config import BOTH
from harness.server import Httpd
from harness.sites import applications

MODES = BOTH
pytestmark = pytest.mark.rwsgi

NAMES = ["rwsgi_module", "wsgi_module"]
SCRIPT = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""
TESTS = ["rwsgi_module", "wsgi_module", "mod_rwsgi.c", "mod_wsgi.c"]


def load(name):
    return f'LoadModule {name} "{paths.MODULE_DIR / "mod_rwsgi.so"}"'


@pytest.fixture
def bare():
    with Httpd(module_under_test=False, log_level="notice") as server:
        yield server


@pytest.fixture
def named(new_httpd):
    """A server whose configuration loads the module by itself."""
    with new_httpd(module_under_test=False, log_level="notice", mode="embedded") as httpd:
        yield httpd


def group(mode):
    """Daemon mode's, which the harness would declare before the module is loaded."""
    return "WSGIDaemonProcess site threads=2\nWSGIProcessGroup site" if mode == "daemon" else ""


def reads(server, *lines):
    """Whether httpd reads a block: it holds what is no directive."""
    server.config.clear().add("\n".join(lines[:-1]))
    server.add(f"<IfModule {lines[-1]}>\nNoDirective\n</IfModule>")
    done = server.check()
    if done.returncode == 0:
        return False
    assert "Invalid command 'NoDirective'" in done.stderr
    return True


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_read(bare, name, test):
    assert reads(bare, load(name), test)
    assert not reads(bare, load(name), f"!{test}")


def test_blocks_before_the_module_is_loaded_are_not_read(bare):
    for test in TESTS:
        assert not reads(bare, test)


def test_other_names_are_not_claimed(bare):
    for test in ("mod_python.c", "python_module", "gi_module", "wsgi_module2"):
        assert not reads(bare, load("rwsgi_module"), test)
    # mod_so's own answers still come.
    assert reads(bare, load("rwsgi_module"), "so_module")
    assert reads(bare, load("rwsgi_module"), "authz_core_module")


@pytest.mark.parametrize("name", NAMES)
def test_serves_under_both_names(name):
    with Httpd(module_under_test=False) as server:
        server.add(load(name))
        server.add("LogLevel wsgi:info rwsgi:debug")
        applications(server, app="where.wsgi")
        server.start()
        assert server.get("/app").status == 200
        server.graceful()
        assert server.get("/app").status == 200
        server.log.read()
        tag = name.removesuffix("_module")
        assert {line.module for line in server.log.seen if "starting Python" in line.message} == {
            tag
        }


def test_blocks_are_read_after_a_restart():
    with Httpd(module_under_test=False) as server:
        server.add(load("rwsgi_module"))
        server.add(f'<Directory "{server.apps}">\nRequire all granted\n</Directory>')
        line = f'WSGIScriptAlias /app "{server.apps}/where.wsgi"'
        server.add(f"<IfModule mod_wsgi.c>\n{line}\n</IfModule>")
        server.start()
        for again in (server.graceful, server.restart):
            assert server.get("/app").status == 200
            again()
        assert server.get("/app").status == 200


def test_the_module_is_not_loaded_twice(bare):
    bare.add(load("rwsgi_module")).add(load("wsgi_module"))
    done = bare.check()
    assert done.returncode != 0
    assert "RWSGI0017: " in done.stderr and "Syntax OK" not in done.stderr


def test_mod_wsgi_beside_it_is_refused(bare, tmp_path):
    """A stand-in: a module of that name, which has no directives."""
    source = tmp_path / "mod_wsgi.c"
    source.write_text("""
        #include "httpd.h"
        #include "http_config.h"
        AP_DECLARE_MODULE(wsgi) = {STANDARD20_MODULE_STUFF};
    """)

    def ask(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()

    headers = ask("apxs", "-q", "INCLUDEDIR")
    flags = ask("apr-1-config", "--includes", "--cppflags")
    module = tmp_path / "mod_wsgi.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-w", f"-I{headers[0]}", *flags, "-o", module, source],
        check=True,
    )
    bare.add(load("rwsgi_module")).add(f'LoadModule wsgi_module "{module}"')
    done = bare.check()
    assert done.returncode != 0
    assert re.search(r"RWSGI0631: .*a2dismod wsgi", done.stderr)


@pytest.mark.parametrize("condition", TESTS)
def test_the_name_changes_at_a_restart(named, mode, condition):
    script = named.write("app.wsgi", SCRIPT)
    for symbol in ("wsgi_module", "rwsgi_module", "wsgi_module"):
        named.config.clear()
        named.add(load(symbol)).add(group(mode))
        named.add(f"<IfModule {condition}>\nWSGIScriptAlias /app {script}\n</IfModule>")
        if named.process:
            named.rewrite_config()
            named.graceful()
        else:
            named.start()
        assert named.get("/app").body == b"served"


def test_without_the_module_no_name_is_claimed():
    """It stays mapped when a restart loads it no more."""
    with Httpd(module_under_test=False, log_level="notice") as server:
        server.add(load("rwsgi_module")).add(
            "<IfModule mod_wsgi.c>\nLogLevel wsgi:info\n</IfModule>"
        )
        server.start()
        server.config.clear()
        for test in TESTS:
            server.add(f"<IfModule {test}>\nNoDirective\n</IfModule>")
        server.rewrite_config()
        server.graceful()
        server.write("htdocs/a.txt", "served")
        server.request("/a.txt")
        server.config.clear().add(load("wsgi_module"))
        server.add("<IfModule !mod_wsgi.c>\nNoDirective\n</IfModule>")
        server.rewrite_config()
        server.restart()
