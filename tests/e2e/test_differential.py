"""The same request, embedded and in a process group of the same server: the answers differ in
nothing but process ids and timings."""

from __future__ import annotations

import gzip
import re

import pytest
from harness.client import Truncated
from harness.curl import curl

pytestmark = pytest.mark.rwsgi

#: Of the environ: what may differ, and nothing else.
DIFFERENT = {
    # How this test chooses the group.
    "HTTP_X_GROUP",
    "GROUP",
    "mod_wsgi.process_group",
    # Processes, threads, connections.
    "REMOTE_PORT",
    "mod_wsgi.connection_id",
    "mod_wsgi.request_id",
    "mod_wsgi.server_pid",
    "mod_wsgi.thread_id",
    "SSL_SESSION_ID",
    "H2_STREAM_TAG",
    # Timings; queue_start and daemon_start are 0 in embedded mode.
    "mod_wsgi.request_start",
    "mod_wsgi.queue_start",
    "mod_wsgi.daemon_start",
    "mod_wsgi.application_start",
}
GROUPS = {"embedded": "%{GLOBAL}", "daemon": "tests"}


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["env", "setenvif", "deflate", "mime", "alias", "headers", "auth_basic", "rewrite"]
    with new_httpd(threads=8, modules=modules, tls=True, http2=True) as httpd:
        (httpd.root / "passwords").write_text("anna:$apr1$x$H6CRc9vSaV8M9Vxfm.yek/\n")
        (httpd.root / "data" / "content").write_bytes(bytes(range(256)) * 1000)
        (httpd.root / "data" / "content").chmod(0o644)
        httpd.add(f"""
            ServerAdmin admin@example.org
            WSGIPythonPath "{httpd.apps}"
            WSGIDaemonProcess tests threads=8 python-path="{httpd.apps}"
            # The group of the request is chosen by a header, so that all else is the same.
            SetEnvIf X-Group "^daemon$" GROUP=tests
            SetEnvIf X-Group "^embedded$" GROUP=%{{GLOBAL}}
            WSGIProcessGroup %{{ENV:GROUP}}
            WSGIApplicationGroup %{{RESOURCE}}
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /environ "{httpd.apps}/environ.wsgi" callable-object=unchecked
            WSGIScriptAlias /checked "{httpd.apps}/environ.wsgi"
            WSGIScriptAlias /passed "{httpd.apps}/environ.wsgi" pass-authorization=On
            WSGIScriptAlias /protected "{httpd.apps}/environ.wsgi"
            WSGIScriptAlias /deflated "{httpd.apps}/environ.wsgi"
            WSGIScriptAlias /raw "{httpd.apps}/response.wsgi"
            WSGIScriptAlias /validated "{httpd.apps}/response.wsgi" callable-object=validated
            WSGIScriptAlias /input "{httpd.apps}/input.wsgi"
            WSGIScriptAlias /bad "{httpd.apps}/faulty.wsgi"
            WSGIScriptAlias /files "{httpd.apps}/files.wsgi"
            WSGIScriptAlias /no-callable "{httpd.apps}/where.wsgi" callable-object=nothing
            WSGIScriptAlias /limited "{httpd.apps}/input.wsgi"
            SetEnv MY_VARIABLE "some value"
            RewriteEngine On
            RewriteRule ^/environ/rewritten - [E=FROM_REWRITE:yes]
            AddOutputFilterByType DEFLATE text/x-compress
            <Location /deflated>
                SetOutputFilter DEFLATE
            </Location>
            <Location /limited>
                LimitRequestBody 1000
            </Location>
            <Location /protected>
                AuthType Basic
                AuthName test
                AuthUserFile "{httpd.root}/passwords"
                Require valid-user
            </Location>
            <Directory "{httpd.apps}">
                SSLOptions +StdEnvVars
            </Directory>
        """)
        yield httpd.start()


