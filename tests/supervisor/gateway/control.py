"""The messages between supervisor and worker, as src/daemon/control.rs has them."""

import struct

REASONS = [
    "shutdown_signal",
    "graceful_signal",
    "eviction_signal",
    "maximum_requests",
    "restart_interval",
    "inactivity_timeout",
    "request_timeout",
    "startup_timeout",
    "deadlock_timeout",
    "cpu_time_limit",
    "script_reload",
    "max_rss",
    "supervisor_gone",
]


def _text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(value)) + value


def _script(script):
    group, path = script
    return _text(group) + _text(path)


def ready(pid):
    return b"\1" + struct.pack("<I", pid)


def failed(text, script=None):
    return b"\2" + (b"\1" + _script(script) if script else b"\0") + _text(text)


def loaded(script):
    return b"\3" + _script(script)


def stale(script, mtime_us):
    return b"\4" + _script(script) + struct.pack("<q", mtime_us)


def retire(reason):
    return b"\5" + bytes([REASONS.index(reason)])


def paused(reason):
    return b"\6" + bytes([REASONS.index(reason)])


DRAINED = b"\7"


def log(level, line):
    return b"\10" + bytes([level]) + _text(line)


def decode(packet):
    """What the supervisor says: a name and its fields."""
    kind, rest = packet[0], packet[1:]
    if kind == 1:
        return ("go",)
    if kind == 2:
        return ("drain", REASONS[rest[0]])
    if kind == 3:
        fields = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", rest)
            fields.append(rest[4 : 4 + length].decode())
            rest = rest[4 + length :]
        return ("stays_old", tuple(fields), *struct.unpack("<qI", rest))
    if kind in (4, 5):
        return ("interrupt" if kind == 4 else "dump_request", *struct.unpack("<HI", rest))
    return {6: ("dump_all",), 7: ("fork",)}[kind]
