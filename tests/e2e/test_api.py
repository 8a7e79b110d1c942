"""The modules ``mod_wsgi``, ``rwsgi`` and ``apache``, and the log as programs use it."""

from __future__ import annotations

import pytest
from harness.config import BOTH
from harness.sites import applications

MODES = BOTH

pytestmark = pytest.mark.rwsgi

#: All that a level of Python's is in the error log.
LEVELS = [
    (60, "crit"),
    (50, "crit"),
    (40, "error"),
    (30, "warn"),
    (25, "info"),
    (20, "info"),
    (10, "debug"),
    (5, "debug"),
]
ATTRIBUTES = {
    *("version", "process_group", "application_group", "maximum_processes"),
    *("threads_per_process", "event_callbacks", "shutdown_callbacks", "signal_callbacks"),
    *("active_requests", "FileWrapper", "RequestTimeout", "LogHandler", "subscribe_events"),
    *("subscribe_shutdown", "subscribe_signals", "request_data", "server_metrics"),
    *("process_metrics", "request_metrics", "start_recording_metrics"),
}


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=8, log_level="notice rwsgi:debug") as httpd:
        applications(httpd, api="api.wsgi")
        httpd.add(f'WSGIScriptAlias /sub "{httpd.apps}/api.wsgi" application-group=sub')
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                ErrorLog "{httpd.vhost_log("second.log")}"
                ErrorLogFormat "[%{{cu}}t] [%-m:%-l] [pid %P] [id %-L] [vhost %-v] <%-F> %M"
                LogLevel rwsgi:info
            </VirtualHost>
        """)
        yield httpd.start()


def second(server):
    return {"Host": f"second.example:{server.port}"}


@pytest.mark.parametrize("mount", ["/api", "/sub"])
@pytest.mark.checklist(218)
def test_modules(server, mount):
    found = server.json(f"{mount}/modules")
    module = found["mod_wsgi"]
    assert ATTRIBUTES <= module.keys()
    assert module["version"] == found["environ"] and module["version"].count(",") == 2
    assert module["process_group"] == ("tests" if server.daemon else "")
    assert module["application_group"] == ("" if mount == "/api" else "sub")
    assert module["threads_per_process"] == 8
    assert module["event_callbacks"] == module["shutdown_callbacks"] == "[]"
    assert module["active_requests"].startswith("{")
    assert set(found["same"]) >= ATTRIBUTES - {"version"}
    assert found["rwsgi"][0] == 0
    assert found["found"] is True
    assert found["timeout"] == ["RequestTimeout", "BaseException", "object"]
    assert found["types"] == [
        *("mod_wsgi.Input", "mod_wsgi.Log", "mod_wsgi.LogHandler"),
        *("mod_wsgi.FileWrapper", "mod_wsgi.RequestTimeout"),
    ]
    assert found["argv"] == ["mod_wsgi"]
    assert found["nonsense"] == "module 'mod_wsgi' has no attribute 'nonsense'"

    apache = found["apache"]
    assert apache["version"] == found["apache environ"]
    assert apache["mpm_name"] in ("event", "worker", "prefork")
    assert apache["description"].startswith("Apache/2.4")
    assert apache["build_date"]
    assert apache["threads_per_process"] == module["threads_per_process"]
    assert apache["maximum_processes"] == module["maximum_processes"]


@pytest.mark.checklist(218)
def test_the_packages_of_others(new_httpd):
    """``mod_wsgi.express`` of the package from pip is found, and not executed unasked."""
    with new_httpd() as httpd:
        site = httpd.root / "site"
        httpd.write("site/mod_wsgi/__init__.py", "raise SystemError('it is not executed')")
        httpd.write("site/mod_wsgi/express.py", "NAME = __name__")
        httpd.write("site/mod_wsgi/server/__init__.py", "")
        httpd.write("site/mod_wsgi/server/deep.py", "NAME = __name__")
        # A directory that many sites have is no module; bindings of httpd's functions are one.
        httpd.write("site/apache.py", "EXTRA = 'of another'")
        applications(httpd, api="api.wsgi")
        httpd.config.added[:] = [
            text.replace(f'WSGIPythonPath "{httpd.apps}"', f'WSGIPythonPath "{httpd.apps}:{site}"')
            for text in httpd.config.added
        ]
        httpd.start()
        extra = None if httpd.daemon else "of another"
        express = ["mod_wsgi.express", "mod_wsgi.server.deep"]
        assert httpd.json("/api/package") == [*express, extra, True, False, True]


@pytest.mark.checklist(218)
def test_a_directory_apache_is_no_module(new_httpd):
    with new_httpd() as httpd:
        httpd.write("apps/apache/django.wsgi", "")
        applications(httpd, api="api.wsgi")
        httpd.start()
        assert httpd.json("/api/modules")["apache"]["mpm_name"]


@pytest.mark.modes("embedded")
@pytest.mark.checklist(218)
def test_a_module_apache_that_fails(new_httpd):
    with new_httpd() as httpd:
        httpd.write("apps/apache.py", "raise ValueError('not today')")
        applications(httpd, api="api.wsgi")
        expected = httpd.expect_log("^RWSGI0590: the module 'apache' that was found could not be")
        httpd.start()
        assert httpd.json("/api/modules")["apache"]["mpm_name"]
        httpd.settle_log()
        assert any("not today" in line.message for line in expected.traceback)


@pytest.mark.checklist(218)
def test_without_the_package(server):
    assert "mod_wsgi.express" in server.get("/api/no-package").text


# LogHandler


def levels_of(server, lines):
    """The level of each line that says "at N", by N."""
    found = {}
    for line in lines:
        _, at, number = line.message.rpartition("at ")
        if at:
            found[int(number)] = line.level
    return found


@pytest.mark.parametrize("mount", ["/api", "/sub"])
@pytest.mark.checklist(228)
def test_levels(server, mount):
    server.get(f"{mount}/forget")
    expected = server.expect_log(r"^at \d+$", count=4)
    before = len(server.log.seen)
    formatted = server.json(f"{mount}/log")
    assert formatted == [f"at {level}" for level, _ in LEVELS]
    server.wait_until(lambda: server.log.read() is not None and len(expected.lines) == 4)
    server.settle_log()
    lines = [line for line in server.log.seen[before:] if line.message.startswith("at ")]
    assert levels_of(server, lines) == dict(LEVELS)
    # One request.
    assert len({line.log_id for line in lines}) == 1 and lines[0].log_id not in ("", "-")


@pytest.mark.checklist(228)
def test_what_is_not_logged_is_not_formatted(server):
    """``LogLevel`` of the virtual host, here info."""
    server.get("/api/forget", headers=second(server))
    server.expect_log(r"> at \d+$", count=4)
    formatted = server.json("/api/log", headers=second(server))
    assert formatted == [f"at {level}" for level, ours in LEVELS if ours != "debug"]


@pytest.mark.checklist(228)
def test_file_and_line(server):
    expected = [server.expect_log(text) for text in ("> two$", "> lines .*")]
    line = server.get("/api/log-place", headers=second(server)).text
    server.settle_log()
    for expectation in expected:
        (found,) = expectation.lines
        # httpd shows the last part of the path.
        assert found.message.startswith(f"<api.wsgi({line})> ")
        assert found.vhost == "second.example" and found.level == "error"


@pytest.mark.checklist(228)
def test_an_exception_through_the_handler(server):
    expected = server.expect_log("^it was$")
    for text in (
        "^Traceback",
        "^  File .*, in log_exception",
        "^    raise KeyError",
        "^KeyError: ",
    ):
        server.expect_log(text)
    server.get("/api/log-exception")
    server.settle_log()
    assert expected.lines[0].level == "error"


@pytest.mark.checklist(228, 230)
def test_the_handler_outside_of_requests(server):
    """What belongs to no request goes to the main server's log, at its level."""
    server.get("/api/forget")
    expected = server.expect_log("^from a thread$")
    formatted = server.json("/api/log-elsewhere", headers=second(server))
    assert formatted == ["from a thread", "unseen from a thread"]
    server.settle_log()
    (line,) = expected.lines
    assert line.level == "error" and line.log_id in ("", "-")
    assert line.vhost in ("", "localhost")


