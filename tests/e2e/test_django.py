"""The sample Django project, used as a person would use it."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys

import pytest
from browser import Browser, csrf_token
from harness import paths
from harness.config import BOTH
from harness.server import Httpd

MODES = BOTH

PROJECT = paths.REPOSITORY / "tests" / "django_site"
PASSWORD = "a password of this test"


def install(server: Httpd) -> None:
    """A copy of the project with a database and collected static files, and its configuration."""
    site = server.root / "site"
    shutil.copytree(PROJECT, site, ignore=shutil.ignore_patterns("__pycache__", "data"))
    data = server.root / "data" / "django"
    (data / "media").mkdir(parents=True)
    server.write("site/site.env", f"SITE_SECRET_KEY=secret of this test\nSITE_DATA={data}\n")
    for command in (
        ["migrate", "--verbosity", "0"],
        ["seed"],
        ["collectstatic", "--noinput", "--verbosity", "0"],
    ):
        subprocess.run(
            [sys.executable, site / "manage.py", *command],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SITE_ADMIN_PASSWORD": PASSWORD},
        )
    user = paths.httpd_user()
    if user:
        for path in [data, *data.rglob("*")]:
            shutil.chown(path, *user)
    types = server.write("mime.types", "text/css css\n")
    server.add(
        f"""
        <Directory "{server.root}">
            Require all granted
        </Directory>
        TypesConfig "{types}"
        Alias /static/ "{data}/static/"
        WSGIPythonPath "{paths.site_packages()}"
        WSGIScriptAlias / "{site}/config/wsgi.py"
        """
    )


@pytest.fixture(scope="module", params=["event", "prefork"])
def site(request, new_httpd):
    with new_httpd(mpm=request.param, threads=4, modules=["alias", "mime"]) as server:
        install(server)
        server.start()
        yield server


@pytest.fixture
def browser(site):
    return Browser(site)


def log_in(browser: Browser, password: str = PASSWORD):
    page = browser.get("/admin/")
    assert page.status == 200
    assert browser.path.startswith("/admin/login/")
    form = {"username": "admin", "password": password, "csrfmiddlewaretoken": csrf_token(page)}
    return browser.post("/admin/login/?next=/admin/", {**form, "next": "/admin/"})


def add_note(browser: Browser, title: str, file: tuple[str, bytes] = ("", b"")):
    form = {
        "csrfmiddlewaretoken": csrf_token(browser.get("/new/")),
        "author": "Zoë",
        "title": title,
        "text": "Grüße & <b>bold</b>",
    }
    return browser.upload("/new/", form, "attachment", file)


def test_list_shows_the_notes(browser):
    page = browser.get("/")
    assert page.status == 200
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert "Who serves the style sheet?" in page.text


def test_static_files_come_from_httpd(site, browser):
    style = re.search(r'href="(/static/[^"]+\.css)"', browser.get("/").text)
    assert style
    response = site.get(style.group(1))
    assert response.body == (PROJECT / "notes/static/notes/style.css").read_bytes()
    # Of httpd's making: Django sends no ETag for a file, and has no route to one.
    assert response.header("ETag")
    assert response.header("Content-Type") == "text/css"
    assert site.get("/static/admin/css/base.css").body


def test_admin_login(browser):
    page = log_in(browser)
    assert browser.path == "/admin/"
    assert "Site administration" in page.text
    assert "sessionid" in browser.cookies
    notes = browser.get("/admin/notes/note/")
    assert "Where do errors go?" in notes.text


def test_admin_refuses_a_wrong_password(browser):
    page = log_in(browser, "wrong")
    assert page.status == 200
    assert "Please enter the correct username" in page.text
    assert "sessionid" not in browser.cookies


def test_admin_adds_a_note(browser):
    log_in(browser)
    path = "/admin/notes/note/add/"
    form = {"csrfmiddlewaretoken": csrf_token(browser.get(path))}
    page = browser.post(path, {**form, "author": "admin", "title": "From the admin", "text": ""})
    assert browser.path == "/admin/notes/note/"
    assert "was added successfully" in page.text
    assert "From the admin" in browser.get("/").text


def test_form_adds_a_note(browser):
    page = add_note(browser, "A note with a form")
    assert page.status == 200
    assert re.fullmatch(r"/notes/\d+/", browser.path)
    assert "Zoë" in page.text
    assert "Grüße &amp; &lt;b&gt;bold&lt;/b&gt;" in page.text


def test_form_without_token_is_refused(browser):
    browser.get("/new/")
    page = browser.post("/new/", {"author": "x", "title": "smuggled", "text": ""})
    assert page.status == 403
    assert "smuggled" not in browser.get("/").text


def test_form_with_errors_is_shown_again(browser):
    form = {"csrfmiddlewaretoken": csrf_token(browser.get("/new/")), "author": "x", "title": ""}
    page = browser.post("/new/", form)
    assert page.status == 200
    assert "This field is required." in page.text


# The second size is beyond what Django keeps in memory, and beyond every buffer in between.
@pytest.mark.parametrize("size", [10, 5_000_000])
def test_upload_and_download(browser, size):
    content = random.Random(size).randbytes(size)
    name = f"data-{size}.bin"
    page = add_note(browser, f"With a file of {size}", (name, content))
    assert page.status == 200
    note = browser.path
    download = browser.get(f"{note}attachment/")
    assert download.status == 200
    assert download.header("Content-Length") == str(size)
    assert f'filename="{name}"' in download.header("Content-Disposition")
    assert hashlib.sha256(download.body).digest() == hashlib.sha256(content).digest()
    head = browser.server.request(f"{note}attachment/", method="HEAD", host="localhost")
    assert (head.status, head.header("Content-Length"), head.body) == (200, str(size), b"")


def test_streaming_export(browser):
    add_note(browser, "Exported")
    response = browser.get("/export.csv")
    assert response.status == 200
    assert response.header("Transfer-Encoding") == "chunked"
    lines = response.text.splitlines()
    assert lines[0] == "created,author,title,text"
    assert any(",Exported," in line for line in lines)


def test_unknown_page(browser):
    page = browser.get("/nothing/here/")
    assert page.status == 404
    assert "There is no such page." in page.text


def test_exception_is_500_and_logged(site, browser):
    site.expect_log(r"Internal Server Error: /broken/")
    site.expect_log(r"RuntimeError: this view is broken on purpose")
    site.expect_log(r'^Traceback \(most recent call last\):$|^  +(File "|\S)', None)
    page = browser.get("/broken/")
    assert page.status == 500
    assert "Something went wrong." in page.text
    assert "RuntimeError" not in page.text
    # The same process goes on.
    assert browser.get("/").status == 200


def test_unknown_host_is_refused(site):
    site.expect_log(r"Invalid HTTP_HOST header: 'evil.example'")
    site.expect_log(r'^Traceback \(most recent call last\):$|^  +(File "|\S)|DisallowedHost:', None)
    assert site.request("/", host="evil.example").status == 400


@pytest.mark.rwsgi("daemon")
def test_server_page_shows_the_wsgi_environment(site, browser):
    page = browser.get("/server/")
    assert "wsgi.multithread" in page.text
    pids = {int(pid) for pid in re.findall(r"<th>Process</th><td>(\d+)</td>", page.text)}
    assert pids <= set(site.pythons())
    assert len(pids) == 1
