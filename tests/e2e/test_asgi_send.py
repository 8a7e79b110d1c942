"""The response: what ``send`` takes and refuses, when it reaches the client, and how it shows if a
response is not whole."""

from __future__ import annotations

import json
import os
import random

import pytest
from harness.asgi import ANY, RAISED, UNFINISHED, line_of, stands_still
from harness.client import Truncated
from harness.config import BOTH
from harness.curl import curl
from harness.processes import resident_kib
from harness.sites import asgi_applications

pytestmark = pytest.mark.rwsgi
MODES = BOTH


@pytest.fixture(scope="module", params=["event", "prefork"])
def server(new_httpd, request):
    with new_httpd(mpm=request.param, threads=4, http2=request.param != "prefork") as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.mpm = request.param
        yield httpd.start()


@pytest.fixture
def gate(server):
    return server.gate()


def skip_without_http_2(server):
    if server.mpm == "prefork":
        pytest.skip("mod_http2 does not run under prefork")


def test_hello(server):
    response = server.get("/http/hello")
    assert response.body == b"Hello, world\n"
    assert response.all("Content-Length") == ["13"]
    assert response.header("Content-Type") == "text/plain"
    assert response.header("Transfer-Encoding") is None
    assert server.get("/http/pid").body.decode() in map(str, server.pythons())


def test_values_that_may_be_left_out(server):
    response = server.request("/http/lazy-values")
    assert (response.status, response.body) == (201, b"one,two")
    assert (response.header("x-one"), response.header("x-two")) == ("1", "2")


# Streaming


def test_each_piece_arrives_before_the_next_is_made(server, gate):
    with server.connect() as connection:
        connection.request(f"/http/stream?count=4&gate={gate.path}")
        for i in range(4):
            gate.step()
            if i == 0:
                assert connection.read_head().status == 200
            assert connection.read_chunk() == b"%d\n" % i
        assert connection.read_chunk() == b""


def test_with_a_declared_length(server, gate):
    with server.connect() as connection:
        connection.request(f"/http/stream?count=4&length=1&gate={gate.path}")
        for i in range(4):
            gate.step()
            if i == 0:
                assert connection.read_head().header("Content-Length") == "8"
            assert connection.read_exactly(2) == b"%d\n" % i


def test_http_1_0(server, gate):
    with server.connect() as connection:
        connection.request(f"/http/stream?count=3&gate={gate.path}", version="HTTP/1.0")
        for i in range(3):
            gate.step()
            if i == 0:
                assert connection.read_head().status == 200
            assert connection.read_exactly(2) == b"%d\n" % i
        assert connection.at_end()


def test_http_2(server, gate):
    skip_without_http_2(server)
    with server.http2() as connection:
        stream = connection.begin(f"/http/stream?count=3&gate={gate.path}")
        for i in range(3):
            gate.step()
            assert stream.read_exactly(2) == b"%d\n" % i
        assert stream.at_end()
        assert connection.request("/http/hello").body == b"Hello, world\n"


def test_slow_client_stops_the_application(server):
    """``send`` waits where the client does not read; the memory in between is bounded."""
    if server.mpm == "prefork" and not server.daemon:
        pytest.skip("another process would have to tell")
    pieces = 2048
    with server.connect() as connection:
        before = {pid: resident_kib(pid) for pid in server.children() + server.pythons()}
        connection.request(f"/http/flood?name=slow&count={pieces}")
        assert connection.read_head().status == 200

        def sent():
            return int(server.get("/http/count?name=slow").body)

        taken = stands_still(sent)
        # Of 128 MiB.
        assert taken < pieces / 4
        for pid, size in before.items():
            assert resident_kib(pid) - size < 32 * 1024
        total = 0
        while chunk := connection.read_chunk():
            total += len(chunk)
        assert total == pieces * 65536
    assert int(server.get("/http/count?name=slow").body) == pieces


def test_slow_client_over_http_2(server):
    skip_without_http_2(server)
    pieces = 160
    with server.http2() as connection:
        stream = connection.begin(f"/http/flood?name=slow2&count={pieces}").read_head()
        assert stream.status == 200
        taken = stands_still(lambda: int(server.get("/http/count?name=slow2").body))
        assert taken < pieces - 100
        assert len(stream.read_response().body) == pieces * 65536


