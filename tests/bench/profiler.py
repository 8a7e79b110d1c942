"""Reads callgrind's files: where the instructions of a request go.

Exclusive: a function's own instructions. Inclusive: with those of all it calls. Inlined functions
count for the function they were inlined into. Recursion (Python code called from C code called
from Python code) counts a callee twice in the inclusive figures, as in callgrind_annotate.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

_COMPRESSED = re.compile(r"\((\d+)\)(?: (.*))?$")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")


@dataclass
class Function:
    """One function; costs are instructions per request."""

    name: str
    object: str
    own: float = 0.0
    callees: float = 0.0
    calls: float = 0.0
    recursive: float = 0.0

    @property
    def inclusive(self) -> float:
        return self.own + self.callees - self.recursive


@dataclass
class Profile:
    """What one dump says, per request."""

    total: float = 0.0
    functions: dict[tuple[str, str], Function] = field(default_factory=dict)
    edges: dict[tuple, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    lines: dict[tuple[str, int], float] = field(default_factory=lambda: defaultdict(float))

    def by_object(self) -> list[tuple[str, float]]:
        """Exclusive instructions of each shared object, the largest first."""
        sums: dict[str, float] = defaultdict(float)
        for function in self.functions.values():
            sums[function.object] += function.own
        return sorted(sums.items(), key=lambda item: -item[1])

    def top(self, key: str, count: int, objects: str | None = None) -> list[Function]:
        """The `count` functions with the most `own` or `inclusive` instructions."""
        found = [f for f in self.functions.values() if not objects or re.search(objects, f.object)]
        return sorted(found, key=lambda f: -getattr(f, key))[:count]

    def tree(
        self, starts: tuple[str, ...], share: float
    ) -> list[tuple[int, Function, float, float]]:
        """The calls below the functions whose names end so, as (depth, function, calls, cost), down
        to `share` of all.

        Callgrind knows who calls whom, not through whom: the cost of a function with several
        callers is divided among them in proportion, so deep lines are estimates.
        """
        children = defaultdict(list)
        for (caller, callee), (calls, cost) in self.edges.items():
            if caller != callee:
                children[caller].append((cost, calls, callee))
        rows: list[tuple[int, Function, float, float]] = []

        def walk(key, calls: float, cost: float, path: tuple) -> None:
            function = self.functions[key]
            rows.append((len(path), function, calls, cost))
            scale = min(1.0, cost / function.inclusive) if function.inclusive else 0.0
            for child_cost, child_calls, child in sorted(children[key], reverse=True):
                if child_cost * scale >= share * self.total and child not in path:
                    walk(child, child_calls * scale, child_cost * scale, (*path, key))

        for key, function in self.functions.items():
            if function.name.endswith(starts):
                walk(key, function.calls, function.inclusive, ())
        return rows

    def neighbours(self, pattern: str) -> list[tuple[Function, list, list]]:
        """Functions whose name matches, each with callers and callees as (name, calls, cost)."""
        result = []
        for key, function in self.functions.items():
            if not re.search(pattern, function.name):
                continue
            callers, callees = [], []
            for (caller, callee), (calls, cost) in self.edges.items():
                if callee == key:
                    callers.append((self.functions[caller].name, calls, cost))
                if caller == key:
                    callees.append((self.functions[callee].name, calls, cost))
            callers.sort(key=lambda e: -e[2])
            callees.sort(key=lambda e: -e[2])
            result.append((function, callers, callees))
        return sorted(result, key=lambda r: -r[0].inclusive)


class _Names:
    """Callgrind writes a name once, `(7) name`, and afterwards only `(7)`."""

    def __init__(self):
        self.known: dict[str, str] = {}

    def read(self, text: str) -> str:
        match = _COMPRESSED.match(text)
        if not match:
            return text
        number, name = match.groups()
        if name is not None:
            self.known[number] = name
        return self.known[number]


def _readable(name: str) -> str:
    name = _RUST_HASH.sub("", name)
    return name.replace("'2", " (recursive)")


def read(dump: Path, requests: int) -> Profile:
    """Parses a dump (format: valgrind's manual, "Callgrind Format Specification")."""
    profile = Profile()
    files, functions, objects = _Names(), _Names(), _Names()
    obj = name = file = ""
    called_obj = called_name = None
    calls = 0
    line = 0
    pending_call = False

    def function(object_path: str, function_name: str) -> Function:
        key = (Path(object_path).name, _readable(function_name))
        found = profile.functions.get(key)
        if found is None:
            found = profile.functions[key] = Function(key[1], key[0])
        return found

    for text in dump.read_text(errors="replace").splitlines():
        if not text:
            continue
        first = text[0]
        if first.isdigit() or first in "+-*":
            where, _, rest = text.partition(" ")
            if first == "+":
                line += int(where[1:])
            elif first == "-":
                line -= int(where[1:])
            elif first != "*":
                line = int(where)
            cost = int(rest.split()[0]) if rest else 0
            here = function(obj, name)
            if not pending_call:
                here.own += cost
                if line:
                    profile.lines[file, line] += cost
                profile.total += cost
                continue
            pending_call = False
            target = function(obj if called_obj is None else called_obj, called_name)
            here.callees += cost
            target.calls += calls
            edge = profile.edges[(here.object, here.name), (target.object, target.name)]
            edge[0] += calls
            edge[1] += cost
            if target is here:
                here.recursive += cost
            called_obj = called_name = None
            continue
        key, equals, value = text.partition("=")
        if not equals:
            continue
        if key == "fn":
            name = functions.read(value)
        elif key == "ob":
            obj = objects.read(value)
        elif key in ("fl", "fi", "fe"):
            file = files.read(value)
        elif key == "cob":
            called_obj = objects.read(value)
        elif key == "cfn":
            called_name = functions.read(value)
        elif key in ("cfi", "cfl"):
            files.read(value)
        elif key == "calls":
            calls = int(value.split()[0])
            pending_call = True
    return _per_request(profile, requests)


def _per_request(profile: Profile, requests: int) -> Profile:
    profile.total /= requests
    for function in profile.functions.values():
        function.own /= requests
        function.callees /= requests
        function.recursive /= requests
        function.calls /= requests
    for edge in profile.edges.values():
        edge[0] /= requests
        edge[1] /= requests
    for key in profile.lines:
        profile.lines[key] /= requests
    return profile
