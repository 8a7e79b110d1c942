"""One httpd for one measurement, and the server behind it if there is one: configuration, start,
process tree, stop by its own pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from client import Connection
from systems import HERE, Setup, System, tool
from workloads import MIB, Workload

START_SECONDS = 120
STOP_SECONDS = 60

# Shared by all systems; no access log, no .htaccess.
CONFIG = """\
ServerRoot {run}
DefaultRuntimeDir {run}
PidFile {run}/httpd.pid
ErrorLog {run}/error.log
LogLevel warn
ServerName localhost
Listen 127.0.0.1:{port}
{load}
StartServers 1
ServerLimit 1
ThreadLimit {threads}
ThreadsPerChild {threads}
MaxRequestWorkers {threads}
MinSpareThreads 1
MaxSpareThreads {threads}
MaxConnectionsPerChild 0
KeepAlive On
KeepAliveTimeout 60
MaxKeepAliveRequests 0
Timeout 120
DocumentRoot {run}/htdocs
<Directory />
  Options FollowSymLinks
  AllowOverride None
  Require all granted
</Directory>
"""

# What any site loads that serves its static files through an Alias.
MODULES = ["mpm_event", "authz_core", "mime", "alias"]


class ServerFailed(Exception):
    """httpd did not start or died; the message holds its log."""


def server_user() -> str | None:
    """Root must not serve: then httpd runs as the distribution's user from the start, so that
    whatever tool it runs under can write its files. Anybody else runs it as himself."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("www-data", "apache", "nobody") if name in known), None)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tree(pid: int) -> list[int]:
    """The process and all its descendants that are alive."""
    pids = [pid]
    for parent in pids:
        pids += _children(parent)
    return pids


def _children(pid: int) -> list[int]:
    found = []
    for task in _tasks(pid):
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            found += [int(child) for child in children.split()]
    return found


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        # "pid (name) state parent ...", and the name may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[1])
    return 0


