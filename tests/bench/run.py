#!/usr/bin/env python3
"""Compares rwsgi with mod_wsgi and with a C content handler, all in one run.

    run.py                                      every measurement of embedded mode
    run.py --mode daemon                        of daemon mode, beside embedded mode
    run.py --only instructions --gate           what a change must not break
    run.py --mode daemon --only ipc             fails unless a request takes five system calls
    run.py --only asgi                          rwsgi's ASGI beside that of its peers
    run.py --only websockets --only longpoll    many connections at once
    run.py --profile hello                      where rwsgi's instructions go
    run.py --profile hello --function environ   and who calls what around a function

See README.md beside this file for what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time

import asgi_peers
import asgi_systems
import bounds
import cputime
import fairness
import idle_websockets
import instructions
import ipc
import longpoll
import memory
import own_gil
import preload
import report as tables
import syscalls
from systems import BUILD, SYSTEMS, Missing, tool
from workloads import WORKLOADS

KINDS = ["instructions", "ipc", "syscalls", "memory", "preload", "cpu", "fairness", "asgi"]
KINDS += ["websockets", "longpoll", "own-gil"]
# What takes part in these unless --system names others.
ASGI_KINDS = {
    "asgi": asgi_peers.DEFAULT,
    "websockets": idle_websockets.DEFAULT,
    "longpoll": longpoll.DEFAULT,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=KINDS, help="may be given repeatedly")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--system", action="append", choices=list(SYSTEMS))
    parser.add_argument(
        "--mode",
        choices=["embedded", "daemon"],
        default="embedded",
        help="the systems, unless --system names them: daemon means those of both modes",
    )
    parser.add_argument("--gate", action="store_true", help="exit 1 if a figure exceeds its bound")
    parser.add_argument("--rounds", type=int, default=3, help="of cpu and fairness (median)")
    parser.add_argument("--seconds", type=int, default=3, help="of each wrk run")
    parser.add_argument("--sockets", type=int, default=5000, help="of websockets")
    parser.add_argument("--streams", type=int, default=1000, help="of longpoll")
    parser.add_argument("--profile", metavar="WORKLOAD", choices=instructions.NAMES)
    parser.add_argument("--top", type=int, default=25, help="lines of a profile's tables")
    parser.add_argument(
        "--function", default="", metavar="REGEX", help="callers and callees in a profile"
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    # So that every server is stopped when this program is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    BUILD.mkdir(parents=True, exist_ok=True)
    systems = chosen_systems(options)
    about_asgi = {kind: asgi_systems_of(kind, options) for kind in ASGI_KINDS}
    workloads = options.workload or list(WORKLOADS)
    report = tables.Report()
    try:
        needed = needed_systems(options, systems, about_asgi)
        for system in needed:
            SYSTEMS[system].prepare()
        if options.profile:
            for system in systems:
                profiles = instructions.profile(system, options.profile)
                for role, data in zip(("httpd's child", "worker"), profiles):
                    what = f"{SYSTEMS[system].label}, {options.profile}, {role}"
                    tables.profile(report, what, data, options.top, options.function)
            return 0
        results = measure(options, workloads, systems, about_asgi, report)
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    held = [*bounds.rows(results, workloads, systems), *bounds.asgi_rows(results, about_asgi)]
    if held:
        tables.bounds(report, held)
    target = BUILD / "results.json"
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {os.path.relpath(target)}")
    for failure in report.failures:
        print(f"FAILED {failure}")
    if options.gate:
        broken = [row for row in held if not row.held]
        for row in broken:
            value = "not measured" if row.value is None else f"{row.value:,.6g}"
            print(f"GATE {row.what}: {value}, at most {row.limit:,.6g}")
        if not held:
            print("GATE nothing that was measured has a bound")
        print("gate: " + ("BROKEN" if broken or not held else "held"))
        if broken or not held:
            return 1
    return 1 if report.failures else 0


def chosen_systems(options) -> list[str]:
    """Those named, else those of the mode (of ASGI rwsgi's only); a profile is of rwsgi."""
    daemon = options.mode == "daemon"
    if options.system:
        return options.system
    if options.profile:
        name = "rwsgi-asgi" if WORKLOADS[options.profile].asgi else "rwsgi"
        return [f"{name}-daemon" if daemon else name]
    known = [s for s in SYSTEMS.values() if not s.asgi] + asgi_systems.OWN
    return [system.name for system in known if daemon or not system.daemon]


def asgi_systems_of(kind: str, options) -> list[str]:
    """The systems of a kind of measurement that is about ASGI."""
    return [name for name in options.system or ASGI_KINDS[kind] if _takes_part(kind, name)]


def _takes_part(kind: str, name: str) -> bool:
    return SYSTEMS[name].asgi or kind == "asgi"


def needed_systems(options, systems: list[str], about_asgi: dict[str, list[str]]) -> list[str]:
    """Every system that something will be measured of."""
    kinds = set(options.only or KINDS)
    needed = list(systems) if options.profile or kinds - set(ASGI_KINDS) - {"own-gil"} else []
    for kind in kinds & set(ASGI_KINDS) if not options.profile else ():
        needed += about_asgi[kind]
    return list(dict.fromkeys(needed))


def measure(
    options,
    workloads: list[str],
    systems: list[str],
    about_asgi: dict[str, list[str]],
    report: tables.Report,
) -> dict:
    """Runs what was asked for, printing each table as soon as it is there."""
    kinds = options.only or KINDS
    wsgi = [system for system in systems if not SYSTEMS[system].asgi]
    results: dict = {"machine": machine()}
    if "instructions" in kinds:
        found = results["instructions"] = instructions.run(workloads, systems, report)
        tables.instructions(report, found, instructions.BOUNDS)
        if remark := instructions.remark(found):
            print("\n" + remark)
    if "ipc" in kinds and any(SYSTEMS[system].daemon for system in systems):
        found = results["ipc"] = ipc.run(workloads, systems, report)
        tables.ipc(report, found)
    if "syscalls" in kinds:
        found = results["syscalls"] = syscalls.run(wsgi, report)
        tables.syscalls(report, found)
    if "memory" in kinds:
        found = results["memory"] = memory.run(wsgi, report)
        tables.memory(report, found)
    if "preload" in kinds and preload.SYSTEM in systems:
        found = results["preload"] = preload.run(report, options.seconds)
        tables.preload(report, found)
    if "cpu" in kinds:
        names = (options.workload, options.rounds, options.seconds)
        found = cputime.run(names[0] or cputime.NAMES, wsgi, report, *names[1:])
        results["cpu"] = found
        tables.cpu(report, found)
    if "fairness" in kinds:
        found = fairness.run(wsgi, report, options.rounds, options.seconds)
        results["fairness"] = found
        tables.fairness(report, found)
    if "asgi" in kinds:
        takers = about_asgi["asgi"]
        found = results["asgi"] = asgi_peers.run(takers, report, options.rounds, options.seconds)
        tables.asgi(report, found)
    if "websockets" in kinds:
        takers = about_asgi["websockets"]
        found = results["websockets"] = idle_websockets.run(takers, report, options.sockets)
        tables.websockets(report, found)
    if "longpoll" in kinds:
        takers = about_asgi["longpoll"]
        found = results["longpoll"] = longpoll.run(takers, report, options.streams)
        tables.longpoll(report, found)
    # Needs another Python: only when asked for.
    if "own-gil" in (options.only or []):
        found = results["own-gil"] = own_gil.run(report, options.rounds, options.seconds)
        tables.own_gil(report, found)
    return results


def machine() -> dict:
    """What the figures depend on."""
    httpd = subprocess.run(
        [tool("apache2", "httpd", package="apache2"), "-v"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "httpd": httpd.stdout.split("\n")[0].removeprefix("Server version: "),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
    }


if __name__ == "__main__":
    sys.exit(main())
