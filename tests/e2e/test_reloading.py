"""Loading and reloading of scripts: once, again when they change, and what happens when the new
code is broken."""

from __future__ import annotations

import os
import threading

import pytest
from harness import paths
from harness.config import BOTH

MODES = BOTH

LOADS = """
    import os, threading
    LOADED = {label!r}
    descriptor = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(descriptor, LOADED.encode() + b"\\n")
    os.close(descriptor)

    def application(environ, start_response):
        text = "%s %s %s" % (LOADED, os.getpid(), __name__)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text.encode()]
"""
BROKEN = "def broken(:\n    pass\n"
RAISING = 'raise RuntimeError("not today")\n'


class Site:
    """A server with scripts that note every load."""

    def __init__(self, httpd):
        self.httpd = httpd
        self.age = 1000.0

    def write(self, name, text):
        """Writes a script with a modification time of its own."""
        self.age -= 1
        return self.httpd.write(f"site/{name}", text, age=self.age)

    def script(self, name, label, extra=""):
        log = self.httpd.root / "data" / f"{name}.log"
        text = LOADS.format(label=label, log=str(log))
        lines = [line[4:] for line in text.splitlines()]
        return self.write(name, "\n".join([*lines, extra, ""]))

    def loads(self, name):
        return (self.httpd.root / "data" / f"{name}.log").read_text().split()

    def label(self, name, target=None):
        return self.httpd.get(target or f"/{name}").text.split()[0]

    def pid(self, name):
        return self.httpd.get(f"/{name}").text.split()[1]


@pytest.fixture(scope="module")
def site(new_httpd):
    with new_httpd() as httpd:
        (httpd.root / "site").mkdir()
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            <Location /off.wsgi>
                WSGIScriptReloading Off
            </Location>
            WSGIScriptAlias /again.wsgi "{httpd.root}/site/one.wsgi" application-group=again
            WSGIScriptAlias /two-groups-a "{httpd.root}/site/groups.wsgi" application-group=a
            WSGIScriptAlias /two-groups-b "{httpd.root}/site/groups.wsgi" application-group=b
            WSGIScriptAlias / "{httpd.root}/site/" application-group=%{{GLOBAL}}
        """)
        yield Site(httpd.start())


def test_loaded_once(site):
    site.script("once.wsgi", "first")
    for _ in range(5):
        assert site.label("once.wsgi") == "first"
    assert site.loads("once.wsgi") == ["first"]


@pytest.mark.checklist(158)
def test_a_changed_script_is_loaded_again(site):
    site.script("changed.wsgi", "first")
    pid = site.pid("changed.wsgi")
    site.script("changed.wsgi", "second")
    assert site.label("changed.wsgi") == "second"
    # A process group loads new code into a new process.
    assert (site.pid("changed.wsgi") == pid) is not site.httpd.daemon
    # An older file is another file, too.
    path = site.script("changed.wsgi", "third")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert site.label("changed.wsgi") == "third"
    assert site.label("changed.wsgi") == "third"
    assert site.loads("changed.wsgi") == ["first", "second", "third"]


@pytest.mark.checklist(158)
def test_touched_script_is_loaded_again(site):
    path = site.script("touched.wsgi", "same")
    site.label("touched.wsgi")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    site.label("touched.wsgi")
    assert site.loads("touched.wsgi") == ["same", "same"]


@pytest.mark.checklist(161)
def test_reloading_can_be_switched_off(site):
    site.script("off.wsgi", "first")
    assert site.label("off.wsgi") == "first"
    site.script("off.wsgi", "second")
    assert site.label("off.wsgi") == "first"


@pytest.mark.checklist(159)
def test_reload_required(site):
    answer = site.httpd.root / "data" / "answer"
    seen = site.httpd.root / "data" / "resource"
    extra = f"""
def reload_required(resource):
    with open({str(seen)!r}, "w") as file:
        file.write(resource)
    return eval(open({str(answer)!r}).read())
