"""Accounts for every line of the error log.

A line of level warn or worse that no test announced is a failure, and so is an announced one that
did not come. A line that httpd did not format (a panic message, a fatal error of Python) is a
failure in any case, as is the death of a child by a signal. Supervisors and workers write into the
same log, in httpd's default format.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import paths

LINE = re.compile(
    r"^\[[^\]]*\] \[(?P<module>[^:\]]*):(?P<level>\w+)\] \[pid (?P<pid>\d+)\] "
    r"\[id (?P<id>[^\]]*)\] \[vhost (?P<vhost>[^\]]*)\] (?P<message>.*)$"
)
#: What httpd writes before it has read ErrorLogFormat, and what supervisors and workers write.
EARLY = re.compile(
    r"^\[\w{3} [^\]]*\] \[(?P<module>[^:\]]*):(?P<level>\w+)\] \[pid (?P<pid>\d+)[^\]]*\] "
    r"(?P<message>.*)$"
)
BAD_LEVELS = {"emerg", "alert", "crit", "error", "warn"}
ALWAYS_BAD = re.compile(
    r"AH00052|exit signal|core dump|panicked at|Fatal Python error|Segmentation|double free"
)
#: httpd's own: the event MPM logs this when a connection ends while the process stops.
HARMLESS = re.compile(r"^AH03093: ")
TRACEBACK_START = "Traceback (most recent call last):"
CHAINED = re.compile(r"^(During handling of the above|The above exception was the direct)")
HEADER = re.compile(r"^RWSGI0[1-6]\d\d: ")


@dataclass
class Line:
    """One line of an error log."""

    raw: str
    message: str = ""
    level: str = ""
    module: str = ""
    pid: int = 0
    log_id: str = ""
    vhost: str = ""
    formatted: bool = True

    @classmethod
    def parse(cls, raw: str) -> Line:
        match = LINE.match(raw)
        if match:
            return cls(
                raw,
                match["message"],
                match["level"],
                match["module"],
                int(match["pid"]),
                match["id"],
                match["vhost"],
            )
        match = EARLY.match(raw)
        if match:
            return cls(raw, match["message"], match["level"], match["module"], int(match["pid"]))
        return cls(raw, raw, formatted=False)


@dataclass
class Expectation:
    """Lines that a test announced: ``pattern`` is searched in the message."""

    pattern: re.Pattern[str]
    count: int | None
    optional: bool = False
    lines: list[Line] = field(default_factory=list)
    #: The lines of the tracebacks below ``lines``.
    traceback: list[Line] = field(default_factory=list)

    @property
    def satisfied(self) -> bool:
        if self.optional:
            return True
        return bool(self.lines) if self.count is None else len(self.lines) >= self.count


class ErrorLogs:
    """All error logs of one server."""

    def __init__(self, files: list[Path]):
        self.files = files
        self.offsets = dict.fromkeys(files, 0)
        self.expectations: list[Expectation] = []
        self.seen: list[Line] = []
        self.problems: list[str] = []
        #: By log and process: the expectation whose traceback comes, and what may come next.
        self._traceback: dict[tuple[Path, int], tuple[Expectation, str]] = {}

    def watch(self, file: Path) -> None:
        """Adds the error log of a virtual host."""
        self.files.append(file)
        self.offsets[file] = 0

    def expect(self, pattern: str, count: int | None = 1) -> Expectation:
        """Announces lines; ``count=None`` means one or more."""
        expectation = Expectation(re.compile(pattern), count)
        self.expectations.append(expectation)
        return expectation

    def allow(self, pattern: str) -> Expectation:
        """Announces lines that may or may not come."""
        expectation = Expectation(re.compile(pattern), None, optional=True)
        self.expectations.append(expectation)
        return expectation

    def read(self) -> list[Line]:
        """Takes and judges the lines that came since the last call."""
        fresh: list[Line] = []
        for file in self.files:
            if not file.exists():
                continue
            with open(file, "rb") as stream:
                stream.seek(self.offsets[file])
                data = stream.read()
            data = data[: data.rfind(b"\n") + 1]
            self.offsets[file] += len(data)
            for raw in data.decode("utf-8", "replace").splitlines():
                line = Line.parse(raw)
                fresh.append(line)
                self._judge(file, line)
        self.seen += fresh
        return fresh

    def wait_for(self, pattern: str, count: int = 1, timeout: float = 15, start: int = 0) -> None:
        """Waits until ``count`` lines from the ``start``-th on match."""
        search = re.compile(pattern).search
        deadline = time.monotonic() + timeout
        while True:
            self.read()
            if sum(1 for line in self.seen[start:] if search(line.message)) >= count:
                return
            if time.monotonic() > deadline:
                tail = "\n".join(line.raw for line in self.seen[-30:])
                raise AssertionError(f"no {count} lines {pattern!r} in the error log:\n{tail}")
            time.sleep(0.01)

    def settle(self, timeout: float = 5) -> None:
        """Ends the account of one test: raises AssertionError for whatever is not in order."""
        deadline = time.monotonic() + timeout
        while True:
            self.read()
            open_ = [e for e in self.expectations if not e.satisfied]
            if not open_ or paths.PEER or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        problems = self.problems + [
            f"announced, but came {len(e.lines)} of {e.count or 'some'}: {e.pattern.pattern}"
            for e in open_
            if not paths.PEER
        ]
        self.expectations = []
        self.problems = []
        if problems:
            recent = "\n".join("    " + line.raw for line in self.seen[-25:])
            raise AssertionError(
                "error log:\n  " + "\n  ".join(problems) + "\nlast lines:\n" + recent
            )

    def _judge(self, file: Path, line: Line) -> None:
        for expectation in self.expectations:
            full = expectation.count is not None and len(expectation.lines) >= expectation.count
            if not full and expectation.pattern.search(line.message):
                expectation.lines.append(line)
                if HEADER.match(line.message):
                    self._traceback[(file, line.pid)] = (expectation, "begin")
                return
        if paths.PEER:
            return
        if ALWAYS_BAD.search(line.raw):
            self.problems.append("never allowed: " + line.raw)
        elif not line.formatted:
            self.problems.append("not formatted by httpd: " + line.raw)
        elif HARMLESS.match(line.message):
            return
        elif line.level in BAD_LEVELS and not self._belongs_to_traceback(file, line):
            self.problems.append("not announced: " + line.raw)

    def _belongs_to_traceback(self, file: Path, line: Line) -> bool:
        """Whether this line continues the traceback below an announced RWSGI line.

        A traceback is a sequence of blocks: an optional first line, indented lines, and one line
        that names the exception; chained exceptions add further blocks.
        """
        key = (file, line.pid)
        expectation, state = self._traceback.get(key, (None, ""))
        text = line.message
        if expectation is None or HEADER.match(text):
            return False
        if state == "end" and not text.startswith(" "):
            if text and not CHAINED.match(text):
                del self._traceback[key]
                return False
            state = "begin"
        elif state == "begin" and not (
            text.startswith(" ") or text in (TRACEBACK_START, "") or CHAINED.match(text)
        ):
            # The line that names the exception; indented ones may still follow (a message of
            # several lines, a note).
            state = "end"
        self._traceback[key] = (expectation, state)
        expectation.traceback.append(line)
        return True
