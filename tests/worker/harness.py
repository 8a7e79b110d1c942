"""Starts a real worker with what the supervisor would give it, and stands in for the supervisor."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import frames

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("RWSGI_TEST_PYTHON", "/usr/bin/python3")
#: The workers of this run have no GIL (tests/tools/free_threaded.sh).
FREE = os.environ.get("PYTHON_GIL") == "0"
GATEWAYS = Path(os.environ.get("RWSGI_TEST_GATEWAYS", ROOT / "build" / "rwsgi"))

BOOTSTRAP = """
import sys
sys.path[0] = {directory!r}
import _rwsgi
del sys.path[0]
_rwsgi.{function}()
"""

SUMMARY = struct.Struct("<QIIQQQ")
ROW = struct.Struct("<IIQ240s")


def memfd(name, content=b""):
    fd = os.memfd_create(name)
    os.write(fd, content)
    return fd


def escape(value):
    return str(value).replace("\\", "\\\\").replace("\n", "\\n")


def wait_until(condition, timeout=10):
    """Waits for something that does not tell when it happens."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def is_about_loading(message):
    return re.match("(Rel|L)oading WSGI script ", message[2])


class Worker:
    """A worker process, started by [`start`]; the test is its supervisor."""

    def __init__(self, directory, function="worker", go=True, wait=True, env=None, **options):
        options = {"name": "test", "threads": 2, "log-level": 7, **options}
        self.threads = int(options["threads"])
        lines = []
        for key, value in options.items():
            key = key.replace("_", "-")
            values = value if isinstance(value, list) else [value]
            lines += [f"{key}={escape(each)}" for each in values]
        self.config = "\n".join(lines).encode()
        self.path = str(directory / f"w{time.monotonic_ns()}.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(100)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.board = memfd("board", bytes(SUMMARY.size + self.threads * ROW.size))
        self.stderr_path = directory / f"stderr{time.monotonic_ns()}"
        self.messages = []
        self.process = self._spawn(function, theirs, env)
        theirs.close()
        if wait:
            self.expect("Ready")
            if go:
                self.tell(frames.GO)

    def _spawn(self, function, control, env):
        wanted = {3: memfd("config", self.config), 4: control.fileno(), 5: self.board}
        if self.threads or function == "template":
            wanted[6] = self.listener.fileno()
        # Out of the way first: a number may be both a source and a target.
        high = {target: os.dup(source) for target, source in wanted.items()}
        moved = {}
        for target, source in high.items():
            moved[target] = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 100)
            os.close(source)

        def place():
            for target, source in moved.items():
                os.dup2(source, target)
                os.close(source)

        bootstrap = BOOTSTRAP.format(directory=str(GATEWAYS), function=function)
        with open(self.stderr_path, "wb") as stderr, open(os.devnull) as null:
            process = subprocess.Popen(
                [PYTHON, "-c", bootstrap],
                stdin=null,
                stdout=stderr,
                stderr=stderr,
                close_fds=False,
                preexec_fn=place,
                env={**os.environ, **(env or {})},
            )
        for source in moved.values():
            os.close(source)
        os.close(wanted[3])
        return process

    @property
    def pid(self):
        return self.process.pid

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def tell(self, packet):
        self.control.send(packet)

    def poll(self, timeout=0.0):
        """Takes in what the worker has said; whether there was something."""
        ready, _, _ = select.select([self.control], [], [], timeout)
        if not ready:
            return False
        packet = self.control.recv(1 << 17)
        if not packet:
            return False
        self.messages.append(frames.from_worker(packet))
        return True

    def expect(self, name, timeout=15):
        """Waits for a message of that name, and forgets it. The lines about scripts that are loaded
        are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            for index, message in enumerate(self.messages):
                if message[0] == name and not (name == "Log" and is_about_loading(message)):
                    del self.messages[index]
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not self.poll(left):
                raise AssertionError(f"no {name}; {self.messages}; stderr: {self.stderr}")

    def said(self, name):
        """What of that name it has said so far."""
        while self.poll(0.05):
            pass
        return [message for message in self.messages if message[0] == name]

    @property
    def log(self):
        return "\n".join(message[2] for message in self.said("Log"))

    def connect(self, **options):
        return frames.Client(self.path, **options)

    def get(self, script, **options):
        with self.connect() as client:
            return client.get(script, **options)

    def summary(self):
        names = ("started", "busy", "loaded", "pulse_ms", "activity_ms", "first_request_ms")
        data = os.pread(self.board, SUMMARY.size, 0)
        return dict(zip(names, SUMMARY.unpack(data)))

    def rows(self):
        """The requests that run: index, number, text."""
        rows = []
        for index in range(self.threads):
            data = os.pread(self.board, ROW.size, SUMMARY.size + index * ROW.size)
            number, length, _, text = ROW.unpack(data)
            if number & 1:
                rows.append((index, number, text[:length].decode()))
        return rows

    def wait_for_row(self, path="/"):
        """Waits until a request for a path that begins so runs. (An earlier one may just end.)"""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if rows := [row for row in self.rows() if row[2].split(" ")[1].startswith(path)]:
                return rows[0]
            time.sleep(0.005)
        raise AssertionError("no request runs")

    def end(self, timeout=15):
        """Drains it and gives its exit code."""
        self.tell(frames.drain())
        self.expect("Drained")
        return self.process.wait(timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for thing in (self.control, self.listener):
            thing.close()
        with contextlib.suppress(OSError):
            os.close(self.board)


def main():
    """For trying things out: runs a worker for a script until it is killed."""
    directory = Path("/tmp")
    worker = Worker(directory, threads=4)
    print(worker.path, worker.pid)
    print(worker.get(sys.argv[1]))
    worker.kill()


if __name__ == "__main__":
    main()
