"""httpd's own filters on responses of applications: what they make of them is the same in both
modes, whether the response comes as a whole or piece by piece."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from harness.config import BOTH
from harness.curl import curl
from harness.sites import applications

MODES = BOTH
SIZE = 200_000
#: What the query asks for: a list, an iterator, one with a declared length.
SHAPES = ["list=1", "", "length=1"]


@pytest.fixture(scope="module")
def server(new_httpd):
    modules = [
        "deflate",
        "filter",
        "substitute",
        "ratelimit",
        "buffer",
        "env",
        "headers",
        "expires",
    ]
    with new_httpd(modules=modules, tls=True, http2=True) as httpd:
        mounts = ["plain", "deflated", "substituted", "limited", "buffered", "several", "inflated"]
        applications(httpd, **dict.fromkeys(mounts, "response.wsgi"))
        httpd.add("""
            <Location /deflated>
                SetOutputFilter DEFLATE
            </Location>
            <Location /substituted>
                SetOutputFilter SUBSTITUTE
                Substitute "s/(A+)B/$1-b/"
            </Location>
            <Location /limited>
                SetOutputFilter RATE_LIMIT
                SetEnv rate-limit 400
                SetEnv rate-initial-burst 1
            </Location>
            <Location /buffered>
                SetOutputFilter BUFFER
            </Location>
            <Location /several>
                SetOutputFilter SUBSTITUTE;DEFLATE
                Substitute s/A/a/n
                ExpiresActive On
                ExpiresDefault "access plus 1 hour"
                Header always set X-Added yes
                Header edit Content-Type plain html
            </Location>
        """)
        yield httpd.start()


def target(mount, shape, piece=30_000):
    return f"/{mount}/large?size={SIZE}&piece={piece}&{shape}"


def pieces(piece=30_000):
    starts = enumerate(range(0, SIZE, piece))
    return b"".join(bytes([65 + i % 26]) * min(piece, SIZE - at) for i, at in starts)


@pytest.mark.checklist(151, 152)
@pytest.mark.parametrize("shape", SHAPES)
def test_compression(server, shape):
    with server.connect() as connection:
        for _ in range(2):
            connection.request(target("deflated", shape), headers={"Accept-Encoding": "gzip"})
            response = connection.read_response()
            assert response.header("Content-Encoding") == "gzip"
            assert response.header("Vary") == "Accept-Encoding"
            assert len(response.body) < SIZE // 50
            assert gzip.decompress(response.body) == pieces()
    plain = server.get(target("deflated", shape))
    assert (plain.header("Content-Encoding"), plain.body) == (None, pieces())


@pytest.mark.checklist(134, 152)
def test_compression_of_a_stream(server):
    """Each item comes out of the filter before the next is made."""
    gate = server.gate()
    with server.connect() as connection:
        connection.request(
            f"/deflated/streaming?count=3&gate={gate.path}", headers={"Accept-Encoding": "gzip"}
        )
        inflate = zlib.decompressobj(31)
        for i in range(3):
            gate.step()
            if i == 0:
                assert connection.read_head().header("Content-Encoding") == "gzip"
            text = b""
            while not text.endswith(b"\n"):
                text += inflate.decompress(connection.read_chunk())
            assert text == b"%d\n" % i
        while connection.read_chunk():
            pass


@pytest.mark.checklist(152)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [30_000, 3_000])
def test_substitution(server, shape, piece):
    """A filter that changes the length: the declared one does not hold any more."""
    response = server.get(target("substituted", shape, piece))
    assert response.body == pieces(piece).replace(b"AB", b"A-b")
    assert response.header("Content-Length") in (None, str(len(response.body)))


@pytest.mark.checklist(152)
@pytest.mark.parametrize("shape", SHAPES)
def test_rate_limit(server, shape):
    """400 KiB a second: the response takes its time and is whole."""
    began = time.monotonic()
    with server.connect() as connection:
        connection.request(target("limited", shape))
        assert connection.read_response().body == pieces()
        assert time.monotonic() - began > 0.2
        connection.request("/plain/hello")
        assert connection.read_response().status == 200


@pytest.mark.checklist(152)
@pytest.mark.parametrize("shape", SHAPES)
def test_buffer(server, shape):
    assert server.get(target("buffered", shape, 700)).body == pieces(700)


@pytest.mark.checklist(151, 152, 156)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("protocol", ["1.1", "2"])
def test_several(server, shape, protocol):
    url = target("several", shape)
    if protocol == "2":
        options = ["--http2-prior-knowledge", "-H", "Accept-Encoding: gzip"]
        response = curl(server.url(url), *options)
    else:
        response = server.get(url, headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(response.body) == pieces().replace(b"A", b"a")
    assert response.header("X-Added") == "yes"
    assert response.header("Content-Type") == "text/html"
    assert "max-age=3600" in response.header("Cache-Control")


@pytest.mark.checklist(142, 152)
@pytest.mark.parametrize("mount", ["deflated", "substituted", "limited", "buffered", "several"])
def test_head(server, mount):
    with server.connect() as connection:
        for _ in range(2):
            headers = {"Accept-Encoding": "gzip"}
            connection.request(target(mount, ""), method="HEAD", headers=headers)
            assert connection.read_response().status == 200
        connection.request("/plain/hello")
        assert connection.read_response().body == b"Hello, world\n"
