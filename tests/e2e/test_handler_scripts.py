"""WSGIHandlerScript: a script that answers for files, locations and rewriting rules."""

from __future__ import annotations

import os
import shutil

import pytest
from harness.config import BOTH, GROUP
from harness.curl import curl
from harness.group import ROOT
from harness.jail import jail

MODES = BOTH

HANDLER = '''
    import json
    import os
    from wsgiref.validate import validator

    asked = []


    def reload_required(resource):
        asked.append(resource)
        return os.path.exists(os.path.join(os.path.dirname(__file__), "reload"))


    @validator
    def handle_request(environ, start_response):
        """Answers for every resource."""
        keys = ["SCRIPT_NAME", "PATH_INFO", "SCRIPT_FILENAME", "HTTP_AUTHORIZATION"]
        keys += ["CONTENT_LENGTH", "DOCUMENT_ROOT", "REDIRECT_URL"]
        told = {key: environ.get(key) for key in keys}
        told.update((key[9:], value) for key, value in environ.items() if key[:9] == "mod_wsgi.")
        told["label"] = "LABEL"
        told["file"] = __file__
        told["name"] = __name__
        told["pid"] = os.getpid()
        told["asked"] = list(asked)
        if environ["PATH_INFO"] != "/unread":
            told["body"] = environ["wsgi.input"].read(1000).decode()
        told.pop("version")
        body = json.dumps(told).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]


    application = None
'''


def handler(label="first"):
    return HANDLER.replace("LABEL", label)


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = ["alias", "mime", "rewrite", "actions", "env", "dir"]
    with new_httpd(modules=modules) as httpd:
        root = httpd.root
        httpd.write("scripts/one.py", handler("one"))
        httpd.write("scripts/two.py", handler("two"))
        httpd.write("scripts/three.py", handler("three"))
        httpd.write("scripts/lacking.py", "application = None\n")
        httpd.write("htdocs/page.one", "a page")
        httpd.write("htdocs/page.two", "a page")
        httpd.write("htdocs/sub/page.one", "a page")
        httpd.write("htdocs/sub/page.two", "a page")
        httpd.write("htdocs/plain.txt", "plain")
        httpd.write("htdocs/access/.htaccess", "AddHandler ONE .three\n")
        httpd.write("htdocs/access/page.three", "a page")
        (root / "htdocs" / "directory").mkdir()
        httpd.add(f"""
            WSGIHandlerScript one "{root}/scripts/two.py"
            WSGIHandlerScript one "{root}/scripts/one.py" application-group=%{{GLOBAL}}
            WSGIHandlerScript two-names "{root}/scripts/two.py"
            WSGIHandlerScript Mixed-Case scripts/three.py
            WSGIHandlerScript lacking "{root}/scripts/lacking.py"
            WSGIHandlerScript missing "{root}/scripts/missing.py"
            WSGIHandlerScript grouped "{root}/scripts/one.py" application-group=%{{ENV:WHICH}} \\
                process-group=%{{ENV:WHERE}} pass-authorization=On
            WSGIHandlerScript unauthorised "{root}/scripts/one.py" pass-authorization=Off
            WSGIHandlerScript text/x-handled "{root}/scripts/two.py"
            WSGIHandlerScript nowhere "{root}/scripts/one.py" process-group=%{{ENV:MISSING}}
            WSGIHandlerScript wsgi-script "{root}/scripts/missing.py"
            <Directory "{root}">
                Require all granted
            </Directory>
            <Directory "{root}/htdocs">
                AddHandler one .one
                AddHandler two-names .two
                AddType text/x-handled .handled
            </Directory>
            <Directory "{root}/htdocs/sub">
                WSGIHandlerScript one "{root}/scripts/three.py" application-group=sub
            </Directory>
            <Directory "{root}/htdocs/access">
                AllowOverride FileInfo
            </Directory>
            <Location /located>
                SetHandler two-names
            </Location>
            <Location /virtual>
                SetHandler one
            </Location>
            <Location /mixed>
                SetHandler Mixed-Case
            </Location>
            <Location /lacking>
                SetHandler lacking
            </Location>
            <Location /missing>
                SetHandler missing
            </Location>
            <Location /nowhere>
                SetHandler nowhere
            </Location>
            <Location /grouped>
                SetEnv WHICH named
                SetEnv WHERE "{"%{GLOBAL}" if httpd.mode == "embedded" else GROUP}"
                SetHandler grouped
                WSGIApplicationGroup "the option wins"
                WSGIProcessGroup "the option wins"
                WSGICallableObject "not for handlers"
            </Location>
            <Location /unauthorised>
                SetHandler unauthorised
                WSGIPassAuthorization On
            </Location>
            <Location /authorised>
                SetHandler one
                WSGIPassAuthorization On
                WSGIApplicationGroup located
            </Location>
            <Location /strict>
                SetHandler one
                AcceptPathInfo Off
            </Location>
            <Location /aliased/by-handler>
                SetHandler two-names
            </Location>
            WSGIScriptAlias /aliased "{httpd.apps}/where.wsgi" callable-object=other \\
                application-group=of-the-alias
            WSGIScriptAlias /the-file "{root}/scripts/two.py" application-group=shared \\
                callable-object=handle_request
            <Location /the-handler>
                SetHandler two-names
                WSGIApplicationGroup shared
            </Location>
            RewriteEngine On
            RewriteOptions InheritDown
            RewriteRule ^/rewritten/(.*) - [H=two-names]
            RewriteRule ^/by-extension\\.(one)$ - [H=$1]
            Action acted /virtual/acted virtual
            <Location /act>
                SetHandler acted
            </Location>
            <VirtualHost *:{httpd.port}>
                ServerName localhost
                RewriteEngine On
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                WSGIHandlerScript one "{root}/scripts/two.py"
                WSGIHandlerScript only-here "{root}/scripts/three.py"
                <Location /only-here>
                    SetHandler only-here
                </Location>
            </VirtualHost>
        """)
        yield httpd.start()