# (method, target, headers, body)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PACKED = gzip.compress(b"packed " * 1000)
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "de,en-US;q=0.7,en;q=0.3",
    "Referer": "http://localhost/somewhere?else=1",
    "Cookie": "sessionid=0123456789abcdef; csrftoken=fedcba9876543210",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
}
REQUESTS = {
    "plain": ("GET", "/environ", {}, None),
    "path and query": ("GET", "/environ/some/path?a=1&b=%20&c", {}, None),
    "percent": ("GET", "/environ/gr%C3%BC%C3%9Fe%20x%2B?q=%C3%BC", {}, None),
    "slashes": ("GET", "//environ///a//b/?c=//", {}, None),
    "browser": ("GET", "/environ/browser", BROWSER, None),
    "latin header": ("GET", "/environ", {"X-Name": "gr\xfc\xdfe", "X-Empty": ""}, None),
    "many headers": ("GET", "/environ", {f"X-Header-{i}": str(i) * 40 for i in range(80)}, None),
    "odd names": ("GET", "/environ", {"X.Dotted": "1", "X_Under": "2", "Proxy": "evil"}, None),
    "authorization": ("GET", "/passed", {"Authorization": "Bearer secret"}, None),
    "hidden authorization": ("GET", "/environ", {"Authorization": "Bearer secret"}, None),
    "user": ("GET", "/protected", {"Authorization": "Basic YW5uYTphbm5h"}, None),
    "no user": ("GET", "/protected", {}, None),
    "rewritten": ("GET", "/environ/rewritten", {}, None),
    "validator": ("GET", "/checked/x?y=z", {}, None),
    "head": ("HEAD", "/environ", {}, None),
    "options": ("OPTIONS", "/environ", {}, None),
    "delete": ("DELETE", "/environ/thing", {}, None),
    "propfind": ("PROPFIND", "/environ", {"Depth": "1"}, None),
    "form": ("POST", "/environ", FORM, b"a=1&b=2"),
    "empty post": ("POST", "/environ", FORM, b""),
    "put": ("PUT", "/input/digest", {}, b"x" * 100_000),
    "upload": ("POST", "/input/digest?size=1000", {}, b"y" * 1_000_000),
    "read by lines": ("POST", "/input/script?ops=readline,read:3,readlines", {}, b"a\nbcdef\ng\nh"),
    "echo": ("POST", "/input/echo", {}, b"z" * 50_000),
    "unread": ("POST", "/input/ignore", {}, b"u" * 5_000),
    "too large": ("POST", "/limited/ignore", {}, b"u" * 5_000),
    "hello": ("GET", "/raw/hello", {}, None),
    "list": ("GET", "/raw/listing", {}, None),
    "generator": ("GET", "/raw/generator", {}, None),
    "write": ("GET", "/raw/writing", {}, None),
    "header fields": ("GET", "/raw/headers", {}, None),
    "long header fields": ("GET", "/raw/many-headers", {}, None),
    "own status": ("GET", "/raw/status?line=299%20Odd", {}, None),
    "404": ("GET", "/raw/not-found", {}, None),
    "401": ("GET", "/raw/unauthorized", {}, None),
    "302": ("GET", "/raw/redirect", {}, None),
    "204": ("GET", "/raw/bodiless?line=204%20No%20Content", {}, None),
    "304": ("GET", "/raw/bodiless?line=304%20Not%20Modified", {}, None),
    "large": ("GET", "/raw/large?size=700001&piece=8000&list=1&length=1", {}, None),
    "large chunked": ("GET", "/raw/large?size=700001&piece=8000", {}, None),
    "empty": ("GET", "/raw/empty-list", {}, None),
    "head with length": ("HEAD", "/raw/head-with-length", {}, None),
    "validated": ("GET", "/validated/iterator", {}, None),
    "compressed": ("GET", "/raw/compressible", {"Accept-Encoding": "gzip"}, None),
    "head mapped": ("HEAD", "/deflated", {}, None),
    "file": ("GET", "/files/whole?file={content}", {}, None),
    "part of a file": ("GET", "/files/from-offset?file={content}&offset=100&length=50", {}, None),
    "pipe": ("GET", "/files/from-pipe", {}, None),
    "overrun": ("GET", "/bad/overrun?list=1", {}, None),
    "no script": ("GET", "/nothing", {}, None),
}
#: With what they put into the error log.
FAILING = {
    "exception": ("GET", "/bad/raising", "RWSGI0200"),
    "exception after start": ("GET", "/bad/raising-after-start", "RWSGI0200"),
    "exception later": ("GET", "/bad/raising-later", "RWSGI0206"),
    "exception within a length": ("GET", "/bad/raising-later?length=30", "RWSGI0206"),
    "never started": ("GET", "/bad/never-started", "RWSGI0200"),
    "not bytes": ("GET", "/bad/returning?name=list-of-str", "RWSGI0200"),
    "exit": ("GET", "/bad/exiting", "RWSGI0201"),
    "underrun": ("GET", "/bad/underrun", "RWSGI0203"),
    "failing close": ("GET", "/bad/failing-close", "RWSGI0204"),
    "no callable": ("GET", "/no-callable", "RWSGI0106"),
}


