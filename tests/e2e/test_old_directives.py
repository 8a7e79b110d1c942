"""Directives that mod_wsgi has removed, or accepts without need: files that hold them load."""

from __future__ import annotations

import re

import pytest
from harness import paths
from harness.server import Httpd
from harness.sites import applications

pytestmark = pytest.mark.rwsgi

REMOVED = {
    "WSGIApacheExtensions": ["On", "server directory"],
    "WSGILazyInitialization": ["Off", "server"],
    "WSGINewRelicConfigFile": ["/etc/newrelic.ini", "server"],
    "WSGINewRelicEnvironment": ["production", "server"],
    "WSGIOutputBuffering": ["On", "server directory htaccess"],
    "WSGIPy3kWarningFlag": ["On", "server"],
    "WSGIPythonExecutable": ["/usr/bin/python2.4", "server"],
    "WSGIReloadMechanism": ["Process", "server directory htaccess"],
    "WSGIUserAuthoritative": ["Off", "directory"],
}
REMOVED_OPTIONS = {
    "newrelic-config-file": "/etc/newrelic.ini",
    "newrelic-environment": "production",
    "proxy-buffer-size": "65536",
}


@pytest.fixture
def checked():
    """Checks a configuration that is accepted, and gives what is said of it."""
    with Httpd() as server:

        def check(*lines):
            server.config.clear().add("\n".join(lines))
            done = server.check()
            assert done.returncode == 0, done.stderr
            return [
                line
                for line in done.stderr.splitlines()
                if line != "Syntax OK" and "rwsgi:" in line
            ]

        yield check


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_directive_is_one_warning(checked, name):
    value, contexts = REMOVED[name]
    line = f"{name} {value}"
    section = f"<Directory /x>\n{line}\n</Directory>"
    host = f"<VirtualHost *>\n{line}\n</VirtualHost>"
    lines = [line, host] if "server" in contexts else []
    lines += [section] if "directory" in contexts else []
    # As it was given in old files, too: quoted, or with more than one argument.
    lines += [f'<Location /y>\n{name} "a b" c\n</Location>'] if "directory" in contexts else []
    said = checked(*lines)
    assert len(said) == 1, said
    assert re.search(rf"rwsgi:warn.*RWSGI0630: {name} has no effect: .*httpd\.conf:\d+\)", said[0])


@pytest.mark.parametrize("name", REMOVED_OPTIONS)
def test_a_removed_option_is_one_warning(checked, name):
    value = REMOVED_OPTIONS[name]
    said = checked(*[f"WSGIDaemonProcess {group} {name}={value} threads=2" for group in "ab"])
    said = [line for line in said if ":notice]" not in line]
    assert len(said) == 1
    assert re.search(rf"rwsgi:warn.*RWSGI0630: the option {name}= of WSGIDaemonProcess", said[0])


def test_a_server_with_all_of_them_serves():
    with Httpd() as server:
        for name, (value, contexts) in REMOVED.items():
            line = f"{name} {value}"
            server.add(line if "server" in contexts else f"<Directory />\n{line}\n</Directory>")
        applications(server, app="where.wsgi")
        server.expect_log(r"^RWSGI0630: ", count=len(REMOVED))
        server.start()
        assert server.get("/app").status == 200
        server.settle_log()
        server.expect_log(r"^RWSGI0630: ", count=len(REMOVED))
        server.graceful()
        assert server.get("/app").status == 200


def test_in_htaccess_it_is_one_warning_for_each_process():
    with Httpd(threads=2) as server:
        server.write("site/app.wsgi", (server.apps / "where.wsgi").read_text())
        server.write("site/.htaccess", "WSGIReloadMechanism Process\nWSGIOutputBuffering On\n")
        server.add(f"""
            <Directory "{server.root}/site">
                Require all granted
                AllowOverride FileInfo
            </Directory>
            WSGIScriptAlias / "{server.root}/site/app.wsgi"
        """)
        server.start()
        for name in ("WSGIReloadMechanism", "WSGIOutputBuffering"):
            server.expect_log(rf"^RWSGI0630: {name} .*\.htaccess:\d\)$")
        for _ in range(20):
            assert server.get("/").status == 200


def test_verbose_debugging():
    """As in mod_wsgi 6: no effect, and a line of level info."""
    with Httpd() as server:
        server.add("WSGIVerboseDebugging On")
        applications(server, app="where.wsgi")
        server.start()
        server.log.read()
        (line,) = [line for line in server.log.seen if "WSGIVerboseDebugging" in line.message]
        assert line.level == "info" and "LogLevel" in line.message


@pytest.mark.parametrize("value", ["maybe", "", "On Off"])
def test_verbose_debugging_has_two_values(value):
    with Httpd() as server:
        server.add(f"WSGIVerboseDebugging {value}")
        done = server.check()
        assert done.returncode != 0 and "WSGIVerboseDebugging" in done.stderr


def test_python_eggs():
    """``PYTHON_EGG_CACHE``, in every interpreter of httpd's own processes."""
    app = """
    import os

    def application(environ, start_response):
        body = os.environ.get("PYTHON_EGG_CACHE", "-").encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    """
    with Httpd() as server:
        server.write("apps/eggs.wsgi", app)
        server.add(f'WSGIPythonEggs "{server.root}/eggs ä"')
        server.add(f'<Directory "{server.apps}">\nRequire all granted\n</Directory>')
        for group in ("%{GLOBAL}", "other"):
            server.add(
                f'WSGIScriptAlias /{group.strip("%{}")} "{server.apps}/eggs.wsgi" '
                f"application-group={group}"
            )
        server.start()
        for path in ("/GLOBAL", "/other"):
            assert server.get(path).body.decode() == f"{server.root}/eggs ä"


