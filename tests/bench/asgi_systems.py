"""The ASGI servers compared: rwsgi in both modes, and the usual ones behind Apache's own proxy.

One process of one event loop each, the same Python, no access log.
"""

from __future__ import annotations

from pathlib import Path

from systems import (
    HERE,
    SYSTEMS,
    Rwsgi,
    RwsgiDaemon,
    Setup,
    System,
    packages_of,
    virtual_environment,
)
from workloads import Workload

REQUIREMENTS = HERE / "asgi-requirements.txt"


def environment() -> Path:
    """The virtual environment with the ASGI servers, made when first needed."""
    lines = (line.strip() for line in REQUIREMENTS.read_text().splitlines())
    packages = tuple(line for line in lines if line and not line.startswith("#"))
    return virtual_environment("asgi", packages)


class RwsgiAsgi(Rwsgi):
    """rwsgi's own processes; the loop belongs to httpd's child."""

    asgi = True

    def __init__(self, loop: str):
        self.loop = loop
        self.name = "rwsgi-asgi" + ("-uvloop" if loop == "uvloop" else "")
        self.label = f"rwsgi ASGI, {loop}"

    def packages(self) -> Path:
        return packages_of(environment())

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        *general, alias = super().config(workload, setup)
        return [*general, f"ASGILoop {self.loop}", alias]

    def alias(self, path: str, script: str) -> str:
        return f"ASGIScriptAlias {path} {script}"


class RwsgiAsgiDaemon(RwsgiDaemon):
    """rwsgi with one process of daemon mode."""

    asgi = True

    def __init__(self, loop: str):
        self.loop = loop
        self.name = "rwsgi-asgi-daemon" + ("-uvloop" if loop == "uvloop" else "")
        self.label = f"rwsgi ASGI daemon, {loop}"

    def packages(self) -> Path:
        return packages_of(environment())

    def options(self, setup: Setup) -> list[str]:
        return [f"loop={self.loop}", *super().options(setup)]

    def alias(self, path: str, script: str) -> str:
        return "ASGI" + super().alias(path, script).removeprefix("WSGI")


class Proxied(System):
    """A server behind mod_proxy_http, which keeps connections to it: as many as httpd has threads.

    They are whatever costs this server less, UNIX sockets or TCP on the loopback device.
    """

    daemon = True
    asgi = True

    def __init__(self, name: str, options: list[str], *, tcp: bool = False):
        self.name, self.command, self.tcp = name, options, tcp
        self.label = f"{name} behind mod_proxy_http"

    def prepare(self) -> None:
        environment()

    def packages(self) -> Path:
        return packages_of(environment())

    def config(self, workload: Workload, setup: Setup) -> list[str]:
        target = f"unix:{setup.backend_socket}|http://localhost/"
        if self.tcp:
            target = f"http://127.0.0.1:{setup.backend_port}/"
        return [
            "LoadModule proxy_module modules/mod_proxy.so",
            "LoadModule proxy_http_module modules/mod_proxy_http.so",
            "ProxyPass /server-status !",
            f"ProxyPass / {target} upgrade=websocket",
        ]

    def backend(self, workload: Workload, setup: Setup) -> list[str]:
        module = Path(workload.app).stem
        command = [str(environment() / "bin" / self.name), *self.command]
        places = {"socket": setup.backend_socket, "port": setup.backend_port}
        return [word.format(**places) for word in command] + [f"{module}:application"]

    def backend_address(self, setup: Setup) -> str | tuple[str, int]:
        return ("127.0.0.1", setup.backend_port) if self.tcp else setup.backend_socket


PEERS = [
    Proxied(
        "uvicorn",
        ["--uds", "{socket}", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        + ["--log-level", "warning"],
    ),
    Proxied("hypercorn", ["--bind", "unix:{socket}", "--worker-class", "uvloop"]),
    Proxied(
        "granian",
        ["--port", "{port}", "--interface", "asgi", "--loop", "uvloop", "--workers", "1"]
        + ["--no-access-log", "--log-level", "warning"],
        tcp=True,
    ),
]

OWN = [cls(loop) for cls in (RwsgiAsgi, RwsgiAsgiDaemon) for loop in ("asyncio", "uvloop")]

# systems.py cannot name them itself: they are made from its classes.
SYSTEMS.update({system.name: system for system in (*OWN, *PEERS)})
