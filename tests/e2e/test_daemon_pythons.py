"""Process groups on Pythons of different versions, in one httpd.

``make test`` builds what this needs, ``build/several`` (``tests/tools/several.sh``).
"""

from __future__ import annotations

import filecmp
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import paths
from harness.server import Httpd

pytestmark = pytest.mark.rwsgi
MODULES = paths.REPOSITORY / "build/several"

REPORT = """
import json, os, sys

def application(environ, start_response):
    found = [list(sys.version_info[:3]), sys.executable, os.getpid(), environ["PATH_INFO"]]
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def records() -> list[dict[str, str]]:
    """What each gateway was built for."""
    found = []
    for file in sorted((MODULES / "rwsgi").glob("*.conf")):
        pairs = (line.partition("=") for line in file.read_text().splitlines())
        found.append({name.strip(): value.strip() for name, _, value in pairs})
    return found


def _current() -> bool:
    """Whether the module there is the one under test."""
    ours, theirs = (place / "mod_rwsgi.so" for place in (paths.MODULE_DIR, MODULES))
    return theirs.exists() and filecmp.cmp(ours, theirs, shallow=False)


@pytest.fixture(scope="module")
def pythons():
    if not _current():
        pytest.skip("build/several is missing or of another build: tests/tools/several.sh")
    found = records()
    if len(found) < 2:
        pytest.skip("gateways for one Python only: tests/tools/several.sh builds more")
    return found


@pytest.fixture(scope="module")
def server(pythons):
    with Httpd(module_under_test=False) as server:
        server.add(f'LoadModule rwsgi_module "{MODULES}/mod_rwsgi.so"')
        script = server.write("site/report.py", REPORT)
        for number, record in enumerate(pythons):
            server.add(
                f"""
                WSGIDaemonProcess g{number} python-home="{record["prefix"]}" threads=3
                WSGIScriptAlias /{number} "{script}" process-group=g{number} \\
                    application-group=%{{GLOBAL}}
                """
            )
        server.add(
            f"""
            WSGIScriptAlias /embedded "{script}"
            <Directory "{script.parent}">
                Require all granted
            </Directory>
            """
        )
        yield server.start()


def test_each_group_has_its_own_python(server, pythons):
    """All at once, and httpd's own processes with one more beside them."""

    def ask(path):
        answer = server.get(path)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    pids = set()
    wanted = [f"/{number}" for number in range(len(pythons))] * 20
    with ThreadPoolExecutor(8) as pool:
        for path, (version, executable, pid, _) in zip(wanted, pool.map(ask, wanted)):
            record = pythons[int(path[1:])]
            assert ".".join(map(str, version)) == record["version"]
            assert Path(executable).parent == Path(record["prefix"]) / "bin"
            pids.add(pid)
    assert len(pids) == len(pythons)
    assert not pids & set(server.children())
    _, _, pid, _ = ask("/embedded")
    assert pid in server.children()


def test_a_version_without_a_gateway_is_an_error_that_names_the_remedy(pythons, tmp_path):
    home = tmp_path / "venv"
    (home / "bin").mkdir(parents=True)
    (home / "bin/python").symlink_to("/bin/true")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.8.1\n")
    with Httpd(module_under_test=False) as server:
        server.add(f'LoadModule rwsgi_module "{MODULES}/mod_rwsgi.so"')
        server.add(f'WSGIDaemonProcess old python-home="{home}"')
        done = server.check()
        assert done.returncode != 0
        assert "3.8" in done.stderr
        assert "make gateway PYTHON=" in done.stderr
