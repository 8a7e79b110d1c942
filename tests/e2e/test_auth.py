"""Scripts for access, users and groups: what their functions get, what they may return, and what
becomes of the request."""

from __future__ import annotations

import base64
import json

import pytest
from harness.config import BOTH
from harness.curl import curl

MODES = BOTH
ours = pytest.mark.rwsgi

#: What httpd logs about a user who is not let in.
MISMATCH = r"AH01617: user .* authentication failure"
UNKNOWN = r"AH01618: user .* not found"
UNAUTHORIZED = r"AH01631: user .*: authorization failure"


def basic(user, password="secret"):
    """The header that a browser sends."""
    if isinstance(user, str):
        user = user.encode("latin-1")
    return {"Authorization": "Basic " + base64.b64encode(user + b":" + password.encode()).decode()}


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["auth_basic", "auth_digest", "env", "dir", "authz_host"]
    with new_httpd(modules=modules, tls=True, http2=True) as httpd:
        script = httpd.apps / "auth.py"
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            WSGIScriptAlias /app {httpd.apps}/who.wsgi
            WSGIScriptAlias /digest {httpd.apps}/who.wsgi
            WSGIScriptAlias /access {httpd.apps}/who.wsgi
            WSGIScriptAlias /groups {httpd.apps}/who.wsgi
            WSGIScriptAlias /md5 {httpd.apps}/who.wsgi
            WSGIScriptAlias /nothing {httpd.apps}/who.wsgi
            SetEnv FROM_SETENV value
            <Location /app>
                AuthType Basic
                AuthName realm
                AuthBasicProvider wsgi
                WSGIAuthUserScript {script}
                Require valid-user
            </Location>
            <Location /digest>
                AuthType Digest
                AuthName realm
                AuthDigestProvider wsgi
                WSGIAuthUserScript {script}
                Require valid-user
            </Location>
            <Location /md5>
                AuthType Basic
                AuthName realm
                AuthBasicProvider wsgi
                AuthBasicUseDigestAlgorithm MD5
                WSGIAuthUserScript {script}
                Require valid-user
            </Location>
            <Location /access>
                WSGIAccessScript {script}
            </Location>
            <Location /access/native>
                WSGIPassApacheRequest On
            </Location>
            <Location /groups>
                AuthType Basic
                AuthName realm
                AuthBasicProvider wsgi
                WSGIAuthUserScript {script}
                WSGIAuthGroupScript {script}
                Require wsgi-group Staff "board of directors"
            </Location>
            <Location /nothing>
                AuthType Basic
                AuthName realm
                AuthBasicProvider wsgi
                WSGIAuthUserScript {httpd.apps}/support.py
                WSGIAuthGroupScript {httpd.apps}/support.py
                Require valid-user
            </Location>
            <Location /nothing/access>
                WSGIAccessScript {httpd.apps}/support.py
            </Location>
            <Location /nothing/missing>
                WSGIAuthUserScript {httpd.apps}/missing.py
            </Location>
            <Location /nothing/groups>
                WSGIAuthUserScript {script}
                Require wsgi-group staff
            </Location>
            <Location /app/unconfigured-group>
                Require wsgi-group staff
            </Location>
        """)
        yield httpd.start()


@pytest.fixture(scope="module")
def without_script(new_httpd):
    with new_httpd(modules=["auth_basic"]) as httpd:
        httpd.add(f"""
            WSGIScriptAlias / {httpd.apps}/who.wsgi
            <Location />
                AuthType Basic
                AuthName realm
                AuthBasicProvider wsgi
                Require valid-user
            </Location>
        """)
        yield httpd.start()


def told(server, name):
    return json.loads((server.root / "data" / f"{name}.json").read_text())


# check_password


@pytest.mark.checklist(207)
def test_true_lets_in(server):
    answer = server.json("/app", headers=basic("true"))
    assert (answer["REMOTE_USER"], answer["AUTH_TYPE"]) == ("true", "Basic")


@pytest.mark.checklist(207)
def test_false_does_not(server):
    server.expect_log(MISMATCH)
    response = server.request("/app", headers=basic("false"))
    assert response.status == 401
    assert response.header("WWW-Authenticate") == 'Basic realm="realm"'


@pytest.mark.checklist(207)
def test_the_password_is_given(server):
    assert server.json("/app", headers=basic("check"))["REMOTE_USER"] == "check"
    server.expect_log(MISMATCH)
    assert server.request("/app", headers=basic("check", "guess")).status == 401


@pytest.mark.checklist(208)
def test_none_is_an_unknown_user(server):
    server.expect_log(UNKNOWN)
    assert server.request("/app", headers=basic("none")).status == 401


@pytest.mark.checklist(209)
@pytest.mark.parametrize(
    ("user", "name"),
    [("rename", "somebody else"), ("wide", "j\u00fcrgen \u20ac".encode().decode("latin-1"))],
)
def test_a_str_is_the_name_of_the_user(server, user, name):
    assert server.json("/app", headers=basic(user))["REMOTE_USER"] == name


@pytest.mark.checklist(209)
@pytest.mark.parametrize(
    ("user", "line"),
    [
        ("empty", r"RWSGI0502: script '.*': check_password\(\) returned an empty text"),
        pytest.param("nul", r"RWSGI0502: .* returned a text with a NUL", marks=ours),
        ("int", r"RWSGI0502: .* returned an object of type int; it must return True, False"),
        ("bytes", r"RWSGI0502: .* returned an object of type bytes"),
        ("list", r"RWSGI0502: .* returned an object of type list"),
        ("surrogate", r"RWSGI0501: what check_password\(\) returned .* UnicodeEncodeError"),
    ],
)
def test_anything_else_is_an_error(server, user, line):
    server.expect_log(line)
    assert server.request("/app", headers=basic(user)).status == 500


@ours
@pytest.mark.checklist(210)
@pytest.mark.parametrize(("user", "kind"), [("raise", "RuntimeError"), ("exit", "SystemExit")])
def test_an_exception_is_an_error(server, user, kind):
    line = server.expect_log(rf"RWSGI0501: check_password\(\) failed: {kind} exception raised")
    assert server.request("/app", headers=basic(user)).status == 500
    server.wait_until(lambda: server.log.read() or line.traceback, "no traceback")
    assert any("in check_password" in each.message for each in line.traceback)
    assert server.get("/app", headers=basic("true"))


def test_names_and_passwords_are_latin_1(server):
    user = "\u00e9t\u00e9"
    server.allow_log("RWSGI0501: ")
    assert server.request("/app", headers=basic("note", "p\u00e4ss")).status == 200
    told_password = told(server, "check_password")["arguments"]
    assert told_password == ["note", "p\u00e4ss".encode().decode("latin-1")]
    # The function looks this name up in vain: KeyError.
    assert server.request("/app", headers=basic(user)).status == 500


def test_no_credentials(server):
    response = server.request("/app")
    assert response.status == 401 and response.header("WWW-Authenticate")


def test_no_function(server):
    server.expect_log(r"RWSGI0500: script '.*support.py': it has no function check_password")
    assert server.request("/nothing", headers=basic("true")).status == 500


def test_no_file(server):
    server.expect_log("RWSGI0103: .*FileNotFoundError exception raised .*missing.py")
    assert server.request("/nothing/missing", headers=basic("true")).status == 500


def test_no_script(without_script):
    without_script.expect_log("RWSGI0504: ")
    assert without_script.request("/", headers=basic("true")).status == 500


# get_realm_hash


def digest(server, user, path="/digest", password="secret"):
    return curl(server.url(path), "--digest", "--user", f"{user}:{password}")


@pytest.mark.checklist(211)
@pytest.mark.parametrize("user", ["str", "bytes"])
def test_a_hash_of_the_realm(server, user):
    response = digest(server, user)
    assert response.status == 200, response
    answer = json.loads(response.body)
    assert (answer["REMOTE_USER"], answer["AUTH_TYPE"]) == (user, "Digest")


@pytest.mark.checklist(211)
def test_a_hash_and_the_wrong_password(server):
    server.expect_log("AH01794: user str: password mismatch")
    assert digest(server, "str", password="guess").status == 401


@pytest.mark.checklist(211)
def test_no_hash_is_an_unknown_user(server):
    server.expect_log("AH01790: user .none. in realm .realm. not found")
    assert digest(server, "none").status == 401


@pytest.mark.checklist(211)
@pytest.mark.parametrize(
    ("user", "line"),
    [
        ("empty", "RWSGI0502: .*get_realm_hash.* empty text"),
        ("true", "RWSGI0502: .*an object of type bool; it must return a str"),
        ("int", "RWSGI0502: .*an object of type int"),
        ("wide", "RWSGI0501: .*UnicodeEncodeError"),
        ("raise", r"RWSGI0501: get_realm_hash\(\) failed: RuntimeError"),
    ],
)
def test_what_is_no_hash(server, user, line):
    server.expect_log(line)
    server.allow_log("AH01791: ")
    assert digest(server, user).status == 500


@pytest.mark.checklist(211)
def test_basic_with_the_digest_algorithm(server):
    assert server.json("/md5", headers=basic("str"))["REMOTE_USER"] == "str"
    server.expect_log(MISMATCH)
    assert server.request("/md5", headers=basic("str", "guess")).status == 401


# groups_for_user


@pytest.mark.checklist(212)
@pytest.mark.parametrize(
    "user",
    [
        "member-of-list=staff",
        "member-of-list=other,STAFF",
        "member-of-set=other,staff",
        "member-of-bytes=other,staff",
        "member-of-generator=other,staff",
        "member-of-list=board of directors",
    ],
)
def test_members(server, user):
    assert server.json("/groups", headers=basic(user))["REMOTE_USER"] == user


@pytest.mark.checklist(212)
@pytest.mark.parametrize(
    ("user", "line"),
    [
        ("true", None),
        ("member-of-list=other", None),
        ("member-of-list=board,of,directors", None),
        ("member-of-int=x", "RWSGI0502: .*groups_for_user.* an object of type int"),
        ("member-of-none=x", "RWSGI0502: .*returned None"),
        ("member-of-ints=x", "RWSGI0502: .*an iterable with an object of type int in it"),
        ("member-of-wide=x", "RWSGI0501: .*UnicodeEncodeError"),
        ("member-of-raise=x", r"RWSGI0501: groups_for_user\(\) failed: RuntimeError"),
        pytest.param(
            "member-of-raising=staff",
            "RWSGI0501: what groups_for_user.* RuntimeError",
            marks=ours,
        ),
    ],
)
def test_no_members(server, user, line):
    if line:
        server.expect_log(line)
    server.expect_log(UNAUTHORIZED)
    assert server.request("/groups", headers=basic(user)).status == 401


@ours
def test_one_str_is_no_list_of_names(server):
    server.expect_log("RWSGI0502: .*an object of type str; it must return an iterable of names")
    server.expect_log(UNAUTHORIZED)
    assert server.request("/groups", headers=basic("member-of-str=staff")).status == 401


def test_no_group_script(server):
    server.expect_log("RWSGI0505: .*'true'")
    server.expect_log(UNAUTHORIZED)
    assert server.request("/app/unconfigured-group", headers=basic("true")).status == 401


def test_no_function_for_groups(server):
    server.expect_log("RWSGI0500: .*no function groups_for_user")
    server.expect_log(UNAUTHORIZED)
    assert server.request("/nothing/groups", headers=basic("true")).status == 401


# allow_access


@pytest.mark.checklist(213, 214)
@pytest.mark.parametrize("query", ["true", "none"])
def test_access(server, query):
    assert server.get(f"/access?{query}")


@pytest.mark.checklist(213)
def test_no_access(server):
    server.expect_log("RWSGI0503: access to /access is refused by .*auth.py")
    response = server.request("/access?false")
    assert response.status == 403 and b"Forbidden" in response.body


@pytest.mark.checklist(214)
@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("int", "RWSGI0502: .*allow_access.* type int; it must return True, False or None"),
        ("empty", "RWSGI0502: .*type str"),
        ("raise", r"RWSGI0501: allow_access\(\) failed: RuntimeError"),
        ("exit", "RWSGI0501: .*SystemExit"),
    ],
)
def test_no_access_after_a_failure(server, query, line):
    server.expect_log(line)
    assert server.request(f"/access?{query}").status == 403


def test_no_access_without_a_function(server):
    server.expect_log("RWSGI0500: .*no function allow_access")
    assert server.request("/nothing/access").status == 403


# The environ


@pytest.mark.checklist(215)
def test_the_environ(server):
    headers = {
        "Authorization": "Basic eDp5",
        "Proxy-Authorization": "Basic eDp5",
        "X-Own": "1",
        "X_Own": "2",
        "Content-Type": "text/x-test",
    }
    server.get("/access//some/path%20x?note", method="POST", headers=headers, body=b"12345")
    environ = told(server, "allow_access")
    expected = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/access//some/path%20x?note",
        "SCRIPT_NAME": "/access",
        "PATH_INFO": "/some/path x",
        "QUERY_STRING": "note",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "localhost",
        "SERVER_ADDR": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "REMOTE_ADDR": "127.0.0.1",
        "DOCUMENT_ROOT": f"{server.root}/htdocs",
        "HTTP_HOST": f"localhost:{server.port}",
        "HTTP_X_OWN": "1",
        "CONTENT_TYPE": "text/x-test",
        "CONTENT_LENGTH": "5",
        "SERVER_SIGNATURE": "",
        "mod_wsgi.process_group": "",
        "mod_wsgi.application_group": "",
        "host": "127.0.0.1",
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["REMOTE_PORT"].isdigit() and "SERVER_SOFTWARE" in environ
    assert environ["apache.version"][:2] == [2, 4] and len(environ["mod_wsgi.version"]) == 3
    assert environ["types"] == ["str"]
    assert environ["callables"] == ["mod_ssl.is_https", "mod_ssl.var_lookup"]
    assert environ["module"][0].startswith("_mod_wsgi_")
    for name in ("HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "FROM_SETENV"):
        assert name not in environ
    assert not {"wsgi.input", "REMOTE_HOST", "REMOTE_USER"} & set(environ)


@ours
def test_no_proxy(server):
    """CVE-2016-5387."""
    server.get("/access?note", headers={"Proxy": "evil"})
    assert "HTTP_PROXY" not in told(server, "allow_access")


@pytest.mark.checklist(215)
@pytest.mark.parametrize("tls", [False, True])
def test_the_functions_of_mod_ssl(server, tls):
    answer = server.json("/app", headers=basic("note"), tls=tls)
    assert answer["tls"] == [], "an application has no such functions"
    facts = told(server, "check_password")
    protocol = facts["protocol"] or ""
    assert facts["is_https"] == int(tls)
    assert protocol.startswith("TLSv1") == tls
    assert facts["bytes_protocol"] == facts["protocol"]
    assert not facts["nonsense"]


def test_what_is_kept_expires(server):
    server.get("/access?keep")
    server.get("/access?expired")
    found = told(server, "expired")["found"]
    assert sorted(found) == ["mod_ssl.is_https", "mod_ssl.var_lookup", "wsgi.errors"]


@ours
def test_the_request_of_apache(server):
    server.get("/access/native?note")
    assert told(server, "allow_access")["native"].startswith("<capsule object NULL at")
    server.get("/access?note")
    assert told(server, "allow_access")["native"] == "None"
    server.get("/access/native?keep")
    server.get("/access/native?expired")
    facts = told(server, "expired")
    assert "capsule object NULL" in facts["native"] and "has ended" in facts["kept"]


@ours
def test_output_belongs_to_the_request(server):
    lines = ["check_password printed", "and to stdout", "an unfinished line"]
    found = [server.expect_log(f"^{line}$") for line in lines]
    server.get("/app", headers=basic("log"))
    server.wait_until(lambda: server.log.read() or all(e.lines for e in found))
    ids = {each.lines[0].log_id for each in found}
    assert len(ids) == 1 and ids != {"-"}


def test_http_2(server):
    response = curl(server.url("/app", tls=True), "--http2", "--user", "rename:secret")
    assert (response.status, response.protocol) == (200, "HTTP/2")
    assert json.loads(response.body)["REMOTE_USER"] == "somebody else"


def test_the_body_reaches_the_application(server):
    """A consultation leaves the request's body alone."""
    response = server.request(
        "/app", method="POST", headers={**basic("true"), "Expect": "100-continue"}, body=b"x" * 99
    )
    assert response.status == 200


