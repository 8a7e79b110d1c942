"""WSGIDispatchScript: a script in httpd's own processes that says who serves a request."""

from __future__ import annotations

import threading

import pytest
from harness.curl import curl

WHERE = """
    import json
    import os
    from wsgiref.validate import validator


    def named(name):
        def answer(environ, start_response):
            told = {
                "callable": name,
                "body": environ["wsgi.input"].read(100).decode(),
                "pid": os.getpid(),
                "wsgi": {key: value for key, value in environ.items() if key[:9] == "mod_wsgi."},
                "HTTP_AUTHORIZATION": environ.get("HTTP_AUTHORIZATION"),
            }
            body = json.dumps(told).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start_response("200 OK", headers)
            return [body]

        return validator(answer)


    application = named("application")
    other = named("other")
    by_variable = named("by_variable")
    handle_request = named("handle_request")
"""

DISPATCH = '''
    """Does what the query says: NAME=VALUE, separated by `&`."""

    import json
    import os
    import threading
    import urllib.parse

    SPECIAL = {
        "None": None,
        "int": 5,
        "list": ["two"],
        "foreign": "gr\\u03bfup",
        "nul": "one\\0two",
        "empty": "",
        "true": True,
    }
    kept = []


    class Text(str):
        pass


    def wanted(environ, what):
        words = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        value = words.get(what)
        if value is None:
            return None
        if value == "raise":
            raise RuntimeError("not today: " + what)
        if value == "exit":
            raise SystemExit(3)
        if value in SPECIAL:
            return SPECIAL[value]
        if value.startswith("bytes:"):
            return value[6:].encode()
        if value.startswith("sub:"):
            return Text(value[4:])
        return value


    def process_group(environ):
        environ["from the first function"] = "kept"
        return wanted(environ, "process")


    def application_group(environ):
        assert environ["from the first function"] == "kept"
        return wanted(environ, "application")


    def callable_object(environ):
        if "tell" in environ["QUERY_STRING"]:
            told = {key: value for key, value in environ.items() if isinstance(value, str)}
            told["pid"] = os.getpid()
            told["others"] = sorted(set(environ) - set(told))
            told["kinds"] = [type(key).__name__ for key in environ]
            told["name"] = __name__
            told["label"] = "LABEL"
            with open(environ["TELL"], "w") as file:
                json.dump(told, file)
        if "log" in environ["QUERY_STRING"]:
            print("printed by the dispatch script")
            environ["wsgi.errors"].write("written by the dispatch script\\n")
        if "keep" in environ["QUERY_STRING"]:
            kept.append(environ)
        if "expired" in environ["QUERY_STRING"]:
            try:
                kept[0]["wsgi.errors"].write("too late\\n")
            except RuntimeError:
                return "other"
        return wanted(environ, "callable")
'''


def dispatch(label="first"):
    return DISPATCH.replace("LABEL", label)


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["env", "setenvif", "rewrite", "alias"]
    with new_httpd(modules=modules, threads=4, http2=True) as httpd:
        script = httpd.write("site/app.wsgi", WHERE)
        side = httpd.write("side/dispatch.py", dispatch())
        httpd.write("side/nothing.py", "'No functions at all.'\n")
        httpd.write("side/only-group.py", "def application_group(environ):\n    return b'only'\n")
        httpd.write("side/not-callable.py", "process_group = 5\n")
        httpd.write("side/arguments.py", "def process_group():\n    return None\n")
        broken = httpd.write("side/broken.py", "def broken(:\n")
        httpd.write("side/exits.py", "import sys\nsys.exit(0)\n")
        httpd.add(f"""
            WSGIDaemonProcess one threads=2
            WSGIDaemonProcess two threads=2
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIDispatchScript "{httpd.root}/side/dispatch.py" application-group=%{{SERVER}}
            WSGIHandlerScript mine "{script}"
            WSGIScriptAlias /app "{script}" application-group=configured callable-object=application
            WSGIScriptAlias /daemon "{script}" process-group=one application-group=configured
            WSGIScriptAlias /plain "{script}"
            WSGIScriptAlias /restricted "{script}" application-group=configured
            WSGIScriptAlias /own "{script}"
            WSGIScriptAlias /nothing "{script}" application-group=configured
            WSGIScriptAlias /only-group "{script}"
            WSGIScriptAlias /not-callable "{script}"
            WSGIScriptAlias /arguments "{script}"
            WSGIScriptAlias /broken "{script}"
            WSGIScriptAlias /exits "{script}"
            WSGIScriptAlias /missing "{script}"
            SetEnv TELL "{httpd.root}/data/told"
            SetEnv GROUP_NAME by-variable
            SetEnv CALLABLE_NAME by_variable
            SetEnv REQUEST_METHOD "not this"
            <Location /app/authorised>
                WSGIPassAuthorization On
            </Location>
            <Location /app/proxied>
                WSGITrustedProxies 127.0.0.1
                WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto X-Script-Name
            </Location>
            <Location /app/request>
                WSGIPassApacheRequest On
            </Location>
            <Location /restricted>
                WSGIRestrictProcess one
            </Location>
            <Location /own>
                WSGIDispatchScript "{httpd.root}/side/dispatch.py" application-group=elsewhere
            </Location>
            <Location /handled>
                Require all granted
                SetHandler mine
            </Location>
        """)
        for name in ("nothing", "only-group", "not-callable", "arguments", "exits", "missing"):
            httpd.add(f"""
                <Location /{name}>
                    WSGIDispatchScript "{httpd.root}/side/{name}.py"
                </Location>
            """)
        httpd.add(f"""
            <Location /broken>
                WSGIDispatchScript "{broken}"
            </Location>
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                WSGIDispatchScript "{httpd.root}/side/only-group.py"
            </VirtualHost>
        """)
        assert side
        yield httpd.start()


