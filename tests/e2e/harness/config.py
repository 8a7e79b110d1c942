"""The configuration text of one server: only what it needs is loaded."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

from . import paths

#: Modules that need others.
NEEDS = {
    "auth_basic": ["authn_core", "authn_file", "authz_user"],
    "auth_digest": ["authn_core", "authn_file", "authz_user"],
    "deflate": ["filter"],
    "ssl": ["socache_shmcb"],
}

#: The process group of the tests that run in daemon mode.
GROUP = "tests"
#: A test file that says ``MODES = BOTH`` runs once with its applications in httpd's processes and
#: once with them in a process group; the others run embedded, or say themselves what they want.
BOTH = ("embedded", "daemon")


def module_line(name: str) -> str:
    """The LoadModule line of one of httpd's own modules; empty if it is compiled in."""
    file = paths.httpd_modules() / f"mod_{name}.so"
    return f'LoadModule {name}_module "{file}"' if file.exists() else ""


class Config:
    """Collects directives; :meth:`text` is the file.

    ``threads`` is the number of requests one process serves at once (always 1 under prefork),
    ``processes`` the number of processes (under prefork at least ``threads``).

    ``mode`` says where applications run unless a test says otherwise: ``embedded``, or ``daemon``,
    in the process group :data:`GROUP` with as many threads and the options ``daemon``.
    """

    def __init__(
        self,
        root: Path,
        mpm: str = "event",
        threads: int = 8,
        processes: int = 1,
        modules: tuple[str, ...] | list[str] = (),
        tls: bool = False,
        http2: bool = False,
        log_level: str = "notice rwsgi:info",
        module_under_test: bool = True,
        mode: str = "embedded",
        daemon: str = "",
    ):
        self.root = root
        self.mpm = mpm
        self.threads = threads
        self.processes = processes
        self.modules = list(modules)
        self.tls = tls
        self.http2 = http2
        self.log_level = log_level
        self.module_under_test = module_under_test
        self.mode = mode
        self.daemon = daemon
        self.added: list[str] = []

    def add(self, text: str) -> Config:
        """Adds directives of the main server."""
        self.added.append(textwrap.dedent(text).strip())
        return self

    def clear(self) -> Config:
        """Forgets what was added."""
        self.added.clear()
        return self

    def text(self, port: int, tls_port: int, certificate: tuple[Path, Path] | None) -> str:
        """The whole file."""
        lines = [
            f'ServerRoot "{self.root}"',
            "ServerName localhost",
            f'DefaultRuntimeDir "{self.root}/run"',
            f'PidFile "{self.root}/run/httpd.pid"',
            f"Listen 127.0.0.1:{port}",
        ]
        lines += self._load_modules()
        user = paths.httpd_user()
        if user:
            lines += [f"User {user[0]}", f"Group {user[1]}"]
        lines += self._mpm_limits()
        level = self.log_level.replace("rwsgi:", "wsgi:") if paths.PEER else self.log_level
        if self.tls:
            # Warnings about this machine's OpenSSL and the session cache are not our business.
            level += " ssl:error"
        lines += [
            f'ErrorLog "{self.root}/logs/error.log"',
            'ErrorLogFormat "[%{cu}t] [%-m:%-l] [pid %P] [id %-L] [vhost %-v] %M"',
            'LogFormat "%>s %O %X %m %U" short',
            f'CustomLog "{self.root}/logs/access.log" short',
            f"LogLevel {level}",
            f'DocumentRoot "{self.root}/htdocs"',
            "Timeout 20",
            "KeepAliveTimeout 15",
            "MaxKeepAliveRequests 0",
            "<Directory />",
            "    AllowOverride None",
            "    Options FollowSymLinks",
            "</Directory>",
        ]
        if os.environ.get("RWSGI_TEST_FREE_THREADING") and self.module_under_test:
            lines.append("WSGIFreeThreading On")
        if paths.PEER:
            # Its default was compiled in.
            lines.append(f'WSGISocketPrefix "{self.root}/run/wsgi"')
        if self.http2:
            lines.append("Protocols h2 h2c http/1.1")
        if self.mode == "daemon":
            options = self.daemon
            if "threads=" not in options:
                options = f"threads={self.threads} {options}".strip()
            # WSGIPythonPath concerns httpd's own processes; a group has its option.
            paths_given = re.findall(r"^\s*WSGIPythonPath\s+(.*)$", "\n".join(self.added), re.M)
            if paths_given and "python-path=" not in options:
                options += f" python-path={paths_given[-1]}"
            lines += [f"WSGIDaemonProcess {GROUP} {options}", f"WSGIProcessGroup {GROUP}"]
        lines += self.added
        if self.tls:
            assert certificate
            lines += [
                f"Listen 127.0.0.1:{tls_port}",
                f"<VirtualHost 127.0.0.1:{tls_port}>",
                "    SSLEngine On",
                f'    SSLCertificateFile "{certificate[0]}"',
                f'    SSLCertificateKeyFile "{certificate[1]}"',
                "</VirtualHost>",
            ]
        return "\n".join(lines) + "\n"

    def _load_modules(self) -> list[str]:
        names = [f"mpm_{self.mpm}", "authz_core"]
        for name in self.modules + ["ssl"] * self.tls + ["http2"] * self.http2:
            names += [*NEEDS.get(name, []), name]
        lines = [line for line in map(module_line, dict.fromkeys(names)) if line]
        if self.module_under_test:
            lines.append(paths.load_module_under_test())
        if self.tls:
            lines.append("SSLSessionCache none")
        if "mime" in names:
            lines.append("TypesConfig /dev/null")
        return lines

    def _mpm_limits(self) -> list[str]:
        if self.mpm == "prefork":
            count = max(self.processes, self.threads)
            return [
                f"ServerLimit {count * 3}",
                f"StartServers {count}",
                "MinSpareServers 1",
                f"MaxSpareServers {count + 1}",
                # More than are started: httpd logs an error when it reaches the limit.
                f"MaxRequestWorkers {count + 2}",
            ]
        total = self.threads * self.processes
        # The worker MPM starts a process of the new generation only within MaxRequestWorkers, where
        # one of the old generation may still count.
        limit = total + self.threads if self.mpm == "worker" else total
        return [
            # Room for processes of the old generation that still serve after a graceful restart.
            f"ServerLimit {self.processes + 4}",
            f"StartServers {self.processes}",
            f"ThreadsPerChild {self.threads}",
            f"ThreadLimit {self.threads}",
            "MinSpareThreads 1",
            f"MaxSpareThreads {total + self.threads}",
            f"MaxRequestWorkers {limit}",
        ]
