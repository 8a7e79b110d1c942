"""The servers compared: how each is built or found, and its lines of httpd configuration."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workloads import Workload

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "bench"
PYTHON = "/usr/bin/python3"
MOD_WSGI = "mod_wsgi==6.1.1"
# Pinned to the bug-fix release: asgiref 3.13 alone takes 116,000 instructions off a request.
DJANGO = ("django==5.2.19", "asgiref==3.11.0", "sqlparse==0.5.3")


class Missing(Exception):
    """Something the benchmark needs is not there; the message names the remedy."""


def tool(*names: str, package: str) -> str:
    """The path of the first of these programs that exists."""
    for name in names:
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path:
            return path
    raise Missing(f"{names[0]} not found: apt-get install {package}")


def _logged(command: list, log: Path, what: str, **options) -> None:
    """Runs a build command with its output in `log`, which a failure names."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as out:
        done = subprocess.run(command, stdout=out, stderr=out, timeout=900, **options)
    if done.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-15:]
        raise Missing("\n".join([f"{what} failed (see {log}):", *tail]))


def virtual_environment(name: str, packages: tuple[str, ...]) -> Path:
    """The virtual environment BUILD/name with these packages, made when first needed."""
    path = BUILD / name
    done = path / "complete"
    wanted = " ".join(packages)
    if done.exists() and done.read_text() == wanted:
        return path
    some = ", ".join(packages[:3]) + (" and more" if packages[3:] else "")
    print(f"building {some} into {path} (once)", file=sys.stderr, flush=True)
    log = BUILD / f"{name}.log"
    _logged([PYTHON, "-m", "venv", "--clear", str(path)], log, "making the virtual environment")
    # httpd loads modules into Debian's Python; a PYTHONHOME of the caller must not leak in.
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    pip = [str(path / "bin/python"), "-m", "pip", "install", "--quiet"]
    _logged([*pip, *packages], log, f"installing {some}", env=env)
    done.write_text(wanted)
    return path


def packages_of(environment: Path) -> Path:
    """Where a virtual environment keeps its packages."""
    return Path(_only(str(environment / "lib/python3.*/site-packages")))


def site_packages() -> Path:
    """Where mod_wsgi and Django are."""
    tool("apxs", "apxs2", package="apache2-dev")
    return packages_of(virtual_environment("venv", (MOD_WSGI, *DJANGO)))


def _only(pattern: str) -> str:
    found = glob.glob(pattern)
    if len(found) != 1:
        raise Missing(f"expected one match of {pattern}, found {len(found)}")
    return found[0]


@dataclass(frozen=True)
class Setup:
    """What one server is to be configured for.

    `run` is its directory, `worker_threads` the threads of the process of daemon mode,
    `worker_prefix` a command that a worker which is exec'd runs under (valgrind), `options` further
    options of the process group, `backend_port` a free port for a server behind httpd.
    """

    run: Path
    worker_threads: int = 15
    worker_prefix: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    backend_port: int = 0

    def script(self, name: str) -> str:
        return f"{self.run}/apps/{name}"

    @property
    def backend_socket(self) -> str:
        """The UNIX socket of a server behind httpd, if that is where it listens."""
        return f"{self.run}/backend.sock"


class System:
    """One server. `name` is what the command line calls it; `daemon`: the application runs in one
    process of its own, not in httpd's; `asgi`: it is an ASGI application."""

    name = ""
    label = ""
    daemon = False
    asgi = False

    def prepare(self) -> None:
        """Builds or finds the module; raises Missing."""

    def supports(self, workload: Workload) -> bool:
        return workload.asgi == self.asgi

    def packages(self) -> Path:
        """Where the applications' packages are."""
        return site_packages()

    def backend(self, workload: Workload, setup: Setup) -> list[str] | None:
        """The command of a server behind httpd."""
        return None

    def backend_address(self, setup: Setup) -> str | tuple[str, int]:
        """Where that listens, as `socket.connect` wants it."""
        return setup.backend_socket

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        """Lines of configuration beside what all systems share; LoadModule is the first."""
        raise NotImplementedError

    def alias(self, path: str, script: str) -> str:
        """The line that maps a URL path to a script."""
        return f"WSGIScriptAlias {path} {script}"


def build_c_module(name: str) -> Path:
    """Compiles c_handler/<name>.c with apxs unless that is done; returns the shared object."""
    source = HERE / "c_handler" / f"{name}.c"
    target = BUILD / "c_handler" / name
    module = target / ".libs" / f"{name}.so"
    if _is_newer(module, source):
        return module
    apxs = tool("apxs", "apxs2", package="apache2-dev")
    target.mkdir(parents=True, exist_ok=True)
    # apxs leaves its objects beside the source, which must stay clean.
    shutil.copy(source, target)
    for header in HERE.glob("c_handler/*.h"):
        shutil.copy(header, target)
    _logged(
        [apxs, "-c", "-Wc,-O2", "-Wc,-Wall", source.name],
        BUILD / "c_handler.log",
        f"building {name}",
        cwd=target,
    )
    return module


