"""What applications do wrong: each mistake is reported to the one who made it, the client gets a
500 or a visibly broken response, ``close()`` is called once, and the process goes on."""

from __future__ import annotations

import pytest
from harness.client import Truncated
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(modules=["alias"], tls=True, http2=True) as httpd:
        applications(httpd, raw="faulty.wsgi", good="response.wsgi", page="response.wsgi")
        httpd.add("""
            <Location /raw/raising-after-start>
                ErrorDocument 500 /page/hello
            </Location>
        """)
        httpd.start().get("/good/hello")
        pids = httpd.children(), httpd.pythons()
        yield httpd
        assert (httpd.children(), httpd.pythons()) == pids, "a process died"


def note_file(server, name):
    file = server.root / "data" / name
    file.unlink(missing_ok=True)
    return file


def notes(server, file):
    """What the application noted, read after a later request has been served."""
    server.get("/good/hello")
    return file.read_text().split()


# start_response

CALLS = {
    "status-int": "TypeError",
    "status-bytes": "TypeError",
    "status-none": "TypeError",
    "status-empty": "ValueError",
    "status-word": "ValueError",
    "status-two-digits": "ValueError",
    "status-four-digits": "ValueError",
    "status-no-space": "ValueError",
    "status-tab": "ValueError",
    "status-newline": "ValueError",
    "status-not-latin": "UnicodeEncodeError",
    "headers-tuple": "TypeError",
    "headers-none": "TypeError",
    "headers-dict": "TypeError",
    "header-list": "TypeError",
    "header-string": "TypeError",
    "header-single": "ValueError",
    "header-triple": "ValueError",
    "name-bytes": "TypeError",
    "value-bytes": "TypeError",
    "value-int": "TypeError",
    "value-none": "TypeError",
    "name-not-latin": "UnicodeEncodeError",
    "value-not-latin": "UnicodeEncodeError",
    "name-empty": "ValueError",
    "name-space": "ValueError",
    "name-newline": "ValueError",
    "value-newline": "ValueError",
    "value-cr": "ValueError",
    "value-lf": "ValueError",
    "value-folded": "ValueError",
    "content-type-newline": "ValueError",
    "exc-info-string": "RuntimeError",
    "exc-info-list": "RuntimeError",
    "keyword": "TypeError",
    "no-arguments": "TypeError",
    "one-argument": "TypeError",
    "four-arguments": "TypeError",
}
STRICTER = {
    "status-nul": "ValueError",
    "name-nul": "ValueError",
    "status-interim": "ValueError",
    "status-switching": "ValueError",
    "name-colon": "ValueError",
    "name-parenthesis": "ValueError",
    "value-nul": "ValueError",
    "value-control": "ValueError",
    "value-delete": "ValueError",
    "hop-connection": "ValueError",
    "hop-keep-alive": "ValueError",
    "hop-proxy-authenticate": "ValueError",
    "hop-proxy-authorization": "ValueError",
    "hop-te": "ValueError",
    "hop-trailer": "ValueError",
    "hop-trailers": "ValueError",
    "hop-transfer-encoding": "ValueError",
    "hop-upgrade": "ValueError",
}


def check_call(server, name, error):
    response = server.get(f"/raw/call?name={name}")
    assert response.text.partition(":")[0] == error
    # The message tells something.
    assert len(response.text) > len(error) + 5


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.checklist(112, 113, 117, 118, 119, 120, 121, 123, 124, 125, 126, 127, 128, 129, 130)
def test_start_response_refuses(server, name):
    check_call(server, name, CALLS[name])


@pytest.mark.rwsgi
@pytest.mark.parametrize("name", STRICTER)
def test_start_response_refuses_more(server, name):
    check_call(server, name, STRICTER[name])


@pytest.mark.rwsgi
@pytest.mark.parametrize("name", ["status-newline", "value-newline", "hop-connection"])
def test_refused_call_that_is_not_caught(server, name):
    server.expect_log(r"RWSGI0200: .*ValueError.*faulty\.wsgi")
    response = server.request(f"/raw/uncaught-call?name={name}")
    assert response.status == 500
    assert response.header("X-Evil") is None and response.header("Y") is None


@pytest.mark.parametrize(
    "name",
    ["negative", "word", "list", "float", "hex", "huge"]
    + [pytest.param(name, marks=pytest.mark.rwsgi) for name in ("empty", "plus")],
)
@pytest.mark.checklist(137)
def test_content_length_that_is_none(server, name):
    server.expect_log("RWSGI0200: .*ValueError")
    assert server.request(f"/raw/content-length?name={name}").status == 500


