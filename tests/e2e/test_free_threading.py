"""A Python without the GIL: only where the default gateway is for one (`make test-free-threaded`).

``RWSGI_TEST_FREE_THREADING`` says whether the servers of this run have ``WSGIFreeThreading On``.
"""

from __future__ import annotations

import json
import os
import threading

import pytest
from harness import paths
from harness.config import BOTH, GROUP

MODES = BOTH

FREE = bool(os.environ.get("RWSGI_TEST_FREE_THREADING"))

pytestmark = [
    pytest.mark.rwsgi,
    pytest.mark.skipif(
        "t-" not in (paths.MODULE_DIR / "rwsgi" / "default").read_text()
        if not paths.PEER and (paths.MODULE_DIR / "rwsgi" / "default").exists()
        else True,
        reason="the default gateway's Python always has the GIL",
    ),
]


def setup(httpd, text=""):
    httpd.add(f'WSGIPythonPath "{httpd.apps}"')
    httpd.add(f"""
        <Directory "{httpd.apps}">
            Require all granted
        </Directory>
        WSGIScriptAlias /a "{httpd.apps}/gil.wsgi" application-group=a
        WSGIScriptAlias /b "{httpd.apps}/gil.wsgi" application-group=b
        WSGIScriptAlias /free "{httpd.apps}/free.wsgi" application-group=%{{GLOBAL}}
    """)
    return httpd.add(text)


@pytest.mark.checklist(179)
def test_the_gil_is_on_unless_it_is_said(new_httpd, mode):
    with new_httpd(threads=2) as httpd:
        setup(httpd).start()
        for group in ("a", "b"):
            assert httpd.json(f"/{group}/facts")["gil"] is not FREE


@pytest.mark.checklist(179)
@pytest.mark.parametrize("on", [True, False])
def test_one_process_group(new_httpd, mode, on):
    """A block decides for the processes of one group, whatever stands outside."""
    own = GROUP if mode == "daemon" else "%{GLOBAL}"
    with new_httpd(threads=2) as httpd:
        text = f"""
            <WSGIInterpreterOptions process-group={own}>
                WSGIFreeThreading {"On" if on else "Off"}
            </WSGIInterpreterOptions>
            <WSGIInterpreterOptions process-group=other>
                WSGIFreeThreading {"Off" if on else "On"}
            </WSGIInterpreterOptions>
        """
        setup(httpd, text).start()
        assert httpd.json("/a/facts")["gil"] is not on


def test_threads_of_one_interpreter_compute_at_once(new_httpd):
    with new_httpd(threads=4) as httpd:
        setup(httpd).start()
        shared = httpd.root / "data" / "shared"
        shared.write_bytes(b"\0\0")
        shared.chmod(0o666)
        answers = []

        def ask(number):
            seconds = 10 if FREE else 0.5
            target = f"/a/together?file={shared}&own={number}&seconds={seconds}"
            answers.append(httpd.get(target).text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if FREE:
            assert answers == ["together", "together"]
        else:
            assert "alone" in answers


def test_what_has_no_effect_says_so(new_httpd):
    """Own GILs and switch intervals, in a process that has no GIL."""
    text = """
        WSGIPerInterpreterGIL On
        <WSGIInterpreterOptions application-group=a>
            WSGISwitchInterval 0.25
        </WSGIInterpreterOptions>
    """
    with new_httpd(threads=2) as httpd:
        if FREE:
            httpd.expect_log("RWSGI0563.*'a'")
            httpd.expect_log("RWSGI0565.*'a'")
        setup(httpd, text).start()
        assert httpd.json("/a/attempt")["daemon thread"] == ("done" if FREE else "RuntimeError")
        interval = httpd.json("/a/facts")["switch_interval"]
        assert interval == (0.005 if FREE else 0.25)


@pytest.mark.parametrize("scene", ["input", "errors", "head", "result", "globals", "late"])
def test_threads_that_share_the_objects_of_a_request(new_httpd, scene):
    """Whatever threads do with what one request was given, at its end and after it, is an exception
    at worst: the processes live."""
    with new_httpd(threads=8) as httpd:
        setup(httpd).start()
        # What these threads write, and what is raised in them.
        httpd.allow_log(".*")
        failures = []

        def client():
            try:
                with httpd.connect() as connection:
                    for _ in range(25):
                        body = b"a line\n" * 200
                        connection.request(f"/free/{scene}", method="POST", body=body)
                        status = connection.read_response().status
                        if status not in (200, 500):
                            failures.append(status)
            except Exception as error:
                failures.append(repr(error))

        clients = [threading.Thread(target=client) for _ in range(6)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        # A response that had begun may have been cut; the process has not died of it.
        assert all("closed" in str(f) or "reset" in str(f) or "end" in str(f) for f in failures)
        facts = json.loads(httpd.get("/free/facts").text)
        assert facts["requests"] >= 1
        assert len({json.loads(httpd.get("/free/facts").text)["pid"] for _ in range(8)}) == 1