def served(server, target, **options):
    told = server.json(target, **options)
    wsgi = told["wsgi"]
    assert wsgi["mod_wsgi.callable_object"] == told["callable"]
    return wsgi["mod_wsgi.process_group"], wsgi["mod_wsgi.application_group"], told["callable"]


@pytest.mark.checklist(46)
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ("", "configured", "application")),
        ("process=None&application=None&callable=None", ("", "configured", "application")),
        ("process=one", ("one", "configured", "application")),
        ("process=bytes:two", ("two", "configured", "application")),
        ("process=sub:two", ("two", "configured", "application")),
        ("application=mine", ("", "mine", "application")),
        ("application=bytes:mine", ("", "mine", "application")),
        ("callable=other", ("", "configured", "other")),
        ("callable=bytes:other", ("", "configured", "other")),
        ("process=two&application=mine&callable=other", ("two", "mine", "other")),
        ("application=empty", ("", "", "application")),
        ("application=%25{GLOBAL}", ("", "", "application")),
        ("application=%25{ENV:GROUP_NAME}", ("", "by-variable", "application")),
        ("application=%25{RESOURCE}", ("", "localhost:PORT|/app", "application")),
        ("application=%25{SERVER}", ("", "localhost:PORT", "application")),
        ("callable=%25{ENV:CALLABLE_NAME}", ("", "configured", "by_variable")),
        ("callable=%25{ENV:UNKNOWN}", ("", "configured", "application")),
    ],
)
def test_decisions(server, query, expected):
    expected = tuple(word.replace("PORT", str(server.port)) for word in expected)
    assert served(server, f"/app/x?{query}") == expected


@pytest.mark.checklist(46)
@pytest.mark.parametrize("group", ["empty", "%25{GLOBAL}"])
def test_from_a_process_group_to_httpd_itself(server, group):
    assert served(server, "/daemon/x")[0] == "one"
    told = server.json(f"/daemon/x?process={group}")
    assert told["wsgi"]["mod_wsgi.process_group"] == ""
    assert told["pid"] in server.children()


@pytest.mark.checklist(46)
@pytest.mark.parametrize("function", ["process", "application", "callable"])
@pytest.mark.parametrize(
    ("result", "line"),
    [
        ("raise", "RWSGI0501: .*RuntimeError"),
        ("exit", "RWSGI0501: .*SystemExit"),
        ("int", "RWSGI0502: .*returned an object of type int"),
        ("true", "RWSGI0502: .*returned an object of type bool"),
        ("list", "RWSGI0502: .*returned an object of type list"),
        ("foreign", "RWSGI0501: .*UnicodeEncodeError"),
        ("nul", "RWSGI0502: "),
    ],
)
@pytest.mark.rwsgi
def test_failures(server, function, result, line):
    expected = server.expect_log(line)
    assert server.request(f"/app/x?{function}={result}").status == 500
    server.settle_log()
    assert f"{function}_" in expected.lines[0].message


@pytest.mark.checklist(46)
def test_nothing_to_say(server):
    assert served(server, "/nothing/x") == ("", "configured", "application")
    assert served(server, "/only-group/x")[1] == "only"


@pytest.mark.rwsgi
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("broken", "RWSGI0103: .*SyntaxError"),
        ("exits", "RWSGI0103: .*SystemExit"),
        ("missing", "RWSGI0103: .*FileNotFoundError"),
        ("not-callable", "RWSGI0501: .*TypeError"),
        ("arguments", "RWSGI0501: .*TypeError"),
    ],
)
def test_scripts_that_cannot_be_asked(server, name, line):
    """No guess is made about who should serve."""
    for _ in range(2):
        server.expect_log(line)
        assert server.request(f"/{name}/x").status == 500


