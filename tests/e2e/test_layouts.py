"""Configurations as they are found in the wild serve unchanged: only the line that loads mod_wsgi
is another. Each is in tests/layouts, with what it serves."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
from harness import layout, paths
from harness.client import Connection
from harness.group import ROOT
from harness.layout import Layout
from harness.server import Httpd

#: Warnings that a layout is expected to cause: old files hold directives that mod_wsgi has removed.
REMOVED = {
    "flask-prefix": ["WSGILazyInitialization"],
    "trac-moin": ["WSGIReloadMechanism"],
}
NEEDS_PACKAGES = pytest.mark.skipif(
    not paths.same_python(), reason="the packages are for another Python"
)


@contextmanager
def served(new_httpd, name, module="wsgi_module", prepare=None, **options):
    """A running server with this layout."""
    with new_httpd(module_under_test=False, log_level="notice", **options) as server:
        Layout(name, module).install(server)
        if prepare:
            prepare(server)
        for directive in REMOVED.get(name, []):
            server.expect_log(rf"^RWSGI0630: {directive} ")
        server.start()
        yield server


def lines(response):
    return response.text.split("\n")


def parts(response):
    assert response.status == 200, response.body
    return response.text.split("|")


@pytest.mark.parametrize("module", ["wsgi_module", "rwsgi_module"])
@pytest.mark.parametrize("name", layout.names())
@pytest.mark.rwsgi
def test_accepted_with_either_name(name, module):
    """Nothing is refused, and nothing is said but that directives are gone, and notes."""
    with Httpd(module_under_test=False, log_level="notice") as server:
        each = Layout(name, module)
        if "/srv/venv" in each.text and not paths.same_python():
            pytest.skip("the environment is for another Python")
        each.install(server)
        done = server.check()
        assert done.returncode == 0, done.stderr
        said = re.findall(r"\[r?wsgi:(?:warn|error|crit|alert)\] .*", done.stderr)
        assert len(said) == len(REMOVED.get(name, [])), said
        for line, directive in zip(said, REMOVED.get(name, [])):
            assert f"RWSGI0630: {directive} " in line


def test_there_are_ten():
    assert len(layout.names()) >= 10


# Django, a virtual host and a group of processes each


@NEEDS_PACKAGES
class TestDjangoVirtualHosts:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        with served(new_httpd, "django-vhosts") as server:
            yield server

    @pytest.mark.parametrize("host", ["www.alpha.example", "alpha.example", "www.beta.example"])
    def test_each_host_has_its_project(self, server, host):
        project = "beta" if "beta" in host else "alpha"
        assert server.get("/", host=host).text == f"the project {project}"
        where = server.json("/where/", host=host)
        assert where["settings"] == f"{project}.settings"
        assert (where["group"], where["application_group"]) == (project, "")
        assert where["url"] == f"http://{host}/where/"
        assert where["multiprocess"] is (project == "alpha")
        if project == "beta":
            assert where["directory"] == str(server.root / "srv/beta")

    @pytest.mark.checklist(182, mode="daemon")
    def test_each_group_runs_as_its_user(self, server):
        if os.geteuid() != 0:
            pytest.skip("needs root")
        users = layout.expected_users()
        for project, user in (("alpha", "alice"), ("beta", "bob")):
            where = server.json("/where/", host=f"www.{project}.example")
            assert where["uid"] == users[user]
            assert paths.PEER or where["pid"] in server.workers()

    def test_static_files(self, server):
        style = server.get("/static/css/site.css", host="alpha.example")
        assert style.text == "body { color: black }\n"
        assert style.header("Cache-Control") == "public, max-age=3600"
        assert server.get("/favicon.ico", host="alpha.example").text == "icon of alpha\n"
        assert server.get("/static/about.txt", host="www.beta.example").text == "text of beta\n"
        assert server.request("/static/", host="www.beta.example").status in (403, 404)

    def test_django_answers_for_what_is_not_there(self, server):
        server.expect_log("^Not Found: /nothing/$")
        assert server.request("/nothing/", host="alpha.example").status == 404
        assert server.request("/where", host="alpha.example").header("Location") == "/where/"
        # Nobody is called so.
        assert server.request("/", host="alpha.example", method="HEAD").body == b""

    def test_a_failure_is_the_hosts_own(self, server):
        server.expect_log("^Internal Server Error: /fail/$")
        server.expect_log("^RuntimeError: the project beta fails$")
        server.expect_log(r'^Traceback|^  +(File "|\S)', None)
        assert server.request("/fail/", host="www.beta.example").status == 500
        server.log.read()
        assert {each.vhost for each in server.log.seen if "beta fails" in each.message} == {
            "www.beta.example"
        }
        assert server.get("/", host="www.beta.example").text == "the project beta"


# Flask under a prefix


@NEEDS_PACKAGES
class TestFlaskUnderPrefix:
    @pytest.fixture(scope="class", params=["event", "prefork"])
    def server(self, new_httpd, request):
        with served(new_httpd, "flask-prefix", mpm=request.param, threads=2) as server:
            yield server

    def test_urls_contain_the_prefix(self, server):
        item = server.json("/shop/item/7", host="shop.example")
        assert item["url"] == "/shop/item/7"
        assert item["absolute"] == "http://shop.example/shop/item/7"
        assert (item["script"], item["path"]) == ("/shop", "/item/7")
        assert item["group"] == "shop"
        assert (item["optimize"], item["currency"]) == (1, "EUR")
        moved = server.request("/shop/old/7", host="shop.example")
        assert (moved.status, moved.header("Location")) == (302, "/shop/item/7")

    def test_the_python_is_the_configured_one(self, server):
        prefix = server.json("/shop/item/1", host="shop.example")["prefix"]
        assert os.path.realpath(prefix) == os.path.realpath(paths.VENV)

    def test_variables_and_credentials(self, server):
        headers = {"User-Agent": "Mobile/1.0", "Authorization": "Basic Y2Fyb2w6c2VjcmV0"}
        item = server.json("/shop/item/1", host="shop.example", headers=headers)
        assert (item["layout"], item["user"]) == ("mobile", "carol")
        item = server.json("/shop/item/1", host="shop.example")
        assert (item["layout"], item["user"]) == ("desktop", None)

    @pytest.mark.checklist(151)
    def test_compression(self, server):
        headers = {"Accept-Encoding": "gzip"}
        page = server.get("/shop/", host="shop.example", headers=headers)
        assert page.header("Content-Encoding") == "gzip"
        assert gzip.decompress(page.body) == b"<p>Catalogue</p>" * 200
        plain = server.get("/shop/", host="shop.example")
        assert plain.body == gzip.decompress(page.body)

    def test_a_form(self, server):
        answer = server.request(
            "/shop/order",
            method="POST",
            host="shop.example",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=b"item=7&count=2",
        )
        assert answer.status == 201
        assert answer.json() == {"fields": {"item": "7", "count": "2"}, "files": []}

    def test_other_paths_are_not_its_own(self, server):
        assert server.request("/shopping", host="shop.example").status == 404
        assert server.request("/", host="shop.example").status != 200
        assert server.get("/shop/item/3", host="shop.example").json()["number"] == 3


# The users of one machine


@ROOT
class TestMultipleUsers:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        def prepare(server):
            for user in layout.USERS:
                Layout("multi-user").own(server, f"home/{user}", user)
            Layout("multi-user").own(server, "home/mallory", "bob")

        with served(new_httpd, "multi-user", prepare=prepare) as server:
            yield server

    @pytest.mark.parametrize(("user", "umask", "threads"), [("alice", 27, 1), ("bob", 77, 3)])
    def test_everyone_runs_as_himself(self, server, user, umask, threads):
        answer = server.get(f"/~{user}/wsgi/some/page", host="users.example")
        account = layout.accounts()[user]
        seen = lines(answer)
        assert seen[:3] == [user, account, user]
        assert seen[3] == f"users.example|/~{user}/wsgi"
        assert seen[4] == f"/~{user}/wsgi|/some/page"
        assert seen[5] == str(server.root / "home" / user)
        assert seen[6] == f"0o{umask}"
        assert seen[7] == str(threads > 1)
        assert seen[8] == str(user == "bob")

    @pytest.mark.checklist(42, mode="daemon")
    def test_a_group_that_is_not_listed(self, server):
        server.expect_log(r"^RWSGI0338: .*mallory")
        assert server.request("/~mallory/wsgi", host="users.example").status == 500

    def test_a_user_who_has_none(self, server):
        server.expect_log("^RWSGI0010: ", count=2)
        assert server.request("/~nobody/wsgi", host="users.example").status == 404
        # The pattern has no end, so what follows belongs to the name of the file.
        assert server.request("/~alice/wsgi2", host="users.example").status == 404

    @pytest.mark.checklist(201, mode="daemon")
    def test_a_script_that_others_may_write(self, server):
        script = server.root / "home/bob/public_wsgi/app.wsgi"
        script.chmod(0o664)
        server.expect_log(r"^RWSGI0341: ")
        assert server.request("/~bob/wsgi", host="users.example").status == 403
        script.chmod(0o644)
        assert server.get("/~bob/wsgi", host="users.example")


# Trac and MoinMoin


class TestTracAndMoin:
    @pytest.fixture(scope="class", params=["event", "worker"])
    def server(self, new_httpd, request):
        with served(new_httpd, "trac-moin", mpm=request.param, threads=3) as server:
            yield server

    @pytest.mark.parametrize("project", ["red", "green"])
    def test_projects(self, server, project):
        server.expect_log(f"^project {project}$")
        seen = parts(server.get(f"/trac/{project}/ticket/5", host="code.example"))
        assert seen == [f"The {project} project", "/ticket/5", "", "en_US.UTF-8"]
        assert server.request("/trac/blue", host="code.example").status == 404

    def test_static_files_of_every_project(self, server):
        for project in ("red", "green", "none"):
            path = f"/trac/{project}/chrome/common/trac.css"
            assert server.get(path, host="code.example").text == "/* trac.css */\n"

    @pytest.mark.checklist(77)
    def test_login_is_httpds(self, server):
        path = "/trac/red/login"
        assert server.request(path, host="code.example").status == 401
        server.allow_log("user carol: authentication failure")
        headers = {"Authorization": "Basic Y2Fyb2w6d3Jvbmc="}
        assert server.request(path, host="code.example", headers=headers).status == 401
        headers = {"Authorization": "Basic Y2Fyb2w6c2VjcmV0"}
        answer = server.request(path, host="code.example", headers=headers)
        assert (answer.status, answer.header("Location")) == (302, "/trac/red/as/carol")

    def test_the_wiki(self, server):
        seen = parts(server.get("/wiki/FrontPage", host="code.example"))
        assert seen[:3] == ["The wiki", "/FrontPage", "moin"]
        assert seen[3] == str(server.root / "var/cache/python-eggs")
        assert server.get("/moin_static199/moin.css", host="code.example").status == 200

    @pytest.mark.checklist(32)
    def test_a_pattern_with_an_end(self, server):
        assert parts(server.get("/~wiki/status", host="code.example")) == ["/~wiki/status", ""]
        assert server.request("/~wiki/status/x", host="code.example").status == 404
        server.expect_log("^RWSGI0010: ")
        assert server.request("/~wiki/nothing", host="code.example").status == 404


# Static files, and an application at "/"


class TestStaticAndRoot:
    @pytest.fixture(scope="class", params=["event", "prefork"])
    def server(self, new_httpd, request):
        with served(new_httpd, "static-and-root", mpm=request.param, threads=3) as server:
            yield server

    def test_static_files_come_first(self, server):
        for path, text in (
            ("/main.css", "body {}\n"),
            ("/media/main.css", "body {}\n"),
            ("/robots.txt", "User-agent: *\n"),
            ("/favicon.ico", "icon\n"),
        ):
            answer = server.get(path, host="www.site.example")
            assert answer.text == text
            assert "max-age=3600" in answer.header("Cache-Control")
        assert server.request("/media/none", host="www.site.example").status == 404

    @pytest.mark.checklist(27, 29, 31, 61)
    def test_the_longest_alias_is_first(self, server):
        host = "www.site.example"
        assert server.get("/admin/", host=host).text == "admin"
        page = server.get("/admin/pages/report.wsgi/2024", host=host)
        assert parts(page) == ["report", "/admin/pages/report.wsgi", "/2024"]
        assert parts(server.get("/", host=host)) == ["site", "GET", "", "/"]
        assert parts(server.get("/adminx/y", host=host)) == ["site", "GET", "", "/adminx/y"]
        assert parts(server.get("//a//b", host=host)) == ["site", "GET", "", "/a/b"]

    def test_robots(self, server):
        headers = {"User-Agent": "Robot/2"}
        seen = parts(server.get("/", host="www.site.example", headers=headers))
        assert seen == ["site", "GET", "", "/", "robot"]

    @pytest.mark.rwsgi  # mod_wsgi overrides in daemon mode only
    def test_error_pages(self, server):
        host = "www.site.example"
        own = server.request("/missing", host=host)
        assert (own.status, own.text) == (404, "the site's own page for what is missing")
        page = server.request("/admin/nothing", host=host)
        assert (page.status, page.text) == (404, "no such page of the administration")
        server.expect_log(r"^RWSGI0200: ")
        broken = server.request("/broken", host=host)
        assert (broken.status, broken.text) == (500, "<p>Out of order</p>\n")

    def test_files_first_then_the_application(self, server):
        host = "files.site.example"
        assert server.get("/page.html", host=host).text == "<p>a file</p>\n"
        assert server.get("/", host=host).text == "<p>index</p>\n"
        assert parts(server.get("/some/page?x=1", host=host)) == ["fallback", "/some/page", "x=1"]


# .htaccess with AddHandler


class TestSharedHosting:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        def prepare(server):
            if os.geteuid() == 0:
                Layout("shared-hosting").own(server, "var/www/customer", "alice")

        with served(new_httpd, "shared-hosting", prepare=prepare) as server:
            yield server

    def test_the_index_is_the_application(self, server):
        answer = server.get("/", host="customer.example")
        seen = lines(answer)
        assert seen[0] == "customer"
        assert seen[1].startswith("/")
        assert seen[5] == "sqlite:///data.db"
        assert seen[6] == "customers"
        assert answer.header("X-Powered-By") == "patience"

    def test_pretty_urls(self, server):
        headers = {"Authorization": "Bearer token"}
        seen = lines(server.get("/a/page?x=1", host="customer.example", headers=headers))
        assert seen[1].endswith("|/a/page")
        assert seen[2] == "/a/page?x=1"
        assert seen[3:5] == ["x=1", "Bearer token"]

    def test_another_script(self, server):
        assert parts(server.get("/tool.wsgi/x", host="customer.example")) == ["tool", "/x"]
        assert server.get("/page.html", host="customer.example").text == "<p>static</p>\n"

    def test_a_changed_script_is_loaded(self, server):
        assert parts(server.get("/tool.wsgi", host="customer.example"))[0] == "tool"
        script = server.root / "var/www/customer/tool.wsgi"
        stat = script.stat()
        server.write("var/www/customer/tool.wsgi", script.read_text().replace("tool", "TOOL"))
        os.chown(script, stat.st_uid, stat.st_gid)
        os.utime(script, (stat.st_atime, stat.st_mtime + 10))
        assert parts(server.get("/tool.wsgi", host="customer.example"))[0] == "TOOL"

    def test_what_the_provider_does_not_allow(self, server):
        server.allow_log("RWSGI0012|AH01630|ExecCGI")
        assert server.request("/app.wsgi", host="locked.example").status == 403


# Every option of WSGIDaemonProcess


@ROOT
@NEEDS_PACKAGES
class TestEveryOption:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        def prepare(server):
            Layout("every-option").own(server, "srv/app", "alice")
            data = server.root / "srv/service/data"
            data.mkdir()
            data.chmod(0o777)

        with served(new_httpd, "every-option", prepare=prepare) as server:
            server.wait_until((server.root / "srv/service/data/pid").exists, "no service")
            yield server

    def test_all_arrive(self, server):
        seen = server.json("/", host="every.example")
        users = layout.expected_users()
        assert seen["uid"] == users["alice"]
        assert seen["umask"] == 0o022
        assert seen["cwd"] == seen["path0"] == str(server.root / "srv/app")
        assert seen["inlib"] and seen["preloaded"]
        assert (seen["lang"], seen["locale"]) == ("en_US.UTF-8", "C.UTF-8")
        assert seen["eggs"] == str(server.root / "srv/app/eggs")
        assert os.path.realpath(seen["prefix"]) == os.path.realpath(paths.VENV)
        assert seen["switch"] == pytest.approx(0.002)
        assert seen["nice"] == 1
        assert (seen["data"], seen["space"]) == (4_000_000_000, 64_000_000_000)
        assert seen["cpu"] == 3600
        assert (seen["multiprocess"], seen["multithread"]) == (True, True)
        assert (seen["run_once"], seen["group"]) == (False, "every")

    def test_two_processes_answer(self, server):
        pids = {server.json("/", host="every.example")["pid"] for _ in range(200)}
        assert len(pids) <= 2
        titles = set()
        for pid in pids:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                titles.add(stream.read().partition(b"\0")[0].rstrip())
        assert titles == {b"(wsgi:every)"}

    def test_one_request_for_each_process(self, server):
        seen = [server.json("/other", host="every.example") for _ in range(3)]
        assert len({each["pid"] for each in seen}) == 3
        assert all(each["run_once"] and not each["multithread"] for each in seen)

    @pytest.mark.checklist(202, mode="daemon")
    def test_the_service_is_told_to_end(self, server):
        data = server.root / "srv/service/data"
        pid = int((data / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        server.wait_until((data / "ended").exists, "the service was not told")
        server.wait_until(lambda: (data / "pid").read_text() != str(pid), "it is not started again")


# Users, groups and hosts are checked by scripts


def basic(user, password):
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def digest(server, path, user, password, host):
    """The credentials that a browser computes from the challenge."""
    challenge = server.request(path, host=host).header("WWW-Authenticate")
    assert challenge.startswith("Digest ")
    field = dict(re.findall(r'(\w+)="?([^",]*)"?', challenge))
    md5 = lambda text: hashlib.md5(text.encode()).hexdigest()  # noqa: E731
    secret = md5(f"{user}:{field['realm']}:{password}")
    nonce, count, own = field["nonce"], "00000001", "0a4f113b"
    answer = md5(f"{secret}:{nonce}:{count}:{own}:auth:{md5(f'GET:{path}')}")
    return {
        "Authorization": f'Digest username="{user}", realm="{field["realm"]}", nonce="{nonce}", '
        f'uri="{path}", qop=auth, nc={count}, cnonce="{own}", response="{answer}", '
        f"algorithm={field.get('algorithm', 'MD5')}"
    }


def make_agents(server):
    """The database of the Django project, as `manage.py` would make it."""
    directory = server.root / "srv/agents/db"
    directory.mkdir()
    code = """
        import django
        django.setup()
        from django.core.management import call_command
        call_command("migrate", verbosity=0)
        from django.contrib.auth.models import Group, User
        group = Group.objects.create(name="secret-agents")
        for name, active, member in (("bond", 1, 1), ("retired", 0, 1), ("clerk", 1, 0)):
            user = User.objects.create_user(name, password="007", is_active=active)
            if member:
                user.groups.add(group)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=True,
        cwd=server.root / "srv/agents",
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "agents.settings"},
    )
    if paths.httpd_user():
        for path in [directory, *directory.iterdir()]:
            shutil.chown(path, *paths.httpd_user())


