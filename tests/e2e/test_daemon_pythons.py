"""Several Python versions in one httpd: each group runs the application's own interpreter.

The gateways are those of ``build/rwsgi`` and of ``build/several``, which ``make test`` and
``make e2e`` build (``tests/tools/several.sh``); versions without one are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import paths, processes
from harness.pythons import environment, install, records
from harness.storm import Storm

pytestmark = pytest.mark.rwsgi


@pytest.fixture(scope="module")
def pythons():
    found = records()
    if len(found) < 2:
        pytest.skip("gateways for one Python only: tests/tools/several.sh finds no other")
    return found


@pytest.fixture(scope="module")
def module_directory(pythons, tmp_path_factory):
    """One installation with all the gateways."""
    return install(tmp_path_factory.mktemp("modules"), pythons)


APP = """\
import hashlib, json, os, sqlite3, ssl, sys

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    facts = dict(
        version=list(sys.version_info[:3]), pid=os.getpid(), executable=sys.executable,
        prefix=sys.prefix, base=sys.base_prefix, group=environ["mod_wsgi.process_group"],
        digest=hashlib.sha256(body).hexdigest(), ssl=ssl.OPENSSL_VERSION,
        sqlite=sqlite3.sqlite_version, gil=getattr(sys, "_is_gil_enabled", bool)(),
    )
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("in " + facts["group"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]
"""


@pytest.fixture(scope="module")
def server(new_httpd, pythons, module_directory, request):
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "MODULE_DIR", module_directory)
    with new_httpd(threads=40) as httpd:
        script = httpd.write("site/app.wsgi", APP)
        httpd.add(f"""
            WSGIRestrictEmbedded On
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
        """)
        for version, (_, record) in pythons.items():
            home = make_environment(httpd.root / f"venv-{version}", record)
            library = environment(record)["LD_LIBRARY_PATH"]
            httpd.add(f"""
                WSGIDaemonProcess py{version} threads=4 python-home="{home}" \\
                    env=LD_LIBRARY_PATH={library}
                WSGIScriptAlias /{version} "{script}" process-group=py{version} \\
                    application-group=%{{GLOBAL}}
            """)
        yield httpd.start()
    patch.undo()


def make_environment(home: Path, record):
    """A virtual environment of that interpreter."""
    subprocess.run(
        [record["executable"], "-m", "venv", "--without-pip", str(home)],
        check=True,
        env=environment(record),
        capture_output=True,
    )
    return home


def test_each_group_has_its_own_version(server, pythons):
    pids = set()
    for version, (_, record) in pythons.items():
        facts = server.json(f"/{version}")
        assert ".".join(map(str, facts["version"])) == record["version"]
        assert facts["prefix"] == str(server.root / f"venv-{version}")
        assert facts["executable"].startswith(facts["prefix"])
        assert facts["group"] == f"py{version}"
        pids.add(facts["pid"])
    assert len(pids) == len(pythons) and pids <= set(server.workers())


def test_they_serve_at_once(server, pythons):
    storms = [Storm(server, target=f"/{version}?{{}}", connections=8) for version in pythons]
    for storm in storms:
        storm.__enter__()
    try:
        for storm in storms:
            storm.wait_for(300)
    finally:
        for storm in storms:
            storm.__exit__(None, None, None)
    for storm, version in zip(storms, pythons):
        storm.judge()
        seen = {tuple(json.loads(answer.body)["version"][:2]) for answer in storm.answers}
        assert seen == {tuple(map(int, version.split(".")))}


def test_bodies_and_errors_in_each(server, pythons):
    import hashlib

    body = os.urandom(300_000)
    for version in pythons:
        facts = server.request(f"/{version}", method="POST", body=body).json()
        assert facts["digest"] == hashlib.sha256(body).hexdigest()
        told = server.expect_log(rf"RWSGI0200: .*ValueError.*'py{re.escape(version)}'")
        assert server.request(f"/{version}/raise").status == 500
        server.settle_log()
        texts = [line.message for line in told.traceback]
        assert any("app.wsgi" in text for text in texts)
        assert f"ValueError: in py{version}" in texts


def test_reload_in_each(server, pythons):
    pids = {version: server.json(f"/{version}")["pid"] for version in pythons}
    server.write("site/app.wsgi", APP + "# changed\n")
    for version in pythons:
        facts = server.json(f"/{version}")
        assert facts["pid"] != pids[version]
        assert facts["version"][:2] == list(map(int, version.split(".")))


def test_httpd_itself_has_none_of_them(server):
    for pid in [server.process.pid, *server.children()]:
        assert "libpython" not in processes.maps(pid)


def test_version_without_a_gateway(new_httpd, pythons, tmp_path_factory):
    """The message names the command that builds one."""
    others = [short for short in pythons if short != next(iter(pythons))]
    missing = others[0]
    directory = tmp_path_factory.mktemp("fewer")
    for parent in [directory, *directory.parents][:3]:
        parent.chmod(0o755)
    shutil.copy(paths.MODULE_DIR / "mod_rwsgi.so", directory)
    shutil.copytree(paths.MODULE_DIR / "rwsgi", directory / "rwsgi")
    for stale in directory.glob(f"rwsgi/_rwsgi.cpython-{missing.replace('.', '')}-*"):
        stale.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MODULE_DIR", directory)
        _, record = pythons[missing]
        with new_httpd(threads=4) as httpd:
            home = make_environment(httpd.root / "venv", record)
            library = environment(record)["LD_LIBRARY_PATH"]
            script = httpd.write("site/app.wsgi", APP)
            httpd.add(f"""
                WSGIDaemonProcess lonely threads=2 python-home="{home}" \\
                    env=LD_LIBRARY_PATH={library} connect-timeout=1 socket-timeout=2
                <Directory "{httpd.root}/site">
                    Require all granted
                </Directory>
                WSGIScriptAlias / "{script}" process-group=lonely application-group=%{{GLOBAL}}
            """)
            done = httpd.check()
            if done.returncode != 0:
                assert "make gateway PYTHON=" in done.stderr and missing in done.stderr
                return
            httpd.expect_log(rf"RWSGI04\d\d: .*{missing}.*make gateway PYTHON=", count=None)
            httpd.allow_log(r"RWSGI0[34]\d\d: ")
            httpd.start()
            assert httpd.request("/").status in (503, 504)
