"""The environ dictionary: every key, what must be absent, and how bytes become text."""

from __future__ import annotations

import base64

import pytest
from harness.config import BOTH, GROUP

MODES = BOTH

ABSENT = [
    "PATH",
    "GATEWAY_INTERFACE",
    "PATH_TRANSLATED",
    "SERVER_SIGNATURE",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "LD_LIBRARY_PATH",
    "HTTPS",
]


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["env", "setenvif", "rewrite", "headers", "auth_basic", "alias", "deflate", "dir"]
    with new_httpd(modules=modules, tls=True) as httpd:
        script = httpd.apps / "environ.wsgi"
        (httpd.root / "passwords").write_text("anna:$apr1$x$H6CRc9vSaV8M9Vxfm.yek/\n")
        httpd.add(f"""
            ServerAdmin admin@example.org
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /app {script}
            WSGIScriptAlias /passed {script} pass-authorization=On
            WSGIScriptAlias /unchecked {script} callable-object=unchecked
            WSGIScriptAlias /with-directive {script}
            WSGIScriptAlias /with-cgi {script}
            WSGIScriptAlias /protected {script}
            WSGIScriptAlias /head-on {script}
            WSGIScriptAlias /head-on-unfiltered {script}
            WSGIScriptAlias /head-off {script}
            WSGIScriptAlias /head-deflated {script}
            WSGIScriptAlias /https-variable {script}
            WSGIScriptAlias /error {script}
            SetEnv MY_VARIABLE "some value"
            SetEnv PATH /nowhere
            SetEnvIf User-Agent "^odd (.*)" AGENT=$1
            RewriteEngine On
            RewriteRule ^/app/rewritten - [E=FROM_REWRITE:yes]
            <Location /with-directive>
                WSGIPassAuthorization On
            </Location>
            <Location /with-cgi>
                CGIPassAuth On
            </Location>
            <Location /head-on>
                WSGIMapHEADToGET On
                SetOutputFilter DEFLATE
            </Location>
            <Location /head-on-unfiltered>
                WSGIMapHEADToGET On
            </Location>
            <Location /head-off>
                WSGIMapHEADToGET Off
                SetOutputFilter DEFLATE
            </Location>
            <Location /head-deflated>
                SetOutputFilter DEFLATE
            </Location>
            <Location /https-variable>
                SetEnv HTTPS 1
            </Location>
            ErrorDocument 404 /error/from
            <Location /protected>
                AuthType Basic
                AuthName test
                AuthUserFile "{httpd.root}/passwords"
                Require valid-user
            </Location>
        """)
        yield httpd.start()


def environ(server, target, **options):
    return server.json(target, **options)["values"]