@NEEDS_PACKAGES
class TestAuthScripts:
    HOST = "intranet.example"

    @pytest.fixture(scope="class", params=["event", "prefork"])
    def server(self, new_httpd, request):
        prepare = make_agents
        with served(new_httpd, "auth-scripts", prepare=prepare, mpm=request.param) as server:
            yield server

    def status(self, server, path, user="", password="", host=None):
        headers = basic(user, password) if user else {}
        server.allow_log(
            r"^AH(01617|01618|01796|01797|01630|01629|01631|01790|01792|01793)|RWSGI05\d\d: "
        )
        return server.request(path, host=host or self.HOST, headers=headers).status

    @pytest.mark.checklist(217)
    def test_a_file_and_then_the_script(self, server):
        for user, password, status in (
            ("", "", 401),
            ("carol", "secret", 200),
            ("carol", "wrong", 401),
            ("dora", "red", 200),
            ("dora", "wrong", 401),
            ("nobody", "x", 401),
        ):
            assert self.status(server, "/page.txt", user, password) == status, user

    def test_groups_before_an_application(self, server):
        path = "/reports/2024"
        assert self.status(server, path) == 401
        assert self.status(server, path, "erin", "green") == 401
        for user, password in (("dora", "red"), ("frank", "blue")):
            answer = server.get(path, host=self.HOST, headers=basic(user, password))
            assert parts(answer) == [user, "Basic", "/2024"]

    def test_digest(self, server):
        path = "/digest/file.txt"
        server.allow_log(r"^AH0(1630|1631|179\d)")
        for user, password, status in (
            ("dora", "red", 200),
            ("erin", "green", 200),
            ("frank", "blue", 401),
            ("dora", "green", 401),
            ("nobody", "x", 401),
        ):
            headers = digest(server, path, user, password, self.HOST)
            assert server.request(path, host=self.HOST, headers=headers).status == status, user

    @pytest.mark.checklist(217)
    def test_hosts_or_users(self, server):
        path = "/lan/map.txt"
        server.allow_log(r"^AH0|RWSGI05\d\d: ")
        for lan, user, status in (
            ("yes", None, 200),
            ("no", ("dora", "red"), 200),
            ("no", None, 401),
            ("no", ("dora", "x"), 401),
        ):
            headers = {"X-Lan": lan, **(basic(*user) if user else {})}
            assert server.request(path, host=self.HOST, headers=headers).status == status, lan

    def test_the_handlers_of_django(self, server):
        host = "agents.example"
        assert server.get("/", host=host).text == "3 agents"
        assert self.status(server, "/secret/plan.txt", host=host) == 401
        assert self.status(server, "/secret/plan.txt", "bond", "007", host) == 200
        assert self.status(server, "/secret/plan.txt", "bond", "006", host) == 401
        assert self.status(server, "/secret/plan.txt", "retired", "007", host) == 401


