"""The sample Flask application under a prefix, beside a second instance under another."""

from __future__ import annotations

import json
import shutil

import pytest
from browser import Browser
from harness import paths
from harness.config import BOTH

MODES = BOTH

PROJECT = paths.REPOSITORY / "tests" / "flask_site"


@pytest.fixture(scope="module")
def site(new_httpd):
    with new_httpd(threads=4) as server:
        target = server.root / "flask"
        shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns("__pycache__"))
        server.add(
            f"""
            <Directory "{server.root}">
                Require all granted
            </Directory>
            WSGIPythonPath "{paths.site_packages()}"
            WSGIScriptAlias /flask "{target}/wsgi.py"
            WSGIScriptAlias /deep/er "{target}/wsgi.py"
            """
        )
        server.start()
        yield server


@pytest.fixture
def browser(site):
    return Browser(site)


def test_session_and_form(browser):
    assert "Hello stranger, visit 1." in browser.get("/flask/").text
    page = browser.post("/flask/name", {"name": "Zoë & Co"})
    assert browser.path == "/flask/"
    assert "Hello Zoë &amp; Co, visit 2." in page.text


@pytest.mark.parametrize("mount", ["/flask", "/deep/er"])
def test_mount_point(site, mount):
    host = f"localhost:{site.port}"
    where = site.json(f"{mount}/where?a=1&b=%20", host=host)
    assert where["script_name"] == mount
    assert where["path_info"] == "/where"
    assert where["query"] == "a=1&b=%20"
    assert where["url"] == f"http://{host}{mount}/where"


def test_nothing_outside_the_mount_points(site):
    assert site.request("/flasks/").status == 404


def test_mount_point_without_slash_redirects(site):
    response = site.request("/flask")
    assert response.status == 308
    assert response.header("Location").endswith("/flask/")


def test_json(site):
    body = json.dumps({"numbers": [1, 2, 39]}).encode()
    response = site.request(
        "/flask/sum", method="POST", headers={"Content-Type": "application/json"}, body=body
    )
    assert response.status == 200
    assert response.json() == {"total": 42}


def test_bad_json_is_400(site):
    response = site.request(
        "/flask/sum", method="POST", headers={"Content-Type": "application/json"}, body=b"{"
    )
    assert response.status == 400


def test_upload_comes_back_reversed(browser):
    content = bytes(range(256)) * 4000
    response = browser.upload("/flask/reverse", {}, "file", ("bytes.bin", content))
    assert response.status == 200
    assert response.body == content[::-1]


def test_file_and_conditional_request(site):
    response = site.get("/flask/source")
    assert response.body == (PROJECT / "app.py").read_bytes()
    again = site.request("/flask/source", headers={"If-None-Match": response.header("ETag")})
    assert (again.status, again.body) == (304, b"")


def test_part_of_a_file(site):
    response = site.request("/flask/source", headers={"Range": "bytes=3-10"})
    assert response.status == 206
    assert response.body == (PROJECT / "app.py").read_bytes()[3:11]


def test_stream(site):
    response = site.get("/flask/count/1000")
    assert response.text == "".join(f"line {number}\n" for number in range(1000))


def test_error_pages(site):
    assert site.request("/flask/nothing").status == 404
    assert site.request("/flask/teapot").status == 418
    assert site.request("/flask/sum").status == 405


def test_exception_is_500_and_logged(site):
    site.expect_log(r"Exception on /broken \[GET\]")
    site.expect_log(r"RuntimeError: this route is broken on purpose")
    site.expect_log(r'^Traceback \(most recent call last\):$|^  +(File "|\S)', None)
    response = site.request("/flask/broken")
    assert response.status == 500
    assert "RuntimeError" not in response.text
