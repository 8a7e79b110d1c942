"""Memory of the serving processes while a GiB passes through it in either direction."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path

from client import Connection, WrongAnswer
from server import Httpd, ServerFailed
from systems import SYSTEMS, System
from workloads import KIB, MIB, WORKLOADS

SIZE = 1024 * MIB
PIECE = 256 * KIB

UPLOAD = dataclasses.replace(WORKLOADS["upload10m"], body_bytes=MIB, answer_bytes=7)
DOWNLOAD = dataclasses.replace(
    WORKLOADS["download10m"], app="download.py", path=f"/?{MIB}", answer_bytes=MIB
)


def peak(server: Httpd) -> int:
    """VmHWM in KiB: the largest resident sets that the serving processes have had, together."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.serving()]
    return sum(int(re.search(r"^VmHWM:\s+(\d+)", text, re.MULTILINE).group(1)) for text in texts)


def upload(system: System) -> float:
    """MiB by which the peak grows over a 1 GiB upload that is read in pieces of 64 KiB."""
    with Httpd(system, UPLOAD) as server, Connection(server.port) as connection:
        connection.run(UPLOAD, 20)
        before = peak(server)
        head = dataclasses.replace(UPLOAD, body_bytes=0).request(connection.host)
        head = head[:-2] + f"Content-Length: {SIZE}\r\n\r\n".encode()
        connection.socket.sendall(head)
        sender = threading.Thread(target=_send, args=(connection,), daemon=True)
        sender.start()
        status, _, length = connection.answer()
        sender.join(60)
        if status != 200 or length != len(str(SIZE)):
            raise WrongAnswer(f"upload: status {status}, {length} bytes")
        return (peak(server) - before) / 1024


def _send(connection: Connection) -> None:
    piece = b"x" * PIECE
    for _ in range(SIZE // PIECE):
        connection.socket.sendall(piece)


def download(system: System) -> float:
    """MiB by which the peak grows over a 1 GiB download that is yielded in pieces of 64 KiB."""
    with Httpd(system, DOWNLOAD) as server, Connection(server.port) as connection:
        connection.run(DOWNLOAD, 20)
        before = peak(server)
        connection.run(dataclasses.replace(DOWNLOAD, path=f"/?{SIZE}", answer_bytes=SIZE), 1)
        return (peak(server) - before) / 1024


def run(systems: list[str], report) -> dict:
    """Both directions, the Python servers only."""
    results: dict[str, dict[str, float]] = {}
    for system in systems:
        if system == "c":
            continue
        row = results[system] = {}
        for name, measure in (("upload", upload), ("download", download)):
            report.progress(f"memory: {name}, {SYSTEMS[system].label}")
            try:
                row[name] = measure(SYSTEMS[system])
            except (ServerFailed, WrongAnswer, OSError) as error:
                report.failure(f"memory {name} {system}", error)
    return results