# A dispatch script, and handlers


class TestDispatchByHost:
    @pytest.fixture(scope="class", params=["event", "prefork"])
    def server(self, new_httpd, request):
        with served(new_httpd, "dispatch-by-host", mpm=request.param, threads=3) as server:
            yield server

    @pytest.mark.parametrize(
        ("tenant", "group"), [("alpha", "tenants-a"), ("mu", "tenants-b"), ("zeta", "tenants-b")]
    )
    @pytest.mark.checklist(46, mode="both")
    def test_the_script_chooses(self, server, tenant, group):
        host = f"{tenant}.tenants.example"
        seen = parts(server.get("/", host=host))
        assert seen == ["pages", group, f"tenant-{tenant}", "application"]
        seen = parts(server.get("/shop/cart", host=host))
        assert seen == ["shop", group, f"tenant-{tenant}", "shop"]

    def test_no_tenant(self, server):
        seen = parts(server.get("/", host="tenants.example"))
        assert seen == ["pages", "tenants-a", "", "application"]

    def test_a_script_that_raises(self, server):
        server.expect_log(r"^RWSGI\d+: .*LookupError")
        server.allow_log(r"LookupError: this tenant has not paid")
        assert server.request("/", host="evil.tenants.example").status == 500

    @pytest.mark.checklist(45, mode="daemon")
    def test_a_handler_of_files(self, server):
        host = "pages.example"
        seen = parts(server.get("/hello.txt", host=host))
        assert seen == ["hello.txt", "tenants-b", "", "text-page", "pages.wsgi", "0", "Hello"]
        seen = parts(server.get("/printed/hello", host=host))
        assert seen == ["hello.txt", "tenants-b", "", "text-page", "pages.wsgi", "1", "Hello"]

    @pytest.mark.checklist(45)
    def test_a_handler_of_a_place(self, server):
        seen = parts(server.get("/echo/what/ever", host="pages.example"))
        assert seen[1:5] == ["", "echo", "echo-page", "pages.wsgi"]