def normalized(headers, body):
    """Header fields and body without what may differ."""
    fields = [(name.lower(), value) for name, value in headers if name.lower() != "date"]
    if b'"mod_wsgi.process_group"' in body:
        import json

        dump = json.loads(body)
        for key in DIFFERENT:
            dump["values"].pop(key, None)
        for key, kind in dump["types"].items():
            # The text of an object holds its address.
            if kind not in ("str", "int", "float", "bool", "tuple"):
                dump["values"][key] = re.sub("0x[0-9a-f]+", "0x", dump["values"][key])
        # The length follows from the numbers.
        fields = [field for field in fields if field[0] != "content-length"]
        return fields, dump
    if not body and {("x-method", "HEAD"), ("x-method", "GET")} & set(fields):
        fields = [field for field in fields if field[0] != "content-length"]
    return fields, body


def http_1(server, group, method, target, headers, body, tls=False, version="HTTP/1.1"):
    """Everything that a client of HTTP/1 can see of an answer."""
    with server.connect(tls) as connection:
        fields = {"X-Group": group, **headers}
        connection.request(target, method, fields, body, version=version)
        head = connection.read_head()
        try:
            content, end = connection.read_body(head), "whole"
        except Truncated as error:
            content, end = b"", f"cut: {error}"
        connection_ends = False
        if end == "whole" and version == "HTTP/1.1" and head.header("Connection") != "close":
            # It can be used again.
            connection.request("/raw/hello", headers={"X-Group": group})
            connection_ends = connection.read_response().body != b"Hello, world\n"
    fields, content = normalized(head.headers, content)
    return (
        (head.version, head.status, head.reason, head.interim, end, connection_ends),
        fields,
        content,
    )


def http_2(server, group, method, target, headers, body, tls=True):
    """The same through curl."""
    options = ["--http2"] if tls else ["--http2-prior-knowledge"]
    options += ["--head"] if method == "HEAD" else ["--request", method]
    for name, value in {"X-Group": group, **headers}.items():
        # An empty field is written with a semicolon.
        options += ["--header", f"{name}: {value}" if value else f"{name};"]
    if body is not None and "Content-Type" not in headers:
        options += ["--header", "Content-Type:"]
    answer = curl(server.url(target, tls=tls), *options, data=body)
    fields, content = normalized(answer.headers, answer.body)
    return (answer.protocol, answer.status, answer.code), fields, content


PROTOCOLS = {
    "HTTP/1.1": http_1,
    "HTTP/1.0": lambda *request: http_1(*request, version="HTTP/1.0"),
    "TLS": lambda *request: http_1(*request, tls=True),
    "h2": http_2,
    "h2c": lambda *request: http_2(*request, tls=False),
}


def both(server, protocol, method, target, headers=None, body=None):
    """The two answers."""
    target = target.replace("{content}", str(server.root / "data" / "content"))
    return [
        PROTOCOLS[protocol](server, group, method, target, headers or {}, body) for group in GROUPS
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", REQUESTS)
def test_same_answer(server, name, protocol):
    method, target, headers, body = REQUESTS[name]
    if protocol.startswith("h2") and name == "latin header":
        pytest.skip("curl takes its arguments for UTF-8")
    if protocol.startswith("h2") and name in ("form", "unread", "too large"):
        pytest.skip("mod_http2 resets the stream of a body that is not read")
    server.allow_log("RWSGI0016|AH01587")
    embedded, daemon = both(server, protocol, method, target, headers, body)
    assert daemon[0] == embedded[0]
    assert daemon[1] == embedded[1]
    assert daemon[2] == embedded[2]


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "TLS", "h2"])
@pytest.mark.parametrize("name", FAILING)
def test_same_failure(server, name, protocol):
    """The same answer, and the same lines in the error log."""
    method, target, code = FAILING[name]
    told = server.expect_log(code, count=2)
    if protocol == "h2":
        # Whether the head arrives before the stream is reset is a matter of time.
        answers = both(server, protocol, method, target)
        assert answers[0][0][2] == answers[1][0][2]
        if answers[0][0][2] == 0:
            assert answers[0] == answers[1]
    else:
        embedded, daemon = both(server, protocol, method, target)
        assert daemon == embedded
    server.settle_log()
    first, second = (line.message for line in told.lines)
    assert comparable(first) == comparable(second)
    half = len(told.traceback) // 2
    texts = [comparable(line.message) for line in told.traceback]
    assert texts[:half] == texts[half:]