@pytest.mark.checklist(228)
def test_a_handler_that_fails(server):
    server.expect_log("--- Logging error ---")
    server.expect_log("TypeError: %d format")
    server.expect_log(r"^odd \? text$")
    server.allow_log("^Traceback|^Call stack:|^  |^Message: |^Arguments: ")
    server.get("/api/log-broken")


@pytest.mark.checklist(228, 230)
def test_the_log_of_an_access_script(new_httpd):
    """Scripts that httpd asks about a request log for that request, too."""
    with new_httpd(log_level="notice rwsgi:info") as httpd:
        script = httpd.write(
            "apps/asked.py",
            """
            import logging
            import mod_wsgi

            log = logging.getLogger("asked")
            log.addHandler(mod_wsgi.LogHandler())
            log.setLevel(1)


            def allow_access(environ, host):
                mod_wsgi.request_data()["asked"] = True
                log.warning("asked by the handler")
                log.debug("unseen")
                print("asked by print")
                return True
            """,
        )
        applications(httpd, api="api.wsgi")
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName localhost
                ErrorLog "{httpd.vhost_log("second.log")}"
                ErrorLogFormat "[%{{cu}}t] [%-m:%-l] [pid %P] [id %-L] [vhost %-v] <%-F> %M"
                <Location /api>
                    WSGIAccessScript "{script}"
                </Location>
            </VirtualHost>
        """)
        httpd.start()
        handler = httpd.expect_log("> asked by the handler$")
        printed = httpd.expect_log("> asked by print$")
        httpd.get("/api/forget")
        httpd.settle_log()
        (line,) = handler.lines
        assert line.message.startswith("<asked.py(12)> ") and line.level == "warn"
        assert line.vhost == "localhost" and line.log_id == printed.lines[0].log_id != "-"
        assert not any("unseen" in line.message for line in httpd.log.seen)


# Streams


@pytest.mark.checklist(229, 231)
def test_log_streams(server):
    for _ in range(2):
        server.expect_log(r"^(\u20ac|\\xe2\\x82\\xac)uro$")
        server.expect_log(r"^(\u20ac|\\xe2\\x82\\xac) split$")
        for text in ("^ab$", "^wrapped$", "^closed$", "^still open$"):
            server.expect_log(text)
        found = server.json("/api/streams")
    assert found["text"] == found["binary"] == [False, False, True, False]
    assert found["attributes"] == [["<wsgi.errors>", "utf-8", "replace", False]] * 2
    assert found["is text"] is True
    assert found["written"] == [5, 2]
    assert found["raised"] == [True, True, "TypeError", "TypeError", "TypeError"]
    # Those of the request before.
    assert found["expired"] == ["write", "writelines", "flush", "close", "buffer"]


@pytest.mark.checklist(229)
def test_text_for_the_binary_stream(server):
    server.expect_log("^text for bytes$")
    server.expect_log("^and more$")
    # Once in a process.
    assert server.json("/api/deprecated") == ["DeprecationWarning"]
