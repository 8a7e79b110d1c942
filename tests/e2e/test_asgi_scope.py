"""What an ASGI application learns of a request: every key of the scope, over HTTP/1.0, 1.1 and 2,
of HTTP requests and of WebSockets."""

from __future__ import annotations

import base64
import json

import pytest
from harness.config import BOTH
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH

MOUNTS = ["scope", "deep/er", "hidden", "basic", "proxied"]


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(tls=True, http2=True, modules=["auth_basic"]) as httpd:
        script = httpd.apps / "asgi_scope.py"
        asgi_applications(httpd, **dict.fromkeys(MOUNTS, "asgi_scope.py"))
        users = httpd.write("run/users", "user:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
        httpd.add(f"""
            ASGIScriptAlias /plain "{script}" pass-authorization=Off
            H2WebSockets On
            <Location /hidden>
                WSGIPassAuthorization Off
            </Location>
            <Location /basic>
                AuthType Basic
                AuthName "test"
                AuthBasicProvider file
                AuthUserFile "{users}"
                Require valid-user
            </Location>
            WSGITrustedProxies 127.0.0.1
            <Location /proxied>
                WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host
            </Location>
        """)
        yield httpd.start()


def scope_of(server, target, **options):
    return server.json(target, **options)["scope"]


def fields(scope, name):
    return [value for field, value in scope["headers"] if field == name]


def test_types(server):
    """The types of the specification; header names and values are bytes."""
    told = server.json("/scope/a?b=c")
    types = told["types"]
    assert told["header_types"] == ["bytes"]
    assert types["type"] == types["http_version"] == types["method"] == types["scheme"] == "str"
    assert types["path"] == types["root_path"] == "str"
    assert types["raw_path"] == types["query_string"] == "bytes"
    assert types["asgi"] == types["extensions"] == "dict"
    assert told["scope"]["type"] == "http"
    assert told["scope"]["asgi"] == {"version": "3.0", "spec_version": "2.4"}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("tls", [False, True])
def test_addresses(server, version, tls):
    with server.connect(tls) as connection:
        connection.request("/scope", version=f"HTTP/{version}")
        scope = connection.read_response().json()["scope"]
        assert scope["http_version"] == version
        assert scope["scheme"] == ("https" if tls else "http")
        assert scope["client"] == list(connection.socket.getsockname())
        assert scope["server"] == list(connection.socket.getpeername())
        assert scope["method"] == "GET"


@pytest.mark.parametrize("tls", [False, True])
def test_http_2(server, tls):
    with server.http2(tls) as connection:
        headers = {"X-Name": "value", "cookie": "a=1"}
        headers = {name.lower(): value for name, value in headers.items()}
        response = connection.request("/scope/p%20q?r", headers=headers)
        scope = json.loads(response.body)["scope"]
        assert scope["http_version"] == "2"
        assert scope["scheme"] == ("https" if tls else "http")
        assert scope["client"] == list(connection.socket.getsockname())
        assert scope["server"] == list(connection.socket.getpeername())
        assert (scope["path"], scope["raw_path"]) == ("/scope/p q", "/scope/p%20q")
        assert scope["query_string"] == "r"
        assert fields(scope, "host") == [connection.authority]
        assert fields(scope, "x-name") == ["value"]
        assert fields(scope, "cookie") == ["a=1"]
        assert not [name for name, _ in scope["headers"] if name.startswith(":")]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND", "QUERY"])
def test_methods(server, method):
    assert scope_of(server, "/scope", method=method)["method"] == method


@pytest.mark.parametrize(
    ("target", "root", "path", "query"),
    [
        ("/scope", "/scope", "/scope", ""),
        ("/scope/", "/scope", "/scope/", ""),
        ("/scope/a/b?c=d&e=%20f", "/scope", "/scope/a/b", "c=d&e=%20f"),
        ("/scope/a%20b/%C3%A9", "/scope", "/scope/a b/é", ""),
        ("/scope/%3F?x?y", "/scope", "/scope/?", "x?y"),
        ("/deep/er/x", "/deep/er", "/deep/er/x", ""),
        ("/s%63ope/x", "/scope", "/scope/x", ""),
    ],
)
def test_paths(server, target, root, path, query):
    """``path`` includes ``root_path``, decoded; ``raw_path`` is as it was sent, without query."""
    scope = scope_of(server, target)
    assert scope["root_path"] == root
    assert scope["path"] == path
    assert scope["raw_path"] == target.partition("?")[0]
    assert scope["query_string"] == query


def test_at_the_root(new_httpd):
    with new_httpd() as httpd:
        asgi_applications(httpd, **{"": "asgi_scope.py"})
        httpd.start()
        for target in ("/", "/a/b"):
            scope = scope_of(httpd, target)
            assert (scope["root_path"], scope["path"]) == ("", target)


def test_path_that_is_no_utf_8(server):
    """Such a path cannot be text; whatever it becomes, the server answers and raw_path is right."""
    scope = scope_of(server, "/scope/%ff")
    assert scope["raw_path"] == "/scope/%ff"
    assert scope["path"].startswith("/scope/")


def test_headers(server):
    sent = [
        ("X-Mixed-Case", "Value With Case"),
        ("Accept", "text/html"),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
        ("X-Latin", "é"),
        ("X-Empty", ""),
        ("Cookie", "a=1; b=2"),
        ("Content-Type", "text/x"),
    ]
    scope = scope_of(server, "/scope", method="POST", headers=sent, body=b"abc")
    assert fields(scope, "x-mixed-case") == ["Value With Case"]
    assert fields(scope, "accept") == ["text/html"]
    assert ", ".join(fields(scope, "x-twice")) == "1, 2"
    assert fields(scope, "x-latin") == ["é"]
    assert fields(scope, "x-empty") == [""]
    assert fields(scope, "cookie") == ["a=1; b=2"]
    assert fields(scope, "content-type") == ["text/x"]
    assert fields(scope, "content-length") == ["3"]
    assert fields(scope, "host") == [f"localhost:{server.port}"]
    assert all(name == name.lower() for name, _ in scope["headers"])


def test_headers_that_are_dropped(server):
    """``Proxy``, and names that could pass for others."""
    sent = {"Proxy": "http://evil", "X_Under": "1", "X.Dot": "2", "X-Good": "3"}
    names = {name for name, _ in scope_of(server, "/scope", headers=sent)["headers"]}
    assert names == {"host", "x-good"}


SECRET = "Basic " + base64.b64encode(b"user:secret").decode()


@pytest.mark.parametrize(
    ("mount", "value", "seen"),
    [
        # The default, other than for WSGI.
        ("/scope", "Bearer token", True),
        ("/scope", SECRET, True),
        ("/hidden", "Bearer token", False),
        ("/plain", "Bearer token", False),
        # httpd has looked at it itself.
        ("/basic", SECRET, False),
    ],
)
def test_authorization(server, mount, value, seen):
    scope = scope_of(server, mount, headers={"Authorization": value})
    assert fields(scope, "authorization") == [value] * seen


def test_trusted_proxy(server):
    sent = {
        "X-Forwarded-For": "198.51.100.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "public.example",
    }
    scope = scope_of(server, "/proxied", headers=sent)
    assert scope["scheme"] == "https"
    assert scope["client"][0] == "198.51.100.7"
    assert fields(scope, "host") == ["public.example"]
    # Elsewhere nobody is trusted.
    scope = scope_of(server, "/scope", headers=sent)
    assert scope["scheme"] == "http"
    assert scope["client"][0] == "127.0.0.1"
    with server.websocket("/proxied", sent) as socket:
        scope = json.loads(socket.message())["scope"]
        assert scope["scheme"] == "wss"
        assert scope["client"][0] == "198.51.100.7"


def test_extensions(server):
    scope = scope_of(server, "/scope")
    assert {"http.response.pathsend", "http.response.early_hint"} <= set(scope["extensions"])
    # The application gets dictionaries of its own.
    assert all(isinstance(value, dict) for value in scope["extensions"].values())


def test_tls_extension(new_httpd):
    """Where mod_ssl is told to say something, it is in the scope."""
    with new_httpd(tls=True) as httpd:
        asgi_applications(httpd, scope="asgi_scope.py")
        httpd.add("<Location />\nSSLOptions +StdEnvVars\n</Location>").start()
        tls = scope_of(httpd, "/scope", tls=True)["extensions"]["tls"]
        assert tls["tls_version"] in (0x0303, 0x0304)
        assert "tls" not in scope_of(httpd, "/scope")["extensions"]


def test_websocket(server):
    sent = {"Sec-WebSocket-Protocol": "chat, superchat", "Origin": "http://x", "X-Name": "value"}
    with server.websocket("/scope/room%201?key=1", sent) as socket:
        told = json.loads(socket.message())
        scope = told["scope"]
        assert scope["type"] == "websocket"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
        assert scope["http_version"] == "1.1"
        assert scope["scheme"] == "ws"
        assert scope["subprotocols"] == ["chat", "superchat"]
        assert "method" not in scope
        assert (scope["root_path"], scope["path"]) == ("/scope", "/scope/room 1")
        assert (scope["raw_path"], scope["query_string"]) == ("/scope/room%201", "key=1")
        assert scope["client"] == list(socket.connection.socket.getsockname())
        assert scope["server"] == list(socket.connection.socket.getpeername())
        assert fields(scope, "origin") == ["http://x"]
        assert fields(scope, "x-name") == ["value"]
        assert "websocket.http.response" in scope["extensions"]
        assert "http.response.pathsend" not in scope["extensions"]
        assert told["types"]["raw_path"] == told["types"]["query_string"] == "bytes"
        assert socket.closed() == (1000, "")


def test_websocket_without_subprotocols(server):
    with server.websocket("/scope", tls=True) as socket:
        scope = json.loads(socket.message())["scope"]
        assert scope["scheme"] == "wss"
        assert scope["subprotocols"] == []


@pytest.mark.parametrize("tls", [False, True])
def test_websocket_over_http_2(server, tls):
    with server.http2(tls) as connection:
        socket = connection.websocket("/scope/x", {"sec-websocket-protocol": "chat"})
        scope = json.loads(socket.message())["scope"]
        assert scope["type"] == "websocket"
        assert scope["http_version"] == "2"
        assert scope["scheme"] == ("wss" if tls else "ws")
        assert scope["path"] == "/scope/x"
        assert scope["subprotocols"] == ["chat"]