def test_what_is_pointless_is_a_warning(checked):
    said = checked("WSGIScriptAlias app /srv/app.wsgi", "WSGIRestrictProcess")
    assert len(said) == 2
    assert re.search(r"RWSGI0632: WSGIScriptAlias app matches no URL.*\.conf:\d+\)", said[0])
    assert re.search(r"RWSGI0632: WSGIRestrictProcess without a name", said[1])


def test_a_list_without_names_lets_nobody_in():
    """As in mod_wsgi."""
    with Httpd() as server:
        applications(server, app="where.wsgi", open="where.wsgi")
        server.add("<Location /app>\nWSGIRestrictProcess\n</Location>")
        server.expect_log("^RWSGI0632: WSGIRestrictProcess without a name")
        server.expect_log("^RWSGI0338: ")
        server.start()
        assert server.request("/app").status == 500
        assert server.get("/open")


def test_optimization_above_two(checked):
    assert checked("WSGIPythonOptimize 3") == []


def test_documented():
    text = (paths.REPOSITORY / "docs/directives.md").read_text()
    for name in [*REMOVED, *REMOVED_OPTIONS]:
        assert f"| `{name}" in text


NOTES = {
    "WSGIErrorOverride": ["WSGIErrorOverride On"],
    "WSGIAcceptMutex": ["WSGIAcceptMutex flock"],
    "WSGIApplicationGroup": [
        "WSGIApplicationGroup shop",
        "WSGIScriptAlias / /x.wsgi application-group=shop",
        "<Location /x>\nWSGIApplicationGroup %{SERVER}\n</Location>",
    ],
    "WSGIScriptReloading": ["<Directory /x>\nWSGIScriptReloading on\n</Directory>"],
    "WSGIPythonHashSeed": ["WSGIPythonHashSeed random"],
    "WSGIDaemonProcess": ["WSGIDaemonProcess a\nWSGIDaemonProcess b threads=2"],
    "WSGIDaemonProcess deadlock-timeout=": ["WSGIDaemonProcess a deadlock-timeout=0"],
    "WSGIDaemonProcess header-buffer-size=": ["WSGIDaemonProcess a header-buffer-size=8192"],
    "WSGIDaemonProcess server-metrics=": ["WSGIDaemonProcess a server-metrics=On"],
    "WSGIDispatchScript": ["WSGIDispatchScript /x.wsgi"],
    "WSGITrustedProxyHeaders": ["WSGITrustedProxyHeaders X-Forwarded-For"],
}


@pytest.mark.parametrize("subject", NOTES)
@pytest.mark.parametrize("level", ["warn", "crit"])
def test_what_differs_is_noted_once(checked, subject, level):
    """Whatever the log level is, and however often the directive stands there."""
    for text in NOTES[subject]:
        said = checked(f"LogLevel {level}", text, f"<VirtualHost *>\nServerName x\n{own(text)}")
        notes = [line for line in said if f"] {subject}: unlike in mod_wsgi, " in line]
        assert len(notes) == 1, said
        assert "rwsgi:notice]" in notes[0]
        assert re.search(r"see docs/coming-from-mod_wsgi\.md \(.*httpd\.conf:\d+\)$", notes[0])


def own(text):
    """The same once more in a virtual host, where it may stand there."""
    repeatable = not re.search("WSGI(AcceptMutex|PythonHashSeed|DaemonProcess)", text)
    return (text if repeatable else "") + "\n</VirtualHost>"


@pytest.mark.parametrize(
    "text",
    [
        "WSGIErrorOverride Off",
        "WSGIApplicationGroup %{GLOBAL}",
        "WSGIScriptAlias / /x.wsgi application-group=%{GLOBAL}",
        "WSGIApplicationGroup shop\n<Location /none>\nWSGIApplicationGroup %{GLOBAL}\n</Location>",
        "WSGIPythonHashSeed 0",
        "WSGIScriptReloading Off",
        "WSGIScriptAlias / /x.wsgi\nWSGIPassAuthorization On\nWSGIPythonPath /tmp",
    ],
)
def test_what_does_not_differ_is_not_noted(checked, text):
    assert checked(text) == []


def test_a_note_does_not_take_the_place_of_a_warning(checked):
    said = checked("WSGITrustedProxyHeaders X-Forwarded-Colour")
    assert len(said) == 2
    assert ":notice]" in said[0] and "WSGITrustedProxyHeaders: unlike in mod_wsgi" in said[0]
    assert ":warn]" in said[1] and "RWSGI0632: WSGITrustedProxyHeaders: 'X-Forwarded-" in said[1]


def test_notes_are_for_configtest_only():
    with Httpd() as server:
        server.add("WSGIErrorOverride On\nWSGIAcceptMutex flock\nWSGIScriptReloading On")
        applications(server, app="where.wsgi")
        server.start()
        assert server.get("/app").status == 200
        server.log.read()
        assert not [line for line in server.log.seen if "unlike in mod_wsgi" in line.message]