@pytest.mark.rwsgi
def test_two_content_lengths(server):
    server.allow_log("RWSGI0200: .*ValueError")
    response = server.request("/raw/two-lengths")
    assert response.status == 500 or response.all("Content-Length") == ["6"]


@pytest.mark.checklist(116)
def test_second_start_response(server):
    """PEP 3333 calls it an error; mod_wsgi takes it, and applications rely on that."""
    response = server.request("/raw/second-start")
    assert (response.status, response.body) == (201, b"accepted")


@pytest.mark.checklist(115)
def test_second_start_response_after_output(server):
    assert server.get("/raw/second-start-after-output").body == b"first,RuntimeError"


@pytest.mark.checklist(114)
def test_exc_info_after_output(server):
    assert server.get("/raw/exc-info-after-output").body == b"first,the same"


def test_write_takes_bytes_only(server):
    assert server.get("/raw/write-types").text == ",".join(["TypeError"] * 4)


# The iterable


@pytest.mark.parametrize(
    "name",
    ["none", "int", "list-of-str", "list-of-none", "list-of-int", "str", "dict-of-str"]
    + ["bytearray", "memoryview", "iterator-of-str", "object"],
)
@pytest.mark.checklist(132, 133)
def test_results_that_are_no_bytes(server, name):
    server.expect_log("RWSGI0200: .*TypeError")
    assert server.request(f"/raw/returning?name={name}").status == 500


@pytest.mark.parametrize("query", ["", "?body=1"])
@pytest.mark.checklist(133)
def test_start_response_never_called(server, query):
    server.expect_log("RWSGI0200: .*RuntimeError")
    assert server.request(f"/raw/never-started{query}").status == 500


def test_start_response_never_called_still_closes(server):
    server.expect_log("RWSGI0200: .*RuntimeError")
    file = note_file(server, "never-started")
    assert server.request(f"/raw/never-started-closing?file={file}").status == 500
    assert notes(server, file) == ["closed"]


# Exceptions


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("raising", "ValueError"),
        ("surrogate-exception", "ValueError"),
        ("recursion", "RecursionError"),
    ],
)
@pytest.mark.checklist(145)
def test_exception_before_anything_was_sent(server, path, error):
    server.expect_log(rf"RWSGI0200: .*{error}.*faulty\.wsgi")
    response = server.request(f"/raw/{path}")
    assert (response.status, response.reason) == (500, "Internal Server Error")
    assert b"Traceback" not in response.body


@pytest.mark.checklist(145)
def test_exception_after_start_response(server):
    """Nothing was sent: the head of the application is forgotten, ErrorDocument applies."""
    server.expect_log("RWSGI0200: .*ValueError")
    response = server.request("/raw/raising-after-start")
    assert response.header("X-Mine") is None
    assert response.body == b"Hello, world\n"


@pytest.mark.checklist(143, 145)
def test_exception_of_the_first_item(server):
    server.expect_log("RWSGI0200: .*ValueError")
    file = note_file(server, "raising-first")
    response = server.request(f"/raw/raising-first?file={file}")
    assert response.status == 500 and response.header("X-Mine") is None
    assert notes(server, file) == ["closed"]


BROKEN = {
    "raising-later": b"first,second,",
    "raising-later?length=30": b"first,second,",
    "str-later": b"first,",
    "raising-after-write": b"first,",
    "exiting-later": b"first,",
}


def expect_broken(server, path):
    server.expect_log("RWSGI0201" if path.startswith("exiting") else "RWSGI0206: .*faulty")


@pytest.mark.rwsgi
@pytest.mark.parametrize("path", BROKEN)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.checklist(132, 143, 146)
def test_truncation_is_visible(server, path, tls):
    """No clean last chunk, no reused connection."""
    expect_broken(server, path)
    file = note_file(server, "broken")
    separator = "&" if "?" in path else "?"
    with server.connect(tls) as connection:
        connection.request(f"/raw/{path}{separator}file={file}")
        head = connection.read_head()
        assert head.status == 200
        rest = connection.read_to_end()
    if "length" in path:
        assert head.header("Content-Length") == "30"
        assert rest == BROKEN[path]
    else:
        assert not rest.endswith(b"0\r\n\r\n")
        assert b"".join(rest.split(b"\r\n")[1::2]) == BROKEN[path]
    if path != "raising-after-write":
        assert notes(server, file) == ["closed"]