@pytest.mark.checklist(49, 50, 51, 52, 53, 54, 55, 56, 57, 58)
def test_cgi_keys(server):
    env = environ(server, "/app/some/path?a=1&b=%20")
    assert env["REQUEST_METHOD"] == "GET"
    assert env["SCRIPT_NAME"] == "/app"
    assert env["PATH_INFO"] == "/some/path"
    assert env["QUERY_STRING"] == "a=1&b=%20"
    assert env["REQUEST_URI"] == "/app/some/path?a=1&b=%20"
    assert env["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert env["SERVER_NAME"] == "localhost"
    assert env["SERVER_PORT"] == str(server.port)
    assert env["SERVER_ADDR"] == "127.0.0.1"
    assert env["SERVER_ADMIN"] == "admin@example.org"
    assert env["SERVER_SOFTWARE"].startswith("Apache/2.4")
    assert env["REMOTE_ADDR"] == "127.0.0.1"
    assert env["REMOTE_PORT"].isdigit()
    assert env["REQUEST_SCHEME"] == "http"
    assert env["DOCUMENT_ROOT"] == str(server.root / "htdocs")
    assert env["CONTEXT_DOCUMENT_ROOT"] == str(server.root / "htdocs")
    assert env["CONTEXT_PREFIX"] == ""
    assert env["SCRIPT_FILENAME"] == str(server.apps / "environ.wsgi")
    assert env["HTTP_HOST"] == f"localhost:{server.port}"


@pytest.mark.checklist(62, 68, 73)
def test_absent_keys(server):
    env = environ(server, "/app")
    assert [key for key in ABSENT if key in env] == []
    assert "CONTENT_TYPE" not in env and "CONTENT_LENGTH" not in env
    assert "HTTP_CONTENT_TYPE" not in env and "HTTP_CONTENT_LENGTH" not in env
    assert [key for key in env if key.startswith("mod_wsgi.x-")] == []
    assert "REMOTE_USER" not in env and "AUTH_TYPE" not in env


@pytest.mark.checklist(59)
def test_path_info_is_always_present(server):
    env = environ(server, "/app")
    assert (env["SCRIPT_NAME"], env["PATH_INFO"], env["QUERY_STRING"]) == ("/app", "", "")


@pytest.mark.checklist(76)
def test_values_have_the_right_types(server):
    types = server.json("/app/x?y")["types"]
    special = {
        "wsgi.version": "tuple",
        "wsgi.multithread": "bool",
        "wsgi.multiprocess": "bool",
        "wsgi.run_once": "bool",
        "wsgi.input_terminated": "bool",
        "mod_wsgi.version": "tuple",
        "apache.version": "tuple",
        "mod_wsgi.thread_id": "int",
        "mod_wsgi.request_start": "float",
        "mod_wsgi.queue_start": "float",
        "mod_wsgi.daemon_start": "float",
        "mod_wsgi.application_start": "float",
    }
    for key, kind in special.items():
        assert types[key] == kind, key
    rest = {k: t for k, t in types.items() if k not in special and t != "str"}
    # The validator has put its own objects in front of these two.
    assert set(rest) == {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper"}


@pytest.mark.checklist(69)
def test_wsgi_keys(server):
    env = environ(server, "/app")
    assert env["wsgi.version"] == [1, 0]
    assert env["wsgi.url_scheme"] == "http"
    assert env["wsgi.multithread"] is True
    assert env["wsgi.multiprocess"] is False
    assert env["wsgi.run_once"] is False
    assert env["wsgi.input_terminated"] is True


@pytest.mark.checklist(72)
def test_mod_wsgi_keys(server):
    env = environ(server, "/app/x//y")
    assert len(env["mod_wsgi.version"]) == 3
    assert env["mod_wsgi.process_group"] == (GROUP if server.daemon else "")
    assert env["mod_wsgi.application_group"] == f"localhost:{server.port}|/app"
    assert env["mod_wsgi.callable_object"] == "application"
    assert env["mod_wsgi.request_handler"] == "wsgi-script"
    assert env["mod_wsgi.handler_script"] == ""
    assert env["mod_wsgi.script_name"] == "/app"
    assert env["mod_wsgi.path_info"] == "/x/y"
    assert env["mod_wsgi.listener_port"] == str(server.port)
    assert env["mod_wsgi.listener_host"] in ("", "127.0.0.1")
    assert int(env["mod_wsgi.server_pid"]) in server.children()
    assert env["mod_wsgi.thread_id"] >= 1
    if server.daemon:
        stages = ("request_start", "queue_start", "daemon_start", "application_start")
        times = [env[f"mod_wsgi.{stage}"] for stage in stages]
        assert times == sorted(times) and times[0] > 1.6e9
    else:
        assert env["mod_wsgi.queue_start"] == env["mod_wsgi.daemon_start"] == 0.0
        assert 1.6e9 < env["mod_wsgi.request_start"] <= env["mod_wsgi.application_start"]
    assert env["mod_wsgi.application_start"] - env["mod_wsgi.request_start"] < 60
    assert env["apache.version"][:2] == [2, 4]
    assert "apache.request_rec" not in env


def test_one_connection_has_one_id(server):
    with server.connect() as connection:
        connection.request("/app")
        first = connection.read_response().json()["values"]
        connection.request("/app")
        second = connection.read_response().json()["values"]
    assert first["REMOTE_PORT"] == second["REMOTE_PORT"]
    assert first.get("mod_wsgi.connection_id") == second.get("mod_wsgi.connection_id")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_methods(server, method):
    # The validator warns of methods that it does not know.
    assert environ(server, "/unchecked", method=method)["REQUEST_METHOD"] == method


def test_http_1_0_without_host(server):
    env = environ(server, "/app", version="HTTP/1.0", host=None)
    assert env["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in env
    assert env["SERVER_NAME"] == "localhost"


@pytest.mark.checklist(62)
def test_content_headers(server):
    env = environ(
        server, "/app", method="POST", body=b"a=b", headers={"Content-Type": "text/x-test"}
    )
    assert env["CONTENT_TYPE"] == "text/x-test"
    assert env["CONTENT_LENGTH"] == "3"
    assert "HTTP_CONTENT_TYPE" not in env and "HTTP_CONTENT_LENGTH" not in env


@pytest.mark.checklist(60)
def test_percent_decoding(server):
    env = environ(server, "/app/gr%C3%BC%C3%9Fe%20x?q=%C3%BC")
    assert env["PATH_INFO"].encode("latin-1").decode("utf-8") == "/grüße x"
    assert env["QUERY_STRING"] == "q=%C3%BC"
    assert env["REQUEST_URI"] == "/app/gr%C3%BC%C3%9Fe%20x?q=%C3%BC"


@pytest.mark.checklist(61)
def test_slashes_are_collapsed(server):
    env = environ(server, "//app///a//b/?c=//")
    assert env["SCRIPT_NAME"] == "/app"
    assert env["PATH_INFO"] == "/a/b/"
    assert env["REQUEST_URI"] == "//app///a//b/?c=//"
    assert env["QUERY_STRING"] == "c=//"


def test_absolute_form(server):
    env = environ(server, f"http://localhost:{server.port}/app/x?y", host="ignored")
    assert env["PATH_INFO"] == "/x"
    assert env["SCRIPT_NAME"] == "/app"


@pytest.mark.checklist(63, 64)
def test_header_names(server):
    env = environ(
        server,
        "/app",
        headers=[
            ("X-Forwarded-User", "good"),
            ("X_Forwarded_User", "evil"),
            ("X.Dotted", "1"),
            ("X-lower-case", "2"),
            ("X-1-Digit", "3"),
            ("X!Mark", "4"),
            ("Proxy", "http://evil/"),
            ("X-Empty", ""),
            ("User-Agent", "odd thing"),
        ],
    )
    assert env["HTTP_X_FORWARDED_USER"] == "good"
    assert env["HTTP_X_LOWER_CASE"] == "2"
    assert env["HTTP_X_1_DIGIT"] == "3"
    assert env["HTTP_X_EMPTY"] == ""
    assert "HTTP_PROXY" not in env
    assert [k for k in env if "DOTTED" in k.upper() or "MARK" in k.upper()] == []
    assert env["HTTP_USER_AGENT"] == "odd thing"


def test_header_bytes_arrive_as_latin_1(server):
    env = environ(server, "/app", headers={"X-Name": "gr\xfc\xdfe", "X-Utf8": "\xc3\xbc"})
    assert env["HTTP_X_NAME"] == "gr\xfc\xdfe"
    assert env["HTTP_X_UTF8"].encode("latin-1").decode("utf-8") == "ü"


@pytest.mark.checklist(66)
def test_duplicate_headers(server):
    env = environ(
        server,
        "/app",
        headers=[("X-A", "1"), ("Cookie", "a=1"), ("x-a", "2"), ("Cookie", "b=2"), ("X-A", "3")],
    )
    assert env["HTTP_X_A"] == "1, 2, 3"
    assert env["HTTP_COOKIE"] == "a=1, b=2"


def test_many_headers(server):
    headers = [(f"X-Header-{i}", str(i) * 50) for i in range(90)]
    env = environ(server, "/app", headers=headers)
    for i in range(90):
        assert env[f"HTTP_X_HEADER_{i}"] == str(i) * 50


CREDENTIALS = [("Authorization", "Bearer secret"), ("Proxy-Authorization", "Basic proxy")]


@pytest.mark.checklist(65)
def test_authorization_is_hidden(server):
    env = environ(server, "/app", headers=CREDENTIALS)
    assert [k for k in env if "AUTHORIZATION" in k] == []


@pytest.mark.parametrize("mount", ["/passed", "/with-directive"])
@pytest.mark.checklist(65)
def test_authorization_passed(server, mount):
    env = environ(server, mount, headers=CREDENTIALS)
    assert env["HTTP_AUTHORIZATION"] == "Bearer secret"
    assert "HTTP_PROXY_AUTHORIZATION" not in env


@pytest.mark.checklist(65)
def test_authorization_passed_by_httpd(server):
    env = environ(server, "/with-cgi", headers=CREDENTIALS)
    assert env["HTTP_AUTHORIZATION"] == "Bearer secret"
    assert env["HTTP_PROXY_AUTHORIZATION"] == "Basic proxy"


@pytest.mark.checklist(77)
def test_authenticated_user(server):
    credentials = base64.b64encode(b"anna:anna").decode()
    assert server.request("/protected").status == 401
    env = environ(server, "/protected", headers={"Authorization": f"Basic {credentials}"})
    assert env["REMOTE_USER"] == "anna"
    assert env["AUTH_TYPE"] == "Basic"
    assert "HTTP_AUTHORIZATION" not in env


@pytest.mark.checklist(67)
def test_variables_of_the_configuration(server):
    env = environ(server, "/app/rewritten", headers={"User-Agent": "odd one"})
    assert env["MY_VARIABLE"] == "some value"
    assert env["AGENT"] == "one"
    assert env["FROM_REWRITE"] == "yes"
    assert "PATH" not in env


SPOOFED = {
    "REMOTE_ADDR": "127.0.0.1",
    "SCRIPT_NAME": "/app",
    "REQUEST_METHOD": "GET",
    "wsgi.url_scheme": "http",
    "mod_wsgi.application_group": "localhost:{port}|/app",
    "mod_wsgi.callable_object": "application",
    "mod_wsgi.script_name": "/app",
}


@pytest.mark.checklist(73)
def test_variables_that_are_ours(new_httpd):
    """The configuration can add variables, not replace those of the request; some are hidden."""
    with new_httpd(modules=["env"]) as httpd:
        httpd.add("\n".join(f"SetEnv {name} spoofed" for name in SPOOFED))
        httpd.add(f"""
            SetEnv mod_wsgi.x-secret hidden
            SetEnv mod_wsgi.y-plain seen
            SetEnv HTTP_X_ADDED added
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /app {httpd.apps}/environ.wsgi
        """)
        httpd.start()
        env = environ(httpd, "/app")
        for name, value in SPOOFED.items():
            assert env[name] == value.format(port=httpd.port)
        assert env["mod_wsgi.y-plain"] == "seen" and env["HTTP_X_ADDED"] == "added"
        assert [key for key in env if key.startswith("mod_wsgi.x-")] == []


@pytest.mark.checklist(67)
def test_https_variable(server):
    env = environ(server, "/https-variable")
    assert env["wsgi.url_scheme"] == "https"
    assert "HTTPS" not in env


@pytest.mark.checklist(71)
def test_tls(server):
    env = environ(server, "/app", tls=True)
    assert env["wsgi.url_scheme"] == "https"
    assert "HTTPS" not in env
    assert env["REQUEST_SCHEME"] == "https"
    assert env["SERVER_PORT"] == str(server.tls_port)
    assert env["mod_wsgi.application_group"] == f"localhost:{server.tls_port}|/app"
    assert "SSL_PROTOCOL" not in env


@pytest.mark.checklist(71)
def test_tls_variables(new_httpd):
    with new_httpd(tls=True) as httpd:
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
                SSLOptions +StdEnvVars
            </Directory>
            WSGIScriptAlias / {httpd.apps}/environ.wsgi
        """)
        httpd.start()
        env = environ(httpd, "/", tls=True)
        assert env["SSL_PROTOCOL"].startswith("TLSv1")
        assert env["SSL_SERVER_S_DN_CN"] == "localhost"
        assert env["wsgi.url_scheme"] == "https"
        assert not [k for k in environ(httpd, "/") if k.startswith("SSL_")]


@pytest.mark.checklist(79)
def test_redirect_variables(server):
    response = server.request("/does-not-exist?q=1")
    # The application that makes the error page has set its own status.
    assert response.status == 200
    env = response.json()["values"]
    assert env["REDIRECT_STATUS"] == "404"
    assert env["REDIRECT_URL"] == "/does-not-exist"
    assert env["REDIRECT_QUERY_STRING"] == "q=1"
    assert env["REDIRECT_MY_VARIABLE"] == "some value"
    assert env["SCRIPT_NAME"] == "/error"
    assert env["PATH_INFO"] == "/from"
    assert env["REQUEST_URI"] == "/does-not-exist?q=1"


@pytest.mark.parametrize(
    ("mount", "seen"),
    [
        ("/app", "HEAD"),
        ("/head-on", "GET"),
        ("/head-on-unfiltered", "GET"),
        ("/head-off", "HEAD"),
        ("/head-deflated", "GET"),
    ],
)
@pytest.mark.checklist(78)
def test_head_mapped_to_get(server, mount, seen):
    with server.connect() as connection:
        for _ in range(2):
            connection.request(mount, method="HEAD")
            response = connection.read_response()
            assert response.status == 200
            assert response.header("X-Method") == seen
            assert connection.buffer == b""


@pytest.mark.rwsgi
@pytest.mark.checklist(76)
def test_script_filename_beyond_utf_8(new_httpd):
    with new_httpd() as httpd:
        directory = httpd.root / "odd-\udcff"
        directory.mkdir()
        directory.chmod(0o755)
        script = directory / "app.wsgi"
        script.write_bytes((httpd.apps / "environ.wsgi").read_bytes())
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{script}"
        """)
        httpd.start()
        # The file system's decoding: what os.fsencode turns back into the bytes of the name.
        assert environ(httpd, "/")["SCRIPT_FILENAME"] == str(script)


@pytest.mark.modes("embedded")
@pytest.mark.checklist(69)
def test_several_processes(new_httpd):
    with new_httpd(mpm="prefork", threads=2) as httpd:
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / {httpd.apps}/environ.wsgi
        """)
        httpd.start()
        env = environ(httpd, "/a")
        assert env["wsgi.multithread"] is False
        assert env["wsgi.multiprocess"] is True
        assert env["SCRIPT_NAME"] == "" and env["PATH_INFO"] == "/a"
        assert env["mod_wsgi.application_group"] == f"localhost:{httpd.port}|"


@pytest.mark.checklist(72, 74)
def test_log_id(new_httpd):
    """``mod_wsgi.request_id`` is the ``%L`` of the logs, where httpd has made one."""
    # httpd makes an id when it logs something for the request: here mod_authz_core does.
    with new_httpd(log_level="notice authz_core:debug") as httpd:
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            LogFormat "%L %{{c}}L" ids
            CustomLog "{httpd.root}/logs/ids.log" ids
            WSGIScriptAlias / {httpd.apps}/environ.wsgi
        """)
        httpd.start()
        with httpd.connect() as connection:
            found = []
            for _ in range(2):
                connection.request("/")
                values = connection.read_response().json()["values"]
                found.append([values[f"mod_wsgi.{kind}_id"] for kind in ("request", "connection")])
        httpd.stop()
        lines = (httpd.root / "logs" / "ids.log").read_text().splitlines()
        assert [line.split() for line in lines] == found
        (identifier, one), (_, two) = found
        assert one == two and identifier != found[1][0]
        httpd.log.read()
        assert identifier in {line.log_id for line in httpd.log.seen}
