"""What a GIL of its own is worth: two application groups that compute, in one process, against one.

In httpd's own process and in a worker. Beside it the same with a shared GIL, and two processes of
Python that compute by themselves: more than those reach nobody can reach on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

from cputime import wrk_result
from server import Httpd, ServerFailed
from systems import BUILD, HERE, ROOT, Missing, Rwsgi, RwsgiDaemon, System, tool
from workloads import WORKLOADS

GROUPS = ("a", "b")
HEAVY = replace(WORKLOADS["hello"], name="heavy", app="heavy.py", path="/a", answer_bytes=None)
#: Connections for each group: one request computes, the next is there when it is done.
CONNECTIONS = 2
#: What two groups must reach, as a multiple of one.
WANTED = 1.7


def newest() -> dict[str, str]:
    """The record of the newest gateway for a Python that has per-interpreter GILs, and `file`."""
    found = []
    own = Path(os.environ.get("RWSGI_MODULE_DIR") or ROOT / "build")
    for directory in (own / "rwsgi", ROOT / "build/several/rwsgi"):
        for file in directory.glob("_rwsgi.cpython-3??-*.conf"):
            pairs = (line.partition("=") for line in file.read_text().splitlines())
            record = {name.strip(): value.strip() for name, _, value in pairs}
            minor = int(record["version"].split(".")[1])
            if minor >= 12 and os.path.exists(record["libpython"]):
                found.append((minor, {**record, "file": str(file)}))
    if not found:
        raise Missing(
            "no gateway for Python 3.12 or later, which --only own-gil needs: "
            "run `make gateway PYTHON=...` (or tests/tools/several.sh)"
        )
    return max(found, key=lambda pair: pair[0])[1]


def installation(record: dict[str, str]) -> Path:
    """The module with this gateway and the default one."""
    source = Path(os.environ.get("RWSGI_MODULE_DIR") or ROOT / "build").resolve()
    target = BUILD / "own-gil"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "rwsgi", target / "rwsgi")
    shutil.copy(source / "mod_rwsgi.so", target)
    file = Path(record["file"])
    for path in (file, file.with_suffix(".so")):
        shutil.copy(path, target / "rwsgi")
    return target


class Groups(System):
    """rwsgi with two application groups in one process."""

    def __init__(self, record: dict[str, str], module: Path, daemon: bool, own: bool):
        self.base = RwsgiDaemon() if daemon else Rwsgi()
        self.record, self.module, self.own = record, module, own
        self.daemon = daemon
        self.name = self.label = "rwsgi"

    def config(self, workload, setup):
        library = os.path.dirname(self.record["libpython"])
        lines = [
            f"LoadModule rwsgi_module {self.module / 'mod_rwsgi.so'}",
            f"WSGIPythonHome {self.record['prefix']}",
            f"WSGIPerInterpreterGIL {'On' if self.own else 'Off'}",
        ]
        where = ""
        if self.daemon:
            lines += [
                "WSGIRestrictEmbedded On",
                f"WSGISocketPrefix {setup.run}/wsgi",
                f"WSGIDaemonProcess bench threads={setup.worker_threads} "
                f"env=LD_LIBRARY_PATH={library}",
            ]
            where = " process-group=bench"
        script = setup.script(workload.app)
        lines += [
            f"WSGIScriptAlias /{group} {script}{where} application-group={group}"
            for group in GROUPS
        ]
        return lines


def load(port: int, groups: tuple[str, ...], seconds: int) -> float:
    """Requests a second of all these groups, asked at the same time."""
    running = []
    for group in groups:
        command = [tool("wrk", package="wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
        command += ["--timeout", "20s", "-s", str(HERE / "wrk" / "workload.lua")]
        command += [f"http://127.0.0.1:{port}/{group}", "--", "GET", "0"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    total = 0.0
    for process in running:
        result = wrk_result(process.communicate(timeout=seconds + 60)[0])
        if result["socket_errors"] + result["status_errors"]:
            raise ServerFailed(f"wrk saw errors: {json.dumps(result)}")
        total += result["requests"] / result["seconds"]
    return total


def server_ratio(system: Groups, rounds: int, seconds: int) -> dict[str, float]:
    """Throughput of one group and of two, taking turns."""
    with Httpd(system, HEAVY, worker_threads=8) as server:
        load(server.port, GROUPS, 1)
        one, two = [], []
        for _ in range(rounds):
            one.append(load(server.port, GROUPS[:1], seconds))
            two.append(load(server.port, GROUPS, seconds))
    return {"one": statistics.median(one), "two": statistics.median(two)}


SPIN = f"""
import sys, time
sys.path.insert(0, {str(HERE / "apps")!r})
from heavy import application
end, count = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    application({{}}, lambda status, headers: None)
    count += 1
print(count)
"""


def process_ratio(python: str, library: str, rounds: int, seconds: int) -> dict[str, float]:
    """The same of one and of two processes that have nothing to do with each other."""

    def spin(processes: int) -> float:
        command = [python, "-c", SPIN, str(seconds)]
        environment = {**os.environ, "LD_LIBRARY_PATH": library}
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(processes)
        ]
        return sum(int(p.communicate(timeout=seconds + 60)[0]) for p in running) / seconds

    one, two = [], []
    for _ in range(rounds):
        one.append(spin(1))
        two.append(spin(2))
    return {"one": statistics.median(one), "two": statistics.median(two)}


def run(report, rounds: int, seconds: int) -> dict:
    """All of it; a ratio for each."""
    record = newest()
    module = installation(record)
    library = os.path.dirname(record["libpython"])
    results: dict = {"python": record["version"]}
    scenes = {
        "two processes of Python": lambda: process_ratio(
            record["executable"], library, rounds, seconds
        )
    }
    for where, daemon in (("embedded", False), ("daemon", True)):
        for what, own in (("own GIL", True), ("shared GIL", False)):
            system = Groups(record, module, daemon, own)
            scenes[f"{where}, {what}"] = lambda s=system: server_ratio(s, rounds, seconds)
    for scene, measure in scenes.items():
        report.progress(f"own GIL, Python {record['version']}: {scene}")
        try:
            figures = measure()
        except (ServerFailed, OSError, ValueError) as error:
            report.failure(f"own-gil {scene}", error)
            continue
        results[scene] = {**figures, "ratio": figures["two"] / figures["one"]}
    return results