@pytest.mark.checklist(45, 72)
@pytest.mark.parametrize(
    ("target", "label", "resource", "script_name", "path_info"),
    [
        ("/page.one", "one", "htdocs/page.one", "/page.one", ""),
        ("/page.one/more/path", "one", "htdocs/page.one", "/page.one", "/more/path"),
        ("/page.two", "two", "htdocs/page.two", "/page.two", ""),
        # A section of its own for one name; the other one is inherited.
        ("/sub/page.one", "three", "htdocs/sub/page.one", "/sub/page.one", ""),
        ("/sub/page.two", "two", "htdocs/sub/page.two", "/sub/page.two", ""),
        # No such file, and none that could be executed: that is the handler's business.
        ("/absent.one", "one", "htdocs/absent.one", "/absent.one", ""),
        ("/virtual", "one", "htdocs/virtual", "/virtual", ""),
        ("/virtual/a//b", "one", "htdocs/virtual", "/virtual", "/a/b"),
        ("/located/x", "two", "htdocs/located", "/located", "/x"),
        ("/rewritten/x", "two", "htdocs/rewritten", "/rewritten", "/x"),
        ("/by-extension.one", "one", "htdocs/by-extension.one", "/by-extension.one", ""),
        ("/absent.handled", "two", "htdocs/absent.handled", "/absent.handled", ""),
        ("/access/page.three", "one", "htdocs/access/page.three", "/access/page.three", ""),
    ],
)
def test_who_answers(server, target, label, resource, script_name, path_info):
    told = server.json(target)
    assert told["label"] == label
    assert told["SCRIPT_FILENAME"] == f"{server.root}/{resource}"
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == (script_name, path_info)
    assert told["callable_object"] == "handle_request"
    assert told["handler_script"] == told["file"] == f"{server.root}/scripts/{label}.py"
    assert told["process_group"] == (GROUP if server.daemon else "")
    assert told["name"].startswith("_mod_wsgi_")


@pytest.mark.checklist(45, 72)
def test_names(server):
    assert server.json("/page.two")["request_handler"] == "two-names"
    assert server.json("/located")["request_handler"] == "two-names"
    assert server.json("/absent.handled")["request_handler"] == "text/x-handled"
    # A plain script is no handler's, and its name cannot be taken over.
    told = server.json("/the-file")
    assert told["request_handler"] == "wsgi-script"
    assert told["handler_script"] == ""
    assert told["SCRIPT_FILENAME"] == told["file"]


