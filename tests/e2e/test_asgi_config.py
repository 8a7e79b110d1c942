"""The directives of ASGI: what configtest accepts and refuses, what wins, and which interface an
application gets."""

from __future__ import annotations

import pytest
from harness.asgi import ANY
from harness.config import BOTH
from harness.websocket import WebSocket
from test_contexts import PLACES, SECTIONS

pytestmark = pytest.mark.rwsgi

ANYWHERE = {
    "ASGILifespan": ["Auto", "On", "off"],
    "ASGIWebSocket": ["On", "Off"],
    "ASGIWebSocketCompression": ["On", "Off"],
    "ASGIWebSocketMaxMessage": ["1", "65536", "64K", "16M", "1G", "2147483647"],
    "ASGIWebSocketQueue": ["1", "32", "65535"],
    "ASGIWebSocketPing": ["0", "20", "3600"],
}
SERVER = {
    "ASGIScriptAlias": ["/x /x.py", "/x/ /x/ callable-object=app", '"/a b" "/c d.py"'],
    "ASGIScriptAliasMatch": ["^/x/([a-z]+) /x/$1.py pass-authorization=Off"],
}
GLOBAL = {"ASGILoop": ["asyncio", "uvloop"]}
ALL = {**ANYWHERE, **SERVER, **GLOBAL}
#: Arguments that are refused, and words of the message.
WRONG = {
    "ASGILifespan": [("maybe", ["Auto", "On", "Off"]), ("On Off", []), ("", [])],
    "ASGIWebSocket": [("maybe", ["On", "Off"]), ("", [])],
    "ASGIWebSocketCompression": [("yes", ["On", "Off"])],
    "ASGIWebSocketMaxMessage": [("0", ["1"]), ("-1", []), ("2G", ["2147483647"]), ("many", [])],
    "ASGIWebSocketQueue": [("0", ["1"]), ("65536", ["65535"]), ("1.5", []), ("some", [])],
    "ASGIWebSocketPing": [("-1", []), ("often", []), ("1h30", [])],
    "ASGIScriptAlias": [
        ("/x", []),
        ("/x /x.py interface=asgi", ["interface"]),
        ("/x /x.py colour=blue", ["colour"]),
        ("/x /x.py pass-authorization=perhaps", ["On", "Off"]),
    ],
    "WSGIScriptAlias": [("/x /x.py interface=asgi2", ["wsgi", "asgi", "auto"])],
    "ASGIScriptAliasMatch": [("^/x( /x.py", []), ("^/x", [])],
    "ASGILoop": [("trio", ["asyncio", "uvloop"]), ("", [])],
}


@pytest.fixture(scope="module")
def checked(new_httpd):
    """Checks a configuration; its error text, empty if it is accepted."""
    with new_httpd() as httpd:

        def check(text):
            httpd.config.clear().add(text)
            done = httpd.check()
            return "" if done.returncode == 0 else done.stderr

        yield check


@pytest.mark.parametrize("name", ALL)
def test_accepted(checked, name):
    for value in ALL[name]:
        assert checked(f"{name} {value}") == "", value


@pytest.mark.parametrize("name", ALL)
def test_contexts(checked, name):
    places = {"server"}
    if name not in GLOBAL:
        places |= {"virtual host"}
    if name in ANYWHERE:
        places |= SECTIONS
    for place, text in PLACES.items():
        message = checked(text.format(f"{name} {ALL[name][0]}"))
        assert (message == "") == (place in places), (place, message)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [(name, value, words) for name, cases in WRONG.items() for value, words in cases],
)
def test_refused(checked, name, value, words):
    """The message names the directive, and what is accepted."""
    message = checked(f"{name} {value}")
    assert message, f"accepted: {name} {value}"
    assert name in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("loop=trio", ["loop", "asyncio", "uvloop"]),
        ("concurrency=many", ["concurrency"]),
        ("concurrency=-1", ["concurrency"]),
    ],
)
def test_options_of_groups_refused(checked, options, words):
    message = checked(f"WSGIDaemonProcess x {options}")
    assert message
    for word in words:
        assert word in message


@pytest.mark.parametrize("options", ["loop=asyncio", "loop=uvloop", "concurrency=0 loop=asyncio"])
def test_options_of_groups(checked, options):
    assert checked(f"WSGIDaemonProcess x {options}") == ""


# Which interface

