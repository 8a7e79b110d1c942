"""``wsgi.input``: every way to read, and every way in which a body can fail."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading

import pytest
from harness import paths
from harness.client import Truncated
from harness.config import BOTH

MODES = BOTH

TEXT = b"first line\nsecond\n\nfourth, the last one without an end"


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(modules=["deflate", "reqtimeout", "alias"]) as httpd:
        script = httpd.apps / "input.wsgi"
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            WSGIApplicationGroup %{{GLOBAL}}
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /checked {script} callable-object=validated
            WSGIScriptAlias /limited {script}
            WSGIScriptAlias /no-chunks {script}
            WSGIScriptAlias /impatient {script}
            WSGIScriptAlias /inflating {script}
            WSGIScriptAlias /raw {script}
            WSGIScriptAlias /unchecked {script}
            WSGIChunkedRequest On
            RequestReadTimeout handshake=0 header=0 body=1
            <Location /limited>
                LimitRequestBody 1000
            </Location>
            <Location /no-chunks>
                WSGIChunkedRequest Off
            </Location>
            <Location /unchecked>
                WSGIScriptReloading Off
            </Location>
            <Location /inflating>
                SetInputFilter DEFLATE
            </Location>
        """)
        yield httpd.start()


def ops(server, operations, body=TEXT, **options):
    target = f"/raw/script?ops={operations}"
    return server.json(target, method="POST", body=body, **options)


def chunked(connection, target, pieces, headers=()):
    connection.request(target, "POST", [*headers, ("Transfer-Encoding", "chunked")])
    for piece in pieces:
        connection.send_chunk(piece)
    connection.send_chunk(b"")
    return connection.read_response()


def data_file(server, name):
    path = server.root / "data" / name
    path.unlink(missing_ok=True)
    return path


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ("read", [TEXT]),
        ("read:-1", [TEXT]),
        ("read:5,read:3,read", [TEXT[:5], TEXT[5:8], TEXT[8:]]),
        ("read:0,read:0,read:5", [b"", b"", TEXT[:5]]),
        ("read:1000,read:1000,read,read:1", [TEXT, b"", b"", b""]),
        ("readline,readline,readline,readline", TEXT.splitlines(keepends=True)),
        ("readline:5,readline:5,readline:5", [b"first", b" line", b"\n"]),
        ("readline:-1", [b"first line\n"]),
        ("readline:0,readline", [b"", b"first line\n"]),
        ("readline,read:3,readline", [b"first line\n", b"sec", b"ond\n"]),
        ("readline,read", [b"first line\n", TEXT[11:]]),
        ("read,readline,readline", [TEXT, b"", b""]),
        ("next,next", [b"first line\n", b"second\n"]),
    ],
)
@pytest.mark.checklist(91, 92, 93, 94, 95, 98, 99, 100)
def test_reading(server, operations, expected):
    assert ops(server, operations) == [part.decode() for part in expected]


@pytest.mark.checklist(96, 97, 98)
def test_reading_lines(server):
    lines = [line.decode() for line in TEXT.splitlines(keepends=True)]
    assert ops(server, "readlines") == [lines]
    assert ops(server, "iterate") == [lines]
    assert ops(server, "readlines:0") == [lines]
    assert ops(server, "readlines:12,readlines") == [lines[:2], lines[2:]]
    assert ops(server, "readline,iterate,iterate,readlines") == [lines[0], lines[1:], [], []]
    assert ops(server, "read,next")[1]["error"] == "StopIteration"


@pytest.mark.parametrize("operations", ["read", "read:10", "readline", "readlines", "iterate"])
@pytest.mark.checklist(100)
def test_no_body(server, operations):
    empty = [] if operations in ("readlines", "iterate") else ""
    assert server.json(f"/raw/script?ops={operations},{operations}") == [empty, empty]
    assert ops(server, operations, body=b"") == [empty]


@pytest.mark.parametrize("operation", ["read:None", "readline:None"])
@pytest.mark.checklist(99)
def test_none_means_all(server, operation):
    (result,) = ops(server, operation)
    if paths.PEER:
        assert result["error"] == "TypeError"
    else:
        # As with Python's own files.
        assert result == (TEXT.decode() if operation == "read:None" else "first line\n")