@pytest.mark.modes("embedded")
def test_a_consultation_within_a_response(new_httpd):
    """A filter that sends a response may make a subrequest on the same thread: what the application
    writes afterwards still belongs to its own request."""
    with new_httpd(modules=["auth_basic", "include", "filter"]) as httpd:
        httpd.write("htdocs/part.txt", "part")
        httpd.write(
            "page.wsgi",
            """
            import sys

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/html")])
                print("before", file=sys.stderr)
                yield b'[<!--#include virtual="/part.txt?log" -->]'
                print("after", file=sys.stderr)
                yield b"end"
            """,
        )
        httpd.write(
            "access.py",
            """
            def allow_access(environ, host):
                print("asked")
                return True
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            WSGIScriptAlias /page {httpd.root}/page.wsgi application-group=%{{GLOBAL}}
            <Location /page>
                SetOutputFilter INCLUDES
                Options +Includes
            </Location>
            <Location /part.txt>
                WSGIAccessScript {httpd.root}/access.py
            </Location>
        """)
        httpd.start()
        found = [httpd.expect_log(f"^{word}$") for word in ("before", "asked", "after")]
        assert httpd.get("/page").text == "[part]end"
        httpd.wait_until(lambda: httpd.log.read() or all(each.lines for each in found))
        before, _, after = (each.lines[0].log_id for each in found)
        assert before == after != "-"
