"""Status 200 with a Location that is a path: another path of the server answers
(WSGILocalRedirect)."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH
pytestmark = [pytest.mark.rwsgi, pytest.mark.checklist(149)]


@pytest.fixture(scope="module", params=["event", "worker", "prefork"])
def server(new_httpd, request):
    options = {"mpm": request.param, "http2": request.param != "prefork"}
    with new_httpd(modules=["alias", "dir", "include"], **options) as httpd:
        (httpd.root / "private").mkdir()
        (httpd.root / "private").chmod(0o755)
        (httpd.root / "private" / "report.txt").write_text("the report\n" * 1000)
        page = "before <!--#include virtual='/on/x?to=%2Fprivate%2Freport.txt&body=list'--> after"
        (httpd.root / "htdocs" / "page.html").write_text(page)
        applications(
            httpd,
            default="redirect.wsgi",
            on="redirect.wsgi",
            checked="redirect.wsgi:validated",
            off="redirect.wsgi",
            override="redirect.wsgi",
            seen="redirect.wsgi:seen",
            denied="redirect.wsgi:seen",
        )
        httpd.add(f"""
            LimitInternalRecursion 6
            Alias /private "{httpd.root}/private"
            ErrorDocument 404 "the server's 404"
            <Directory "{httpd.root}/private">
                Require expr "-n %{{reqenv:REDIRECT_STATUS}}"
            </Directory>
            <LocationMatch "^/(on|checked|override)/">
                WSGILocalRedirect On
            </LocationMatch>
            <Location /off>
                WSGILocalRedirect Off
            </Location>
            <Location /no-such-thing>
                ErrorDocument 404 "/on/error?to=%2Fprivate%2Freport.txt"
            </Location>
            <Directory "{httpd.root}/htdocs">
                Require all granted
                Options +Includes
                SetOutputFilter INCLUDES
            </Directory>
            <Location /override>
                WSGIErrorOverride On
            </Location>
            <Location /denied>
                Require all denied
            </Location>
        """)
        yield httpd.start()


def path(mount, to, **options):
    return f"/{mount}/x?" + urlencode({"to": to, **options})


def mine(response):
    """Whether the application's own header has arrived."""
    names = ["X-Own", "WWW-Authenticate", "Content-Encoding"]
    found = [response.header(name) is not None for name in names]
    found += ["own=1" in response.all("Set-Cookie"), response.header("ETag") == '"own"']
    assert all(found) or not any(found), response.headers
    return found[0]


def test_default(server):
    """As in mod_wsgi: a process group's answer redirects, an embedded one does not."""
    response = server.get(path("default", "/seen/a", body="list"))
    if server.daemon:
        assert response.json()["PATH_INFO"] == "/a"
        assert not mine(response)
        assert response.header("Location") is None
    else:
        assert response.body == b"minemine"
        assert response.header("Location") == "/seen/a"
        assert mine(response)


def test_off(server):
    response = server.get(path("off", "/seen/a", body="list"))
    assert response.body == b"minemine"
    assert response.header("Location") == "/seen/a"


@pytest.mark.parametrize("mount", ["on", "checked"])
@pytest.mark.parametrize("body", ["empty", "list", "write", "large"])
def test_another_application_answers(server, mount, body):
    response = server.get(path(mount, "/seen/a%20b?c=%2Fd", body=body))
    assert not mine(response)
    assert response.all("Set-Cookie") == ["target=1"]
    assert response.header("Content-Type") == "application/json"
    assert response.header("Location") is None
    env = response.json()
    assert env["REQUEST_METHOD"] == "GET"
    assert (env["PATH_INFO"], env["QUERY_STRING"]) == ("/a b", "c=%2Fd")
    assert env["REQUEST_URI"].startswith(f"/{mount}/x?to=")
    assert (env["REDIRECT_STATUS"], env["REDIRECT_URL"]) == ("200", f"/{mount}/x")
    assert env["REDIRECT_QUERY_STRING"].startswith("to=")


def test_a_declared_length_is_forgotten(server):
    response = server.get(path("on", "/seen/", length="8", body="list"))
    assert len(response.body) == int(response.header("Content-Length")) != 8