def test_long_lines(server):
    body = b"x" * 100_000 + b"\n" + b"y" * 20_000 + b"\nz"
    first, second, third = ops(server, "readline,readline,readline", body=body)
    assert (len(first), len(second), third) == (100_001, 20_001, "z")


@pytest.mark.checklist(109)
def test_all_bytes(server):
    body = bytes(range(256)) * 50
    assert ops(server, "read:1,read", body=body) == ["\0", body[1:].decode("latin-1")]


@pytest.mark.parametrize("mount", ["/raw", "/checked", "/unchecked"])
@pytest.mark.parametrize("size", [0, 1, 11, 1024, 8192, 65536, 10 * 1024 * 1024])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.checklist(101, 106)
def test_bodies_arrive_unchanged(server, mount, size, framing):
    body = random.Random(size).randbytes(size)
    with server.connect() as connection:
        if framing == "length":
            connection.request(f"{mount}/digest", "POST", body=body)
            response = connection.read_response()
        else:
            step = max(1, size // 7)
            pieces = [body[i : i + step] for i in range(0, size, step)]
            response = chunked(connection, f"{mount}/digest", pieces)
        assert response.json() == {"length": size, "sha256": hashlib.sha256(body).hexdigest()}
        # The connection goes on.
        connection.request(f"{mount}/ignore")
        assert connection.read_response().body == b"ignored"


@pytest.mark.rwsgi("daemon")
def test_body_comes_while_it_is_sent(server):
    """An application sees the first bytes before the client has sent the last ones."""
    with server.connect() as connection:
        connection.request("/raw/echo", "POST", {"Transfer-Encoding": "chunked"})
        connection.send_chunk(b"a" * 1000)
        head = connection.read_head()
        assert head.status == 200
        assert connection.read_chunk() == b"a" * 1000
        connection.send_chunk(b"b" * 1000)
        assert connection.read_chunk() == b"b" * 1000
        connection.send_chunk(b"")
        assert connection.read_chunk() == b""


@pytest.mark.checklist(107)
def test_unread_body_does_not_disturb_the_connection(server):
    with server.connect() as connection:
        for size in (10, 5000, 100_000):
            connection.request("/raw/ignore", "POST", body=b"GET /evil HTTP/1.1\r\n" + b"x" * size)
            assert connection.read_response().body == b"ignored"
        assert chunked(connection, "/raw/ignore", [b"x" * 30] * 3).body == b"ignored"
        connection.request("/raw/script?ops=read:4", "POST", body=b"half read")
        assert connection.read_response().json() == ["half"]
        connection.request("/raw/ignore")
        assert connection.read_response().body == b"ignored"


@pytest.mark.checklist(107)
@pytest.mark.parametrize("head", [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}])
def test_answer_before_the_body(server, head):
    """A client that sends its body only after an answer gets one, and the connection goes on."""
    with server.connect(timeout=5) as connection:
        connection.request("/raw/ignore", "POST", head)
        assert connection.read_response().body == b"ignored"
        if "Content-Length" in head:
            connection.send(b"hello")
        else:
            connection.send_chunk(b"hello")
            connection.send_chunk(b"")
        connection.request("/raw/ignore")
        assert connection.read_response().body == b"ignored"


def test_pipelining(server):
    with server.connect() as connection:
        for i in range(5):
            connection.request("/raw/script?ops=read", "POST", body=b"body %d" % i)
        for i in range(5):
            assert connection.read_response().json() == [f"body {i}"]


# Expect: 100-continue

EXPECT = {"Expect": "100-continue", "Content-Length": "5"}


@pytest.mark.checklist(104)
def test_continue_when_the_application_reads(server):
    with server.connect() as connection:
        connection.request("/raw/script?ops=read", "POST", EXPECT)
        assert connection.read_line() == b"HTTP/1.1 100 Continue"
        assert connection.read_line() == b""
        connection.send(b"hello")
        response = connection.read_response()
        assert response.json() == ["hello"] and response.interim == []


