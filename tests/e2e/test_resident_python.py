"""A libpython that is in httpd already: `mod_wsgi-express module-config` writes a LoadFile line."""

from __future__ import annotations

import pytest
from harness import paths
from harness.pythons import install, records
from harness.server import Httpd

pytestmark = pytest.mark.rwsgi

APP = """
import sys

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["{}.{}".format(*sys.version_info).encode()]
"""
OWN = ".".join(paths.gateway_record()["version"].split(".")[:2])


@pytest.fixture(scope="module")
def pythons():
    """By version: the gateway's files and its record, of all that have a shared library."""
    return {version: of for version, of in records().items() if of[1]["libpython"]}


@pytest.fixture(params=["3.9", "3.13"])
def other(request, pythons):
    """Another version."""
    if request.param == OWN or request.param not in pythons:
        pytest.skip("there is no such Python with a shared library")
    return request.param


@pytest.fixture
def server():
    with Httpd(module_under_test=False, log_level="notice") as server:
        yield server


def load(server, library, module_directory=paths.MODULE_DIR):
    server.add(f'LoadFile "{library}"')
    server.add(f'LoadModule wsgi_module "{module_directory / "mod_rwsgi.so"}"')
    server.add(f'<Directory "{server.root}">\nRequire all granted\n</Directory>')
    return server.write("app.wsgi", APP)


def test_the_same_is_no_harm(server, pythons):
    script = load(server, pythons[OWN][1]["libpython"])
    server.add(f'WSGIScriptAlias /app "{script}"')
    server.start()
    assert server.get("/app").text == OWN
    server.graceful()
    assert server.get("/app").text == OWN


def test_another_version_is_refused(server, pythons, other):
    """Its functions would be called by a gateway of this version."""
    library = pythons[other][1]["libpython"]
    load(server, library)
    done = server.check()
    assert done.returncode != 0
    assert "RWSGI0633: " in done.stderr and library.rpartition("/")[2] in done.stderr
    assert f"the Python to be used is {OWN}." in done.stderr


def test_process_groups_do_not_mind(server, pythons, other):
    script = load(server, pythons[other][1]["libpython"])
    server.add(f"""
        WSGIDaemonProcess site threads=2
        WSGIScriptAlias /app "{script}" process-group=site application-group=%{{GLOBAL}}
        WSGIScriptAlias /embedded "{script}"
    """)
    server.expect_log("^RWSGI0633: .*no Python now.*WSGIRestrictEmbedded On")
    server.expect_log("^RWSGI0007: ")
    server.start()
    assert server.get("/app").text == OWN
    assert server.request("/embedded").status == 500


def test_without_embedded_mode_nothing_is_said(server, pythons, other):
    script = load(server, pythons[other][1]["libpython"])
    server.add(f"""
        WSGIRestrictEmbedded On
        WSGIDaemonProcess site threads=2
        WSGIScriptAlias /app "{script}" process-group=site application-group=%{{GLOBAL}}
    """)
    server.start()
    assert server.get("/app").text == OWN


def test_the_gateway_for_it_is_taken(server, pythons, other, tmp_path):
    """As with mod_wsgi, which is linked with it."""
    script = load(server, pythons[other][1]["libpython"], install(tmp_path, pythons))
    server.add(f'WSGIScriptAlias /app "{script}"')
    server.start()
    assert server.get("/app").text == other
