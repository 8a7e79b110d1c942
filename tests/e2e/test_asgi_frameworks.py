"""FastAPI, Starlette, Litestar, Quart and Django: each its own way of life behind httpd, over
HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import pytest
from harness import paths
from harness.asgi import ANY
from harness.config import BOTH
from harness.websocket_client import Client
from test_django import PASSWORD, PROJECT, install

pytestmark = [
    pytest.mark.rwsgi,
    pytest.mark.skipif(not paths.same_python(), reason="the packages are of another Python"),
]
MODES = BOTH

FASTAPI = paths.REPOSITORY / "tests" / "fastapi_site"
TRACEBACK = r'^Traceback \(most recent call last\):$|^  +(File "|\S)|^\w+(\.\w+)*Error: |^$|^During'


@pytest.fixture(scope="module")
def site(new_httpd):
    """All of them in one interpreter but for Django, whose settings are the process's."""
    with new_httpd(threads=10, tls=True, http2=True) as server:
        shutil.copytree(FASTAPI, server.root / "fastapi")
        server.add(f"""
            WSGIPythonPath "{paths.site_packages()}"
            WSGIApplicationGroup %{{GLOBAL}}
            H2WebSockets On
            ASGIScriptAlias /fastapi "{server.root}/fastapi/main.py"
            ASGIScriptAlias /starlette "{server.apps}/starlette_app.py"
            ASGIScriptAlias /litestar "{server.apps}/litestar_app.py"
            ASGIScriptAlias /quart "{server.apps}/quart_app.py"
            <Directory "{server.root}">
                Require all granted
            </Directory>
        """)
        yield server.start()


class User:
    """Asks over one version of HTTP, and keeps cookies."""

    def __init__(self, server, version):
        self.server = server
        self.version = version
        self.cookies: dict[str, str] = {}

    def ask(self, path, method="GET", headers=(), body=None):
        """Status, header fields (names in lower case), body."""
        fields = {**dict(headers)}
        if self.cookies:
            fields["cookie"] = "; ".join(f"{n}={v}" for n, v in self.cookies.items())
        if self.version == "2":
            with self.server.http2(tls=True) as connection:
                response = connection.request(path, body, method=method, headers=fields)
                answer = response.status, dict(response.headers), response.body
                set_cookies = [value for name, value in response.headers if name == "set-cookie"]
        else:
            response = self.server.request(path, method=method, headers=fields, body=body)
            answer = (
                response.status,
                {name.lower(): value for name, value in response.headers},
                response.body,
            )
            set_cookies = response.all("Set-Cookie")
        for field in set_cookies:
            for name, morsel in SimpleCookie(field).items():
                self.cookies[name] = morsel.value
        return answer

    def json(self, path, value=None, status=200):
        """JSON in, JSON out."""
        if value is None:
            got = self.ask(path)
        else:
            kind = {"content-type": "application/json"}
            got = self.ask(path, "POST", kind, json.dumps(value).encode())
        assert got[0] == status, got
        return json.loads(got[2])

    def upload(self, path, fields, file):
        """A form with a file, of the field ``file``."""
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = "".join(parts).encode() + file + f"\r\n--{boundary}--\r\n".encode()
        kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
        return self.ask(path, "POST", kind, body)

    def websocket(self, path, headers=()):
        """A WebSocket of the same version, frame by frame."""
        if self.version == "2":
            return self.server.http2(tls=True).websocket(path, headers)
        return self.server.websocket(path, headers)


@pytest.fixture(params=["1.1", "2"])
def user(site, request):
    return User(site, request.param)


# FastAPI


def test_fastapi(user):
    title = f"note {uuid.uuid4()}"
    number = user.json("/fastapi/notes", {"title": title}, status=201)["number"]
    assert user.json(f"/fastapi/notes/{number}") == {"title": title, "text": None}
    assert user.json("/fastapi/notes")[str(number)]["title"] == title
    assert user.json("/fastapi/notes/99999", status=404) == {"detail": "no such note"}
    problem = user.json("/fastapi/notes", {"title": ""}, status=422)
    assert problem["detail"][0]["loc"] == ["body", "title"]