# Behind a proxy


class TestBehindProxy:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        with served(new_httpd, "behind-proxy") as server:
            yield server

    def test_the_application_sees_the_world(self, server):
        headers = {"X-Forwarded-For": "198.51.100.7"}
        seen = server.json("/api/x", host="www.front.example", headers=headers)
        assert seen["REMOTE_ADDR"] == "198.51.100.7"
        assert seen["HTTP_HOST"] == "www.front.example"
        assert seen["SERVER_PORT"] == "443"
        assert seen["wsgi.url_scheme"] == "https"
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/api", "/x")
        assert seen["mod_wsgi.mount_point"] == "/api"
        assert seen["mod_wsgi.script_name"] == "/backend"
        assert seen["uri"] == "https://www.front.example/api"

    def test_addresses_that_a_client_invents(self, server):
        for invented, seen in (
            ("", "127.0.0.1"),
            ("10.1.2.3", "10.1.2.3"),
            ("203.0.113.1, 198.51.100.7", "198.51.100.7"),
            ("203.0.113.1, 198.51.100.7, 10.1.0.9", "198.51.100.7"),
        ):
            headers = {"X-Forwarded-For": invented} if invented else {}
            address = server.json("/api/", headers=headers)["REMOTE_ADDR"]
            assert address == seen, invented

    @pytest.mark.checklist(86, mode="daemon")
    def test_nobody_else_is_the_front_server(self, server):
        headers = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
        seen = server.json("/api/untrusted", headers=headers)
        assert seen["REMOTE_ADDR"] == "127.0.0.1"
        assert seen["wsgi.url_scheme"] == "http"
        assert "HTTP_X_FORWARDED_FOR" not in seen
        assert seen["SCRIPT_NAME"] == "/backend"

    def test_bodies_and_redirects(self, server):
        body = os.urandom(200_000)
        answer = server.request("/api/echo", method="POST", body=body)
        assert (answer.status, answer.body) == (200, body)
        moved = server.request("/api/moved", host=f"front.example:{server.port}")
        assert moved.status == 302
        assert moved.header("Location") == f"http://front.example:{server.port}/api/here"