def _is_newer(target: Path, source: Path) -> bool:
    """Whether the file was made after its source and all headers were last changed."""
    sources = [source, *source.parent.glob("*.h")]
    return target.exists() and all(
        target.stat().st_mtime >= file.stat().st_mtime for file in sources
    )


def build_worker_helper() -> Path:
    """Compiles c_handler/callgrind_worker.c unless that is done; returns the shared object."""
    source = HERE / "c_handler/callgrind_worker.c"
    target = BUILD / "c_handler/callgrind_worker.so"
    if not _is_newer(target, source):
        target.parent.mkdir(parents=True, exist_ok=True)
        compiler = tool("gcc", "cc", package="gcc")
        command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-pthread"]
        command += ["-o", str(target), str(source)]
        _logged(command, BUILD / "c_handler.log", "building callgrind_worker")
    return target


class CHandler(System):
    name = "c"
    label = "C handler"

    def prepare(self) -> None:
        build_c_module("mod_bench")

    def supports(self, workload: Workload) -> bool:
        return workload.c_handler is not None

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        lines = [f"LoadModule bench_module {build_c_module('mod_bench')}"]
        if workload.c_handler:
            lines.append(f"<Location />\n  SetHandler {workload.c_handler}\n</Location>")
        return lines


class WsgiSystem(System):
    """What both Python servers share: the directives are the same."""

    def module(self) -> tuple[str, Path]:
        raise NotImplementedError

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        name, path = self.module()
        return [
            f"LoadModule {name} {path}",
            f"WSGIPythonPath {self.packages()}",
            "WSGIApplicationGroup %{GLOBAL}",
            self.alias("/", setup.script(workload.app)),
        ]


class DaemonSystem(WsgiSystem):
    """Both servers with one process of daemon mode; httpd's own processes run no Python."""

    daemon = True

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        name, path = self.module()
        options = [f"threads={setup.worker_threads}", "display-name=%{GROUP}"]
        options += [f"python-path={self.packages()}", *self.options(setup), *setup.options]
        return [
            f"LoadModule {name} {path}",
            "WSGIRestrictEmbedded On",
            f"WSGISocketPrefix {setup.run}/wsgi",
            f"WSGIDaemonProcess bench {' '.join(options)}",
            self.alias("/", setup.script(workload.app)),
        ]

    def options(self, setup: Setup) -> list[str]:
        """Options of the process group that only this server has."""
        return []

    def alias(self, path: str, script: str) -> str:
        return f"{super().alias(path, script)} process-group=bench application-group=%{{GLOBAL}}"


class ModWsgi(WsgiSystem):
    name = "mod_wsgi"
    label = "mod_wsgi 6.1.1"

    def prepare(self) -> None:
        self.module()

    def module(self) -> tuple[str, Path]:
        return "wsgi_module", Path(_only(f"{site_packages()}/mod_wsgi/server/mod_wsgi-*.so"))


class Rwsgi(WsgiSystem):
    name = "rwsgi"
    label = "rwsgi"

    def prepare(self) -> None:
        self.packages()
        path = self.module()[1]
        if not path.exists():
            raise Missing(f"{path} not found: run `make build` (or set RWSGI_MODULE_DIR)")

    def module(self) -> tuple[str, Path]:
        directory = Path(os.environ.get("RWSGI_MODULE_DIR") or ROOT / "build")
        return "rwsgi_module", directory.resolve() / "mod_rwsgi.so"


class ModWsgiDaemon(DaemonSystem, ModWsgi):
    name = "mod_wsgi-daemon"
    label = "mod_wsgi daemon"


class RwsgiDaemon(DaemonSystem, Rwsgi):
    name = "rwsgi-daemon"
    label = "rwsgi daemon"

    def options(self, setup: Setup) -> list[str]:
        """The worker is exec'd, so what the server runs under does not follow it: where it is to
        run under something, its Python is a script that does that."""
        if not setup.worker_prefix:
            return []
        home = setup.run / "home"
        (home / "bin").mkdir(parents=True)
        version = subprocess.run(
            [PYTHON, "-c", "import platform; print(platform.python_version())"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (home / "pyvenv.cfg").write_text(f"home = {Path(PYTHON).parent}\nversion = {version}\n")
        wrapper = home / "bin/python"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(setup.worker_prefix)} {PYTHON} "$@"\n')
        wrapper.chmod(0o755)
        (home / "bin/python3").symlink_to("python")
        return [f"python-home={home}"]


SYSTEMS: dict[str, System] = {
    s.name: s for s in (CHandler(), ModWsgi(), Rwsgi(), ModWsgiDaemon(), RwsgiDaemon())
}
