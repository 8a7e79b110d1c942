"""Answers of conforming applications, as the client gets them."""

from __future__ import annotations

import gzip

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["deflate", "mime", "alias"]
    with new_httpd(modules=modules, tls=True, http2=True) as httpd:
        applications(
            httpd,
            raw="response.wsgi",
            checked="response.wsgi:validated",
            unranged="response.wsgi",
        )
        httpd.add("""
            <Location /unranged>
                MaxRanges none
            </Location>
            AddOutputFilterByType DEFLATE text/x-compress
            ErrorDocument 404 "the server's 404"
        """)
        yield httpd.start()


BODIES = {
    "hello": b"Hello, world\n",
    "listing": b"one,two,three",
    "tupled": b"one,two",
    "generator": b"one,two",
    "late-generator": b"late",
    "iterator": b"one,two",
    "empty-list": b"",
    "empty-generator": b"",
    "empty-items": b"",
    "writing": b"one,two,three,four",
    "only-writing": b"written",
    "writing-with-length": b"onetwo",
    "replaced": b"replaced",
}
mounts = pytest.mark.parametrize("mount", ["raw", "checked"])


def validator_is_content(server):
    """The validator complains on standard error when an iterable was not closed."""
    server.get("/raw/collect")


@mounts
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.checklist(110, 131)
def test_bodies(server, mount, name):
    if (mount, name) == ("checked", "late-generator"):
        pytest.skip("the validator demands start_response before iteration")
    with server.connect() as connection:
        for _ in range(2):
            connection.request(f"/{mount}/{name}")
            assert connection.read_response().body == BODIES[name]
    validator_is_content(server)


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.checklist(138)
def test_bodies_http_1_0(server, name):
    with server.connect() as connection:
        connection.request(f"/raw/{name}", version="HTTP/1.0")
        response = connection.read_response()
        assert response.body == BODIES[name]
        assert response.header("Transfer-Encoding") is None
        assert connection.at_end()


def test_http_1_0_keep_alive(server):
    with server.connect() as connection:
        for _ in range(3):
            connection.request(
                "/raw/hello", version="HTTP/1.0", headers={"Connection": "keep-alive"}
            )
            response = connection.read_response()
            assert response.header("Content-Length") == "13"
            assert response.body == BODIES["hello"]


@pytest.mark.parametrize("options", [["--http2-prior-knowledge"], ["--http2"]])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("name", BODIES)
@pytest.mark.checklist(156)
def test_bodies_http_2(server, options, tls, name):
    if tls:
        options = ["--http2"]
    response = curl(server.url(f"/raw/{name}", tls=tls), *options)
    assert (response.code, response.error) == (0, "")
    assert response.protocol == "HTTP/2"
    assert response.body == BODIES[name]


@pytest.mark.rwsgi
@pytest.mark.parametrize("name", ["listing", "tupled", "empty-list", "empty-items"])
def test_length_of_a_list_is_known(server, name):
    """What is there as a whole goes out as a whole, with its length."""
    response = server.get(f"/raw/{name}")
    assert response.header("Content-Length") == str(len(BODIES[name]))
    assert response.header("Transfer-Encoding") is None


@pytest.mark.parametrize("name", ["generator", "iterator", "writing", "only-writing"])
@pytest.mark.checklist(138)
def test_unknown_length_is_chunked(server, name):
    response = server.get(f"/raw/{name}")
    assert response.header("Transfer-Encoding") == "chunked"
    assert response.header("Content-Length") is None


@pytest.mark.parametrize("piece", [1000, 8000, 100_000, 3_000_000])
@pytest.mark.parametrize("how", ["list=1&length=1", "list=1", "length=1", ""])
@pytest.mark.checklist(131, 136)
def test_large_bodies(server, piece, how):
    size = 2_500_001
    expected = b"".join(
        bytes([65 + i % 26]) * min(piece, size - at) for i, at in enumerate(range(0, size, piece))
    )
    target = f"/raw/large?size={size}&piece={piece}&{how}"
    assert server.get(target).body == expected
    assert curl(server.url(target), "--http2-prior-knowledge").body == expected
    assert server.get(target, tls=True).body == expected


# Status and header fields