# Without a body


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_head(server, version):
    with server.connect() as connection:
        for _ in range(2):
            headers = {"Connection": "keep-alive"}
            connection.request("/http/hello", method="HEAD", version=version, headers=headers)
            response = connection.read_response()
            assert (response.status, response.header("Content-Length")) == (200, "13")
        connection.request("/http/hello")
        assert connection.read_response().body == b"Hello, world\n"


@pytest.mark.parametrize("code", [204, 304])
@pytest.mark.parametrize("body", ["", "&body=text"])
def test_statuses_without_body(server, code, body):
    """A body that may not be is not sent, and the connection stays in step."""
    server.allow_log(ANY)
    with server.connect() as connection:
        connection.request(f"/http/status?code={code}{body}")
        assert connection.read_response().status == code
        connection.request("/http/hello")
        assert connection.read_response().body == b"Hello, world\n"


@pytest.mark.parametrize("code", [200, 202, 299, 404, 418, 500, 503, 599])
def test_statuses(server, code):
    response = server.request(f"/http/status?code={code}&body=text")
    assert (response.status, response.body) == (code, b"text")


# What is not whole


@pytest.mark.parametrize("route", ["short", "long", "short-in-pieces", "long-in-pieces"])
def test_other_length_than_declared(server, route):
    """``send`` raises; the client sees an error or a cut, never a whole response."""
    server.expect_log(RAISED)
    cut_or_500(server, f"/http/{route}")
    assert server.get("/http/hello").status == 200


def test_no_answer(server):
    server.expect_log(ANY)
    assert server.request("/http/silent").status == 500
    assert server.get("/http/hello").status == 200


@pytest.mark.parametrize("route", ["silent-after-head", "silent-in-mid-body"])
def test_no_end(server, route):
    server.expect_log(ANY)
    cut_or_500(server, f"/http/{route}")


def cut_or_500(server, target):
    """The head may not have been sent yet; if it was, the client must see the cut."""
    with server.connect() as connection:
        connection.request(target)
        response = connection.read_head()
        if response.status == 500:
            return
        with pytest.raises(Truncated):
            connection.read_body(response)


def test_exception(server):
    told = server.expect_log(RAISED)
    response = server.request("/http/broken")
    assert response.status == 500
    assert b"on purpose" not in response.body
    server.settle_log()
    lines = [line.message for line in told.traceback]
    assert any("RuntimeError: broken on purpose" in line for line in lines)
    assert any("in broken" in line for line in lines)
    assert server.get("/http/hello").status == 200


@pytest.mark.parametrize("route", ["broken-after-head", "broken-in-mid-body"])
def test_late_exception(server, route):
    server.expect_log(RAISED)
    cut_or_500(server, f"/http/{route}")
    assert server.get("/http/hello").status == 200


def test_late_exception_over_http_2(server):
    skip_without_http_2(server)
    server.expect_log(RAISED)
    with server.http2() as connection:
        with pytest.raises(Truncated):
            connection.request("/http/broken-in-mid-body")
    response = curl(server.url("/http/hello"), "--http2-prior-knowledge")
    assert response.status == 200


def test_exception_after_the_end(server):
    """The client has its answer; the log has the traceback."""
    server.expect_log(ANY)
    assert server.get("/http/broken-after-end").body == b"whole"


def test_system_exit(server):
    """It ends the request and nothing else."""
    server.expect_log(RAISED)
    before = server.get("/http/pid").body
    assert server.request("/http/exits").status == 500
    if server.mpm != "prefork" or server.daemon:
        assert server.get("/http/pid").body == before


def test_cancelled_by_itself(server):
    server.allow_log(ANY)
    assert server.request("/http/cancels-itself").status == 500
    assert server.get("/http/hello").status == 200


def test_work_after_the_response(server, gate):
    """A background task; the client does not wait for it."""
    file = server.root / "data" / f"background-{server.mpm}"
    with server.connect() as connection:
        connection.request(f"/http/working-after-end?gate={gate.path}&file={file}")
        assert connection.read_response().body == b"whole"
        connection.request("/http/hello")
        assert connection.read_response().body == b"Hello, world\n"
        assert not file.exists()
        gate.step()
        assert line_of(server, file) == "done"


# Messages that are refused

BEFORE_HEAD = [
    "body-first",
    "unknown-type",
    "other-protocol",
    "no-type",
    "no-dict",
    "no-status",
    "text-status",
    "status-99",
    "status-101",
    "status-1000",
    "text-header",
    "header-of-three",
    "header-with-line-end",
    "header-with-nul",
    "header-with-blank-in-name",
    "header-with-colon-in-name",
    "header-without-name",
    "length-no-number",
]
AFTER_HEAD = ["start-twice", "text-body", "list-body"]