"""
    answer.write_text("False")
    site.script("required.wsgi", "first", extra)
    site.label("required.wsgi")
    site.label("required.wsgi")
    assert site.loads("required.wsgi") == ["first"]
    assert seen.read_text() == str(site.httpd.root / "site" / "required.wsgi")
    loads = 1
    for _ in range(3):
        before = loads
        answer.write_text("True")
        site.label("required.wsgi")
        if site.httpd.daemon:
            # A process is not replaced for the same version again within a second.
            site.httpd.wait_until(
                lambda wanted=before + 1: (
                    site.label("required.wsgi") and len(site.loads("required.wsgi")) >= wanted
                )
            )
        answer.write_text("False")
        site.label("required.wsgi")
        loads = len(site.loads("required.wsgi"))
        # The new process asks, too.
        assert loads == before + 1 or (site.httpd.daemon and loads > before)
    answer.write_text("1/0")
    site.httpd.expect_log("RWSGI0105.*ZeroDivisionError")
    assert site.label("required.wsgi") == "first"
    assert len(site.loads("required.wsgi")) == loads


@pytest.mark.checklist(160)
def test_removed_time_means_reload(site):
    extra = """
import sys
def forget(environ, start_response):
    del sys.modules[__name__].__mtime__
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"forgotten"]
inner = application
def application(environ, start_response):
    return (forget if environ["PATH_INFO"] else inner)(environ, start_response)
"""
    site.script("forgetting.wsgi", "first", extra)
    site.label("forgetting.wsgi")
    site.httpd.get("/forgetting.wsgi/forget")
    site.label("forgetting.wsgi")
    assert site.loads("forgetting.wsgi") == ["first", "first"]


@pytest.mark.checklist(166)
def test_two_groups_two_modules(site):
    site.script("groups.wsgi", "x")
    for target in ("/two-groups-a", "/two-groups-b", "/two-groups-a"):
        site.httpd.get(target)
    assert site.loads("groups.wsgi") == ["x", "x"]


@pytest.mark.checklist(167)
def test_concurrent_first_requests_load_once(site):
    """A slow import, and more requests than threads at once."""
    site.httpd.allow_log("AH00484: server reached MaxRequestWorkers")
    site.script("slow.wsgi", "once", "import time; time.sleep(0.2)")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(site.label("slow.wsgi"))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["once"] * 12
    assert site.loads("slow.wsgi") == ["once"]


# Broken code


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (BROKEN, "SyntaxError"),
        (RAISING, "RuntimeError"),
        ("import sys; sys.exit(3)\n", "SystemExit"),
        ("import does_not_exist\n", "ModuleNotFoundError"),
    ],
)
@pytest.mark.checklist(162)
def test_first_load_that_fails(site, text, error):
    """500 and a traceback; once repaired it serves, without a restart."""
    name = f"first-{error.lower()}.wsgi"
    site.write(name, text)
    log = site.httpd.expect_log(rf"RWSGI0103.*{name}")
    assert site.httpd.request(f"/{name}").status == 500
    site.httpd.settle_log()
    if not paths.PEER:
        assert any(line.message.startswith(error) for line in log.traceback)
    site.httpd.allow_log("RWSGI0103")
    assert site.httpd.request(f"/{name}").status == 500
    site.script(name, "repaired")
    assert site.label(name) == "repaired"


@pytest.mark.rwsgi
@pytest.mark.parametrize("text", [BROKEN, RAISING, "import sys; sys.exit(3)\n"])
def test_broken_change_keeps_the_old_code(site, text):
    name = f"keep-{len(text)}.wsgi"
    site.script(name, "old")
    assert site.label(name) == "old"
    pid = site.pid(name)
    for number, broken in enumerate((text, text + "# changed again\n")):
        site.write(name, broken)
        # Once per change, however many requests come; a supervisor may know the text already.
        known = number > 0 and site.httpd.daemon
        told = "RWSGI0409: " if site.httpd.daemon else rf"RWSGI0104.*{name}"
        (site.httpd.allow_log if known else site.httpd.expect_log)(told)
        for _ in range(5):
            assert site.label(name) == "old"
        site.httpd.settle_log()
    site.script(name, "repaired")
    assert site.label(name) == "repaired"
    assert (site.pid(name) == pid) is not site.httpd.daemon
    assert site.loads(name) == ["old", "repaired"]


@pytest.mark.rwsgi
def test_changed_script_without_callable(site):
    """A script that has lost its callable is broken, too: the old code stays or it is told."""
    site.script("lost.wsgi", "old")
    assert site.label("lost.wsgi") == "old"
    site.write("lost.wsgi", "x = 1\n")
    site.httpd.allow_log("RWSGI0104|RWSGI0106|RWSGI0409")
    assert site.httpd.request("/lost.wsgi").status in (200, 500)
    site.script("lost.wsgi", "found")
    assert site.label("lost.wsgi") == "found"


def test_deleted_script(site):
    site.script("deleted.wsgi", "there")
    assert site.label("deleted.wsgi") == "there"
    (site.httpd.root / "site" / "deleted.wsgi").unlink()
    site.httpd.expect_log("RWSGI0010")
    assert site.httpd.request("/deleted.wsgi").status == 404
    site.script("deleted.wsgi", "back")
    assert site.label("deleted.wsgi") == "back"


@pytest.mark.rwsgi
def test_unreadable_script(site):
    """A script that httpd's user may not read; the message says so."""
    path = site.script("secret.wsgi", "secret")
    path.chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("needs httpd's children to be another user")
    site.httpd.expect_log("RWSGI0103.*secret")
    assert site.httpd.request("/secret.wsgi").status == 500
    path.chmod(0o644)
    assert site.label("secret.wsgi") == "secret"


