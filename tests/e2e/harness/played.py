"""A process group whose worker is played by ``played_worker.py``."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import paths

WORKER = Path(__file__).parent / "played_worker.py"


def played_group(httpd, options: str = "", drain: float = 0) -> Path:
    """Adds the group ``played`` and mounts it on ``/ws``; gives the file with the worker's notes.

    ``drain``: seconds that the worker goes on with its tunnels when it is to end.
    """
    home = httpd.root / "played"
    subprocess.run(
        [paths.gateway_record()["executable"], "-m", "venv", "--without-pip", str(home)], check=True
    )
    worker = httpd.write("played/worker.py", WORKER.read_text())
    file = httpd.root / "data" / "notes"
    file.touch()
    file.chmod(0o666)
    python = home / "bin" / "python"
    real = python.resolve()
    python.unlink()
    python.write_text(
        f"#!/bin/sh\nPLAYED_NOTES={file} PLAYED_DRAIN={drain} exec {real} -E -s {worker}\n"
    )
    python.chmod(0o755)
    httpd.write("apps/played.py", "# never read\n")
    httpd.add(
        f"""
        WSGIDaemonProcess played python-home={home} {options}
        WSGIScriptAlias /ws {httpd.root}/apps/played.py process-group=played
        <Directory {httpd.root}/apps>
            Require all granted
        </Directory>
        """
    )
    return file


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def upgraded(httpd, path: str = "/ws/echo", tls: bool = False, timeout: float = 20):
    """A connection that has switched protocols."""
    connection = httpd.connect(tls=tls, timeout=timeout)
    connection.request(path, headers=HANDSHAKE)
    head = connection.read_head()
    assert head.status == 101, head
    assert head.header("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert head.header("Connection") == "Upgrade"
    return connection
