"""``wsgi.file_wrapper``: real files as file buckets, everything else block by block."""

from __future__ import annotations

import random

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH

CONTENT = random.Random(7).randbytes(1_000_003)


@pytest.fixture(scope="module", params=["off", "on"])
def server(new_httpd, request):
    """Once without, once with sendfile: the bytes are the same."""
    with new_httpd(tls=True, http2=True, modules=["deflate"]) as httpd:
        applications(httpd, raw="files.wsgi", checked="files.wsgi:checked")
        httpd.add(f"EnableSendfile {request.param}\nWSGIEnableSendfile {request.param}")
        httpd.file = httpd.root / "data" / "content"
        httpd.file.write_bytes(CONTENT)
        httpd.file.chmod(0o644)
        yield httpd.start()


mounts = pytest.mark.parametrize("mount", ["raw", "checked"])


def note_file(server):
    note = server.root / "data" / "note"
    note.unlink(missing_ok=True)
    return note


@mounts
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("path", ["whole", "buffered"])
@pytest.mark.checklist(143, 154, 155)
def test_whole_file(server, mount, tls, path):
    note = note_file(server)
    with server.connect(tls) as connection:
        for _ in range(2):
            connection.request(f"/{mount}/{path}?file={server.file}&note={note}")
            response = connection.read_response()
            assert response.body == CONTENT
            if mount == "raw":
                assert response.header("Content-Length") == str(len(CONTENT))
        connection.request("/raw/attributes")
        connection.read_response()
    if path == "whole":
        assert note.read_text().split() == ["closed"] * 2


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.checklist(154, 155, 156)
def test_http_2(server, tls):
    options = ["--http2"] if tls else ["--http2-prior-knowledge"]
    response = curl(server.url(f"/raw/whole?file={server.file}", tls=tls), *options)
    assert (response.code, response.body) == (0, CONTENT)


def test_http_1_0(server):
    response = server.request(f"/raw/whole?file={server.file}", version="HTTP/1.0")
    assert response.body == CONTENT


@pytest.mark.checklist(154)
def test_head(server):
    note = note_file(server)
    with server.connect() as connection:
        connection.request(f"/raw/whole?file={server.file}&note={note}", method="HEAD")
        assert connection.read_response().header("Content-Length") == str(len(CONTENT))
        connection.request("/raw/from-pipe")
        assert connection.read_response().body == b"through a pipe"
    assert note.read_text().split() == ["closed"]


@pytest.mark.parametrize("length", [0, 1, 8191, 500_000, len(CONTENT)])
@pytest.mark.checklist(154)
def test_declared_length(server, length):
    with server.connect() as connection:
        connection.request(f"/raw/with-length?file={server.file}&length={length}")
        response = connection.read_response()
        assert response.body == CONTENT[:length]
        assert response.header("Content-Length") == str(length)
        connection.request("/raw/from-pipe")
        assert connection.read_response().body == b"through a pipe"


@pytest.mark.checklist(143, 153)
def test_a_client_that_goes_away(server):
    """The file is closed, and the log has the application's status."""
    note = note_file(server)
    big = server.root / "data" / "big-for-nobody"
    with open(big, "wb") as file:
        file.truncate(1 << 30)
    big.chmod(0o644)
    connection = server.connect()
    connection.request(f"/raw/whole?file={big}&note={note}")
    assert connection.read_head().status == 200
    connection.read_exactly(100_000)
    connection.reset()
    server.wait_until(note.exists, "the file was not closed")
    assert note.read_text().split() == ["closed"]
    server.wait_until(lambda: any("/raw/whole" in line for line in server.access()[-3:]))
    assert server.access()[-1].startswith("200 ")
    big.unlink()


@pytest.mark.rwsgi
def test_declared_length_beyond_the_file(server):
    server.expect_log("RWSGI0203")
    length = len(CONTENT) + 10
    response = curl(server.url(f"/raw/with-length?file={server.file}&length={length}"))
    assert response.code != 0 or response.status == 500


@pytest.mark.parametrize(
    "offset",
    [0, 10, 999_999, len(CONTENT), pytest.param(len(CONTENT) + 5, marks=pytest.mark.rwsgi)],
)
@pytest.mark.checklist(154, 155)
def test_from_the_position_of_the_file(server, offset):
    response = server.request(f"/raw/from-offset?file={server.file}&offset={offset}")
    assert response.status == 206
    assert response.body == CONTENT[offset:]
    if offset + 100 <= len(CONTENT):
        part = server.request(f"/raw/from-offset?file={server.file}&offset={offset}&length=100")
        assert part.body == CONTENT[offset : offset + 100]


@mounts
@pytest.mark.checklist(154)
def test_file_in_memory(server, mount):
    note = note_file(server)
    response = server.get(f"/{mount}/in-memory?tens=1234&note={note}")
    assert response.body == b"0123456789" * 1234
    server.get("/raw/attributes")
    assert note.read_text().split() == ["closed"]


@mounts
@pytest.mark.checklist(154)
def test_pipe(server, mount):
    assert server.get(f"/{mount}/from-pipe").body == b"through a pipe"


@pytest.mark.checklist(154)
def test_empty_file(server):
    with server.connect() as connection:
        for _ in range(2):
            connection.request("/raw/empty")
            assert connection.read_response().body == b""


@pytest.mark.checklist(154)
def test_after_write(server):
    response = server.get(f"/raw/after-write?file={server.file}")
    assert response.body == b"before:" + CONTENT


def test_file_of_text(server):
    server.expect_log("RWSGI0200: .*TypeError")
    assert server.request("/raw/text-file").status == 500


def test_closed_file(server):
    server.expect_log("RWSGI0200: .*ValueError")
    assert server.request(f"/raw/closed-before?file={server.file}").status == 500


def test_as_an_iterable(server):
    assert server.get(f"/raw/wrapped-again?file={server.file}").body == CONTENT.upper()


@pytest.mark.checklist(154)
def test_subclass(server):
    assert server.get(f"/raw/subclassed?file={server.file}").body == CONTENT


def test_deleted_file(server):
    assert server.get("/raw/deleted").body == b"nameless" * 10000


def test_the_file_keeps_its_position(server):
    assert server.get(f"/raw/position?file={server.file}").body == CONTENT[100:]
    assert server.get("/raw/kept-position").body == b"100"


@pytest.mark.checklist(154)
def test_class(server):
    assert server.json("/raw/attributes") == {
        "same": True,
        "blksize": 2,
        "default": 8192,
        "keyword": 3,
        "blocks": ["ab", "cd", "e"],
        "closes": True,
        "negative": "ValueError",
        "no file": "TypeError",
        "after close": "ValueError",
    }


@pytest.mark.checklist(154)
def test_beyond_two_gibibytes(server):
    """A sparse file: its end arrives, and memory stays where it was."""
    big = server.root / "data" / "big"
    with open(big, "wb") as file:
        file.truncate(3 << 30)
        file.seek((3 << 30) - 5)
        file.write(b"finis")
    big.chmod(0o644)
    offset = (3 << 30) - 100_000
    response = server.request(f"/raw/from-offset?file={big}&offset={offset}")
    assert len(response.body) == 100_000 and response.body.endswith(b"finis")
    with server.connect() as connection:
        connection.request(f"/raw/whole?file={big}", method="HEAD")
        assert connection.read_response().header("Content-Length") == str(3 << 30)
    big.unlink()