# What packages leave in conf.d


class TestPackaged:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        with served(new_httpd, "packaged") as server:
            yield server

    def test_graphite(self, server):
        seen = parts(server.get("/render", host="graphite"))
        assert seen[:2] == ["graphite", "preloaded"]
        assert server.get("/content/logo.txt", host="graphite").text == "a picture\n"

    def test_a_script_without_a_suffix(self, server):
        headers = {"Authorization": "Bearer x", "X-Auth-Token": "gAAA"}
        with Connection(server.tls_port) as connection:
            connection.request("/v3/auth/tokens", headers=headers)
            answer = connection.read_response()
        assert answer.status == 300
        assert answer.text == "identity-public||/v3/auth/tokens|Bearer x|gAAA"
        with Connection(server.tls_port) as connection:
            connection.request("/v3/federation/saml/auth")
            answer = connection.read_response()
        assert answer.status == 300
        assert answer.text.split("|")[2] == "/v3/federation/saml/auth"

    @pytest.mark.parametrize("host", ["graphite", "dashboard"])
    def test_an_alias_with_a_handler(self, server, host):
        answer = server.request("/identity/v3", host=host)
        assert answer.status == 300
        assert answer.text.split("|")[:3] == ["identity:admin", "/identity", "/v3"]

    def test_the_dashboard(self, server):
        moved = server.request("/", host="dashboard")
        assert (moved.status, moved.header("Location")) == (301, "http://dashboard/horizon/")
        assert parts(server.get("/horizon/auth", host="dashboard")) == [
            "/horizon",
            "/auth",
            "False",
        ]
        assert server.get("/horizon/static/style.txt", host="dashboard").text == "style\n"


