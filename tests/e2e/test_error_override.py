"""WSGIErrorOverride: httpd's own error pages instead of the application's."""

from __future__ import annotations

import pytest
from harness.config import BOTH
from harness.curl import curl

MODES = BOTH

SCRIPT = """
    import os
    from wsgiref.validate import validator

    closed = []


    class Body:
        def __init__(self, environ, size):
            self.environ = environ
            self.size = size

        def __iter__(self):
            for number in range(self.size):
                yield b"the application's own page" * 1000
            if self.environ["QUERY_STRING"] == "raise":
                raise RuntimeError("while the page is made")

        def close(self):
            closed.append(self.environ["PATH_INFO"])


    def answer(environ, start_response):
        headers = [("Content-Type", "text/plain"), ("X-Own", "yes"), ("Set-Cookie", "a=b")]
        status = environ["PATH_INFO"][1:]
        if status == "closed":
            start_response("200 OK", headers)
            return [repr(closed).encode()]
        if status == "page":
            start_response("200 OK", headers)
            keys = ["REDIRECT_STATUS", "REDIRECT_URL", "REQUEST_METHOD", "REQUEST_URI"]
            told = " ".join(str(environ.get(key)) for key in keys)
            return [b"from the page: " + told.encode()]
        if status == "401":
            headers += [("WWW-Authenticate", "Basic realm=x"), ("WWW-Authenticate", "Digest")]
        if status == "302":
            headers += [("Location", "http://elsewhere.example/")]
        start_response(status + " My Own", headers)
        return Body(environ, 20 if environ["QUERY_STRING"] == "large" else 1)


    application = validator(answer)
    handle_request = application
"""


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(modules=["deflate"], http2=True) as httpd:
        script = httpd.write("site/app.wsgi", SCRIPT)
        httpd.write("site/htaccess.wsgi", SCRIPT)
        httpd.write("htdocs/file.html", "<p>from a file</p>")
        httpd.write("htdocs/access/.htaccess", "WSGIErrorOverride On\n")
        httpd.write("htdocs/access/page.own", "")
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <Directory "{httpd.root}/htdocs/access">
                AllowOverride FileInfo
                SetHandler mine
            </Directory>
            WSGIApplicationGroup %{{GLOBAL}}
            WSGIHandlerScript mine "{script}"
            WSGIScriptAlias /app "{script}"
            WSGIScriptAlias /plain "{script}"
            <Location /app>
                WSGIErrorOverride On
                ErrorDocument 404 "from the configuration"
                ErrorDocument 410 /file.html
                ErrorDocument 409 /app/page
                ErrorDocument 422 /app/404
                ErrorDocument 502 http://elsewhere.example/
            </Location>
            <Location /app/off>
                WSGIErrorOverride Off
            </Location>
        """)
        yield httpd.start()


OWN = b"the application's own page"


@pytest.mark.checklist(148)
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"from the configuration"),
        (410, b"<p>from a file</p>"),
        (400, b"<title>400 Bad Request</title>"),
        (503, b"<title>503 Service Unavailable</title>"),
        (599, b"<title>"),
    ],
)
@pytest.mark.parametrize("query", ["", "?large"])
@pytest.mark.rwsgi("embedded")
def test_replaced(server, status, body, query):
    response = server.request(f"/app/{status}{query}")
    assert response.status == (500 if status == 599 else status)
    assert body in response.body and OWN not in response.body
    assert response.reason != "My Own"
    assert response.header("X-Own") is None


@pytest.mark.checklist(148)
@pytest.mark.parametrize("status", [200, 201, 302, 600, 999])
def test_no_error(server, status):
    """Nothing but error statuses; what is beyond 599 is none to httpd."""
    response = server.request(f"/app/{status}")
    assert response.status == status
    assert response.body.startswith(OWN)
    assert response.header("X-Own") == "yes"


@pytest.mark.checklist(148)
@pytest.mark.parametrize("status", [400, 404, 503])
def test_off(server, status):
    response = server.request(f"/plain/{status}")
    assert (response.status, response.reason) == (status, "My Own")
    assert response.body.startswith(OWN)
    assert response.header("X-Own") == "yes"


@pytest.mark.checklist(140)
@pytest.mark.rwsgi("embedded")
def test_challenges_are_kept(server):
    response = server.request("/app/401")
    assert response.status == 401
    assert response.all("WWW-Authenticate") == ["Basic realm=x", "Digest"]
    assert OWN not in response.body


@pytest.mark.rwsgi("embedded")
def test_application_as_error_page(server):
    """An application says itself with which status it answers, also as an ErrorDocument."""
    response = server.request("/app/409?large", method="POST", body=b"x")
    assert response.status == 200
    assert response.body == b"from the page: 409 /app/409 GET /app/409?large"


@pytest.mark.rwsgi
def test_error_within_the_error_page(server):
    """The page is in error itself: httpd's last resort, no endless loop."""
    response = server.request("/app/422")
    assert response.status == 422
    assert b"trying to use an ErrorDocument" in response.body and OWN not in response.body


@pytest.mark.rwsgi("embedded")
def test_redirect_to_elsewhere(server):
    response = server.request("/app/502")
    assert response.status == 302
    assert response.header("Location") == "http://elsewhere.example/"


def test_head(server):
    response = server.request("/app/404", method="HEAD")
    assert (response.status, response.body) == (404, b"")


def test_the_application_is_closed(server):
    server.request("/app/418")
    server.request("/app/419?large")
    told = server.get("/app/closed").text
    assert "/418" in told and "/419" in told


@pytest.mark.rwsgi("embedded")
def test_failure_while_the_page_is_made(server):
    """What the application was about to say had an error status, which stands."""
    server.expect_log("RWSGI0206: |RWSGI0200: ")
    response = server.request("/app/404?raise")
    assert response.status == 404
    assert response.body == b"from the configuration"


@pytest.mark.rwsgi("embedded")
def test_the_connection_goes_on(server):
    """An unread body and a discarded answer disturb nothing."""
    with server.connect() as connection:
        for size in (0, 10, 100_000):
            connection.request("/app/404", method="POST", body=b"x" * size)
            assert connection.read_response().body == b"from the configuration"
            connection.request("/app/409?large", method="POST", body=b"x" * size)
            assert b"/app/409 GET" in connection.read_response().body
            connection.request("/app/200")
            assert connection.read_response().status == 200


@pytest.mark.rwsgi("embedded")
def test_htaccess(server):
    response = server.request("/access/page.own/404")
    assert response.status == 404 and OWN not in response.body
    response = server.request("/access/page.own/200")
    assert response.body.startswith(OWN)


@pytest.mark.rwsgi("embedded")
def test_http2(server):
    answer = curl(server.url("/app/404?large"), "--http2-prior-knowledge")
    assert (answer.status, answer.body) == (404, b"from the configuration")
    answer = curl(server.url("/app/200?large"), "--http2-prior-knowledge")
    assert answer.status == 200 and len(answer.body) == 20 * 1000 * len(OWN)
