"""Which request goes to which script, callable and application group."""

from __future__ import annotations

import pytest
from harness.config import BOTH, GROUP, module_line

MODES = BOTH

HEADERS = {"X-Group": "from-header"}


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["alias", "mime", "rewrite", "setenvif", "env", "headers"]
    with new_httpd(modules=modules, env={"PROCESS_GROUP_NAME": "from-process"}) as httpd:
        where = (httpd.apps / "where.wsgi").read_text()
        for name in ("one", "two", "three", "vhost"):
            httpd.write(f"scripts/{name}.wsgi", where)
        httpd.write("scripts/directory.wsgi/inner.wsgi", where)
        httpd.write("handled/app.wsgi", where)
        httpd.write("handled/sub/app.wsgi", where)
        httpd.write("handled/app.other", where)
        httpd.write("no-exec/app.wsgi", where)
        httpd.write("static/file.txt", "static")
        httpd.write(
            "handled/htaccess/.htaccess", "WSGICallableObject other\nWSGIPassAuthorization On\n"
        )
        httpd.write("handled/htaccess/app.wsgi", where)
        scripts = httpd.root / "scripts"
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <Directory "{httpd.root}/handled">
                Options +ExecCGI
                AddHandler wsgi-script .wsgi
            </Directory>
            <Directory "{httpd.root}/handled/htaccess">
                AllowOverride FileInfo
            </Directory>
            <Directory "{httpd.root}/no-exec">
                AddHandler wsgi-script .wsgi
            </Directory>
            Alias /handled "{httpd.root}/handled"
            Alias /no-exec "{httpd.root}/no-exec"
            Alias /one/static "{httpd.root}/static"
            <Location /handled/app.other>
                SetHandler wsgi-script
            </Location>

            WSGIScriptAlias /one/longer {scripts}/two.wsgi
            WSGIScriptAlias /one {scripts}/one.wsgi
            WSGIScriptAlias /one/never {scripts}/two.wsgi
            WSGIScriptAlias /a//b/ {scripts}/three.wsgi/
            WSGIScriptAlias /scripts/ {scripts}/
            WSGIScriptAlias /missing {scripts}/missing.wsgi
            WSGIScriptAlias /directory {scripts}/directory.wsgi
            WSGIScriptAlias /no-path-info {scripts}/one.wsgi
            WSGIScriptAliasMatch ^/match/([^/]+) {scripts}/$1.wsgi
            WSGIScriptAlias /callable {scripts}/one.wsgi callable-object=other
            WSGIScriptAlias /missing-callable {scripts}/one.wsgi callable-object=nothing
            WSGIScriptAlias /no-callable {scripts}/one.wsgi callable-object=not_callable
            WSGIScriptAlias /group {scripts}/one.wsgi application-group=mine
            WSGIScriptAlias /options {scripts}/one.wsgi \\
                process-group=%{{GLOBAL}} application-group=%{{GLOBAL}} \\
                callable-object=a pass-authorization=On
            WSGIScriptAlias /quoted "{scripts}/one.wsgi" application-group="a b"
            WSGIScriptAlias /by-location {scripts}/one.wsgi
            WSGIScriptAlias /env-group {scripts}/one.wsgi
            WSGIScriptAlias /unknown-process {scripts}/one.wsgi process-group=nobody
            WSGIScriptAlias /insensitive {scripts}/one.wsgi
            RewriteEngine On
            RewriteOptions InheritDown
            RewriteRule ^/rewritten/(.*) /one/from-rewrite/$1 [PT]
            RewriteRule ^/env-group - [E=REWRITE_GROUP:from-rewrite]
            SetEnv SET_GROUP from-setenv
            SetEnvIf X-Group (.*) HEADER_GROUP=$1
            SetEnv GLOBAL_GROUP %{{GLOBAL}}
            SetEnv SERVER_GROUP %{{SERVER}}
            <Location /no-path-info>
                AcceptPathInfo Off
            </Location>
            <Location /by-location>
                WSGICallableObject other
                WSGIApplicationGroup located
            </Location>
            <Location /group>
                WSGIApplicationGroup "the option wins"
            </Location>
            <Location /callable>
                WSGICallableObject "the_option_wins"
            </Location>
        """)
        groups = {
            "global": "%{GLOBAL}",
            "resource": "%{RESOURCE}",
            "server": "%{SERVER}",
            "host": "%{HOST}",
            "env-set": "%{ENV:SET_GROUP}",
            "env-header": "%{ENV:HEADER_GROUP}",
            "env-rewrite": "%{ENV:REWRITE_GROUP}",
            "env-process": "%{ENV:PROCESS_GROUP_NAME}",
            "env-global": "%{ENV:GLOBAL_GROUP}",
            "env-server": "%{ENV:SERVER_GROUP}",
            "env-missing": "%{ENV:MISSING}",
            "literal": "plain",
            "inside": "a%{GLOBAL}",
        }
        for name, group in groups.items():
            httpd.add(f"""
                <Location /env-group/{name}>
                    WSGIApplicationGroup {group}
                </Location>
            """)
        callables = {"env": "%{ENV:CALLABLE}", "missing": "%{ENV:MISSING}", "odd": "%{GLOBAL}"}
        for name, value in callables.items():
            httpd.add(f"""
                <Location /by-location/{name}>
                    SetEnv CALLABLE a
                    WSGICallableObject {value}
                </Location>
            """)
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName localhost
                RewriteEngine On
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                WSGIScriptAlias /one {scripts}/vhost.wsgi
                WSGIScriptAlias /only-here {scripts}/vhost.wsgi
                WSGICallableObject other
            </VirtualHost>
        """)
        httpd.expect_log("RWSGI0345: .*nobody")
        yield httpd.start()