@pytest.mark.checklist(104)
@pytest.mark.rwsgi("daemon")
def test_no_continue_when_it_does_not(server):
    with server.connect() as connection:
        connection.request("/raw/ignore", "POST", EXPECT)
        response = connection.read_response()
        assert response.status == 200 and response.interim == []


@pytest.mark.checklist(104)
@pytest.mark.rwsgi("daemon")
def test_no_continue_after_the_head(server):
    """Once the head is out, an interim response would land within the body."""
    with server.connect() as connection:
        connection.request("/raw/late-100", "POST", EXPECT)
        head = connection.read_head()
        assert head.interim == [] and head.header("X-Early") == "1"
        assert connection.read_chunk() == b"early\n"
        connection.send(b"hello")
        assert connection.read_chunk() == b"hello"
        assert connection.read_chunk() == b""


# What is refused before the application runs


@pytest.mark.checklist(101)
def test_chunked_can_be_switched_off(server):
    server.expect_log("RWSGI0014")
    with server.connect() as connection:
        assert chunked(connection, "/no-chunks/ignore", [b"x"]).status == 411


@pytest.mark.rwsgi
def test_chunked_is_accepted_by_default(new_httpd):
    with new_httpd() as httpd:
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / {httpd.apps}/input.wsgi
        """)
        httpd.start()
        with httpd.connect() as connection:
            assert chunked(connection, "/script?ops=read", [b"a", b"b"]).json() == ["ab"]


@pytest.mark.parametrize("coding", ["gzip", "identity", "gzip, chunked"])
@pytest.mark.checklist(101)
def test_other_transfer_codings(server, coding):
    # httpd refuses some of them itself.
    server.allow_log("RWSGI0014|AH0[0-9]+")
    with server.connect() as connection:
        connection.request("/raw/ignore", "POST", {"Transfer-Encoding": coding})
        assert connection.read_head().status in (400, 501)


@pytest.mark.parametrize("value", ["abc", "-1", "1x", "99999999999999999999999"])
@pytest.mark.checklist(102)
def test_content_length_that_is_none(server, value):
    server.allow_log("RWSGI0015|AH0[0-9]+")
    with server.connect() as connection:
        connection.request("/raw/ignore", "POST", {"Content-Length": value})
        assert connection.read_head().status == 400


@pytest.mark.checklist(102)
def test_too_large_by_content_length(server):
    server.expect_log("RWSGI0016|AH01587")
    file = data_file(server, "too-large")
    response = server.request(f"/limited/not-catching?file={file}", method="POST", body=b"x" * 1001)
    assert response.status == 413
    assert not file.exists()
    assert server.request("/limited/ignore", method="POST", body=b"x" * 1000).status == 200


@pytest.mark.rwsgi
def test_too_large_by_chunks(server):
    """The limit is found while reading: the application gets OSError, the client 413."""
    told = "RWSGI0205|RWSGI0016|AH01588"
    if server.daemon:
        server.allow_log(told)
    else:
        server.expect_log(told, count=None)
    file = data_file(server, "too-large-chunked")
    with server.connect() as connection:
        pieces = [b"x" * 600] * 3
        response = chunked(connection, f"/limited/not-catching?file={file}", pieces)
        assert response.status == 413
    # The filter answers by itself, which may be before the application gets to know; in daemon
    # mode before it is called at all, and then it is not.
    if not server.daemon:
        assert wait_for_file(server, file) == "OSError"


# Bodies that fail on the way


def aborted_upload(server, target):
    connection = server.connect()
    connection.request(target, "POST", {"Content-Length": "100000"})
    connection.send(b"x" * 5000)
    return connection


def wait_for_file(server, path):
    import time

    deadline = time.monotonic() + 15
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"the application did not write {path.name}"
        time.sleep(0.01)
    return path.read_text().strip()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.checklist(103)
def test_aborted_upload_is_an_oserror(server, how):
    file = data_file(server, f"aborted-{how}")
    getattr(aborted_upload(server, f"/raw/catching?file={file}"), how)()
    seen = wait_for_file(server, file)
    # The first read fails, and so do all later ones.
    assert seen == "OSError: True | OSError: True | OSError: True"


def test_aborted_upload_that_is_not_caught(server):
    # A client that went away is no fault of the server: a line is allowed, not demanded.
    server.allow_log("RWSGI0205")
    file = data_file(server, "aborted-uncaught")
    aborted_upload(server, f"/raw/not-catching?file={file}").close()
    wait_for_file(server, file)


def test_half_closed_upload(server):
    """The client ends its side only: it can still be told."""
    import socket

    server.allow_log("RWSGI0205")
    file = data_file(server, "half-closed")
    with aborted_upload(server, f"/raw/not-catching?file={file}") as connection:
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            assert connection.read_head().status in (400, 500)
        except Truncated:
            pass
    assert wait_for_file(server, file) == "OSError"


def test_malformed_chunk(server):
    server.allow_log("RWSGI0205|AH0[0-9]+")
    file = data_file(server, "malformed")
    with server.connect() as connection:
        target = f"/raw/not-catching?file={file}"
        connection.request(target, "POST", {"Transfer-Encoding": "chunked"})
        connection.send(b"5\r\nhello\r\nxyz\r\n\r\n")
        assert connection.read_head().status in (400, 500)
    if not server.daemon:
        assert wait_for_file(server, file) == "OSError"


@pytest.mark.rwsgi
def test_malformed_chunk_after_the_application_has_begun(server):
    """It gets OSError in either mode, and nothing follows the end that httpd's filter has sent."""
    server.expect_log("RWSGI0205: ")
    server.allow_log("AH0[0-9]+")
    with server.connect() as connection:
        connection.request("/raw/echo", "POST", {"Transfer-Encoding": "chunked"})
        connection.send_chunk(b"a" * 1000)
        assert connection.read_head().status == 200
        assert connection.read_chunk() == b"a" * 1000
        connection.send(b"xyz\r\n\r\n")
        assert connection.read_to_end() in (b"", b"0\r\n\r\n")


