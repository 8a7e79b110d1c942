"""Runs the real rwsgi-daemon with workers that the test plays (gateway/_rwsgi.py)."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GATEWAY = HERE / "gateway"
sys.path[:0] = [str(GATEWAY), str(HERE.parent)]
pytest_plugins = ["checklist.plugin"]

import control  # noqa: E402

DAEMON = Path(os.environ.get("RWSGI_DAEMON", ROOT / "build/rwsgi/rwsgi-daemon"))
# Nothing that is waited for takes longer, on a slow machine either.
PATIENCE = 20

LINE = re.compile(
    r"\[\w{3} \w{3} \d\d \d\d:\d\d:\d\d\.\d{6} \d{4}\] "
    r"\[rwsgi:(?P<level>\w+)\] \[pid (?P<pid>\d+)\] (?P<text>.*)"
)


class Worker:
    """A worker that does what the test says."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = b""
        self.introduction = self.hear()
        self.pid = self.introduction["pid"]
        self.kind = self.introduction["kind"]

    def hear(self, timeout=PATIENCE):
        """The next thing that it says; None at the end."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.connection], [], [], left)[0], "no answer"
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def told(self, *expected, timeout=PATIENCE):
        """Waits for the next message of the supervisor and compares it."""
        heard = self.hear(timeout)
        assert heard is not None, f"the worker has gone, expected {expected}"
        message = [tuple(x) if isinstance(x, list) else x for x in heard["told"]]
        if expected:
            assert message[: len(expected)] == list(expected)
        return message

    def untold(self, seconds=0.3):
        """Nothing comes for a while."""
        readable = select.select([self.connection], [], [], seconds)[0]
        assert not self.buffer and not readable, self.hear()

    def order(self, *what):
        self.connection.sendall(json.dumps(what).encode() + b"\n")

    def send(self, packet):
        self.order("send", packet.hex())

    def ready(self):
        self.order("ready")

    def serves(self):
        """Becomes ready and is told to serve."""
        self.ready()
        self.told("go")
        return self

    def exits(self, code=0):
        self.order("exit", code)
        assert self.hear() is None

    def drains(self, reason):
        self.told("drain", reason)
        self.send(control.DRAINED)
        self.exits()

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def ended(self, timeout=PATIENCE):
        """Its connection closes, whatever it says before."""
        deadline = time.monotonic() + timeout
        while self.hear(max(0.01, deadline - time.monotonic())) is not None:
            pass


class Group:
    """A supervisor, its log, and the workers that have come."""

    def __init__(self, directory, settings, environ=None, preexec=None, pass_fds=()):
        self.directory = directory
        self.path = directory / "group.conf"
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(directory / "puppeteer"))
        self.server.listen(64)
        self.log_path = directory / "log"
        self.workers = []
        self.path.write_text(text_of(settings))
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [str(DAEMON), str(self.path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=preexec,
                env={
                    "PATH": os.environ["PATH"],
                    "PUPPETEER": str(directory / "puppeteer"),
                    **(environ or {}),
                },
            )
        self.pid = self.process.pid

    def worker(self, timeout=PATIENCE):
        """The next process that introduces itself."""
        assert select.select([self.server], [], [], timeout)[0], f"no worker came\n{self.log()}"
        worker = Worker(self.server.accept()[0])
        self.workers.append(worker)
        return worker

    def no_worker(self, seconds=0.3):
        assert not select.select([self.server], [], [], seconds)[0], "a worker came"

    def log(self):
        return self.log_path.read_text(errors="replace")

    def lines(self, code=None):
        found = []
        for line in self.log().splitlines():
            match = LINE.fullmatch(line)
            assert match, f"not in httpd's format: {line!r}"
            found.append((match["level"], int(match["pid"]), match["text"]))
        if code:
            found = [line for line in found if line[2].startswith(f"RWSGI{code:04}: ")]
        return found

    def logged(self, text, count=1):
        """Waits until the log has a text."""
        wait_for(lambda: self.log().count(text) >= count, lambda: f"{text!r}\n{self.log()}")

    def signal(self, number):
        self.process.send_signal(number)

    def ends(self, code=0, timeout=PATIENCE):
        assert self.process.wait(timeout) == code, self.log()

    def stop(self):
        """Ends everything that is left."""
        if self.process.poll() is None:
            # Its process group and session are its own.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for worker in self.workers:
            worker.connection.close()
        self.server.close()


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.01)  # polling what reports no event: a file, a process table


def text_of(settings):
    lines = []
    for key, value in settings.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            lines.append(f"{key.replace('_', '-')}={one}\n")
    return "".join(lines)


@pytest.fixture
def settings(tmp_path):
    """Settings of a group: what is needed, and what the test gives."""

    def make(**given):
        processes = given.get("processes", 1)
        basic = {
            "name": "site",
            "python": sys.executable,
            "gateway_directory": GATEWAY,
            "threads": 2,
            "log_level": 7,
            "socket": [tmp_path / f"{slot}.sock" for slot in range(processes)],
        }
        basic.update(given)
        return {key: value for key, value in basic.items() if value is not None}

    return make


@pytest.fixture
def group(tmp_path, settings):
    """Starts a supervisor with settings; nothing of it is left after the test."""
    groups = []

    def start(environ=None, preexec=None, pass_fds=(), **given):
        directory = tmp_path / f"group{len(groups)}"
        directory.mkdir()
        groups.append(Group(directory, settings(**given), environ, preexec, pass_fds))
        return groups[-1]

    yield start
    for one in groups:
        one.stop()
        print(one.log())  # pytest shows it when the test has failed
        for worker in one.workers:
            wait_for(lambda pid=worker.pid: not alive(pid), "a worker is left")
        assert "panicked" not in one.log()


def alive(pid):
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
