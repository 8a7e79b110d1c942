"""Notes which items of the checklist the tests of a run show.

A test says so with ``@pytest.mark.checklist(27, 28)``. Its mode is the value of its fixture
``mode``; else that of the marker, ``checklist(183, mode="daemon")``; else ``daemon`` where the
directory or the name of its file says so; else ``embedded``. ``mode="both"`` is for tests that look
at both modes themselves.

Environment: ``RWSGI_CHECKLIST``, a file that the results are appended to, one JSON object in a line
(``number``, ``mode``, ``outcome``, ``test``). Several runs may share it. ``report.py`` reads it.
"""

from __future__ import annotations

import json
import os

import pytest

from .items import BOTH, items


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        'checklist(*numbers, mode=None): items of tests/checklist/items.md; mode: "embedded", '
        '"daemon" or "both" where the test has no fixture of that name',
    )
    if file := os.environ.get("RWSGI_CHECKLIST"):
        config.pluginmanager.register(Recorder(file), "checklist-recorder")


def pytest_collection_modifyitems(items):
    for item in items:
        shown(item)


def shown(item) -> list[tuple[int, str]]:
    """The items that a test shows, each with the mode that it shows it in."""
    found = []
    for marker in item.iter_markers("checklist"):
        modes = _modes(item, marker)
        for number in marker.args:
            if number not in items():
                raise pytest.UsageError(f"{item.nodeid}: no item of the checklist: {number!r}")
            found += [(number, mode) for mode in modes]
    return found


def _modes(item, marker) -> tuple[str, ...]:
    if set(marker.kwargs) - {"mode"} or marker.kwargs.get("mode", "both") not in (*BOTH, "both"):
        raise pytest.UsageError(f"{item.nodeid}: checklist{marker.args}: {marker.kwargs}")
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    mode = parameters.get("mode") or marker.kwargs.get("mode")
    if mode == "both":
        return BOTH
    if mode in BOTH:
        return (mode,)
    name = item.path.name
    if item.path.parent.name in ("worker", "supervisor") or name.startswith("test_daemon"):
        return ("daemon",)
    return ("embedded",)


class Recorder:
    """Writes what became of each test that shows something."""

    def __init__(self, file: str):
        self.file = file
        self.outcomes: dict[str, str] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        worst = self.outcomes.get(item.nodeid, "skipped" if report.skipped else "passed")
        if report.failed:
            worst = "failed"
        elif report.skipped and worst == "passed":
            worst = "skipped"
        self.outcomes[item.nodeid] = worst
        if call.when == "teardown":
            self._write(item, self.outcomes.pop(item.nodeid))
        return report

    def _write(self, item, outcome: str) -> None:
        test = f"{item.path.parent.name}/{item.nodeid}"
        with open(self.file, "a") as file:
            for number, mode in shown(item):
                entry = {"number": number, "mode": mode, "outcome": outcome, "test": test}
                file.write(json.dumps(entry) + "\n")