BOTH_KINDS = """\
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"wsgi"]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})

class Asgi:
    async def __call__(self, scope, receive, send):
        await asgi(scope, receive, send)

class Wsgi:
    def __call__(self, environ, start_response):
        return wsgi(environ, start_response)

asgi_object = Asgi()
wsgi_object = Wsgi()
"""
NAMES = ["wsgi", "asgi", "wsgi_object", "asgi_object"]


@pytest.fixture(scope="module", params=BOTH)
def server(request, new_httpd):
    with new_httpd(mode=request.param, threads=4) as httpd:
        httpd.write("site/kinds.py", BOTH_KINDS)
        httpd.write("site/application.py", BOTH_KINDS + "application = asgi\n")
        httpd.write("site/app.py", BOTH_KINDS + "app = asgi\n")
        httpd.write("site/both.py", BOTH_KINDS + "app = None\napplication = asgi\n")
        httpd.write("site/wsgi_app.py", BOTH_KINDS + "app = wsgi\n")
        httpd.write("site/none.py", BOTH_KINDS)
        site = httpd.root / "site"
        for name in NAMES:
            option = f"callable-object={name}"
            httpd.add(f'WSGIScriptAlias /auto/{name} "{site}/kinds.py" {option} interface=auto')
            interface = name.partition("_")[0]
            httpd.add(
                f'WSGIScriptAlias /said/{name} "{site}/kinds.py" {option} interface={interface}'
            )
        httpd.add(f"""
            WSGIApplicationGroup %{{GLOBAL}}
            <Directory "{site}">
                Require all granted
            </Directory>
            WSGIScriptAliasMatch ^/match/(\\w+) "{site}/$1.py" interface=asgi
            ASGIScriptAliasMatch ^/asgi-match/(\\w+) "{site}/$1.py"
            ASGIScriptAlias /directory/ "{site}/"
            ASGIScriptAlias /named "{site}/kinds.py" callable-object=asgi
            ASGIScriptAlias /wrong "{site}/kinds.py" callable-object=wsgi
            WSGIScriptAlias /wsgi-app "{site}/wsgi_app.py"
            WSGIScriptAlias /auto/app "{site}/app.py" interface=auto
            ASGIScriptAlias /directive "{site}/kinds.py"
            <Location /directive>
                WSGICallableObject asgi_object
            </Location>
        """)
        yield httpd.start()


@pytest.mark.parametrize("way", ["auto", "said"])
@pytest.mark.parametrize("name", NAMES)
def test_interface(server, way, name):
    """``auto`` finds out by itself, what kind of callable it is."""
    for _ in range(2):
        assert server.get(f"/{way}/{name}/x").text == name.partition("_")[0]


@pytest.mark.parametrize(
    "target",
    [
        "/match/application",
        "/asgi-match/application",
        "/asgi-match/app",
        "/directory/application.py",
        "/directory/app.py/below",
        "/directory/both.py",
        "/auto/app",
        "/named",
        "/directive",
    ],
)
def test_ways_to_an_application(server, target):
    """`application`, else `app`, unless something else was configured."""
    assert server.get(target).text == "asgi"


def test_wsgi_has_no_second_name(server):
    """`app` is for ASGI only."""
    server.expect_log("RWSGI0106: ")
    assert server.request("/wsgi-app").status == 500


def test_no_callable(server):
    server.expect_log("RWSGI0106: ")
    assert server.request("/directory/none.py").status == 500


def test_callable_of_the_other_kind(server):
    """What WSGI has to offer is no ASGI application, and the log says so."""
    server.expect_log(ANY, count=None)
    server.allow_log(r"TypeError|Traceback|^  ")
    assert server.request("/wrong").status == 500


def test_websocket_to_auto(server):
    """The handshake finds the application as well."""
    server.allow_log(ANY)
    with server.connect() as connection:
        # This application answers by HTTP whatever it is asked.
        assert WebSocket(connection).ask("/auto/asgi").status in (200, 403, 500)


def test_no_uvloop(new_httpd):
    """asyncio takes its place, with a warning."""
    with new_httpd(mode="embedded") as httpd:
        httpd.write("site/app.py", BOTH_KINDS + "app = asgi\n")
        httpd.add(f"""
            ASGILoop uvloop
            ASGIScriptAlias / "{httpd.root}/site/app.py"
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
        """)
        httpd.start()
        httpd.expect_log("RWSGI0655: ")
        assert httpd.get("/").text == "asgi"
