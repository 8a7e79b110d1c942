"""A gateway for tests of the supervisor: its workers do what the test tells them.

A worker connects to the test's socket (environment variable PUPPETEER), sends one JSON line that
says who it is, and from then on forwards what the supervisor tells it, as JSON lines, and carries
out the test's commands. SCRIPT, a Python file in the environment, is run first, for workers that
must do something before anybody can talk to them.
"""

import array
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys

import control


def alive(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# Before this program opens any itself.
INHERITED = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in range(64) if alive(fd)}

CONFIG, CONTROL, BOARD, LISTENER = 3, 4, 5, 6
SUMMARY = struct.Struct("<QIIQQQ")
ROW = struct.Struct("<IIQ240s")


def config():
    text = os.pread(CONFIG, 1 << 20, 0).decode()
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        values.setdefault(key, []).append(value)
    return values


def above(fd):
    """A copy that is not taken for a descriptor from the supervisor."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD, 20)


class Puppet:
    def __init__(self, kind):
        self.kind = kind
        self.control = socket.socket(fileno=above(CONTROL))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as strings:
            strings.connect(os.environ["PUPPETEER"])
            self.strings = socket.socket(fileno=above(strings.fileno()))
        self.board = None
        self.introduce()

    def introduce(self):
        settings = config()
        if self.kind != "template":
            size = os.fstat(BOARD).st_size
            self.board = mmap.mmap(BOARD, size)
        self.say(
            kind=self.kind,
            pid=os.getpid(),
            ppid=os.getppid(),
            argv=sys.argv,
            path=sys.path,
            flags=[sys.flags.optimize, sys.dont_write_bytecode, sys.warnoptions],
            imports=settings.get("import", []),
            required=settings.get("require", []),
            name=settings["name"][0],
            fds=INHERITED,
            listening=listening(),
            environ=dict(os.environ),
            limits={
                name: resource.getrlimit(getattr(resource, name))
                for name in ("RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_AS", "RLIMIT_NOFILE")
            },
            mask=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            ignored=[s for s in range(1, 65) if ignored(s)],
        )

    def say(self, **what):
        self.strings.sendall(json.dumps(what).encode() + b"\n")

    def run(self):
        lines = b""
        while True:
            readable, _, _ = select.select([self.control, self.strings], [], [])
            if self.control in readable:
                packet, ancillary, _, _ = self.control.recvmsg(1 << 16, 64)
                if not packet:
                    os._exit(0)
                message = control.decode(packet)
                if message == ("fork",):
                    self.fork(ancillary)
                else:
                    self.say(told=message)
            if self.strings in readable:
                data = self.strings.recv(1 << 16)
                if not data:
                    os._exit(0)
                lines += data
                while b"\n" in lines:
                    line, _, lines = lines.partition(b"\n")
                    self.obey(json.loads(line))

    def obey(self, order):
        what, *rest = order
        getattr(self, "do_" + what)(*rest)

    def do_send(self, packet):
        self.control.send(bytes.fromhex(packet))

    def do_ready(self):
        self.control.send(control.ready(os.getpid()))

    def do_exit(self, code):
        os._exit(code)

    def do_print(self, text):
        os.write(2, text.encode())

    def do_python(self, code):
        exec(code, {"puppet": self})

    def do_row(self, row, number, since_ms, text):
        text = text.encode()
        at = SUMMARY.size + row * ROW.size
        ROW.pack_into(self.board, at, number, len(text), since_ms, text)

    def do_summary(self, started, busy, loaded, pulse, activity, first):
        SUMMARY.pack_into(self.board, 0, started, busy, loaded, pulse, activity, first)

    def fork(self, ancillary):
        _, _, data = ancillary[0]
        fds = array.array("i")
        fds.frombytes(data)
        if os.fork():
            for fd in fds:
                os.close(fd)
            os.wait()
            return
        if os.fork():
            os._exit(0)
        self.control.close()
        self.strings.close()
        fds = [above(fd) for fd in fds]
        for fd, number in zip(fds, (CONTROL, BOARD, LISTENER)):
            os.dup2(fd, number)
            INHERITED[number] = ""
        Puppet("forked").run()


def listening():
    if LISTENER not in INHERITED:
        return None
    with socket.socket(fileno=os.dup(LISTENER)) as listener:
        return listener.getsockname()


def ignored(number):
    try:
        return signal.getsignal(number) == signal.SIG_IGN
    except ValueError:
        return False


def start(kind):
    script = os.environ.get("SCRIPT")
    if script:
        with open(script) as file:
            exec(file.read(), {"kind": kind, "control": control, "config": config})
    Puppet(kind).run()


def worker():
    start("worker")


def template():
    start("template")
