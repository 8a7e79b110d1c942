"""200 requests of every kind under valgrind: no error of memory whose stack has a frame of ours.

One kind is judged by where the value comes from: CPython's own `_PyLong_FromByteArray` trips
memcheck in every program that embeds Debian's libpython, also without us.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ElementTree

import pytest
from harness.client import Truncated
from harness.played import HANDSHAKE, played_group, upgraded
from harness.server import Httpd
from harness.sites import applications

pytestmark = [
    pytest.mark.rwsgi,
    pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed"),
]

OURS = ("mod_rwsgi.so", "_rwsgi.")


class Frame:
    """A frame of a stack."""

    def __init__(self, element):
        self.function = element.findtext("fn") or "?"
        self.object = element.findtext("obj") or ""
        self.ours = any(name in self.object for name in OURS)


def innermost(stack):
    """The frame that did it: the first outside of the allocator and the C library."""
    foreign = ("vgpreload", "/libc.so", "/ld-linux")
    frames = [f for f in stack if not any(name in f.object for name in foreign)]
    return frames[:1]


class WatchedHttpd(Httpd):
    """An httpd within memcheck; every process writes its report below ``data``."""

    def _command(self):
        report = self.root / "data" / "memcheck.%p.xml"
        # Deep enough to reach us from the bottom of the interpreter.
        return [
            "valgrind",
            "--tool=memcheck",
            "--num-callers=60",
            "--track-origins=yes",
            "--xml=yes",
            f"--xml-file={report}",
            *super()._command(),
        ]

    def stderr(self):
        """Without what valgrind says of system calls that are newer than it."""
        lines = super().stderr().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("--"))

    def errors(self):
        """The errors with a frame of ours, each as one line; and how many reports there are."""
        found, reports = [], sorted((self.root / "data").glob("memcheck.*.xml"))
        for report in reports:
            text = report.read_text(errors="replace")
            # A process that ends by _exit leaves its report open.
            if "</valgrindoutput>" not in text:
                text += "</valgrindoutput>"
            for error in ElementTree.fromstring(text).iter("error"):
                stacks = [list(map(Frame, stack.iter("frame"))) for stack in error.iter("stack")]
                kind = error.findtext("kind")
                # Interpreters are not taken down at the end of a process.
                if kind.startswith("Leak_"):
                    continue
                # The second stack is the origin of an uninitialised value.
                judged = [innermost(stack) for stack in stacks] if "Uninit" in kind else stacks[:1]
                if any(frame.ours for stack in judged for frame in stack):
                    calls = " < ".join(frame.function for frame in stacks[0][:12])
                    found.append(f"{kind}: {calls}")
        return found, len(reports)


def scripted_requests(server):
    """Twenty requests: answers, bodies, mistakes and clients that vanish."""
    served = 0
    for path in ("hello", "listing", "generator", "writing", "raising-later", "empty-list"):
        try:
            server.request(f"/{'bad' if path == 'raising-later' else 'good'}/{path}")
        except Truncated:
            pass
        served += 1
    for path in ("raising", "never-started", "returning?value=None", "exiting", "underrun"):
        try:
            server.request(f"/bad/{path}")
        except Truncated:
            pass
        served += 1
    for size in (0, 10, 100_000):
        body = b"x" * size
        assert server.request("/input/echo", method="POST", body=body).body == body
        served += 1
    for path in ("whole", "in-memory", "with-length"):
        server.request(f"/files/{path}")
        served += 1
    with server.connect() as connection:
        connection.request("/input/digest", method="POST", headers={"Content-Length": "1000"})
        connection.send(b"only this")
        connection.reset()
    with server.connect() as connection:
        connection.request("/good/generator")
        connection.reset()
    with server.connect() as connection:
        connection.request("/input/echo", method="POST", headers={"Transfer-Encoding": "chunked"})
        connection.send_chunk(b"chunk")
        connection.send_chunk(b"")
        connection.read_response()
    return served + 3


def test_memcheck_finds_nothing_of_ours():
    with WatchedHttpd(env={"PYTHONMALLOC": "malloc"}, threads=4) as server:
        applications(
            server,
            good="response.wsgi",
            bad="faulty.wsgi",
            input="input.wsgi",
            files="files.wsgi",
        )
        server.allow_log(r".*")
        server.start()
        served = 0
        while served < 200:
            served += scripted_requests(server)
        server.stop()
        errors, reports = server.errors()
    assert reports >= 2, "the child has left no report"
    assert not errors, "\n".join(errors[:20])


def scripted_tunnels(server, number):
    """Tunnels of every fate: clients that leave and vanish, workers that end, early and late."""
    for tls in (False, True):
        with upgraded(server, tls=tls) as connection:
            connection.send(b"." * (1 + number * 997 % 50_000))
            connection.read_exactly(1 + number * 997 % 50_000)
        upgraded(server, tls=tls).reset()
        with upgraded(server, "/ws/early", tls=tls) as connection:
            connection.send(b"!end bye")
            assert connection.read_to_end() == b"earlybye"
        with upgraded(server, tls=tls) as connection:
            connection.send(b"!log a line of the application")
            connection.read_exactly(6)
            connection.send(b"!half")
            connection.read_to_end()
        with upgraded(server, tls=tls) as connection:
            connection.send(b"!flood 1000000")
            connection.read_exactly(1000)
            connection.reset()
        with server.connect(tls=tls) as connection:
            connection.request("/ws/echo", headers=HANDSHAKE)
            connection.reset()
    return 12


def test_memcheck_finds_nothing_in_tunnels():
    with WatchedHttpd(threads=4, tls=True) as server:
        played_group(server)
        server.add("WSGIRestrictEmbedded On\nAsyncRequestWorkerFactor 100")
        server.allow_log(r".*")
        server.start()
        served = 0
        while served < 360:
            served += scripted_tunnels(server, served)
        # Some are open when it ends.
        left = [upgraded(server, tls=tls) for tls in (False, True) for _ in range(10)]
        server.stop()
        for connection in left:
            connection.close()
        errors, reports = server.errors()
    assert reports >= 2, "the child has left no report"
    assert not errors, "\n".join(errors[:20])
