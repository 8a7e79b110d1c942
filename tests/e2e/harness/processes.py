"""Which processes belong to a server, by session and by a mark in their environment."""

from __future__ import annotations

import os
from pathlib import Path


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command name may hold blanks and parentheses: everything after the last one.
    return text[text.rindex(")") + 2 :].split()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def children(parent: int) -> list[int]:
    """The running children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = _stat(int(entry))
            if stat and stat[0] != "Z" and int(stat[1]) == parent:
                found.append(int(entry))
    return sorted(found)


def parent(pid: int) -> int:
    """The parent of a process; 0 if there is no such process."""
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def age(pid: int) -> float:
    """For how many seconds a process has existed; 0 if there is no such process."""
    stat = _stat(pid)
    if stat is None:
        return 0
    started = int(stat[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text().split()[0]) - started


def program(pid: int) -> str:
    """The file name of a process's program; empty if there is no such process."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)").rpartition("/")[2]
    except PermissionError:
        # An ordinary user may not look at what has made itself undumpable; a supervisor begins its
        # command line with its name.
        return title(pid).partition(":")[0]
    except OSError:
        return ""


def title(pid: int) -> str:
    """What ``ps`` shows as the command of a process."""
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").replace(b"\0", b" ").decode()
        )
    except OSError:
        return ""


def marked(mark: str) -> list[int]:
    """The running processes that carry ``mark`` in their environment, but for the tests."""
    return belonging(-1, mark)


def belonging(session: int, mark: str) -> list[int]:
    """The running processes of a session, and those that carry ``mark`` in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        stat = _stat(int(entry))
        if stat is None or stat[0] == "Z":
            continue
        if int(stat[3]) == session:
            found.append(int(entry))
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment:
            found.append(int(entry))
    return sorted(found)


def connections(port: int) -> int:
    """How many connections the server's side of a port has, but for those it has left for good."""
    # proc(5), the states of include/net/tcp_states.h: LISTEN and TIME_WAIT belong to no process.
    listen, time_wait = "0A", "06"
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if int(local.rpartition(":")[2], 16) == port and state not in (listen, time_wait):
            count += 1
    return count


def asleep(pid: int) -> bool:
    """Whether every thread of a process waits for something."""
    try:
        tasks = [Path(f"/proc/{pid}/task/{task}/stat") for task in os.listdir(f"/proc/{pid}/task")]
        states = [task.read_text().rpartition(")")[2].split()[0] for task in tasks]
    except OSError:
        return False
    return all(state == "S" for state in states)


def maps(pid: int) -> str:
    """The memory map of a process, as text."""
    return Path(f"/proc/{pid}/maps").read_text()


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> dict[int, str]:
    """What a process has open, by number; nothing where only root may look."""
    found = {}
    try:
        entries = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return found
    for entry in entries:
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
    return found


def status(pid: int) -> dict[str, str]:
    """``/proc/PID/status``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def proportional_kib(pid: int) -> int:
    """The proportional set size of a process in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no Pss")


def resident_kib(pid: int) -> int:
    """The resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"process {pid} has no VmRSS")