@pytest.mark.rwsgi
@pytest.mark.parametrize("path", BROKEN)
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.checklist(146)
def test_truncation_is_visible_over_http_2(server, path, tls):
    expect_broken(server, path)
    options = ["--http2"] if tls else ["--http2-prior-knowledge"]
    response = curl(server.url(f"/raw/{path}", tls=tls), *options)
    # The stream is reset; whether its head came before that is a matter of time.
    assert response.code == 92, "curl takes the response for complete"
    assert response.status in (0, 200)


@pytest.mark.rwsgi
@pytest.mark.checklist(146)
def test_truncation_under_http_1_0(server):
    """HTTP/1.0 has no way to tell, but for a declared length."""
    expect_broken(server, "raising-later")
    with server.connect() as connection:
        connection.request("/raw/raising-later?length=30", version="HTTP/1.0")
        with pytest.raises(Truncated):
            connection.read_response()


@pytest.mark.parametrize(("path", "code"), [("exiting", "0201"), ("interrupting", "0200")])
@pytest.mark.checklist(147)
def test_exit_of_an_application_is_survived(server, path, code):
    before = server.pythons()
    server.expect_log(f"RWSGI{code}")
    assert server.request(f"/raw/{path}").status == 500
    assert server.get("/good/hello").body == b"Hello, world\n"
    assert server.pythons() == before


@pytest.mark.checklist(144)
def test_failing_close(server):
    """The answer stands; the failure is logged."""
    server.expect_log("RWSGI0204: .*ValueError")
    file = note_file(server, "failing-close")
    assert server.get(f"/raw/failing-close?file={file}").body == b"all is well"
    assert notes(server, file) == ["closed"]


# Content-Length and what comes


@pytest.mark.rwsgi
@pytest.mark.parametrize("how", ["", "?list=1"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.checklist(136)
def test_underrun(server, how, tls):
    server.expect_log("RWSGI0203")
    with server.connect(tls) as connection:
        connection.request(f"/raw/underrun{how}")
        head = connection.read_head()
        # Either the mistake is visible, or it was noticed before the head.
        assert (head.status, head.header("Content-Length")) in [(200, "10"), (500, None)] or (
            head.status == 500
        )
        if head.status == 200:
            assert connection.read_to_end() == b"short"


@pytest.mark.rwsgi
@pytest.mark.parametrize("how", ["", "?list=1"])
def test_underrun_over_http_2(server, how):
    server.expect_log("RWSGI0203")
    response = curl(server.url(f"/raw/underrun{how}"), "--http2-prior-knowledge")
    assert response.code != 0 or response.status == 500


@pytest.mark.parametrize("path", ["overrun?list=1&", "overrun?", "overrun-write?"])
@pytest.mark.checklist(136)
def test_overrun_is_cut(server, path):
    """What exceeds the declared length is dropped, and the connection goes on."""
    file = note_file(server, "overrun")
    with server.connect() as connection:
        connection.request(f"/raw/{path}file={file}")
        response = connection.read_response()
        assert response.header("Content-Length") == "5"
        assert response.body == b"hello"
        connection.request("/good/hello")
        assert connection.read_response().body == b"Hello, world\n"


@pytest.mark.rwsgi
def test_iteration_stops_at_the_declared_length(server):
    file = note_file(server, "overrun-stops")
    assert server.get(f"/raw/overrun?file={file}").body == b"hello"
    assert notes(server, file) == ["asked", "asked", "closed"]


@pytest.mark.parametrize("line", ["204%20No%20Content", "304%20Not%20Modified"])
@pytest.mark.parametrize("how", ["", "&iterate=1"])
@pytest.mark.parametrize("protocol", ["1.1", "2"])
@pytest.mark.checklist(142)
def test_body_of_a_status_without_body_is_dropped(server, line, how, protocol):
    target = f"/raw/body-of-bodiless?line={line}{how}"
    if protocol == "2":
        for _ in range(5):
            response = curl(server.url(target), "--http2-prior-knowledge")
            assert (response.code, response.status, response.body) == (0, int(line[:3]), b"")
        return
    with server.connect() as connection:
        connection.request(target)
        assert connection.read_response().status == int(line[:3])
        connection.request("/good/hello")
        assert connection.read_response().body == b"Hello, world\n"