def told_environ(server, target, **options):
    import json

    file = server.root / "data" / "told"
    file.unlink(missing_ok=True)
    assert server.request(target, **options).status == 200
    return json.loads(file.read_text())


@pytest.mark.checklist(46)
@pytest.mark.rwsgi
def test_environ(server):
    headers = {"X-Own": "own", "X_Under": "no", "Authorization": "Basic eDp5", "Proxy": "no"}
    told = told_environ(server, "/app/a//b%20c?tell&x=y", headers=headers)
    expected = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/a/b c",
        "QUERY_STRING": "tell&x=y",
        "REQUEST_URI": "/app/a//b%20c?tell&x=y",
        "SCRIPT_FILENAME": f"{server.root}/site/app.wsgi",
        "DOCUMENT_ROOT": f"{server.root}/htdocs",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_SCHEME": "http",
        "HTTP_HOST": f"localhost:{server.port}",
        "HTTP_X_OWN": "own",
        "GROUP_NAME": "by-variable",
        "mod_wsgi.process_group": "",
        "mod_wsgi.application_group": f"localhost:{server.port}",
        "mod_wsgi.request_handler": "wsgi-script",
        "mod_wsgi.handler_script": "",
        "mod_wsgi.script_name": "/app",
        "mod_wsgi.path_info": "/a/b c",
        "mod_wsgi.listener_port": str(server.port),
        "mod_wsgi.server_pid": str(told["pid"]),
    }
    assert {key: told.get(key) for key in expected} == expected
    assert told["pid"] in server.children()
    assert told["name"].startswith("_mod_wsgi_")
    absent = ["HTTP_AUTHORIZATION", "HTTP_X_UNDER", "HTTP_PROXY", "HTTPS", "PATH"]
    absent += ["mod_wsgi.callable_object", "CONTENT_LENGTH"]
    assert [key for key in absent if key in told] == []
    assert told["others"] == ["apache.version", "mod_wsgi.version", "wsgi.errors"]
    assert set(told["kinds"]) == {"str"}


def test_environ_follows_the_configuration(server):
    headers = {"Authorization": "Basic eDp5"}
    told = told_environ(server, "/app/authorised?tell", headers=headers)
    assert told["HTTP_AUTHORIZATION"] == "Basic eDp5"
    told = told_environ(server, "/own/x?tell")
    assert told["mod_wsgi.application_group"] == "elsewhere"
    told = told_environ(server, "/handled/x?tell")
    assert told["mod_wsgi.handler_script"] == f"{server.root}/site/app.wsgi"
    assert told["mod_wsgi.request_handler"] == "mine"


def test_trusted_proxies(server):
    """The script sees the client as the application will."""
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    headers["X-Script-Name"] = "/outside"
    told = told_environ(server, "/app/proxied/x?tell", headers=headers)
    assert (told["REMOTE_ADDR"], told["HTTPS"]) == ("192.0.2.7", "1")
    assert (told["SCRIPT_NAME"], told["mod_wsgi.script_name"]) == ("/outside", "/app")
    assert told["mod_wsgi.mount_point"] == "/outside"
    told = told_environ(server, "/app/x?tell", headers=headers)
    assert (told["REMOTE_ADDR"], told["SCRIPT_NAME"]) == ("127.0.0.1", "/app")
    assert "HTTPS" not in told


@pytest.mark.checklist(75)
def test_request_structure(server):
    told = told_environ(server, "/app/request?tell")
    assert "apache.request_rec" in told["others"]


def test_bodies_are_for_the_application(server):
    for query in ("", "process=one"):
        told = server.json(f"/app/x?{query}", method="POST", body=b"a body")
        assert told["body"] == "a body"


def test_log(server):
    server.expect_log("printed by the dispatch script")
    server.expect_log("written by the dispatch script")
    server.get("/app/x?log")


def test_nothing_is_of_use_afterwards(server):
    server.get("/own/x?keep")
    assert served(server, "/own/x?expired")[2] == "other"


@pytest.mark.checklist(42, 46)
@pytest.mark.rwsgi
def test_what_is_decided_must_be_allowed(server):
    assert served(server, "/restricted/x?process=one")[0] == "one"
    server.expect_log("RWSGI0338: .*'two'")
    assert server.request("/restricted/x?process=two").status == 500
    server.expect_log("RWSGI0009: .*'nobody'")
    assert server.request("/app/x?process=nobody").status == 500
    server.expect_log("RWSGI0106: .*'nothing'")
    assert server.request("/app/x?callable=nothing").status == 500