def told(server, target, **options):
    return server.json(target, **options)


def script_of(server, target, **options):
    answer = told(server, target, **options)
    assert answer["file"] == answer["SCRIPT_FILENAME"].split(".wsgi")[0] + ".wsgi"
    return answer["file"].rpartition("/")[2].partition(".")[0]


@pytest.mark.parametrize(
    ("target", "script", "script_name", "path_info"),
    [
        ("/one", "one", "/one", ""),
        ("/one/", "one", "/one", "/"),
        ("/one/two/three", "one", "/one", "/two/three"),
        ("//one//x", "one", "/one", "/x"),
        ("/one/longer/x", "two", "/one/longer", "/x"),
        ("/one/longerx", "one", "/one", "/longerx"),
        ("/one/never/x", "one", "/one", "/never/x"),
        ("/a/b/x", "three", "/a/b", "/x"),
        ("/scripts/two.wsgi/x", "two", "/scripts/two.wsgi", "/x"),
        ("/match/two/x", "two", "/match/two", "/x"),
        ("/match/three", "three", "/match/three", ""),
        ("/rewritten/x", "one", "/one", "/from-rewrite/x"),
        ("/handled/app.wsgi/x", "app", "/handled/app.wsgi", "/x"),
        ("/handled/sub/app.wsgi", "app", "/handled/sub/app.wsgi", ""),
    ],
)
@pytest.mark.checklist(28, 29, 31, 32, 33)
def test_alias(server, target, script, script_name, path_info):
    answer = told(server, target)
    assert answer["file"].endswith(f"/{script}.wsgi")
    assert (answer["SCRIPT_NAME"], answer["PATH_INFO"]) == (script_name, path_info)