@pytest.mark.rwsgi
def test_case_of_names(server):
    """httpd makes them lower case in all places, so that here is none that would match."""
    told = server.json("/mixed/x")
    assert (told["label"], told["request_handler"]) == ("three", "mixed-case")
    # A relative path is one below ServerRoot.
    assert told["handler_script"] == f"{server.root}/scripts/three.py"


def test_a_script_for_both(server):
    """One module; each kind of request has its own environ, in whatever order they come."""
    for _ in range(2):
        by_file = server.json("/the-file")
        by_handler = server.json("/the-handler/x")
        assert by_file["name"] == by_handler["name"]
        assert by_file["application_group"] == by_handler["application_group"] == "shared"
        assert by_file["handler_script"] == ""
        assert by_handler["handler_script"] == by_file["file"]
        assert by_file["SCRIPT_FILENAME"] == by_file["file"]
        assert by_handler["SCRIPT_FILENAME"] == f"{server.root}/htdocs/the-handler"


def test_others_are_left_alone(server):
    assert server.get("/plain.txt").body == b"plain"
    assert server.request("/absent.txt").status == 404


@pytest.mark.checklist(35)
def test_options_win(server):
    told = server.json("/grouped/x", headers={"Authorization": "Basic eDp5"})
    assert told["application_group"] == "named"
    assert told["process_group"] == (GROUP if server.daemon else "")
    assert told["callable_object"] == "handle_request"
    assert told["HTTP_AUTHORIZATION"] == "Basic eDp5"
    told = server.json("/unauthorised", headers={"Authorization": "Basic eDp5"})
    assert told["HTTP_AUTHORIZATION"] is None
    # Where the handler says nothing the section does, also against the server's settings.
    told = server.json("/authorised", headers={"Authorization": "Basic eDp5"})
    assert told["HTTP_AUTHORIZATION"] == "Basic eDp5"
    assert told["application_group"] == ""
    assert server.json("/sub/page.one")["application_group"] == "sub"


@pytest.mark.rwsgi
def test_default_group(server):
    """One group for the handler in its virtual host: clients do not make interpreters."""
    groups = {
        server.json(target)["application_group"]
        for target in ("/page.two", "/located/x", "/sub/page.two", "/rewritten/1", "/rewritten/2")
    }
    assert groups == {f"localhost:{server.port}|two-names"}


def test_virtual_hosts(server):
    """A virtual host's own come before the main server's, which it inherits."""
    second = {"Host": f"second.example:{server.port}"}
    assert server.json("/virtual", headers=second)["label"] == "two"
    assert server.json("/only-here", headers=second)["label"] == "three"
    assert server.json("/located", headers=second)["label"] == "two"
    # Directory sections come before both.
    assert server.json("/sub/page.one", headers=second)["label"] == "three"
    assert server.request("/only-here").status == 404


@pytest.mark.checklist(45)
def test_bodies(server):
    told = server.json("/virtual/form", method="POST", body=b"a=b&c=d")
    assert told["body"] == "a=b&c=d" and told["CONTENT_LENGTH"] == "7"
    # An unread one does not disturb the next request.
    with server.connect() as connection:
        connection.request("/virtual/unread", method="POST", body=b"x" * 70000)
        assert connection.read_response().status == 200
        connection.request("/virtual")
        assert connection.read_response().status == 200


def test_internal_redirect(server):
    """mod_actions hands a request over to the handler's location."""
    told = server.json("/act/this")
    assert told["label"] == "one"
    assert told["SCRIPT_NAME"] + told["PATH_INFO"] == "/virtual/acted/act/this"
    assert told["REDIRECT_URL"] == "/act/this"


def test_alias_and_handler(server):
    """SetHandler within an alias: the handler's options count, not the alias's."""
    assert server.json("/aliased/x")["callable"] == "other"
    told = server.json("/aliased/by-handler/x")
    assert told["label"] == "two"
    assert told["callable_object"] == "handle_request"
    assert told["application_group"] != "of-the-alias"
    assert told["SCRIPT_FILENAME"] == f"{server.apps}/where.wsgi"