@pytest.mark.checklist(45, 46)
def test_handler_scripts(server):
    assert served(server, "/handled/x")[2] == "handle_request"
    assert served(server, "/handled/x?process=two&application=mine") == (
        "two",
        "mine",
        "handle_request",
    )
    assert served(server, "/handled/x?callable=other")[2] == "other"


def test_virtual_hosts(server):
    """A virtual host's own script instead of the main server's."""
    headers = {"Host": f"second.example:{server.port}"}
    assert served(server, "/plain/x?application=mine", headers=headers)[1] == "only"
    assert served(server, "/plain/x?application=mine")[1] == "mine"


def test_http2(server):
    answer = curl(server.url("/app/x?process=two&callable=other"), "--http2-prior-knowledge")
    assert answer.status == 200 and b'"callable": "other"' in answer.body


def test_many_at_once(server):
    expected = {"one": "mine", "two": "other", "empty": "third"}
    wrong = []

    def ask(process, group):
        with server.connect() as connection:
            for number in range(50):
                connection.request(f"/app/{number}?process={process}&application={group}")
                wsgi = connection.read_response().json()["wsgi"]
                found = wsgi["mod_wsgi.process_group"], wsgi["mod_wsgi.application_group"]
                if found != (process.replace("empty", ""), group):
                    wrong.append(found)

    threads = [threading.Thread(target=ask, args=pair) for pair in expected.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("mpm", ["worker", "prefork"])
def test_other_mpms(new_httpd, mpm):
    with new_httpd(mpm=mpm, threads=2) as httpd:
        script = httpd.write("site/app.wsgi", WHERE)
        httpd.write("side/dispatch.py", dispatch())
        httpd.add(f"""
            WSGIDaemonProcess one threads=2
            WSGIDispatchScript "{httpd.root}/side/dispatch.py" application-group=side
            WSGIHandlerScript mine "{script}" application-group=%{{GLOBAL}}
            <Location />
                Require all granted
                SetHandler mine
                WSGIPassApacheRequest On
            </Location>
        """)
        httpd.start()
        assert served(httpd, "/x") == ("", "", "handle_request")
        assert served(httpd, "/x?process=one&callable=other") == ("one", "", "other")
        httpd.expect_log("RWSGI0501: ")
        assert httpd.request("/x?application=raise").status == 500


@pytest.mark.checklist(47)
def test_restricted_embedded(new_httpd):
    """Python runs in httpd's processes for the dispatch script, and for nothing else."""
    with new_httpd() as httpd:
        script = httpd.write("site/app.wsgi", WHERE)
        httpd.write("side/dispatch.py", dispatch())
        httpd.add(f"""
            WSGIRestrictEmbedded On
            WSGIDaemonProcess one threads=2
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIDispatchScript "{httpd.root}/side/dispatch.py"
            WSGIScriptAlias /app "{script}"
        """)
        httpd.start()
        assert httpd.json("/app/x?process=one")["callable"] == "application"
        httpd.expect_log("RWSGI0008: ")
        assert httpd.request("/app/x").status == 500


@pytest.mark.checklist(160)
@pytest.mark.rwsgi
def test_reloading(new_httpd):
    """In place, in the same process; code that does not load leaves the old one in charge."""
    with new_httpd(modules=["env"]) as httpd:
        script = httpd.write("site/app.wsgi", WHERE)
        httpd.write("side/dispatch.py", dispatch("first"), age=1000)
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            SetEnv TELL "{httpd.root}/data/told"
            WSGIDispatchScript "{httpd.root}/side/dispatch.py"
            WSGIScriptAlias /app "{script}"
            <Location /app/frozen>
                WSGIScriptReloading Off
            </Location>
            <Location /app/strict>
                WSGIReloadFailure Fail
            </Location>
        """)
        httpd.start()
        first = told_environ(httpd, "/app/x?tell")
        assert first["label"] == "first"
        assert first["mod_wsgi.application_group"] == ""
        httpd.write("side/dispatch.py", dispatch("second"), age=900)
        assert told_environ(httpd, "/app/frozen?tell")["label"] == "first"
        second = told_environ(httpd, "/app/x?tell")
        assert (second["label"], second["pid"]) == ("second", first["pid"])
        httpd.write("side/dispatch.py", "def broken(:\n", age=800)
        httpd.expect_log("RWSGI0104: ")
        assert told_environ(httpd, "/app/x?tell")["label"] == "second"
        httpd.settle_log()
        httpd.expect_log("RWSGI0103: ")
        assert httpd.request("/app/strict?tell").status == 500
        httpd.write("side/dispatch.py", dispatch("third"), age=700)
        assert told_environ(httpd, "/app/x?tell")["label"] == "third"