# Written by a program


@NEEDS_PACKAGES
class TestGenerated:
    @pytest.fixture(scope="class")
    def server(self, new_httpd):
        with served(new_httpd, "generated") as server:
            yield server

    def test_files_then_the_application(self, server):
        assert server.get("/plain.txt").text == "plain file\n"
        assert server.get("/page.md").text == "<pre># Heading</pre>"
        seen = parts(server.get("/no/such/file"))
        assert seen[:5] == ["site", "localhost:8000", "", "/no/such/file", "-"]
        assert os.path.realpath(seen[5]) == os.path.realpath(paths.VENV)

    @pytest.mark.checklist(151, mode="daemon")
    def test_compression(self, server):
        # mod_deflate leaves a response alone that is smaller than what gzip adds to it.
        answer = server.get(f"/{'long' * 50}", headers={"Accept-Encoding": "gzip"})
        assert gzip.decompress(answer.body).startswith(b"site|localhost:8000|")

    def test_members(self, server):
        server.allow_log(r"^AH0(1617|1618|1629|1630|1631|1796|1797)")
        assert server.request("/members/x").status == 401
        assert server.request("/members/x", headers=basic("member", "no")).status == 401
        seen = parts(server.get("/members/x", headers=basic("member", "secret")))
        assert seen[3:5] == ["/members/x", "member"]


@pytest.mark.rwsgi
def test_only_the_names_of_machines_are_replaced():
    """What the harness changes in a layout is what a machine has by other names."""
    with Httpd(module_under_test=False) as server:
        for name in layout.names():
            each = Layout(name)
            before, after = each.text.splitlines(), each.adapted(server).splitlines()
            assert len(before) == len(after)
            for old, new in zip(before, after):
                if old != new and not old.startswith("LoadModule "):
                    assert re.search(r"/(srv|home|var|etc|usr)/|:80|alice|bob|www-data", old), old
    assert json.dumps(layout.accounts())