@pytest.mark.parametrize("name", BEFORE_HEAD)
def test_wrong_message(server, name):
    """``send`` raises; an application that does not handle that has failed."""
    server.expect_log(RAISED)
    assert server.request(f"/http/wrong?name={name}").status == 500


@pytest.mark.parametrize("name", AFTER_HEAD)
def test_wrong_message_after_the_head(server, name):
    server.expect_log(RAISED)
    cut_or_500(server, f"/http/wrong?name={name}")


@pytest.mark.parametrize("name", BEFORE_HEAD + AFTER_HEAD)
def test_wrong_message_that_is_handled(server, name):
    """It is as if it had not been sent."""
    response = server.get(f"/http/wrong?name={name}&caught=1")
    assert response.body.endswith((b"Error", b"Exception")), response.body


def test_message_after_the_end(server):
    """Whatever ``send`` says to that (ASGI leaves it open), the client is not disturbed."""
    server.allow_log(ANY)
    file = server.root / "data" / f"after-end-{server.mpm}"
    with server.connect() as connection:
        connection.request(f"/http/after-the-end?file={file}")
        assert connection.read_response().body == b"whole"
        line_of(server, file)
        connection.request("/http/hello")
        assert connection.read_response().body == b"Hello, world\n"


# Header fields


def fields_sent(server, fields):
    body = json.dumps(fields).encode()
    return server.request("/http/headers", method="POST", body=body)


def test_header_fields(server):
    response = fields_sent(
        server,
        [
            ["Set-Cookie", "a=1"],
            ["set-cookie", "b=2; Path=/"],
            ["X-Latin", "\xe9"],
            ["x-empty", ""],
            ["content-type", "text/x; charset=utf-8"],
            ["x-blank", "  in between  "],
        ],
    )
    assert response.body == b"body"
    assert response.all("set-cookie") == ["a=1", "b=2; Path=/"]
    assert response.header("x-latin") == "\xe9"
    assert response.header("x-empty") == ""
    assert response.all("content-type") == ["text/x; charset=utf-8"]
    assert response.header("x-blank") == "in between"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connection", "close"),
        ("Connection", "keep-alive"),
        ("keep-alive", "timeout=999"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "trailers"),
    ],
)
def test_hop_by_hop_fields_are_dropped(server, name, value):
    """They are httpd's own business; libraries for server-sent events set them."""
    with server.connect() as connection:
        for _ in range(2):
            body = json.dumps([[name, value], ["x-other", "1"]]).encode()
            connection.request("/http/headers", method="POST", body=body)
            response = connection.read_response()
            assert (response.status, response.body) == (200, b"body")
            assert response.header("x-other") == "1"
            if name.lower() != "transfer-encoding":
                assert value not in response.all(name)


def test_date_and_server_are_httpds(server):
    """The application's own, if it sends some, do not come twice."""
    response = fields_sent(server, [["server", "mine"], ["date", "yesterday"]])
    assert len(response.all("Server")) == 1
    assert len(response.all("Date")) == 1


def test_many_and_long_header_fields(server):
    fields = [[f"x-{i}", "v" * 50] for i in range(200)] + [["x-long", "l" * 20_000]]
    response = fields_sent(server, fields)
    assert [response.header(name) for name, _ in fields] == [value for _, value in fields]


# Extensions


def test_early_hints(server, gate):
    """They reach the client before the answer is made."""
    with server.connect() as connection:
        connection.request(f"/http/hints?gate={gate.path}")
        assert connection.read_line() == b"HTTP/1.1 103 Early Hints"
        lines = []
        while line := connection.read_line():
            lines.append(line)
        links = [line.partition(b": ")[2] for line in lines if line.lower().startswith(b"link:")]
        joined = b", ".join(links)
        assert joined == b"</a.css>; rel=preload; as=style, </b.js>; rel=preload"
        gate.step(2)
        response = connection.read_response()
        assert (response.interim, response.status, response.body) == ([103], 200, b"hinted")
        assert response.header("Link") is None


def test_early_hints_over_http_2(server, gate):
    skip_without_http_2(server)
    with server.http2() as connection:
        stream = connection.begin(f"/http/hints?gate={gate.path}")
        gate.step(2)
        stream.read_response()
        assert (stream.status, stream.body) == (200, b"hinted")
        # mod_http2 sends them only where "H2EarlyHints on" says so.
        assert stream.interim == []