def test_fastapi_has_its_docs(user):
    """They name the mount point, of which FastAPI is told by the server."""
    status, headers, body = user.ask("/fastapi/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"'/fastapi/openapi.json'" in body.replace(b'"', b"'")
    schema = user.json("/fastapi/openapi.json")
    assert schema["openapi"].startswith("3.")
    assert "/notes/{number}" in schema["paths"]
    assert schema["servers"] == [{"url": "/fastapi"}]


def test_fastapi_knows_the_server(user):
    told = user.json("/fastapi/server")
    assert told["http_version"] == user.version
    assert told["scheme"] == ("https" if user.version == "2" else "http")
    assert told["root_path"] == "/fastapi"
    assert re.fullmatch(r"https?://localhost:\d+/fastapi/server", told["url"])


def test_fastapi_threads_and_waits(user):
    assert user.json("/fastapi/slow?seconds=0.05")["waited"] == 0.05
    assert "worker" in user.json("/fastapi/blocking?seconds=0.01")["thread"].lower()


def test_fastapi_file(user):
    status, headers, body = user.ask("/fastapi/source")
    assert (status, body) == (200, (FASTAPI / "main.py").read_bytes())
    assert headers["content-type"].startswith("text/x-python")


def test_fastapi_events(user):
    status, headers, body = user.ask("/fastapi/events?count=2")
    assert headers["content-type"].startswith("text/event-stream")
    assert re.fullmatch(rb"retry: 1000\ndata: \d+\n\ndata: \d+\n\n", body)


def test_fastapi_chat(user):
    with user.websocket("/fastapi/chat?name=me") as socket:
        while socket.message() != "me has come":
            pass
        socket.text("hello")
        assert socket.message() == "me: hello"


def test_fastapi_exception(site, user):
    site.expect_log(ANY)
    site.allow_log(TRACEBACK)
    assert user.ask("/fastapi/broken")[0] == 500


# Starlette


def test_starlette(user):
    assert user.json("/starlette/") == {"hello": "world"}
    assert user.json("/starlette/state/ada") == {"database": "connected", "user": "ada"}
    status, headers, body = user.ask("/starlette/stream")
    assert headers["x-stamp"] == "GET"
    assert body == b"".join(b"line %d\n" % i for i in range(100))
    status, headers, _ = user.ask("/starlette/redirect")
    assert status == 307
    assert headers["location"].endswith("/starlette/")


def test_starlette_files(user):
    source = (paths.APPS / "starlette_app.py").read_bytes()
    status, headers, body = user.ask("/starlette/source")
    assert (status, body) == (200, source)
    status, headers, body = user.ask("/starlette/static/starlette_app.py")
    assert (status, body) == (200, source)
    status, _, body = user.ask("/starlette/source", headers={"if-none-match": headers["etag"]})
    status, _, body = user.ask(
        "/starlette/static/starlette_app.py", headers={"if-none-match": headers["etag"]}
    )
    assert (status, body) == (304, b"")
    status, _, body = user.ask("/starlette/source", headers={"range": "bytes=3-10"})
    assert (status, body) == (206, source[3:11])


def test_starlette_upload(user):
    content = bytes(range(256)) * 8000
    status, _, body = user.upload("/starlette/upload", {"t": "Grüße"}, content)
    assert json.loads(body) == {"name": "a.bin", "size": len(content), "text": "Grüße"}


def test_starlette_background(site, user):
    before = len(user.json("/starlette/done"))
    assert user.ask("/starlette/background")[2] == b"sent"
    site.wait_until(lambda: len(user.json("/starlette/done")) == before + 1)


def test_starlette_websocket(site, user):
    with user.websocket("/starlette/echo", {"sec-websocket-protocol": "echo"}) as socket:
        socket.text('{"a": 1}')
        assert json.loads(socket.message()) == {"you said": {"a": 1}}
    with Client(site.url("/starlette/echo", tls=True), subprotocols=["echo"]) as client:
        assert client.client.subprotocol == "echo"


def test_starlette_exception(site, user):
    site.expect_log(ANY)
    site.allow_log(TRACEBACK)
    assert user.ask("/starlette/broken")[0] == 500


# Litestar


def test_litestar(user):
    assert user.ask("/litestar/")[2] == b"Hello, world!"
    assert user.json("/litestar/books/7") == {"book_id": 7, "started": True}
    assert user.json("/litestar/books/101", status=404)["detail"] == "no such book"
    item = {"name": "tea", "price": 2.5}
    assert user.json("/litestar/items", item, status=201) == {"name": "TEA", "price": 5.0}
    assert user.json("/litestar/items", {"name": "tea"}, status=400)["status_code"] == 400
    assert user.json("/litestar/sync") == {"in a thread": True}


def test_litestar_streams(user):
    assert user.ask("/litestar/stream")[2] == b"0\n1\n2\n3\n4\n"
    _, headers, body = user.ask("/litestar/events")
    assert headers["content-type"].startswith("text/event-stream")
    assert body.replace(b"\r\n", b"\n") == b"data: one\n\ndata: two\n\n"


def test_litestar_websocket(user):
    scheme = "wss" if user.version == "2" else "ws"
    with user.websocket("/litestar/greet") as socket:
        for name in ("ada", "grace"):
            socket.text(json.dumps({"name": name}))
            assert json.loads(socket.message()) == {"hello": name, "scheme": scheme}


# Quart


def test_quart(user):
    status, headers, body = user.ask("/quart/")
    assert (status, body) == (200, b"<h1>Hello &lt;world&gt;</h1>")
    assert user.json("/quart/api/echo", {"a": [1]}) == {"input": {"a": [1]}, "begun": True}
    assert [user.ask("/quart/visits")[2] for _ in range(3)] == [b"1", b"2", b"3"]
    status, _, body = user.upload("/quart/form", {"title": "T"}, b"x" * 100_000)
    assert json.loads(body) == {"title": "T", "size": 100_000}


def test_quart_events(user):
    """It sends Transfer-Encoding, as its documentation says one should."""
    status, headers, body = user.ask("/quart/events")
    assert (status, body) == (200, b"data: 0\r\n\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n")


def test_quart_background(site, user):
    assert user.ask("/quart/work")[2] == b"begun"
    site.wait_until(lambda: user.ask("/quart/worked")[2] == b"True")


def test_quart_websocket(user):
    with user.websocket("/quart/ws") as socket:
        socket.text("hello")
        assert socket.message() == "echo hello"


def test_quart_exception(site, user):
    site.allow_log(f"{ANY}|Exception on request|{TRACEBACK}")
    assert user.ask("/quart/broken")[0] == 500


# Django


@pytest.fixture(scope="module")
def django(new_httpd):
    with new_httpd(threads=8, tls=True, http2=True, modules=["alias", "mime"]) as server:
        install(server)
        text = server.config.added[-1]
        server.config.added[-1] = text.replace("WSGIScriptAlias", "ASGIScriptAlias").replace(
            "config/wsgi.py", "config/asgi.py"
        )
        yield server.start()


@pytest.fixture(params=["1.1", "2"])
def visitor(django, request):
    return User(django, request.param)


def form(visitor, path, page, fields, host):
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1].decode()
    body = urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
    kind = {"content-type": "application/x-www-form-urlencoded", "referer": f"{host}{path}"}
    return visitor.ask(path, "POST", kind, body)