def _tasks(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(f"/proc/{pid}/task")
    return []


class Httpd:
    """A running httpd; use it as a context manager.

    `threads` are httpd's, `worker_threads` those of the process of daemon mode, `options` further
    options of its process group. `prefix` is a command that httpd runs under (valgrind, taskset),
    `worker_prefix` one for a worker that is exec'd, or a server behind httpd. `before` are (URL
    path, script) that come before the workload's own; `script_line` is added to its script. In
    `worker_prefix` and `script_line` {run} stands for `run`, the directory of this server: a fixed
    number of path components below /, since httpd's directory walk costs instructions for each.

    `child_pid` is httpd's one child, `worker_pid` the process that runs the application, if it is
    not that child.
    """

    def __init__(
        self,
        system: System,
        workload: Workload,
        *,
        threads: int = 25,
        worker_threads: int = 15,
        prefix: tuple[str, ...] = (),
        worker_prefix: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        before: tuple[tuple[str, str], ...] = (),
        extra: tuple[str, ...] = (),
        script_line: str = "",
        fifos: tuple[str, ...] = (),
    ):
        self.system, self.workload = system, workload
        self.threads, self.prefix, self.fifos = threads, prefix, fifos
        self.before, self.extra = before, extra
        self.process: subprocess.Popen | None = None
        self.backend: subprocess.Popen | None = None
        self.port = 0
        self.lines: list[str] = []
        self.child_pid = self.worker_pid = 0
        self.run = Path(tempfile.mkdtemp(prefix="rwsgi-bench-", dir="/tmp"))
        self.script_line = script_line.format(run=self.run)
        worker_prefix = tuple(word.format(run=self.run) for word in worker_prefix)
        self.setup = Setup(self.run, worker_threads, worker_prefix, options, free_port())

    def __enter__(self) -> Httpd:
        try:
            self._prepare()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            self._stop()
        finally:
            shutil.rmtree(self.run, ignore_errors=True)

    def _prepare(self) -> None:
        shutil.copytree(
            HERE / "apps", self.run / "apps", ignore=shutil.ignore_patterns("__pycache__")
        )
        (self.run / "htdocs").mkdir()
        (self.run / "mime.types").write_text("text/plain txt\n")
        if self.workload.name == "file10m":
            (self.run / "htdocs/file.bin").write_bytes(b"x" * (10 * MIB))
        # For `LoadModule name modules/...`.
        (self.run / "modules").symlink_to(_modules_directory())
        *general, alias = self.system.config(self.workload, self.setup)
        before = [self.system.alias(p, self.setup.script(script)) for p, script in self.before]
        # An alias of a longer path must stand before that of "/".
        self.lines = [*general, *before, alias, *self.extra]
        self._prepare_script()
        for name in self.fifos:
            os.mkfifo(self.run / name)
        user = server_user()
        if user:
            entry = pwd.getpwnam(user)
            for path in (self.run, *self.run.rglob("*")):
                os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def _prepare_script(self) -> None:
        """Lets the process that runs the application tell who it is, when it loads the script."""
        lines = [self.script_line] if self.script_line else []
        if self.system.daemon:
            file = str(self.run / "worker.pid")
            lines.append(f"__import__('pathlib').Path({file!r}).write_text(str(os.getpid()))")
        if lines:
            script = self.run / "apps" / self.workload.app
            script.write_text(f"{script.read_text()}\nimport os\n" + "\n".join(lines) + "\n")

    def _configure(self) -> list[str]:
        """Writes the configuration; returns httpd's command."""
        self.port = free_port()
        load = [f"LoadModule {m}_module modules/mod_{m}.so" for m in MODULES]
        load.append(f"TypesConfig {self.run}/mime.types")
        shared = CONFIG.format(
            run=self.run, port=self.port, threads=self.threads, load="\n".join(load)
        )
        file = self.run / "httpd.conf"
        file.write_text("\n".join([shared, *self.lines]) + "\n")
        file.chmod(0o644)
        httpd = tool("apache2", "httpd", package="apache2")
        return [httpd, "-DFOREGROUND", "-f", str(file)]

    def _start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        if command := self.system.backend(self.workload, self.setup):
            # First, since httpd keeps away for a minute from a server that it did not reach.
            prefix = self.setup.worker_prefix or self.prefix
            self.backend = self._launch([*prefix, *command], self.run / "apps")
            self._await_backend(deadline)
        self.process = self._launch([*self.prefix, *self._configure()], self.run)
        while True:
            if self.process.poll() is not None:
                raise ServerFailed(f"httpd ended during start-up:\n{self.log()}")
            try:
                # A whole answer, not only an open port: then the application is loaded.
                with Connection(self.port, timeout=START_SECONDS) as connection:
                    connection.run(self.workload, 1)
                self._find_processes()
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise ServerFailed(f"httpd did not start:\n{self.log()}") from None
                time.sleep(0.02)  # nothing announces that a port is open
            except Exception as error:
                raise ServerFailed(f"{self.system.label}: {error}\n{self.log()}") from error

    def _launch(self, command: list[str], directory: Path) -> subprocess.Popen:
        user = server_user()
        options = {}
        if user:
            entry = pwd.getpwnam(user)
            options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        # A small fixed environment: its size moves the stack, hash seeds move dict lookups.
        env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "TMPDIR": str(self.run),
        }
        with open(self.run / "console.log", "ab") as console:
            return subprocess.Popen(
                command,
                cwd=directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                **options,
            )

    def _await_backend(self, deadline: float) -> None:
        address = self.system.backend_address(self.setup)
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        while self.backend.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.socket(family) as probe:
                probe.connect(address)
                return
            time.sleep(0.02)  # nothing announces that a socket is there
        raise ServerFailed(f"{self.system.label} did not start:\n{self.log()}")

    def _stop(self) -> None:
        process, self.process = self.process, None
        backend, self.backend = self.backend, None
        try:
            self._end(process)
        finally:
            self._end(backend)

    def _end(self, process: subprocess.Popen | None) -> None:
        if process is None or process.poll() is not None:
            return
        pids = tree(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(STOP_SECONDS)

    def log(self) -> str:
        """Console output and error log, for messages."""
        texts = []
        for name in ("console.log", "error.log"):
            with contextlib.suppress(OSError):
                texts += (self.run / name).read_text(errors="replace").splitlines()[-20:]
        return "\n".join(texts)

    def pids(self) -> list[int]:
        """The whole process tree, httpd's parent first."""
        return tree(self.process.pid) + (tree(self.backend.pid) if self.backend else [])

    def _find_processes(self) -> None:
        """httpd's one child, and the process that runs the application if it is another."""
        daemons = set()
        if self.system.daemon:
            self.worker_pid = pid = int((self.run / "worker.pid").read_text())
            # The supervisor, if there is one, is between the worker and httpd; a server behind
            # httpd does not come from it.
            while pid != self.process.pid and pid > 1:
                daemons.add(pid)
                pid = _parent(pid)
        children = [pid for pid in _children(self.process.pid) if pid not in daemons]
        if len(children) != 1:
            raise ServerFailed(f"expected one child of httpd, found {children}")
        self.child_pid = children[0]

    def serving(self) -> list[int]:
        """The processes that a request passes: httpd's child, then the one of daemon mode."""
        return [pid for pid in (self.child_pid, self.worker_pid) if pid]

    def settle(self) -> None:
        """Returns when every thread of the serving processes sleeps, with its request all done.

        Otherwise it depends on the client's speed whether httpd finds the next request at once or
        gives the connection back to its listener: 2,000 instructions and 7 system calls.
        """
        deadline = time.monotonic() + 10
        calm = 0
        while calm < 2:
            calm = calm + 1 if all(map(_asleep, self.serving())) else 0
            if time.monotonic() > deadline:
                raise ServerFailed("the server does not come to rest")


def _asleep(pid: int) -> bool:
    for task in _tasks(pid):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
            # "pid (name) state ...", and the name may hold anything.
            if file.read().rpartition(b") ")[2][:1] != b"S":
                return False
    return True


def _modules_directory() -> str:
    apxs = tool("apxs", "apxs2", package="apache2-dev")
    return subprocess.run(
        [apxs, "-q", "LIBEXECDIR"], check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()