@pytest.mark.checklist(139)
def test_header_fields(server):
    response = server.get("/checked/headers")
    assert response.header("Content-Type") == "text/html; charset=UTF-8"
    assert response.all("Set-Cookie") == [
        "a=1; Path=/",
        "b=2; Expires=Thu, 01 Jan 2032 00:00:00 GMT",
    ]
    assert ", ".join(response.all("X-Twice")) == "1, 2"
    assert response.header("X-Latin") == "gr\xfc\xdfe"
    assert response.header("X-Empty") == ""
    assert response.header("X-Lower") == "3"
    assert response.header("Last-Modified") == "Thu, 01 Jan 2004 00:00:00 GMT"
    assert response.header("ETag") == '"tag"'
    assert response.header("Cache-Control") == "no-cache, private"
    assert response.header("Link") == "</style.css>; rel=preload"
    assert len(response.all("Date")) == 1 and len(response.all("Server")) == 1


@pytest.mark.checklist(141)
def test_many_and_long_header_fields(server):
    response = server.get("/raw/many-headers")
    assert response.header("X-Long") == "x" * 30000
    for i in range(100):
        assert response.header(f"X-Header-{i}") == f"value {i}"


@pytest.mark.rwsgi("daemon")
@pytest.mark.checklist(141)
@pytest.mark.parametrize("size", [31_000, 33_000, 500_000])
def test_a_header_field_longer_than_mod_wsgi_allows(server, size):
    """Heads have lengths in daemon mode: header-buffer-size has nothing to enlarge."""
    assert server.get(f"/raw/long-header?size={size}").header("X-Long") == "x" * size


@pytest.mark.rwsgi
@pytest.mark.checklist(141)
def test_a_head_beyond_the_limit(server):
    """Process groups have one, so that no application fills the memory of httpd."""
    size = 1 << 20
    if server.daemon:
        server.expect_log("RWSGI0458: ")
        response = server.request(f"/raw/long-header?size={size}")
        assert (response.status, response.header("X-Long")) == (500, None)
        assert server.get("/raw/hello").body == b"Hello, world\n"
    else:
        assert server.get(f"/raw/long-header?size={size}").header("X-Long") == "x" * size


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("200", 200, "OK"),
        ("200%20", 200, None),
        ("201%20Created", 201, "Created"),
        ("200%20All%20is%20well", 200, "All is well"),
        ("404%20Nowhere", 404, "Nowhere"),
        ("299%20Odd", 299, "Odd"),
        ("418%20I'm%20a%20teapot", 418, "I'm a teapot"),
        ("500%20My%20own%20failure", 500, "My own failure"),
        ("503%20Later", 503, "Later"),
        ("200%20gr%C3%BC%C3%9Fe", 200, "gr\xfc\xdfe"),
    ],
)
@pytest.mark.checklist(122, 150)
def test_status_lines(server, line, status, reason):
    response = server.request(f"/raw/status?line={line}")
    assert response.status == status
    assert reason is None or response.reason == reason
    assert response.body == b"status"


def test_own_error_pages_are_kept(server):
    response = server.request("/checked/not-found")
    assert (response.status, response.body) == (404, b"my own 404")


@pytest.mark.checklist(140)
def test_authentication_challenge(server):
    response = server.request("/checked/unauthorized")
    assert response.status == 401
    challenges = ", ".join(response.all("WWW-Authenticate"))
    assert challenges == 'Basic realm="a", Bearer'


def test_redirect(server):
    response = server.request("/checked/redirect")
    assert response.status == 302
    assert response.header("Location").endswith("/elsewhere?x=1")
    assert response.header("Content-Length") == "0"


@pytest.mark.modes("embedded")
def test_location_with_200_is_no_internal_redirect(server):
    """Unless WSGILocalRedirect says so; test_local_redirect.py has the rest."""
    response = server.get("/raw/location-200")
    assert response.body == b"mine"
    assert response.header("Location") == "/raw/hello"


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"tag"'},
        {"If-Modified-Since": "Thu, 01 Jan 2032 00:00:00 GMT"},
        {"If-Match": '"other"'},
        {"If-Unmodified-Since": "Thu, 01 Jan 1998 00:00:00 GMT"},
    ],
)
def test_conditions_are_the_business_of_the_application(server, headers):
    assert server.get("/raw/headers", headers=headers).body == b"headers"


