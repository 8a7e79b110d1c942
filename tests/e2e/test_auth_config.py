"""Where scripts for access, users and groups may be configured, where they run, and when they are
asked and loaded anew."""

from __future__ import annotations

import base64
import os

import pytest
from harness.config import BOTH, GROUP

MODES = BOTH
ours = pytest.mark.rwsgi

DIRECTIVES = ["WSGIAccessScript", "WSGIAuthUserScript", "WSGIAuthGroupScript"]


def basic(user):
    credentials = base64.b64encode(f"{user}:secret".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


#: A script that tells where it runs by refusing, or by the name of the user.
TELLS = """
    import os, sys
    counter = 0

    def check_password(environ, user, password):
        global counter
        counter += 1
        group = environ["mod_wsgi.application_group"]
        return "%s %s %s %d {label}" % (group, os.getpid(), id(sys.modules), counter)

    def allow_access(environ, host):
        where = environ["SCRIPT_NAME"] + environ["PATH_INFO"] + environ["QUERY_STRING"]
        return None if "refused" not in where else False

    def groups_for_user(environ, user):
        return ["staff"]
"""


def user_section(path, arguments, more=""):
    return f"""
        <Location {path}>
            AuthType Basic
            AuthName realm
            AuthBasicProvider wsgi
            WSGIAuthUserScript {arguments}
            Require valid-user
            {more}
        </Location>
    """


def write(httpd, name, label, age):
    return httpd.write(name, TELLS.replace("{label}", label), age=age)


class Told:
    """What the script says of itself."""

    def __init__(self, httpd, path, host="localhost:{port}"):
        answer = httpd.json(path, headers=basic("x"), host=host)
        group, self.pid, self.modules, self.counter, self.label = answer["REMOTE_USER"].rsplit(
            " ", 4
        )
        self.group = group


# Application groups


@pytest.mark.checklist(216)
def test_application_groups(new_httpd):
    with new_httpd(modules=["auth_basic"], threads=4) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        groups = {
            "unset": "",
            "global": "application-group=%{GLOBAL}",
            "named": "application-group=named",
            "quoted": 'application-group="two words"',
            "server": "application-group=%{SERVER}",
            "host": "application-group=%{HOST}",
            "resource": "application-group=%{RESOURCE}",
        }
        httpd.add(f"WSGIScriptAlias / {httpd.apps}/who.wsgi")
        for name, option in groups.items():
            httpd.add(user_section(f"/{name}", f"{script} {option}"))
        httpd.start()
        found = {name: Told(httpd, f"/{name}", host="example.org:{port}") for name in groups}
        children = {str(pid) for pid in httpd.children()}
        assert {told.pid for told in found.values()} <= children, "it runs in httpd's child"
        assert {name: told.group for name, told in found.items()} == {
            "unset": "",
            "global": "",
            "named": "named",
            "quoted": "two words",
            "server": f"localhost:{httpd.port}",
            "host": f"example.org:{httpd.port}",
            # As in mod_wsgi: there is no mount yet, so this is a name like any other.
            "resource": "%{RESOURCE}",
        }
        # One interpreter for each group, and one module in each.
        assert found["unset"].modules == found["global"].modules
        assert len({told.modules for told in found.values()}) == len(groups) - 1
        assert found["global"].counter == "2" and found["named"].counter == "1"


@pytest.mark.modes("embedded")
def test_the_main_interpreter_is_kept_for_them(new_httpd):
    """As in mod_wsgi: an application and a script that asks for nothing do not meet."""
    with new_httpd(modules=["auth_basic"], threads=4) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        httpd.write(
            "app.wsgi",
            """
            import sys
            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                group = environ["mod_wsgi.application_group"]
                return [b"%s %d" % (group.encode(), id(sys.modules))]
            """,
        )
        httpd.add(f"WSGIScriptAlias /app {httpd.root}/app.wsgi")
        httpd.add(f"WSGIScriptAlias /who {httpd.apps}/who.wsgi")
        httpd.add(user_section("/who", script)).start()
        group, modules = httpd.get("/app").text.split()
        told = Told(httpd, "/who")
        assert group == f"localhost:{httpd.port}|/app" and told.group == ""
        assert modules != told.modules


# Reloading


@pytest.mark.checklist(216)
def test_a_changed_script_is_loaded_anew_in_place(new_httpd):
    with new_httpd(modules=["auth_basic"], threads=4) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        httpd.add(f"WSGIScriptAlias / {httpd.apps}/who.wsgi")
        httpd.add(user_section("/", script))
        httpd.add(user_section("/never", script, "WSGIScriptReloading Off"))
        httpd.start()
        first = Told(httpd, "/")
        assert first.label == "one"
        write(httpd, "tells.py", "two", 50)
        assert Told(httpd, "/never").label == "one"
        second = Told(httpd, "/")
        assert (second.label, second.pid, second.counter) == ("two", first.pid, "1")
        # Older counts as changed, too; touched is changed.
        write(httpd, "tells.py", "three", 500)
        assert Told(httpd, "/").label == "three"
        assert Told(httpd, "/").counter == "2"
        os.utime(script)
        assert Told(httpd, "/").counter == "1"


@pytest.mark.parametrize("broken", ["def broken(:", "raise RuntimeError('not today')", None])
@pytest.mark.rwsgi
def test_a_script_that_does_not_load_lets_nobody_in(new_httpd, broken):
    with new_httpd(modules=["auth_basic"], threads=4) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        httpd.add(f"WSGIScriptAlias / {httpd.apps}/who.wsgi")
        httpd.add(user_section("/", script))
        httpd.add(f"<Location /access>\nWSGIAccessScript {script}\n</Location>")
        httpd.add(user_section("/keep", script, "WSGIReloadFailure Keep"))
        httpd.start()
        assert Told(httpd, "/").label == "one"
        if broken:
            httpd.write("tells.py", broken + "\n", age=50)
        else:
            script.unlink()
        httpd.expect_log("RWSGI0103: the changed script could not be loaded", count=2)
        assert httpd.request("/", headers=basic("x")).status == 500
        assert httpd.request("/access", headers=basic("x")).status == 403
        httpd.expect_log("RWSGI0104: the changed script could not be loaded, the old code")
        assert Told(httpd, "/keep").label == "one"
        httpd.settle_log()
        write(httpd, "tells.py", "two", 10)
        assert Told(httpd, "/").label == "two"


# Where Python runs


@pytest.mark.checklist(216)
@pytest.mark.modes("daemon")
@pytest.mark.parametrize("directive", DIRECTIVES)
def test_python_runs_for_them_where_embedded_mode_is_restricted(new_httpd, directive):
    with new_httpd(modules=["auth_basic"]) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        users = write(httpd, "users.py", "users", 100)
        httpd.add(f"""
            WSGIRestrictEmbedded On
            WSGIScriptAlias /app {httpd.apps}/who.wsgi
            WSGIScriptAlias /embedded {httpd.apps}/who.wsgi process-group=%{{GLOBAL}}
            <Location /never>
                {directive} {script}
            </Location>
        """)
        httpd.add(user_section("/app", users))
        httpd.start()
        assert httpd.json("/app", headers=basic("x"))["mod_wsgi.process_group"] == GROUP
        httpd.expect_log("RWSGI0008: ")
        assert httpd.request("/embedded").status == 500


@pytest.mark.modes("daemon")
@pytest.mark.rwsgi
def test_no_python_in_children_without_them(new_httpd):
    with new_httpd(modules=["auth_basic"]) as httpd:
        httpd.add(f"WSGIRestrictEmbedded On\nWSGIScriptAlias / {httpd.apps}/who.wsgi").start()
        assert httpd.get("/")
        maps = [open(f"/proc/{pid}/maps").read() for pid in httpd.children()]
        assert maps and not any("libpython" in text for text in maps)


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.modes("embedded")
def test_every_mpm(new_httpd, mpm):
    with new_httpd(modules=["auth_basic"], mpm=mpm, threads=4) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        httpd.add(f"WSGIScriptAlias / {httpd.apps}/who.wsgi")
        more = f"WSGIAccessScript {script}\nWSGIAuthGroupScript {script}\nRequire wsgi-group staff"
        httpd.add(user_section("/", script, more)).start()
        assert Told(httpd, "/").label == "one"
        httpd.expect_log("RWSGI0503: ")
        assert httpd.request("/refused", headers=basic("x")).status == 403
        httpd.graceful()
        assert Told(httpd, "/").label == "one"


# Every URL


@pytest.mark.checklist(213)
@pytest.mark.modes("embedded")
def test_every_url_is_asked_for(new_httpd):
    """httpd would rely on its decision for the first URL, as long as the section is the same."""
    modules = ["dir", "rewrite"]
    with new_httpd(modules=modules) as httpd:
        script = write(httpd, "tells.py", "one", 100)
        httpd.write("htdocs/area/refused.html", "secret")
        httpd.write("htdocs/area/open.html", "open")
        httpd.write("htdocs/area/index/refused.html", "secret")
        httpd.add(f"""
            <Directory "{httpd.root}/htdocs">
                Require all granted
                DirectoryIndex refused.html
            </Directory>
            <Location /area>
                WSGIAccessScript {script}
                RewriteEngine On
                RewriteRule moved$ /area/refused.html
                RewriteRule fine$ /area/open.html
            </Location>
        """)
        httpd.start()
        assert httpd.get("/area/open.html").text == httpd.get("/area/fine").text == "open"
        for path in ("/area/refused.html", "/area/moved", "/area/index/"):
            httpd.expect_log("RWSGI0503: access to /area/.*refused.html is refused")
            assert httpd.request(path).status == 403, path


@pytest.mark.modes("embedded")
@pytest.mark.rwsgi
def test_httpd_decides_once_where_there_are_no_scripts(new_httpd):
    """The module does not make httpd's own access control slower where it is not used."""
    with new_httpd(modules=["dir"], log_level="notice authz_core:debug") as httpd:
        httpd.write("htdocs/area/index.html", "index")
        httpd.add("<Location /area>\nRequire all granted\n</Location>").start()
        seen = len(httpd.log.seen)
        assert httpd.get("/area/").text == "index"
        httpd.log.wait_for("authorization result of <RequireAny>: granted", start=seen)
        httpd.log.read()
        lines = [line for line in httpd.log.seen[seen:] if "<RequireAny>: granted" in line.message]
        assert len(lines) == 1, lines


# .htaccess


def with_htaccess(httpd, switch, text, allow="AuthConfig"):
    script = write(httpd, "tells.py", "one", 100)
    httpd.write("files/x.txt", "content")
    httpd.write("files/.htaccess", text.format(script=script))
    httpd.add(switch)
    httpd.add(f"""
        <Directory "{httpd.root}">
            Require all granted
        </Directory>
        <Directory "{httpd.root}/files">
            AllowOverride {allow}
        </Directory>
        Alias /files {httpd.root}/files
        WSGIScriptAlias /files/app {httpd.apps}/who.wsgi
    """)
    return httpd.start()


@ours
@pytest.mark.parametrize("directive", DIRECTIVES)
@pytest.mark.parametrize("switch", ["", "WSGIHtaccessScripts Off"])
def test_not_in_htaccess(new_httpd, directive, switch):
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(httpd, switch, directive + " {script}\n")
        httpd.expect_log(f"{directive} is not allowed here: .*WSGIHtaccessScripts On")
        assert httpd.request("/files/x.txt").status == 500
        # It can be mended without a restart.
        httpd.write("files/.htaccess", "")
        assert httpd.get("/files/x.txt").text == "content"


@ours
@pytest.mark.modes("embedded")
@pytest.mark.parametrize("section", ["Files x.txt", "If true", 'FilesMatch "txt$"'])
def test_not_in_sections_of_htaccess(new_httpd, section):
    text = f"<{section}>\nWSGIAccessScript {{script}}\n</{section.split()[0]}>\n"
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(httpd, "", text)
        httpd.expect_log("WSGIAccessScript is not allowed here: ")
        assert httpd.request("/files/x.txt").status == 500


@ours
@pytest.mark.modes("embedded")
def test_in_htaccess(new_httpd):
    everything = """
        AuthType Basic
        AuthName realm
        AuthBasicProvider wsgi
        WSGIAccessScript {script}
        WSGIAuthUserScript {script}
        WSGIAuthGroupScript {script} application-group=groups
        WSGIGroupAuthoritative On
        Require wsgi-group staff
    """
    # Python is needed although nothing in the configuration of the server asks for it.
    switch = "WSGIHtaccessScripts On\nWSGIRestrictEmbedded On"
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(httpd, switch, everything)
        for _ in range(20):
            assert httpd.get("/files/x.txt", headers=basic("x")).text == "content"
        assert httpd.request("/files/x.txt").status == 401
        httpd.expect_log("RWSGI0503: ")
        assert httpd.request("/files/x.txt?refused", headers=basic("x")).status == 403


@ours
@pytest.mark.modes("embedded")
def test_in_a_section_of_htaccess(new_httpd):
    text = "<Files x.txt>\nWSGIAccessScript {script}\n</Files>\n"
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(httpd, "WSGIHtaccessScripts On", text)
        assert httpd.get("/files/x.txt").text == "content"
        httpd.expect_log("RWSGI0503: ")
        assert httpd.request("/files/x.txt?refused").status == 403


@pytest.mark.modes("embedded")
def test_inner_sections_and_conditions(new_httpd):
    with new_httpd(modules=["auth_basic"], threads=4) as httpd:
        outer, inner = (write(httpd, f"{name}.py", name, 100) for name in ("outer", "inner"))
        httpd.add(f"WSGIScriptAlias / {httpd.apps}/who.wsgi")
        httpd.add(user_section("/", outer))
        httpd.add(f"""
            <Location /inner>
                WSGIAuthUserScript {inner}
            </Location>
            <If "%{{QUERY_STRING}} == 'condition'">
                WSGIAuthUserScript {inner} application-group=condition
            </If>
        """)
        httpd.start()
        assert Told(httpd, "/").label == "outer"
        assert Told(httpd, "/inner").label == "inner"
        conditional = Told(httpd, "/?condition")
        assert (conditional.label, conditional.group) == ("inner", "condition")


@ours
@pytest.mark.modes("embedded")
def test_errors_in_htaccess(new_httpd):
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(httpd, "WSGIHtaccessScripts On", "WSGIAccessScript {script} oops\n")
        httpd.expect_log("Invalid option to WSGIAccessScript definition: 'oops'")
        assert httpd.request("/files/x.txt").status == 500


@pytest.mark.modes("embedded")
@pytest.mark.rwsgi
def test_allow_override_counts_first(new_httpd):
    with new_httpd(modules=["auth_basic", "alias"], threads=4) as httpd:
        with_htaccess(
            httpd, "WSGIHtaccessScripts On", "WSGIAccessScript {script}\n", allow="FileInfo"
        )
        httpd.expect_log("WSGIAccessScript not allowed here")
        assert httpd.request("/files/x.txt").status == 500


# Errors of the configuration


@pytest.fixture
def checked(new_httpd):
    with new_httpd(modules=["auth_basic"]) as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            return "" if done.returncode == 0 else done.stderr

        yield check


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("directive", DIRECTIVES)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "requires a script"),
        ('""', "requires a script"),
        ("/x.py y", "'y' is not of the form name=value"),
        ("/x.py application-group=", "application-group must not be empty"),
        ("/x.py process-group=x", "'process-group'; accepted is application-group="),
        ("/x.py callable-object=x", "accepted is application-group="),
    ],
)
@pytest.mark.rwsgi
def test_wrong_arguments(checked, directive, arguments, words):
    message = checked(f"<Location />\n{directive} {arguments}\n</Location>")
    assert directive in message and words in message, message


@pytest.mark.modes("embedded")
@pytest.mark.parametrize("directive", [*DIRECTIVES, "WSGIGroupAuthoritative"])
def test_not_outside_of_sections(checked, directive):
    assert f"{directive} not allowed here" in checked(f"{directive} On")
    message = checked(f"<VirtualHost *:1>\n{directive} On\n</VirtualHost>")
    assert f"{directive} not allowed in <VirtualHost> context" in message
    for section in ("Directory /", "Location /", 'Files "x"', "LocationMatch ^/"):
        name = section.split()[0]
        assert checked(f"<{section}>\n{directive} On\n</{name}>") == ""


@pytest.mark.modes("embedded")
@pytest.mark.rwsgi
def test_switches(checked):
    assert "must be one of: Off | On" in checked(
        "<Location />\nWSGIGroupAuthoritative x\n</Location>"
    )
    assert "must be one of: Off | On" in checked("WSGIHtaccessScripts maybe")
    assert "cannot occur within" in checked(
        "<VirtualHost *:1>\nWSGIHtaccessScripts On\n</VirtualHost>"
    )