@pytest.mark.rwsgi
def test_refused(server):
    server.expect_log("RWSGI0013: AcceptPathInfo is off")
    assert server.request("/strict/more").status == 404
    assert server.request("/strict").status == 200
    server.expect_log("RWSGI0106: script '.*lacking.py' has no callable 'handle_request'")
    assert server.request("/lacking").status == 500
    server.expect_log("RWSGI0103: ")
    assert server.request("/missing").status == 500
    server.expect_log(r"RWSGI0009: .*'%\{ENV:MISSING\}'")
    assert server.request("/nowhere").status == 500


@pytest.mark.checklist(45, 72)
def test_http2(new_httpd):
    with new_httpd(http2=True) as httpd:
        httpd.write("scripts/one.py", handler("one"))
        httpd.add(f"""
            WSGIHandlerScript one "{httpd.root}/scripts/one.py"
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <Location /virtual>
                SetHandler one
            </Location>
        """)
        httpd.start()
        answer = curl(httpd.url("/virtual/x"), "--http2-prior-knowledge")
        assert answer.status == 200
        assert b'"label": "one"' in answer.body


@pytest.fixture
def site(new_httpd):
    """A server of its own, whose handler changes."""
    with new_httpd() as httpd:
        httpd.write("scripts/handler.py", handler(), age=1000)
        httpd.add(f"""
            WSGIHandlerScript mine "{httpd.root}/scripts/handler.py" application-group=%{{GLOBAL}}
            <Directory "{httpd.root}">
                Require all granted
            </Directory>
            <Location />
                SetHandler mine
            </Location>
            <Location /frozen>
                WSGIScriptReloading Off
            </Location>
        """)
        yield httpd.start()


@pytest.mark.checklist(158, 161)
def test_reloading(site):
    first = site.json("/x")
    assert first["label"] == "first"
    site.write("scripts/handler.py", handler("second"), age=500)
    # In a process group a replacement is another process, which answers either request.
    assert site.json("/x")["label"] == "second"
    assert (site.json("/x")["pid"] == first["pid"]) is not site.daemon
    if not site.daemon:
        site.write("scripts/handler.py", handler("third"), age=400)
        assert site.json("/frozen")["label"] == "second"
        assert site.json("/x")["label"] == "third"


@pytest.mark.checklist(159)
def test_reload_required(site):
    """It is asked for the resource, and its word decides."""
    site.get("/first")
    told = site.json("/some/file")
    assert told["asked"][-1] == f"{site.root}/htdocs/some"
    pid = told["pid"]
    site.write("scripts/reload", "")
    told = site.json("/again")
    assert told["asked"] == []
    assert (told["pid"] == pid) is not site.daemon
    (site.root / "scripts" / "reload").unlink()
    site.get("/settle")
    assert site.json("/again")["asked"]


@pytest.mark.rwsgi
def test_root(site):
    """The root of the site is a directory; SCRIPT_NAME is never `/`."""
    for target in ("/", "//", "/?x"):
        told = site.json(target)
        assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("", "/")
        assert (told["script_name"], told["path_info"]) == ("", "/")
        assert told["SCRIPT_FILENAME"] == f"{site.root}/htdocs/"


@pytest.mark.parametrize(
    ("line", "status", "script_name"),
    [
        ("OPTIONS * HTTP/1.1", 200, None),
        ("GET http://other.example/abs?x HTTP/1.1", 200, "/abs"),
        ("GET /%ff%fe%E9 HTTP/1.1", 200, "/\xff\xfe\xe9"),
        ("GET /a%2fb HTTP/1.1", 404, None),
        ("GET /" + "a" * 4000 + " HTTP/1.1", 403, None),
        ("GET /a" + "/a" * 2000 + " HTTP/1.1", 200, "/a"),
        ("PROPFIND /x HTTP/1.1", 200, "/x"),
        ("GET /a/../../../etc/passwd HTTP/1.1", 400, None),
    ],
)
def test_odd_requests(site, line, status, script_name):
    site.allow_log("AH00036|AH10244|AH00026|WSGIWarning|warnings.warn")
    with site.connect() as connection:
        connection.send(f"{line}\r\nHost: localhost\r\n\r\n".encode())
        connection.method = line.split()[0]
        response = connection.read_response()
        assert response.status == status
        if script_name:
            assert response.json()["SCRIPT_NAME"] == script_name


