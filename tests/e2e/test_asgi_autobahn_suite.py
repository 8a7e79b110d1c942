"""The Autobahn test suite's fuzzing client against an echo: all its cases, over plain connections
and over TLS; sections 12 and 13 of it are about compression.

`make test-autobahn` installs it and runs this. It is written in Python 2.7: where that is not to be
had, test_asgi_autobahn.py has the same cases.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import paths
from harness.config import BOTH
from harness.sites import asgi_applications

SUITE = paths.REPOSITORY / "build" / "autobahn"

pytestmark = [
    pytest.mark.rwsgi,
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (SUITE / "made").exists(), reason="make test-autobahn installs it"),
]
MODES = BOTH

RUN = "import site; site.addsitedir({!r}); from autobahntestsuite.wstest import run; run()"
#: "Informational" cases have no right or wrong; "non-strict" is right, but for the moment at which
#: a violation is noticed.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=8, tls=True) as httpd:
        asgi_applications(httpd, ws="asgi_websocket.py")
        httpd.add("ASGIWebSocketPing 0\nASGIWebSocketMaxMessage 64M")
        yield httpd.start()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"], id="protocol"),
        pytest.param(["9.*"], id="limits"),
        pytest.param(["12.*", "13.*"], id="compression"),
    ],
)
def test_cases(server, cases, tls):
    scheme, port = ("wss", server.tls_port) if tls else ("ws", server.port)
    specification = {
        "outdir": "reports",
        "servers": [{"agent": "rwsgi", "url": f"{scheme}://127.0.0.1:{port}/ws/echo"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    server.write("fuzzing/spec.json", json.dumps(specification))
    python = (SUITE / "made").read_text().strip()
    command = [python, "-c", RUN.format(str(SUITE / "packages"))]
    done = subprocess.run(
        [*command, "-m", "fuzzingclient", "-s", "spec.json"],
        cwd=server.root / "fuzzing",
        capture_output=True,
        timeout=1700,
        text=True,
    )
    report = server.root / "fuzzing" / "reports" / "index.json"
    assert done.returncode == 0 and report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    results = json.loads(report.read_text())["rwsgi"]
    bad = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in results.items()
        if result["behavior"] not in GOOD or result["behaviorClose"] not in GOOD
    }
    assert not bad, f"{len(bad)} of {len(results)} cases: {bad}"
    assert len(results) > 30
