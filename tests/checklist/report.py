"""Compares what tests have shown with the checklist.

    report.py RESULTS [--complete] [--list FILE]

``RESULTS`` is what the runs of the tests have noted (``plugin.py``). An item that tests show is
covered, also if the table of differences names it for a detail. With ``--complete`` it ends
with 1 if items are missing: neither shown by a test nor named as a difference in
``docs/coming-from-mod_wsgi.md``. ``--list`` writes every item with its tests.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checklist.items import Item, items  # noqa: E402

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "coming-from-mod_wsgi.md"
#: The last cell of a row of the table of differences: "44", "49–58, 72".
NUMBERS = re.compile(r"\s*\d+(?:\s*[-–]\s*\d+)?(?:\s*,\s*\d+(?:\s*[-–]\s*\d+)?)*\s*")


class State(NamedTuple):
    """What is known of an item: ``lacking`` are the modes that no test shows it in."""

    item: Item
    word: str
    lacking: tuple[str, ...]
    tests: list[str]


def differences(text: str) -> set[int]:
    """The items named in the last column of the tables of a Markdown text."""
    found: set[int] = set()
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cell = line.strip().strip("|").split("|")[-1]
        if NUMBERS.fullmatch(cell):
            for part in cell.split(","):
                first, *last = re.split("[-–]", part)
                found |= set(range(int(first), int(last[0] if last else first) + 1))
    return found


def judge(results: list[dict], differing: set[int]) -> list[State]:
    """The state of every item.

    A test that failed takes its item away, whatever others show. A test that was skipped shows
    nothing; only where the item needs what a machine may lack is that said in other words, even if
    other tests show a part of it.
    """
    tests: defaultdict[int, set[str]] = defaultdict(set)
    outcomes: defaultdict[tuple[int, str], set[str]] = defaultdict(set)
    tried = {(entry["number"], entry["mode"]) for entry in results}
    shown_by = {entry["test"] for entry in results if entry["outcome"] == "passed"}
    skipped = {
        entry["number"]
        for entry in results
        # In a run with another Python it may have passed.
        if entry["outcome"] == "skipped" and entry["test"] not in shown_by
    }
    for entry in results:
        outcomes[entry["number"], entry["mode"]].add(entry["outcome"])
        tests[entry["number"]].add(f"{entry['test']} ({entry['outcome']})")
    states = []
    for item in items().values():
        shown = {
            mode
            for mode in ("embedded", "daemon")
            if "passed" in outcomes[item.number, mode]
            and "failed" not in outcomes[item.number, mode]
        }
        failed = any("failed" in outcomes[item.number, mode] for mode in ("embedded", "daemon"))
        if item.modes:
            lacking = tuple(mode for mode in item.modes if mode not in shown)
        else:
            lacking = () if shown and not failed else ("any",)
        if failed:
            word = "missing"
        elif item.needs and item.number in skipped:
            # A test has to be there all the same, in each mode.
            there = {mode for number, mode in tried if number == item.number}
            word = "not here" if set(item.modes) <= there else "missing"
        elif not lacking:
            word = "covered"
        else:
            word = "differing" if item.number in differing else "missing"
        states.append(State(item, word, lacking, sorted(tests[item.number])))
    return states


def numbers(states: list[State]) -> str:
    """Their numbers."""
    return ", ".join(str(state.item.number) for state in states) or "none"


def summary(states: list[State], differing: set[int]) -> str:
    """The report at the end of a run."""
    of = {
        word: [state for state in states if state.word == word]
        for word in ("covered", "differing", "not here", "missing")
    }
    lines = ["== checklist of parity with mod_wsgi"]
    lines.append(f"covered: {len(of['covered'])} of {len(states)}")
    lines.append(f"differing (docs/coming-from-mod_wsgi.md): {numbers(of['differing'])}")
    touched = [state for state in of["covered"] if state.item.number in differing]
    lines.append(f"covered, and differing in a detail: {numbers(touched)}")
    for state in of["not here"]:
        lines.append(f"not shown on this machine: {state.item.number} (needs {state.item.needs})")
    lines.append(f"missing: {len(of['missing']) or 'none'}")
    for state in of["missing"]:
        where = "" if state.lacking == ("any",) else f" [{', '.join(state.lacking) or 'failed'}]"
        lines.append(f"  {state.item.number}{where} {state.item.title}")
    return "\n".join(lines)


def listing(states: list[State]) -> str:
    """Every item with its tests."""
    lines = []
    for state in states:
        lines.append(f"{state.item.number} {state.word}: {state.item.title}")
        lines += [f"    {test}" for test in state.tests]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--complete", action="store_true", help="fail if items are missing")
    parser.add_argument("--list", type=Path, help="write every item with its tests to this file")
    options = parser.parse_args()
    text = options.results.read_text() if options.results.exists() else ""
    differing = differences(DIFFERENCES.read_text()) if DIFFERENCES.exists() else set()
    unknown = differing - set(items())
    states = judge([json.loads(line) for line in text.splitlines()], differing)
    if options.list:
        options.list.write_text(listing(states))
    print(summary(states, differing))
    if unknown:
        print(f"{DIFFERENCES.name} names items that do not exist: {sorted(unknown)}")
    if not options.complete:
        return 0
    return 1 if unknown or any(state.word == "missing" for state in states) else 0


if __name__ == "__main__":
    sys.exit(main())