def test_a_file_answers(server):
    """What the trick is for: the file cannot be reached from outside."""
    server.expect_log("AH01630: client denied by server configuration")
    assert server.request("/private/report.txt").status == 403
    expected = b"the report\n" * 1000
    response = server.get(path("on", "/private/report.txt"))
    assert response.body == expected
    assert not mine(response)
    etag = response.header("ETag")
    target = path("on", "/private/report.txt", body="list")
    part = server.request(target, headers={"Range": "bytes=4-9"})
    assert (part.status, part.body) == (206, b"report")
    same = server.request(target, headers={"If-None-Match": etag})
    assert (same.status, same.body) == (304, b"")


def test_an_error_page_answers(server):
    """The application says 200, and has the last word."""
    response = server.get("/no-such-thing/x")
    assert response.body == b"the report\n" * 1000


def test_within_a_page(server):
    response = server.get("/page.html")
    assert response.body == b"before " + b"the report\n" * 1000 + b" after"


def test_a_file_of_the_application_is_closed(server):
    source = server.root / "private" / "report.txt"
    response = server.get(path("on", "/seen/", body="file", source=source))
    assert response.json()["REQUEST_METHOD"] == "GET"


def test_access_checks_of_the_target(server):
    server.expect_log("AH01630: client denied by server configuration")
    assert server.request(path("on", "/denied/")).status == 403


def test_a_target_that_is_missing(server):
    response = server.request(path("on", "/nowhere", body="list"))
    assert (response.status, response.body) == (404, b"the server's 404")
    assert not mine(response)


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ("http://localhost/seen/", "200 OK"),
        ("seen", "200 OK"),
        ("?seen", "200 OK"),
        ("/seen/", "201 Created"),
        ("/seen/", "202 Accepted"),
        ("/seen/", "302 Found"),
        ("/seen/", "404 Not Found"),
    ],
)
def test_other_answers_are_passed_on(server, to, status):
    response = server.request(path("on", to, status=status, body="list"))
    assert response.status == int(status[:3])
    assert response.body == b"minemine"
    assert response.header("Location").endswith(to)
    assert mine(response)


def test_another_reason_phrase(server):
    assert server.get(path("on", "/seen/", status="200 Fine")).json()["PATH_INFO"] == "/"


def test_chains_and_loops(server):
    target = "/seen/end"
    for _ in range(3):
        target = path("on", target)
    assert server.get(target).json()["PATH_INFO"] == "/end"
    server.expect_log("AH00124: Request exceeded the limit of 6 internal redirects")
    loop = "/on/x?to=/seen/never"
    for _ in range(8):
        loop = path("on", loop)
    assert server.request(loop).status == 500


@pytest.mark.parametrize("mount", ["on", "checked"])
def test_close_is_called(server, mount):
    file = server.root / "data" / f"closed-{mount}"
    file.unlink(missing_ok=True)
    server.get(path(mount, "/seen/", body="list", file=file))
    assert file.read_text().split() == ["closed"]


# Failures of the application


def test_failure_before_the_body(server):
    server.expect_log("RWSGI0200: .*RuntimeError")
    response = server.request(path("on", "/seen/", body="raise"))
    assert response.status == 500
    assert response.header("X-Own") is None


def test_failure_in_the_body(server):
    """An answer that was not completed is none."""
    server.expect_log("RWSGI0206: .*RuntimeError")
    response = server.request(path("on", "/seen/", body="broken"))
    assert response.status == 500
    assert response.header("X-Own") is None


def test_a_replaced_head_counts(server):
    response = server.request(path("on", "/seen/", body="replaced"))
    assert (response.status, response.body) == (409, b"replaced")


def test_with_error_override(server):
    assert server.get(path("override", "/seen/")).json()["REQUEST_METHOD"] == "GET"
    response = server.request(path("override", "/seen/", status="404 Not Found", body="list"))
    assert (response.status, response.body) == (404, b"the server's 404")


# Methods and bodies

