"""Every directive of mod_wsgi in every context, accepted or refused where mod_wsgi does so; every
switch with other words."""

from __future__ import annotations

import re

import pytest
from harness import paths

#: Where mod_wsgi 6 accepts its directives, each with arguments that are good.
MAIN_SERVER = {
    "WSGISocketPrefix": "run/x",
    "WSGISocketRotation": "On",
    "WSGIAcceptMutex": "default",
    "WSGIRestrictEmbedded": "On",
    "WSGIPythonHome": "/usr",
    "WSGIPythonPath": "/tmp",
    "WSGIPythonEggs": "/tmp",
    "WSGIPythonOptimize": "1",
    "WSGIPythonWarnings": "ignore",
    "WSGIPythonHashSeed": "0",
    "WSGIDontWriteBytecode": "On",
    "WSGISwitchInterval": "0.01",
    "WSGIDestroyInterpreter": "On",
    "WSGIPerInterpreterGIL": "Off",
    "WSGIFreeThreading": "Off",
    "WSGIRestrictStdin": "On",
    "WSGIRestrictStdout": "On",
    "WSGIRestrictSignal": "On",
    "WSGICaseSensitivity": "On",
    "WSGIServerMetrics": "On",
    "WSGIVerboseDebugging": "On",
    "WSGITelemetryService": "unix:/tmp/x",
    "WSGISlowRequests": "1",
    "WSGITelemetryOptions": "None",
}
SERVERS = {
    "WSGIScriptAlias": "/ /x",
    "WSGIScriptAliasMatch": "/ /x",
    "WSGIImportScript": "/x process-group=%{GLOBAL} application-group=%{GLOBAL}",
    "WSGIDaemonProcess": "site",
}
DIRECTORIES = {
    "WSGIProcessGroup": "%{GLOBAL}",
    "WSGIApplicationGroup": "x",
    "WSGIRestrictProcess": "%{GLOBAL}",
    "WSGIHandlerScript": "x /x",
    "WSGIDispatchScript": "/x",
    "WSGIPassApacheRequest": "On",
}
FILE_INFO = {
    "WSGICallableObject": "x",
    "WSGIPassAuthorization": "On",
    "WSGIScriptReloading": "On",
    "WSGIErrorOverride": "On",
    "WSGIChunkedRequest": "On",
    "WSGIMapHEADToGET": "Auto",
    "WSGIIgnoreActivity": "On",
    "WSGITrustedProxyHeaders": "X-Forwarded-For X-Forwarded-Proto",
    "WSGITrustedProxies": "10.0.0.1 10.0.0.0/8 ::1",
    "WSGIEnableSendfile": "On",
}
ACCESS = {
    "WSGIAccessScript": "/x",
    "WSGIAuthUserScript": "/x",
    "WSGIAuthGroupScript": "/x application-group=%{GLOBAL}",
    "WSGIGroupAuthoritative": "On",
}
SECTIONS = ("Directory /", "Location /", "Files x", "LocationMatch x")
DOCUMENTED = (paths.REPOSITORY / "docs" / "directives.md").read_text()
#: Directives that take "On" and "Off" and nothing else, ours included, by the documentation.
SWITCHES = re.findall(r"^Syntax: `(\w+) (?:On\|Off|Off\|On)`", DOCUMENTED, re.MULTILINE)


def known(directives):
    """As parameters: name and line."""
    return pytest.mark.parametrize(
        ("name", "line"),
        [
            pytest.param(name, f"{name} {arguments}", id=name)
            for name, arguments in directives.items()
            if f"### {name}\n" in DOCUMENTED
        ],
    )


@pytest.fixture(scope="module")
def checked(new_httpd):
    """Checks a configuration; its error text, empty if it is accepted."""
    with new_httpd() as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            if done.returncode == 0:
                assert "Syntax OK" in done.stderr
                return ""
            return done.stderr

        yield check


def inside(section, line):
    return f"<{section}>\n{line}\n</{section.split()[0]}>"


# Contexts


@pytest.mark.checklist(21)
@known(MAIN_SERVER)
def test_main_server_only(checked, name, line):
    assert checked(line) == ""
    message = checked(inside("VirtualHost *", line))
    assert name in message and "cannot occur within" in message and "VirtualHost" in message
    for section in SECTIONS:
        message = checked(inside(section, line))
        assert name in message and ("cannot occur" in message or "not allowed" in message)


@known(SERVERS)
def test_servers(checked, name, line):
    assert checked(line) == ""
    assert checked(inside("VirtualHost *", line)) == ""
    for section in SECTIONS:
        message = checked(inside(section, line))
        assert name in message and ("cannot occur" in message or "not allowed" in message)


@known(DIRECTORIES | FILE_INFO)
def test_servers_and_directories(checked, name, line):
    assert checked(line) == ""
    for section in ("VirtualHost *", *SECTIONS):
        assert checked(inside(section, line)) == ""


@known(ACCESS)
def test_directories_only(checked, name, line):
    for section in SECTIONS:
        assert checked(inside(section, line)) == ""
    for text in (line, inside("VirtualHost *", line)):
        assert name in checked(text)


@pytest.mark.checklist(22)
def test_htaccess(new_httpd):
    """One directory for each directive: 500 where it is not allowed, as httpd answers then."""
    with new_httpd() as httpd:
        expected = {}

        def directory(name, line, override, status):
            httpd.write(f"htdocs/{name}/file.txt", "static")
            httpd.write(f"htdocs/{name}/.htaccess", line + "\n")
            httpd.add(
                inside(f'Directory "{httpd.root}/htdocs/{name}"', f"AllowOverride {override}")
            )
            expected[name] = status

        for name, arguments in (MAIN_SERVER | SERVERS | DIRECTORIES).items():
            if f"### {name}\n" in DOCUMENTED:
                directory(name, f"{name} {arguments}", "All", 500)
        for name, arguments in FILE_INFO.items():
            if f"### {name}\n" in DOCUMENTED:
                directory(name, f"{name} {arguments}", "FileInfo", 200)
                directory(f"{name}-refused", f"{name} {arguments}", "AuthConfig", 500)
        httpd.add(f'<Directory "{httpd.root}/htdocs">\nRequire all granted\n</Directory>')
        httpd.start()
        httpd.expect_log("not allowed here", count=None)
        found = {name: httpd.request(f"/{name}/file.txt").status for name in expected}
        assert found == expected


# Switches


def placed(name, value):
    """The line where it may stand."""
    line = f"{name} {value}"
    return inside("Directory /", line) if name in ACCESS else line


@pytest.mark.checklist(16)
@pytest.mark.parametrize("name", SWITCHES)
def test_switches(checked, name):
    for value in ("On", "Off", "on", "off", "ON", "OFF", "oN"):
        assert checked(placed(name, value)) == "", value
    for value in ("Maybe", "1", "0", "Yes", "true", "Onn", '""', "", "On Off"):
        message = checked(placed(name, value))
        assert name in message, f"{name} {value}: {message}"
        if value in ("Maybe", "1") and not paths.PEER:
            assert "Off | On" in message


def test_switches_of_mod_wsgi_are_found():
    assert {"WSGIPassAuthorization", "WSGISocketRotation", "WSGICaseSensitivity"} <= set(SWITCHES)