def comparable(message):
    """Without addresses, and without where it ran: the first group of each process is in its main
    interpreter."""
    where = (
        r"(main interpreter, group|sub-interpreter) '[^']*', (embedded mode|process group '\w+')"
    )
    return re.sub(rf"0x[0-9a-f]+|{where}", "", message)


@pytest.mark.parametrize("target", ["/environ", "/checked/x"])
def test_both_really_run_where_they_should(server, target):
    """Otherwise the comparison would compare embedded mode with itself."""
    values = {group: server.json(target, headers={"X-Group": group})["values"] for group in GROUPS}
    assert values["embedded"]["mod_wsgi.process_group"] == ""
    assert values["daemon"]["mod_wsgi.process_group"] == "tests"
    assert (
        values["embedded"]["mod_wsgi.daemon_start"]
        == 0.0
        < values["daemon"]["mod_wsgi.daemon_start"]
    )
    assert set(values["embedded"]) - DIFFERENT == set(values["daemon"]) - DIFFERENT


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "TLS"])
def test_same_chunked_upload(server, protocol):
    answers = []
    for group in GROUPS:
        with server.connect(protocol == "TLS") as connection:
            head = {"X-Group": group, "Transfer-Encoding": "chunked"}
            connection.request("/environ?chunked", "POST", head)
            for piece in (b"a", b"b" * 20_000, b""):
                connection.send_chunk(piece)
            response = connection.read_response()
            answers.append((response.status, normalized(response.headers, response.body)))
    assert answers[0] == answers[1]


def test_same_interim_response(server):
    answers = []
    for group in GROUPS:
        with server.connect() as connection:
            head = {"X-Group": group, "Expect": "100-continue", "Content-Length": "5"}
            connection.request("/input/script?ops=read", "POST", head)
            assert connection.read_line() == b"HTTP/1.1 100 Continue"
            connection.read_line()
            connection.send(b"hello")
            response = connection.read_response()
            answers.append((response.status, normalized(response.headers, response.body)))
    assert answers[0] == answers[1]
    assert answers[0][1][1] == b'["hello"]'


def test_same_objects(server):
    """What an application can find out of the objects that it gets."""
    server.write(
        "apps/objects.wsgi",
        """\
        import json, sys

        def application(environ, start_response):
            stream, errors = environ["wsgi.input"], environ["wsgi.errors"]
            facts = {
                "input": sorted(name for name in dir(stream)),
                "errors": sorted(name for name in dir(errors)),
                "start_response": sorted(dir(start_response)),
                "wrapper": str(environ["wsgi.file_wrapper"]),
                "environ": type(environ).__name__,
                "stdout": type(sys.stdout).__name__,
                "stderr": type(sys.stderr).__name__,
                "argv": sys.argv,
                "name": __name__,
                "flags": str(sys.flags),
                "prefix": sys.prefix,
                "path": sys.path,
                "modules": sorted(m for m in ("mod_wsgi", "apache") if m in sys.modules),
            }
            write = start_response("200 OK", [("Content-Type", "application/json")])
            facts["write"] = sorted(dir(write))
            return [json.dumps(facts).encode()]
        """,
    )
    server.write("apps/where.wsgi", (server.apps / "objects.wsgi").read_text())
    server.write(
        "apps/environ.wsgi",
        (server.apps / "environ.wsgi").read_text() + "\nimport runpy\nobjects = runpy.run_path("
        f"{str(server.apps / 'objects.wsgi')!r})['application']\n"
        "inner = unchecked\n"
        "def unchecked(environ, start_response):\n"
        "    return (objects if environ['PATH_INFO'] == '/objects' else inner)"
        "(environ, start_response)\n",
    )
    embedded, daemon = (
        server.json("/environ/objects", headers={"X-Group": group}) for group in GROUPS
    )
    # The interpreter's executable is the worker's own program: warnings of that are its affair.
    assert daemon == embedded