@pytest.mark.rwsgi("daemon")
def test_slow_upload_that_is_caught(server):
    file = data_file(server, "slow-caught")
    with aborted_upload(server, f"/impatient/catching?file={file}") as connection:
        assert wait_for_file(server, file).startswith("OSError: True")
        assert connection.read_head().status == 200
        assert connection.read_exactly(6) == b"caught"
        # What is left of the body is not taken for a request.
        assert connection.at_end()


@pytest.mark.rwsgi
def test_slow_upload_that_is_not_caught(server):
    server.expect_log("RWSGI0205")
    file = data_file(server, "slow")
    with aborted_upload(server, f"/impatient/not-catching?file={file}") as connection:
        assert connection.read_head().status == 408
    assert wait_for_file(server, file) == "OSError"


# Filters


@pytest.mark.checklist(108)
def test_body_that_a_filter_makes_longer(server):
    plain = "".join(hashlib.sha256(b"%d" % i).hexdigest() for i in range(1000)).encode()
    packed = gzip.compress(plain)
    response = server.request(
        "/inflating/digest", method="POST", body=packed, headers={"Content-Encoding": "gzip"}
    )
    assert len(packed) < len(plain) * 0.7
    sha = hashlib.sha256(plain).hexdigest()
    assert response.json() == {"length": len(plain), "sha256": sha}


# After the request


@pytest.mark.checklist(105, 111)
def test_objects_of_a_request_end_with_it(server):
    assert server.request("/raw/hold", method="POST", body=b"unread").body == b"held"
    results = server.json("/raw/use-held")
    assert results == dict.fromkeys(results, "RuntimeError")


def test_many_uploads_at_once(server):
    """More clients than threads; each gets its own digest."""
    failures = []

    def upload(number):
        body = random.Random(number).randbytes(200_000 + number)
        try:
            response = server.request("/raw/digest?size=1000", method="POST", body=body)
            assert response.json()["sha256"] == hashlib.sha256(body).hexdigest()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
