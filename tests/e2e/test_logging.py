"""Everything an application says reaches the error log of its virtual host, line by line, with the
request's log id."""

from __future__ import annotations

import json
import math
from urllib.parse import quote

import pytest
from harness.config import BOTH

MODES = BOTH

pytestmark = pytest.mark.rwsgi


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd() as httpd:
        script = httpd.apps / "logging.wsgi"
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /sub "{script}" application-group=sub
            WSGIScriptAlias / "{script}" application-group=%{{GLOBAL}}
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                ErrorLog "{httpd.vhost_log("second.log")}"
            </VirtualHost>
        """)
        yield httpd.start()


@pytest.fixture(params=["main", "second"])
def host(request, server):
    """The name of a virtual host, and the error log that is its own."""
    if request.param == "main":
        return {"Host": f"localhost:{server.port}"}, "error.log", "localhost"
    return {"Host": f"second.example:{server.port}"}, "second.log", "second.example"


def lines_of(server, name, text):
    """The lines of one log file that have a text."""
    content = (server.root / "logs" / name).read_text()
    return [line for line in content.splitlines() if text in line]


def pieces(*items):
    return "/errors?pieces=" + quote(json.dumps(list(items)))


def expect_lines(server, *texts):
    return [server.expect_log("^" + text + "$") for text in texts]


@pytest.mark.parametrize("mount", ["", "/sub"])
@pytest.mark.checklist(230)
def test_print_and_streams(server, host, mount):
    headers, log, vhost = host
    before = len(lines_of(server, log, "printed by print"))
    expected = expect_lines(server, "printed by print", "printed to stderr", "written to stdout")
    server.get(mount + "/printing", headers=headers)
    server.settle_log()
    ids = {line.log_id for expectation in expected for line in expectation.lines}
    # One request, one id, and it is there.
    assert len(ids) == 1 and ids != {"-"}
    for expectation in expected:
        (line,) = expectation.lines
        assert (line.module, line.level, line.vhost) == ("rwsgi", "error", vhost)
        assert line.pid in server.children()
    assert len(lines_of(server, log, "printed by print")) == before + 1


def test_each_request_has_its_own_id(server):
    ids = set()
    for _ in range(3):
        (expected,) = expect_lines(server, "alone")
        server.get(pieces("alone\n"))
        server.settle_log()
        ids.add(expected.lines[0].log_id)
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("written", "logged"),
    [
        (["one line\n"], ["one line"]),
        (["two\nlines\n"], ["two", "lines"]),
        (["half a ", "line\n"], ["half a line"]),
        (["a\nb", "c\nd\n"], ["a", "bc", "d"]),
        (["without an end"], ["without an end"]),
        (["flushed", None, "rest\n"], ["flushed", "rest"]),
        (["gr\u00fc\u00dfe \u20ac\n"], [r"gr.*e .*"]),
        (["tab\there\n"], [r"tab(\t|\\t)here"]),
        (["  indented\n"], ["  indented"]),
        (["100% %s %d %n\n"], ["100% %s %d %n"]),
        (["x" * 5000 + "\n"], ["x{5000}"]),
    ],
)
@pytest.mark.checklist(231)
def test_lines_of_wsgi_errors(server, written, logged):
    expect_lines(server, *logged)
    server.get(pieces(*written))


def test_empty_lines_do_no_harm(server):
    expect_lines(server, "before", "after")
    server.allow_log("^$")
    server.get(pieces("before\n\nafter\n"))


@pytest.mark.checklist(231)
def test_non_ascii_text_is_utf_8(server):
    """httpd escapes what is no ASCII; undone, the bytes are UTF-8."""
    (expected,) = expect_lines(server, "euro .*")
    server.get(pieces("euro \u20ac\n"))
    server.settle_log()
    message = expected.lines[0].message
    raw = message.encode("utf-8").decode("unicode_escape").encode("latin-1")
    assert "\u20ac" in message or raw == "euro \u20ac".encode()


@pytest.mark.checklist(231)
def test_nul_does_not_cut_the_line(server):
    (expected,) = expect_lines(server, "nul .*after")
    server.get(pieces("nul \0 after\n"))
    server.settle_log()
    assert "\0" not in expected.lines[0].raw


@pytest.mark.checklist(231)
def test_very_long_line(server):
    """httpd cuts lines at 8 KiB; longer ones are divided, so that nothing gets lost."""
    # The last line of all is shorter.
    expected = server.expect_log("^y+$", count=math.ceil(50_000 / 8192))
    server.allow_log("^y+$")
    server.get("/long-line")
    server.settle_log()
    assert all(len(line.raw) <= 8192 + 200 for line in expected.lines)


def test_terminal_escapes_are_harmless(server):
    (expected,) = expect_lines(server, ".*escape")
    server.get(pieces("\x1b[31mescape\n"))
    server.settle_log()
    assert "\x1b" not in expected.lines[0].raw


@pytest.mark.checklist(229)
def test_writelines(server):
    expect_lines(server, "first of two", "second of two")
    server.get("/lines")


@pytest.mark.checklist(231)
def test_halves_of_lines_on_two_streams(server):
    """The streams of a request are one, as on a terminal; nothing gets lost."""
    expected = server.expect_log("(half|rest) of (errors|stdout)", count=2)
    server.get("/interleaved")
    server.settle_log()
    text = " ".join(line.message for line in expected.lines)
    for part in ("half of errors", "rest of errors", "half of stdout", "rest of stdout"):
        assert part in text


@pytest.mark.checklist(229)
def test_binary_buffer(server):
    expect_lines(server, "as bytes", "as bytearray", "as memoryview")
    server.get("/binary")


@pytest.mark.checklist(229)
def test_facts(server):
    facts = server.json("/facts")
    assert facts["name"] == "<wsgi.errors>"
    assert facts["encoding"].lower().replace("-", "") == "utf8"
    assert facts["isatty"] is False and facts["fileno"] == "OSError" and facts["text"]


def test_standard_logging(server):
    expect_lines(server, "through logging")
    server.get("/standard-logging")


def test_printed_traceback(server):
    expect_lines(server, "Traceback .most recent call last.:", "KeyError: 'printed'")
    server.expect_log(r"^  ", count=2)
    server.allow_log(r"^ +[\^~]+$")
    server.get("/printed-traceback")


def test_warnings(server):
    server.expect_log("UserWarning: be warned")
    server.allow_log("^  warnings.warn")
    server.get("/warning")


# Tracebacks


@pytest.mark.parametrize("mount", ["", "/sub"])
@pytest.mark.checklist(232)
def test_traceback(server, host, mount):
    headers, log, vhost = host
    header = server.expect_log(r"^RWSGI0200: ")
    # A message of two lines.
    server.expect_log(r"^second line")
    assert server.request(mount + "/raising", headers=headers).status == 500
    server.settle_log()
    (line,) = header.lines
    assert line.vhost == vhost and line.log_id != "-"
    assert "Site" in line.message and "logging.wsgi" in line.message
    assert ("sub-interpreter 'sub'" if mount else "main interpreter") in line.message
    messages = [each.message for each in header.traceback]
    assert messages[0] == "Traceback (most recent call last):"
    assert "KeyError: 'cause'" in messages
    assert any(message.startswith("The above exception was") for message in messages)
    assert any("in raising" in message for message in messages)
    assert any("Site: first line" in message for message in messages)
    # All of it belongs to the request, in one piece.
    assert {each.log_id for each in header.traceback if each.message} == {line.log_id}
    assert lines_of(server, log, "Site: first line")


def test_exception_of_a_thread(server):
    server.expect_log("^Exception in thread")
    expect_lines(server, "Traceback .most recent call last.:", "ValueError: in a thread")
    server.expect_log("^  ", count=None)
    server.get("/thread-exception")


def test_unraisable_exception(server):
    # "in", or from 3.14 on what was being done.
    server.expect_log("^Exception ignored (in|while)")
    expect_lines(server, "Traceback .most recent call last.:", "ValueError: in __del__")
    server.expect_log("^  ", count=None)
    server.get("/unraisable")


@pytest.mark.checklist(230)
def test_thread_of_a_request(server, host):
    """What a foreign thread prints comes to the server's log, not to that of a virtual host."""
    (expected,) = expect_lines(server, "from a thread")
    server.get("/thread", headers=host[0])
    server.settle_log()
    (line,) = expected.lines
    assert line.log_id in ("", "-") and line.vhost in ("", "localhost")
    assert lines_of(server, "second.log", "from a thread") == []


# Levels


@pytest.mark.parametrize(
    ("level", "debug"),
    [("warn", False), ("warn rwsgi:debug", True), ("warn rwsgi:trace1", True)],
)
def test_log_level(new_httpd, level, debug):
    """``LogLevel rwsgi:…`` decides about our lines alone (the MPM's notice tells of the start)."""
    with new_httpd(log_level=f"notice {level.partition(' ')[2]}") as httpd:
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.apps}/environ.wsgi"
        """)
        httpd.start()
        httpd.get("/")
        httpd.log.read()
        ours = {line.level for line in httpd.log.seen if line.module == "rwsgi"}
        assert bool(ours & {"debug", "info"}) == debug
        others = {line.level for line in httpd.log.seen if line.module != "rwsgi"}
        assert others <= {"notice"}


def test_log_level_crit_silences_the_application(new_httpd):
    with new_httpd(log_level="notice rwsgi:crit") as httpd:
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.apps}/logging.wsgi"
        """)
        httpd.start()
        httpd.get("/printing")
        assert httpd.request("/raising").status == 500