def test_early_hints_over_http_2_where_it_sends_them(new_httpd):
    with new_httpd(http2=True) as httpd:
        asgi_applications(httpd, http="asgi_http.py")
        httpd.add("H2EarlyHints On").start()
        with httpd.http2() as connection:
            stream = connection.request("/http/hints")
            assert (stream.status, stream.body) == (200, b"hinted")
            assert [status for status, _ in stream.interim] == [103, 103]
            assert stream.interim[1][1]["link"] == "</c>; rel=x"


def test_early_hints_and_http_1_0(server):
    """A client of HTTP/1.0 would take them for the answer."""
    response = server.request("/http/hints", version="HTTP/1.0")
    assert (response.interim, response.body) == ([], b"hinted")


SIZES = [0, 1, 100_000, 20_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("length", [True, False])
def test_pathsend(server, size, length):
    content = random.Random(size).randbytes(size)
    file = server.root / "data" / f"file-{size}"
    file.write_bytes(content)
    option = f"&length={size}" if length else ""
    response = server.get(f"/http/pathsend?path={file}{option}")
    assert response.body == content
    if length:
        assert response.header("Content-Length") == str(size)


def test_pathsend_and_the_next_request(server):
    file = server.root / "data" / "two.txt"
    file.write_bytes(b"two" * 1000)
    with server.connect() as connection:
        for _ in range(2):
            connection.request(f"/http/pathsend?path={file}&length=3000")
            assert connection.read_response().body == b"two" * 1000
        connection.request(f"/http/pathsend?path={file}&length=3000", method="HEAD")
        assert connection.read_response().header("Content-Length") == "3000"
        connection.request("/http/hello")
        assert connection.read_response().body == b"Hello, world\n"


def test_pathsend_of_a_file_that_is_not_there(server):
    server.expect_log(RAISED)
    cut_or_500(server, f"/http/pathsend?path={server.root}/data/nothing")


def test_pathsend_of_a_directory(server):
    server.expect_log(RAISED)
    cut_or_500(server, f"/http/pathsend?path={server.root}/data")


def test_pathsend_of_a_fifo_does_not_hang(server):
    server.expect_log(RAISED)
    fifo = server.root / "data" / f"fifo-{server.mpm}"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    cut_or_500(server, f"/http/pathsend?path={fifo}")


def test_trailers_over_http_2(server):
    """Fields behind a body or a file, in one message or many; and none after all."""
    skip_without_http_2(server)
    with server.http2() as connection:
        assert connection.request("/http/offers?name=http.response.trailers").body == b"True"
        stream = connection.request("/http/trailers")
        assert (stream.status, stream.body, stream.trailers) == (200, b"body", {"x-sum": "42"})
        stream = connection.request(f"/http/trailers?path={__file__}")
        with open(__file__, "rb") as file:
            assert stream.body == file.read()
        assert stream.trailers == {"x-sum": "42"}
        stream = connection.request("/http/trailers?count=3")
        assert stream.trailers == {"x-sum": "42", "x-0": "0", "x-1": "1", "x-2": "2"}
        stream = connection.request("/http/trailers?count=-1")
        assert (stream.body, stream.trailers) == (b"body", {})
        stream = connection.request("/http/trailers", method="HEAD")
        assert (stream.status, stream.body) == (200, b"")


def test_trailers_that_do_not_come(server):
    """What was announced is a part of the response."""
    skip_without_http_2(server)
    server.expect_log(UNFINISHED)
    with server.http2() as connection:
        stream = connection.begin("/http/trailers?missing=1")
        with pytest.raises(Truncated):
            stream.read_response()


@pytest.mark.parametrize("name", ["content-length", "transfer-encoding", "x y"])
def test_trailers_that_are_refused(server, name):
    """Nothing of them is sent that would say how long the body is."""
    skip_without_http_2(server)
    server.allow_log(RAISED)
    with server.http2() as connection:
        stream = connection.begin(f"/http/trailers?name={name.replace(' ', '%20')}")
        try:
            stream.read_response()
        except Truncated:
            assert name != "transfer-encoding"
        assert name not in stream.trailers


def test_no_trailers_over_http_1(server):
    """httpd 2.4 does not send them there: they are not offered, and those that come are dropped."""
    assert server.get("/http/offers?name=http.response.trailers").body == b"False"
    with server.connect() as connection:
        for _ in range(2):
            connection.request("/http/trailers?count=2", headers={"TE": "trailers"})
            assert connection.read_response().body == b"body"