@pytest.mark.checklist(27)
def test_alias_of_everything(new_httpd):
    with new_httpd(modules=["alias"]) as httpd:
        httpd.write("static/file.txt", "static")
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            Alias /static "{httpd.root}/static"
            WSGIScriptAlias / {httpd.apps}/where.wsgi
        """)
        httpd.start()
        for path in ("/", "/a", "/a/", "/a/b.html", "/where.wsgi", "/a/../b", "/static-x"):
            answer = told(httpd, path)
            seen = (answer["SCRIPT_NAME"], answer["PATH_INFO"])
            assert seen == ("", path if path != "/a/../b" else "/b")
        assert httpd.get("/static/file.txt").body == b"static"


@pytest.mark.checklist(157)
def test_module_name_and_file(server):
    answer = told(server, "/one")
    assert answer["name"].startswith("_mod_wsgi_")
    assert answer["file"] == str(server.root / "scripts" / "one.wsgi")


@pytest.mark.parametrize("target", ["/onex", "/on", "/nothing", "/scripts/none.wsgi"])
@pytest.mark.checklist(28)
def test_no_alias(server, target):
    server.allow_log("RWSGI0010")
    assert server.request(target).status == 404


def test_options_of_the_server(server):
    with server.connect() as connection:
        connection.request("*", method="OPTIONS")
        assert connection.read_response().status == 200


def test_handler_for_one_file(server):
    server.allow_log("RWSGI0012")
    assert server.json("/handled/app.other")["file"].endswith("app.other")


def test_other_modules_come_first(server):
    assert server.get("/one/static/file.txt").body == b"static"


@pytest.mark.checklist(34)
def test_missing_script(server):
    server.expect_log("RWSGI0010: .*missing.wsgi")
    assert server.request("/missing").status == 404


@pytest.mark.checklist(34)
def test_script_that_is_a_directory(server):
    server.expect_log("RWSGI0011: .*directory.wsgi")
    assert server.request("/directory").status == 403


@pytest.mark.checklist(33)
def test_handler_without_execcgi(server):
    server.expect_log("RWSGI0012: .*no-exec")
    assert server.request("/no-exec/app.wsgi").status == 403


@pytest.mark.checklist(34)
def test_no_path_info(server):
    server.expect_log("RWSGI0013|AH00128")
    assert server.request("/no-path-info/x").status == 404
    assert server.request("/no-path-info").status == 200


# Virtual hosts


@pytest.mark.checklist(30)
def test_virtual_host_comes_first(server):
    second = {"Host": f"second.example:{server.port}"}
    assert script_of(server, "/one", headers=second) == "vhost"
    assert script_of(server, "/only-here", headers=second) == "vhost"
    # Inherited from the main server.
    answer = told(server, "/match/two", headers=second)
    assert answer["file"].endswith("two.wsgi") and answer["callable"] == "other"
    server.allow_log("RWSGI0010")
    assert server.request("/only-here").status == 404


# Callable objects


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/one", "application"),
        ("/callable", "other"),
        ("/by-location", "other"),
        ("/by-location/env", "a"),
        ("/by-location/missing", "application"),
        ("/by-location/odd", "application"),
        ("/options", "a"),
        ("/handled/htaccess/app.wsgi", "other"),
    ],
)
@pytest.mark.checklist(44)
def test_callable(server, target, name):
    answer = told(server, target)
    assert answer["callable"] == answer["callable_object"] == name


@pytest.mark.rwsgi
@pytest.mark.checklist(44)
def test_missing_callable(server):
    server.expect_log("RWSGI0106: .*nothing")
    assert server.request("/missing-callable").status == 500


@pytest.mark.rwsgi
def test_callable_that_is_none(server):
    server.expect_log("RWSGI0106: .*not_callable|RWSGI0200: .*TypeError")
    assert server.request("/no-callable").status == 500


@pytest.mark.checklist(65)
def test_authorization_option(server):
    headers = {"Authorization": "Bearer x"}
    assert told(server, "/options", headers=headers)["HTTP_AUTHORIZATION"] == "Bearer x"
    assert told(server, "/one", headers=headers)["HTTP_AUTHORIZATION"] is None
    htaccess = told(server, "/handled/htaccess/app.wsgi", headers=headers)
    assert htaccess["HTTP_AUTHORIZATION"] == "Bearer x"


# Application groups


def group(server, target, **options):
    return told(server, target, **options)["application_group"]


@pytest.mark.checklist(37)
def test_default_group(server):
    assert group(server, "/one/x") == f"localhost:{server.port}|/one"
    assert group(server, "//one//x") == f"localhost:{server.port}|/one"


@pytest.mark.checklist(37)
def test_default_group_of_an_included_script(new_httpd):
    """mod_include gives it all of the path as SCRIPT_NAME; it is in its group all the same."""
    with new_httpd(modules=["include", "mime"]) as httpd:
        httpd.write("htdocs/page.shtml", '<!--#include virtual="/app/included?x" -->')
        httpd.add(f"""
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <Directory "{httpd.root}/htdocs">
                Options +Includes
                AddOutputFilter INCLUDES .shtml
            </Directory>
            WSGIScriptAlias /app {httpd.apps}/where.wsgi
        """)
        httpd.start()
        answer = told(httpd, "/page.shtml")
        # httpd knows no port for what it asks itself.
        assert answer["application_group"] == "localhost|/app"
        assert (answer["SCRIPT_NAME"], answer["PATH_INFO"]) == ("/app/included", "/included")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/group", "mine"),
        ("/options", ""),
        ("/quoted", "a b"),
        ("/by-location", "located"),
        ("/env-group/global", ""),
        ("/env-group/resource", "localhost:{port}|/env-group"),
        ("/env-group/server", "localhost:{port}"),
        ("/env-group/host", "localhost:{port}"),
        ("/env-group/env-set", "from-setenv"),
        ("/env-group/env-header", "from-header"),
        ("/env-group/env-rewrite", "from-rewrite"),
        ("/env-group/env-process", "from-process"),
        ("/env-group/env-global", ""),
        ("/env-group/env-server", "localhost:{port}"),
        ("/env-group/env-missing", "%{{ENV:MISSING}}"),
        ("/env-group/literal", "plain"),
        ("/env-group/inside", "a%{{GLOBAL}}"),
    ],
)
@pytest.mark.checklist(36, 39, 40)
def test_group(server, target, expected):
    answer = told(server, target, headers=HEADERS)
    assert answer["application_group"] == expected.format(port=server.port)
    # One of them says ``process-group=%{GLOBAL}``.
    daemon = server.daemon and target != "/options"
    assert answer["process_group"] == (GROUP if daemon else "")


def test_groups_of_host_names(server):
    host = {"Host": f"other.example:{server.port}"}
    assert group(server, "/env-group/host", headers=host) == f"other.example:{server.port}"
    assert group(server, "/env-group/server", headers=host) == f"localhost:{server.port}"


@pytest.mark.checklist(37, 38)
@pytest.mark.parametrize("port", [80, 443])
def test_standard_ports_are_left_out(server, port):
    """httpd takes the port of the ``Host`` header for its own."""
    host = {"Host": f"localhost:{port}"}
    assert group(server, "/env-group/server", headers=host) == "localhost"
    assert group(server, "/env-group/host", headers=host) == "localhost"
    assert group(server, "/one", headers=host) == "localhost|/one"


NOTE = """
function fixup(r)
    r.notes["NOTE_GROUP"] = "from-note"
    return apache2.OK