@pytest.mark.rwsgi
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("name", "part"), [("hello", b"lo, wo"), ("listing", b",two,t")])
def test_parts_of_what_is_there_as_a_whole(server, method, name, part):
    """httpd's own filter, as for files; ``MaxRanges none`` switches it off, as for files."""
    headers = {"Range": "bytes=3-8"}
    with server.connect() as connection:
        connection.request(f"/raw/{name}", method, headers)
        response = connection.read_response()
        assert response.status == 206
        assert response.header("Content-Range") == f"bytes 3-8/{len(BODIES[name])}"
        assert response.body == (part if method == "GET" else b"")
        connection.request(f"/raw/{name}", method, {**headers, "If-Range": '"other"'})
        assert connection.read_response().status == 200
        connection.request(f"/unranged/{name}", method, headers)
        assert connection.read_response().status == 200
        connection.request(f"/raw/{name}", method, {"Range": "bytes=100-"})
        assert connection.read_response().status == 416
        connection.request("/raw/hello")
        assert connection.read_response().body == BODIES["hello"]


def test_no_parts_of_a_stream(server):
    response = server.get("/raw/generator", headers={"Range": "bytes=1-2"})
    assert response.body == BODIES["generator"]


@pytest.mark.rwsgi("daemon")
def test_status_header_is_no_status(server):
    assert server.get("/raw/status-header").body == b"mine"


@pytest.mark.checklist(116)
def test_replaced_head(server):
    response = server.request("/checked/replaced")
    assert (response.status, response.reason) == (409, "Replaced")
    assert response.header("X-New") == "1" and response.header("X-Old") is None


@pytest.mark.checklist(151)
def test_output_filter(server):
    response = server.get("/raw/compressible", headers={"Accept-Encoding": "gzip"})
    assert response.header("Content-Encoding") == "gzip"
    assert gzip.decompress(response.body) == b"x" * 10000
    plain = server.get("/raw/compressible")
    assert plain.header("Content-Encoding") is None
    assert plain.header("Content-Length") == "10000"


# No body


@mounts
@pytest.mark.parametrize("name", ["hello", "listing", "generator", "empty-list", "writing"])
@pytest.mark.checklist(142)
def test_head(server, mount, name):
    with server.connect() as connection:
        for _ in range(2):
            connection.request(f"/{mount}/{name}", method="HEAD")
            response = connection.read_response()
            assert response.status == 200
            assert response.header("Content-Type") == "text/plain"
        connection.request("/raw/hello")
        assert connection.read_response().body == BODIES["hello"]
    validator_is_content(server)


@pytest.mark.checklist(142)
def test_head_keeps_the_length(server):
    with server.connect() as connection:
        for mount in ("raw", "checked"):
            connection.request(f"/{mount}/head-with-length", method="HEAD")
            assert connection.read_response().header("Content-Length") == "12345"
        connection.request("/raw/head-with-length")
        assert len(connection.read_response().body) == 12345


@mounts
@pytest.mark.parametrize("line", ["204%20No%20Content", "304%20Not%20Modified"])
@pytest.mark.checklist(142)
def test_statuses_without_body(server, mount, line):
    with server.connect() as connection:
        for _ in range(2):
            connection.request(f"/{mount}/bodiless?line={line}")
            response = connection.read_response()
            assert response.status == int(line[:3])
            assert response.header("X-Bodiless") == "1"
            assert response.header("Transfer-Encoding") is None
            assert response.header("Content-Length") in (None, "0")
        connection.request("/raw/hello")
        assert connection.read_response().body == BODIES["hello"]
    validator_is_content(server)


# close()


def closed(server, name, method="GET", target="closing", mount="raw"):
    """How often close() was called by the time of the next request's answer."""
    file = server.root / "data" / name
    file.unlink(missing_ok=True)
    with server.connect() as connection:
        connection.request(f"/{mount}/{target}?file={file}", method=method)
        connection.read_response()
        connection.request("/raw/hello")
        connection.read_response()
    return file.read_text().split().count("closed")


@mounts
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.checklist(143)
def test_close_is_called_once(server, mount, method):
    assert closed(server, "close", method, mount=mount) == 1
    assert closed(server, "close", method, "closing-without-body", mount) == 1
    validator_is_content(server)