SMUGGLED = b"GET /private/report.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("read", [None, 0, 10, 100_000_000])
@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_do_not_reach_the_target(server, read, size, chunked):
    """A body that nobody read is no request, and the target has none."""
    body = (SMUGGLED * (size // len(SMUGGLED) + 1))[:size]
    options = {} if read is None else {"read": read}
    target = path("on", "/seen/", body="list", **options)
    with server.connect() as connection:
        for _ in range(2):
            if chunked:
                headers = {"Transfer-Encoding": "chunked", "Content-Type": "a/b"}
                connection.request(target, method="POST", headers=headers)
                for at in range(0, size, 50_000):
                    connection.send_chunk(body[at : at + 50_000])
                connection.send_chunk(b"")
            else:
                connection.request(target, "POST", {"Content-Type": "a/b"}, body)
            response = connection.read_response()
            env = response.json()
            assert env["REQUEST_METHOD"] == "GET"
            assert env["CONTENT_LENGTH"] is None
            assert env["HTTP_TRANSFER_ENCODING"] is None
            assert env["body"] == 0
        connection.request("/seen/last")
        assert connection.read_response().json()["PATH_INFO"] == "/last"
        assert connection.buffer == b""


@pytest.mark.parametrize("read", [None, 10])
def test_bodies_that_wait_for_a_word(server, read):
    """Without a read the client is not told to go on, and the connection ends."""
    options = {} if read is None else {"read": read}
    target = path("on", "/seen/", body="list", **options)
    headers = {"Expect": "100-continue", "Content-Length": str(len(SMUGGLED))}
    with server.connect() as connection:
        connection.request(target, "POST", headers)
        if read:
            assert connection.read_line() == b"HTTP/1.1 100 Continue"
            assert connection.read_line() == b""
            connection.send(SMUGGLED)
        response = connection.read_response()
        assert response.interim == []
        assert response.json()["REQUEST_METHOD"] == "GET"
        if read:
            connection.request("/seen/last")
            assert connection.read_response().json()["PATH_INFO"] == "/last"
        else:
            assert "close" in response.header("Connection")
            connection.send(SMUGGLED)
            assert connection.at_end()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PROPFIND", "OPTIONS"])
def test_methods_become_get(server, method):
    response = server.get(path("on", "/seen/"), method=method)
    assert response.json()["REQUEST_METHOD"] == "GET"


def test_head(server):
    with server.connect() as connection:
        for _ in range(2):
            connection.request(path("on", "/private/report.txt", body="list"), method="HEAD")
            response = connection.read_response()
            assert response.status == 200
            assert response.header("Content-Length") == str(11 * 1000)
            assert not mine(response)
        connection.request("/seen/last")
        assert connection.read_response().json()["PATH_INFO"] == "/last"


def test_http_1_0(server):
    with server.connect() as connection:
        connection.request(path("on", "/seen/"), version="HTTP/1.0")
        assert connection.read_response().json()["REQUEST_METHOD"] == "GET"
        assert connection.at_end()


@pytest.mark.parametrize("size", [None, 0, 3_000_000])
@pytest.mark.parametrize("read", [{}, {"read": 10}])
def test_http_2(server, size, read):
    if not server.config.http2:
        pytest.skip("mod_http2 does not run under prefork")
    data = None if size is None else b"x" * size
    url = server.url(path("on", "/seen/", body="list", **read))
    response = curl(url, "--http2-prior-knowledge", data=data)
    assert (response.code, response.protocol) == (0, "HTTP/2"), response.error
    assert json.loads(response.body)["REQUEST_METHOD"] == "GET"
    assert json.loads(response.body)["body"] == 0


def test_htaccess(new_httpd):
    with new_httpd() as httpd:
        (httpd.root / "site").mkdir()
        httpd.write("site/app.wsgi", (httpd.apps / "redirect.wsgi").read_text())
        httpd.write("site/.htaccess", f"WSGILocalRedirect {'Off' if httpd.daemon else 'On'}\n")
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.root}/site">
                Require all granted
                AllowOverride FileInfo
            </Directory>
            WSGIScriptAlias /app "{httpd.root}/site/app.wsgi"
            WSGIScriptAlias /seen "{httpd.root}/site/app.wsgi" callable-object=seen
        """)
        httpd.start()
        response = httpd.get(path("app", "/seen/", body="list"))
        assert mine(response) is httpd.daemon