end
"""


@pytest.mark.checklist(39)
@pytest.mark.skipif(not module_line("lua"), reason="mod_lua, which sets the note, is not there")
def test_group_from_a_note(new_httpd):
    """Notes come before variables of the request."""
    with new_httpd(modules=["lua", "env"]) as httpd:
        lua = httpd.write("note.lua", NOTE)
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            LuaHookFixups "{lua}" fixup
            SetEnv NOTE_GROUP from-setenv
            WSGIApplicationGroup %{{ENV:NOTE_GROUP}}
            WSGIScriptAlias / {httpd.apps}/where.wsgi
        """)
        httpd.start()
        assert group(httpd, "/") == "from-note"


@pytest.mark.checklist(41)
def test_unknown_process_group(server):
    server.expect_log("RWSGI0009: .*nobody")
    assert server.request("/unknown-process").status == 500


@pytest.mark.checklist(48)
def test_case_insensitive_groups(new_httpd):
    with new_httpd() as httpd:
        httpd.add(f"""
            WSGICaseSensitivity Off
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAliasMatch ^/[Aa]pp {httpd.apps}/where.wsgi
        """)
        httpd.start()
        assert group(httpd, "/App") == group(httpd, "/app") == f"localhost:{httpd.port}|/app"


@pytest.mark.rwsgi
@pytest.mark.modes("embedded")
@pytest.mark.checklist(47)
def test_embedded_mode_can_be_restricted(new_httpd):
    with new_httpd() as httpd:
        httpd.add(f"""
            WSGIRestrictEmbedded On
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / {httpd.apps}/where.wsgi
        """)
        httpd.start()
        httpd.expect_log("RWSGI0008")
        assert httpd.request("/").status == 500
        # Nothing needs Python, so it is not there.
        for pid in httpd.children():
            assert "libpython" not in (open(f"/proc/{pid}/maps").read())
