"""One httpd: its directory, its start, its end, and what must not be left of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

from . import paths, processes, tls
from .client import Connection, Response
from .config import Config
from .errorlog import ErrorLogs, Expectation
from .gate import Gate
from .http2 import Http2
from .websocket import WebSocket

RUNNING = r"resuming normal operations"
#: The program of the supervisors.
SUPERVISOR = "rwsgi-daemon"
#: How long a start or a stop may take before it counts as a hang.
LIMIT = 20


class Httpd:
    """A server of its own with a directory of its own.

    Used as a context manager: leaving it stops the server and checks that every line of the error
    log was announced and that no process is left.
    """

    def __init__(self, env: dict[str, str] | None = None, **options):
        self.root = Path(tempfile.mkdtemp(prefix="rwsgi-e2e-"))
        self.root.chmod(0o755)
        for name in ("run", "logs", "htdocs", "data"):
            (self.root / name).mkdir()
        # Applications leave files for the test here.
        (self.root / "data").chmod(0o777)
        # A copy: the tests change scripts, and the tree may be unreadable for httpd's user.
        self.apps = self.root / "apps"
        shutil.copytree(paths.APPS, self.apps, ignore=shutil.ignore_patterns("__pycache__"))
        self.config = Config(self.root, **options)
        self.env = env or {}
        self.log = ErrorLogs([self.root / "logs" / "error.log"])
        self.mark = f"RWSGI_TEST_SERVER={uuid.uuid4()}"
        self.process: subprocess.Popen | None = None
        self.port, self.tls_port = _free_ports(2)
        self._gates: list[Gate] = []

    @property
    def mode(self) -> str:
        """``embedded`` or ``daemon``."""
        return self.config.mode

    @property
    def daemon(self) -> bool:
        """Whether applications run in a process group."""
        return self.config.mode == "daemon"

    # Preparation

    def add(self, text: str) -> Httpd:
        """Adds directives to the main server."""
        self.config.add(text)
        return self

    def write(self, name: str, text: str, age: float = 0) -> Path:
        """Writes a file below the root in one step; ``age`` sets its time back by seconds."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(textwrap.dedent(text))
        fresh.chmod(0o644)
        if age:
            then = time.time() - age
            os.utime(fresh, (then, then))
        fresh.replace(path)
        return path

    def vhost_log(self, name: str) -> Path:
        """The error log of a virtual host, watched like the main one."""
        path = self.root / "logs" / name
        self.log.watch(path)
        return path

    def gate(self) -> Gate:
        """A new gate, closed with the server."""
        gate = Gate(self.root / "data" / f"gate-{len(self._gates)}")
        self._gates.append(gate)
        return gate

    # Life

    def check(self) -> subprocess.CompletedProcess[str]:
        """``apachectl configtest``."""
        return subprocess.run(
            [*self._command(), "-t"], env=self._environment(), capture_output=True, text=True
        )

    def start(self) -> Httpd:
        """Starts httpd and waits until it serves."""
        before = len(self.log.seen)
        self._await_ports()
        with open(self.root / "logs" / "stderr", "ab") as stderr:
            self.process = subprocess.Popen(
                [*self._command(), "-DFOREGROUND"],
                env=self._environment(),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        deadline = time.monotonic() + LIMIT
        while True:
            if self.process.poll() is not None:
                raise AssertionError(
                    f"httpd ended with {self.process.returncode}:\n{self.stderr()}\n{self._tail()}"
                )
            self.log.read()
            if any("resuming normal" in line.message for line in self.log.seen[before:]):
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"httpd does not start:\n{self.stderr()}\n{self._tail()}")
            time.sleep(0.01)
        self.connect().close()
        self._await_supervisors()
        return self

    def _await_ports(self) -> None:
        """A port that was free when it was chosen may be the local one of somebody's connection."""
        deadline = time.monotonic() + LIMIT
        for port in (self.port, self.tls_port):
            while not _is_free(port) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _await_supervisors(self) -> None:
        """Between fork and exec, a supervisor looks like a child of httpd."""
        if paths.PEER:
            return
        groups = len(re.findall(r"^\s*WSGIDaemonProcess\s", self._text(), re.MULTILINE))
        deadline = time.monotonic() + 5
        while len(self.supervisors()) < groups and time.monotonic() < deadline:
            time.sleep(0.005)

    def start_failing(self) -> str:
        """Starts httpd, which must end by itself; everything that it said."""
        done = subprocess.run(
            [*self._command(), "-DFOREGROUND"],
            env=self._environment(),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            start_new_session=True,
        )
        assert done.returncode != 0, "httpd ended without an error"
        # Its lines are the caller's to judge.
        self.log.read()
        self.log.problems.clear()
        log = self.root / "logs" / "error.log"
        return done.stdout + done.stderr + (log.read_text() if log.exists() else "")

    def graceful(self) -> None:
        """Graceful restart; returns when the new generation serves."""
        self._signal_and_wait(signal.SIGUSR1)

    def restart(self) -> None:
        """Restart; returns when the new generation serves."""
        self._await_quiet()
        self._signal_and_wait(signal.SIGHUP)

    def rewrite_config(self) -> None:
        """Writes the configuration anew, for a following restart."""
        self._command()

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """Stops httpd (``SIGWINCH``: gracefully) and checks that nothing is left."""
        if self.process is None:
            return
        for gate in self._gates:
            gate.close()
        self._gates.clear()
        process, self.process = self.process, None
        hung = False
        if process.poll() is None:
            self._await_quiet(process.pid)
            process.send_signal(sign)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            hung = True
        left = [] if hung else self._await_none_left(process.pid)
        hangers = processes.belonging(process.pid, self.mark)
        for pid in hangers:
            os.kill(pid, signal.SIGKILL)
        if hangers:
            self._await_none_left(process.pid)
        if hung:
            process.wait(LIMIT)
            raise AssertionError(f"httpd did not stop; killed {hangers}\n{self._tail()}")
        assert not left, f"processes left behind: {left}\n{self._tail()}"
        assert process.returncode == 0, f"httpd ended with {process.returncode}\n{self._tail()}"

    def __enter__(self) -> Httpd:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.stop()
            if kind is None:
                self.settle_log()
                assert self.stderr() == "", "written to the standard error of the start-up"
        finally:
            if self.process is not None:
                self.process.kill()
            if not os.environ.get("RWSGI_TEST_KEEP"):
                shutil.rmtree(self.root, ignore_errors=True)

    # Looking at it

    def children(self) -> list[int]:
        """httpd's own processes that serve."""
        return [pid for pid in self._offspring() if processes.program(pid) != SUPERVISOR]

    def supervisors(self) -> list[int]:
        """The supervisors of the process groups, also those of an old generation."""
        return [pid for pid in self._offspring() if processes.program(pid) == SUPERVISOR]

    def workers(self) -> list[int]:
        """The workers of all process groups, in whatever state of their life."""
        found = []
        for supervisor in self.supervisors():
            found += processes.children(supervisor)
        return sorted(found)

    def pythons(self) -> list[int]:
        """The processes that applications run in."""
        return self.workers() if self.daemon else self.children()

    def wait_until(self, condition, what: str = "in vain", timeout: float = LIMIT):
        """Waits until ``condition()`` is true, and returns what it gave."""
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}\n{self._tail()}")
            time.sleep(0.01)

    def _offspring(self) -> list[int]:
        assert self.process
        return processes.children(self.process.pid)

    def stderr(self) -> str:
        """What httpd wrote before it had an error log."""
        file = self.root / "logs" / "stderr"
        return file.read_text() if file.exists() else ""

    def access(self) -> list[str]:
        """The lines of the access log."""
        return (self.root / "logs" / "access.log").read_text().splitlines()

    def expect_log(self, pattern: str, count: int | None = 1) -> Expectation:
        """Announces lines of the error log; ``count=None`` means one or more."""
        return self.log.expect(pattern, count)

    def allow_log(self, pattern: str) -> Expectation:
        """Announces lines that may or may not come."""
        return self.log.allow(pattern)

    def settle_log(self) -> None:
        """Ends the account of the error log for one test."""
        self.log.settle()

    # Talking to it

    def connect(
        self, tls: bool = False, timeout: float = 20, source: str = "127.0.0.1"
    ) -> Connection:
        """A new connection."""
        return Connection(self.tls_port if tls else self.port, tls, timeout, source)

    def websocket(
        self, path: str, headers=(), *, tls: bool = False, deflate: str | None = None, **options
    ) -> WebSocket:
        """A WebSocket on a connection of its own."""
        return WebSocket(self.connect(tls, **options)).open(path, headers, deflate)

    def http2(self, tls: bool = False, timeout: float = 20) -> Http2:
        """A new connection that speaks HTTP/2 from its first byte."""
        return Http2(self.tls_port if tls else self.port, tls, timeout)

    def url(self, path: str, tls: bool = False) -> str:
        """The URL of a path."""
        if tls:
            return f"https://localhost:{self.tls_port}{path}"
        return f"http://localhost:{self.port}{path}"

    def request(
        self, target: str, *, tls: bool = False, source: str = "127.0.0.1", **options
    ) -> Response:
        """One request on a connection of its own."""
        with self.connect(tls, source=source) as connection:
            connection.request(target, **options)
            return connection.read_response()

    def get(self, target: str, **options) -> Response:
        """A GET that must be answered with 200."""
        response = self.request(target, **options)
        assert response.status == 200, f"{target}: {response.status} {response.body[:2000]!r}"
        return response

    def json(self, target: str, **options):
        """The JSON that a GET gives."""
        return json.loads(self.get(target, **options).body)

    # Inside

    def _command(self) -> list[str]:
        file = self.root / "httpd.conf"
        file.write_text(self._text(), encoding="utf-8", errors="surrogateescape")
        return [paths.httpd_binary(), "-d", str(self.root), "-f", str(file)]

    def _text(self) -> str:
        certificate = tls.make_certificate(_shared_directory()) if self.config.tls else None
        return self.config.text(self.port, self.tls_port, certificate)

    def _environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        # What a service manager gives, and nothing of the user who runs the tests.
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        return {**environment, "LANG": "C", name: value, **self.env}

    def _signal_and_wait(self, sign: int) -> None:
        assert self.process
        before = len(self.log.seen) + len(self.log.read())
        self.process.send_signal(sign)
        self.log.wait_for(RUNNING, timeout=LIMIT, start=before)

    def _await_quiet(self, parent: int | None = None) -> None:
        """Waits a little until no connection is being closed.

        httpd's event MPM has a race there: on SIGTERM its main thread looks at the sockets of the
        worker threads (close_worker_sockets), which they may be freeing at that moment, and crashes
        now and then. The tests are about us.
        """
        parent = parent or self.process.pid
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            ports = (self.port, self.tls_port)
            if not any(map(processes.connections, ports)) and all(
                map(processes.asleep, processes.children(parent))
            ):
                return
            time.sleep(0.005)

    def _await_none_left(self, session: int) -> list[int]:
        deadline = time.monotonic() + 2
        while True:
            left = processes.belonging(session, self.mark)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def _tail(self) -> str:
        self.log.read()
        return "\n".join(line.raw for line in self.log.seen[-40:])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as each:
        # As httpd does: what lingers in TIME_WAIT is no hindrance.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_shared: Path | None = None


def _shared_directory() -> Path:
    """A directory for what all servers of the run share; removed with the run."""
    global _shared
    if _shared is None:
        _shared = Path(tempfile.mkdtemp(prefix="rwsgi-e2e-shared-"))
        _shared.chmod(0o755)
    return _shared


def remove_shared_directory() -> None:
    """Called once, at the end of the run."""
    global _shared
    if _shared is not None:
        shutil.rmtree(_shared, ignore_errors=True)
        _shared = None