@pytest.mark.checklist(158)
@pytest.mark.rwsgi
def test_deleted(site):
    """The old code goes on, the new one comes when it is there."""
    assert site.json("/x")["label"] == "first"
    script = site.root / "scripts" / "handler.py"
    script.unlink()
    site.expect_log("RWSGI0104: .*the old code goes on serving")
    assert site.json("/x")["label"] == "first"
    site.write("scripts/handler.py", handler("second"), age=500)
    site.wait_until(lambda: site.json("/x")["label"] == "second", "the new code does not come")


@ROOT
@pytest.mark.modes("daemon")
@pytest.mark.rwsgi("daemon")
def test_where_httpd_must_not_look(new_httpd):
    """A directory that is the group's only: the worker looks at the script itself."""
    with new_httpd(daemon="user=nobody threads=2") as httpd:
        private = httpd.write("private/handler.py", handler(), age=1000).parent
        shutil.chown(private, "nobody")
        private.chmod(0o700)
        httpd.add(f"""
            WSGIHandlerScript mine "{private}/handler.py" application-group=%{{GLOBAL}}
            <Location />
                Require all granted
                SetHandler mine
            </Location>
        """)
        httpd.start()
        first = httpd.json("/x")
        assert first["label"] == "first"
        assert httpd.json("/x")["pid"] == first["pid"]
        httpd.write("private/handler.py", handler("second"), age=500)
        assert httpd.json("/x")["label"] == "second"


@ROOT
@pytest.mark.modes("daemon")
@pytest.mark.checklist(201)
@pytest.mark.rwsgi
def test_script_user(new_httpd):
    """script-user is about the code that runs, not about the file that it is asked for."""
    with new_httpd(daemon="script-user=nobody threads=2") as httpd:
        httpd.write("mine/handler.py", handler("mine"))
        httpd.write("others/handler.py", handler("others"))
        for path in (httpd.root / "mine", httpd.root / "mine/handler.py"):
            shutil.chown(path, "nobody")
        os.chmod(httpd.root / "mine", 0o755)
        httpd.add(f"""
            WSGIHandlerScript mine "{httpd.root}/mine/handler.py"
            WSGIHandlerScript others "{httpd.root}/others/handler.py"
            <Location />
                Require all granted
            </Location>
            <Location /mine>
                SetHandler mine
            </Location>
            <Location /others>
                SetHandler others
            </Location>
        """)
        httpd.start()
        assert httpd.json("/mine/x")["label"] == "mine"
        httpd.expect_log("RWSGI0341: .*others/handler.py belongs to")
        assert httpd.request("/others/x").status == 403


@ROOT
@pytest.mark.modes("daemon")
@pytest.mark.rwsgi
def test_chroot(new_httpd):
    """By its path inside or outside of the group's root; what is asked for must lie inside."""
    with new_httpd(mode="embedded") as httpd:
        root = jail(httpd)
        httpd.write("jail/srv/handler.py", handler("first"))
        (root / "srv" / "page.one").write_text("a page")
        httpd.add(f"""
            WSGIDaemonProcess jailed chroot="{root}" home=/srv user=nobody group=nogroup
            WSGIProcessGroup jailed
            WSGIApplicationGroup %{{GLOBAL}}
            WSGIHandlerScript outside "{root}/srv/handler.py"
            WSGIHandlerScript inside /srv/handler.py
            <Location />
                Require all granted
            </Location>
            Alias /outside "{root}/srv"
            Alias /inside "{root}/srv"
            <Location /outside>
                SetHandler outside
            </Location>
            <Location /inside>
                SetHandler inside
            </Location>
            <Location /not-in-it>
                SetHandler inside
            </Location>
        """)
        httpd.config.modules.append("alias")
        httpd.start()
        pids = set()
        for name in ("outside", "inside", "outside"):
            told = httpd.json(f"/{name}/page.one")
            assert told["SCRIPT_FILENAME"] == "/srv/page.one"
            assert told["file"] == told["handler_script"] == "/srv/handler.py"
            pids.add(told["pid"])
        assert len(pids) == 1
        httpd.write("jail/srv/handler.py", handler("second"))
        assert {httpd.json(f"/{name}/x")["label"] for name in ("inside", "outside")} == {"second"}
        httpd.expect_log("RWSGI0342: ")
        assert httpd.request("/not-in-it").status == 403