def test_django(django, visitor):
    status, headers, body = visitor.ask("/")
    assert status == 200
    assert "Who serves the style sheet?" in body.decode()
    style = re.search(r'href="(/static/[^"]+\.css)"', body.decode())[1]
    content = (PROJECT / "notes/static/notes/style.css").read_bytes()
    assert visitor.ask(style)[2] == content
    assert visitor.ask("/nothing/here/")[0] == 404


def test_django_admin(django, visitor):
    tls = visitor.version == "2"
    host = f"{'https' if tls else 'http'}://localhost:{django.tls_port if tls else django.port}"
    path = "/admin/login/?next=/admin/"
    page = visitor.ask(path)[2]
    fields = {"username": "admin", "password": PASSWORD, "next": "/admin/"}
    status, headers, _ = form(visitor, path, page, fields, host)
    assert (status, headers["location"]) == (302, "/admin/")
    assert b"Site administration" in visitor.ask("/admin/")[2]
    assert "sessionid" in visitor.cookies


def test_django_streams(django, visitor):
    """An ordinary generator, which Django runs in a thread for ASGI, and warns of."""
    django.allow_log("StreamingHttpResponse must|async for part")
    status, headers, body = visitor.ask("/export.csv")
    assert status == 200
    assert body.decode().splitlines()[0] == "created,author,title,text"


def test_django_exception(django, visitor):
    django.expect_log(r"Internal Server Error: /broken/")
    django.expect_log(r"RuntimeError: this view is broken on purpose")
    django.allow_log(TRACEBACK)
    status, _, body = visitor.ask("/broken/")
    assert status == 500
    assert "Something went wrong." in body.decode()
