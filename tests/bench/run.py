#!/usr/bin/env python3
"""Compares rwsgi with mod_wsgi and with a C content handler, all in one run.

    run.py                                      every measurement of embedded mode
    run.py --mode daemon                        of daemon mode, beside embedded mode
    run.py --only instructions --gate           what a change must not break
    run.py --mode daemon --only ipc             fails unless a request takes five system calls
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

import bounds
import cputime
import fairness
import instructions
import ipc
import memory
import own_gil
import preload
import report as tables
import syscalls
from systems import BUILD, SYSTEMS, Missing, tool
from workloads import WORKLOADS

KINDS = ["instructions", "ipc", "syscalls", "memory", "preload", "cpu", "fairness", "own-gil"]


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
    systems = options.system or chosen_systems(options)
    workloads = options.workload or list(WORKLOADS)
    report = tables.Report()
    try:
        for system in systems:
            SYSTEMS[system].prepare()
        if options.profile:
            for system in systems:
                profiles = instructions.profile(system, options.profile)
                for role, data in zip(("httpd's child", "worker"), profiles):
                    what = f"{SYSTEMS[system].label}, {options.profile}, {role}"
                    tables.profile(report, what, data, options.top, options.function)
            return 0
        results = measure(options, workloads, systems, report)
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    held = list(bounds.rows(results, workloads, systems))
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
    """Those of the mode; a profile is of rwsgi."""
    daemon = options.mode == "daemon"
    if options.profile:
        return ["rwsgi-daemon" if daemon else "rwsgi"]
    return [name for name, system in SYSTEMS.items() if daemon or not system.daemon]


def measure(options, workloads: list[str], systems: list[str], report: tables.Report) -> dict:
    """Runs what was asked for, printing each table as soon as it is there."""
    kinds = options.only or KINDS
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
        found = results["syscalls"] = syscalls.run(systems, report)
        tables.syscalls(report, found)
    if "memory" in kinds:
        found = results["memory"] = memory.run(systems, report)
        tables.memory(report, found)
    if "preload" in kinds and preload.SYSTEM in systems:
        found = results["preload"] = preload.run(report, options.seconds)
        tables.preload(report, found)
    if "cpu" in kinds:
        names = (options.workload, options.rounds, options.seconds)
        found = cputime.run(names[0] or cputime.NAMES, systems, report, *names[1:])
        results["cpu"] = found
        tables.cpu(report, found)
    if "fairness" in kinds:
        found = fairness.run(systems, report, options.rounds, options.seconds)
        results["fairness"] = found
        tables.fairness(report, found)
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
