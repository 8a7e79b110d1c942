"""Every directive of mod_wsgi 6 is accepted in the contexts in which mod_wsgi accepts it, and in no
others. The table was made from mod_wsgi itself; ``RWSGI_TEST_PEER`` compares them again."""

from __future__ import annotations

import pytest
from harness import paths
from harness.server import Httpd

#: By kind of context: a directive and arguments that are accepted.
GLOBAL = {
    "WSGIAcceptMutex": "flock",
    "WSGICaseSensitivity": "On",
    "WSGIDestroyInterpreter": "On",
    "WSGIDontWriteBytecode": "On",
    "WSGIFreeThreading": "Off",
    "WSGIPerInterpreterGIL": "Off",
    "WSGIPythonEggs": "/tmp",
    "WSGIPythonHashSeed": "1",
    "WSGIPythonHome": "/usr",
    "WSGIPythonOptimize": "1",
    "WSGIPythonPath": "/tmp",
    "WSGIPythonWarnings": "ignore",
    "WSGIRestrictEmbedded": "On",
    "WSGIRestrictSignal": "On",
    "WSGIRestrictStdin": "On",
    "WSGIRestrictStdout": "On",
    "WSGIServerMetrics": "On",
    "WSGISlowRequests": "1.5",
    "WSGISocketPrefix": "run/wsgi",
    "WSGISocketRotation": "On",
    "WSGISwitchInterval": "0.01",
    "WSGITelemetryOptions": "+CaptureUserAgent",
    "WSGITelemetryService": "unix:/tmp/none.sock interval=2",
    "WSGIVerboseDebugging": "Off",
}
SERVER = {
    "WSGIDaemonProcess": "fresh threads=2",
    "WSGIImportScript": "/x.wsgi process-group=%{GLOBAL} application-group=%{GLOBAL}",
    "WSGIScriptAlias": "/x /x.wsgi callable-object=app",
    "WSGIScriptAliasMatch": "^/x/([a-z]+) /x/$1.wsgi pass-authorization=On",
}
ANYWHERE = {
    "WSGIApplicationGroup": "%{SERVER}",
    "WSGICallableObject": "app",
    "WSGIChunkedRequest": "On",
    "WSGIDispatchScript": "/x.wsgi application-group=%{HOST}",
    "WSGIEnableSendfile": "On",
    "WSGIErrorOverride": "On",
    "WSGIHandlerScript": "name /x.wsgi process-group=%{GLOBAL}",
    "WSGIIgnoreActivity": "On",
    "WSGIMapHEADToGET": "Auto",
    "WSGIPassApacheRequest": "On",
    "WSGIPassAuthorization": "On",
    "WSGIProcessGroup": "%{ENV:GROUP}",
    "WSGIRestrictProcess": "a %{GLOBAL}",
    "WSGIScriptReloading": "Off",
    "WSGITrustedProxies": "10.0.0.0/8 ::1",
    "WSGITrustedProxyHeaders": "X-Forwarded-For X-Forwarded-Proto",
}
AUTH = {
    "WSGIAccessScript": "/x.wsgi application-group=%{GLOBAL}",
    "WSGIAuthGroupScript": "/x.wsgi",
    "WSGIAuthUserScript": "/x.wsgi application-group=auth",
    "WSGIGroupAuthoritative": "Off",
}
DIRECTIVES = {**GLOBAL, **SERVER, **ANYWHERE, **AUTH}

PLACES = {
    "server": "{}",
    "virtual host": "<VirtualHost *:1>\nServerName a\n{}\n</VirtualHost>",
    "directory": "<Directory /x>\n{}\n</Directory>",
    "directory pattern": '<DirectoryMatch "^/x">\n{}\n</DirectoryMatch>',
    "location": "<Location /x>\n{}\n</Location>",
    "files": "<Files x>\n{}\n</Files>",
    "if": "<If \"%{{HTTP_HOST}} == 'x'\">\n{}\n</If>",
    "method in a directory": "<Directory /x>\n<Limit GET>\n{}\n</Limit>\n</Directory>",
    "directory of a virtual host": "<VirtualHost *:1>\n<Directory /x>\n{}\n</Directory>\n"
    "</VirtualHost>",
}
SECTIONS = set(PLACES) - {"server", "virtual host"}


def accepted_in(name):
    """The places for a directive."""
    if name in GLOBAL:
        return {"server"}
    if name in SERVER:
        return {"server", "virtual host"}
    if name in AUTH:
        return SECTIONS
    return SECTIONS | {"server", "virtual host"}


@pytest.fixture(scope="module")
def server():
    with Httpd(modules=["authn_core", "auth_basic", "authz_host"]) as server:
        yield server


def check(server, text):
    server.config.clear().add(text)
    return server.check()


@pytest.mark.parametrize("place", PLACES)
def test_accepted(server, place):
    lines = [f"{name} {text}" for name, text in DIRECTIVES.items() if place in accepted_in(name)]
    done = check(server, PLACES[place].format("\n".join(lines)))
    assert done.returncode == 0, done.stderr


@pytest.mark.checklist(21)
@pytest.mark.parametrize("name", DIRECTIVES)
def test_refused_elsewhere(server, name):
    for place in set(PLACES) - accepted_in(name):
        done = check(server, PLACES[place].format(f"{name} {DIRECTIVES[name]}"))
        assert done.returncode != 0, place
        assert name in done.stderr or "cannot occur within" in done.stderr, (place, done.stderr)


#: An empty list is one.
MAY_BE_EMPTY = {
    "WSGIRestrictProcess",
    "WSGITrustedProxies",
    "WSGITrustedProxyHeaders",
}


@pytest.mark.parametrize("name", DIRECTIVES)
def test_arguments(server, name):
    place = "server" if "server" in accepted_in(name) else "directory"
    done = check(server, PLACES[place].format(name))
    assert (done.returncode == 0) == (name in MAY_BE_EMPTY), done.stderr
    assert paths.PEER or name in done.stderr or done.returncode == 0