@pytest.mark.rwsgi
def test_reload_failure_fail(new_httpd):
    with new_httpd() as httpd:
        (httpd.root / "site").mkdir()
        httpd.add(f"""
            WSGIReloadFailure Fail
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.root}/site/"
        """)
        site = Site(httpd.start())
        site.script("fail.wsgi", "old")
        assert site.label("fail.wsgi") == "old"
        site.write("fail.wsgi", BROKEN)
        httpd.expect_log("RWSGI010[34].*fail.wsgi|RWSGI0409", count=None)
        assert httpd.request("/fail.wsgi").status == 500
        httpd.settle_log()
        httpd.allow_log("RWSGI010[34].*fail.wsgi|RWSGI0409")
        assert httpd.request("/fail.wsgi").status == 500
        site.script("fail.wsgi", "repaired")
        assert site.label("fail.wsgi") == "repaired"


# Odd sources


@pytest.mark.parametrize(
    "source",
    [
        b"# -*- coding: latin-1 -*-\nTEXT = 'gr\xfc\xdfe'\n",
        b"\xef\xbb\xbfTEXT = 'gr\xc3\xbc\xc3\x9fe'\n",
        b"TEXT = 'gr\xc3\xbc\xc3\x9fe'\r\n",
        b"from __future__ import annotations\nTEXT = 'gr\xc3\xbc\xc3\x9fe'",
    ],
    ids=["latin-1", "bom", "crlf", "future"],
)
def test_source_encodings(site, source, request):
    name = f"{request.node.callspec.id}.wsgi"
    application = (
        b"\ndef application(environ, start_response):\n"
        b"    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        b"    return [TEXT.encode('utf-8')]\n"
    )
    (site.httpd.root / "site" / name).write_bytes(source + application)
    assert site.httpd.get(f"/{name}").text == "grüße"


@pytest.mark.checklist(157)
def test_module_attributes(site):
    site.write(
        "module.wsgi",
        """\
        import importlib.util, json, sys
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "application/json")])
            module = sys.modules[__name__]
            same = module.application is application
            spec = importlib.util.find_spec(__name__)
            found = [spec.name == __name__, spec.origin, spec.loader is __loader__]
            found.append("find_spec(__name__)" in spec.loader.get_source(__name__))
            facts = [__file__, type(__mtime__).__name__, __name__, same, found]
            return [json.dumps(facts).encode()]
        """,
    )
    file, kind, name, same, found = site.httpd.json("/module.wsgi")
    assert file == str(site.httpd.root / "site" / "module.wsgi")
    assert kind == "int" and name.startswith("_mod_wsgi_") and same
    # As of an imported module: Flask's instance folder is found by it, for example.
    assert found == [True, file, True, True]
