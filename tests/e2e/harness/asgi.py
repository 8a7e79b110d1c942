"""What the tests of ASGI share: messages of the error log, and waiting for figures."""

from __future__ import annotations

import time

#: The application raised: 500, or a visible cut if something had been sent; 1011 of a WebSocket.
RAISED = "RWSGI0650: "
#: It returned before its response was complete.
UNFINISHED = "RWSGI0651: "
#: Its startup failed.
NOT_STARTED = "RWSGI0652: "
#: Its shutdown failed, or did not end.
NOT_ENDED = "RWSGI0653: "
#: uvloop was asked for and is not there.
NO_UVLOOP = "RWSGI0655: "
#: A request took longer than request-timeout.
TOO_LONG = "RWSGI0656: "
#: A task raised SystemExit.
EXITED = "RWSGI0657: "
#: Any of them.
ANY = r"RWSGI065\d: "


def stands_still(figure, seconds: float = 0.3, timeout: float = 15):
    """The value of ``figure()`` once it has not changed for so long."""
    deadline = time.monotonic() + timeout
    value, since = figure(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"{value} and still changing"
        time.sleep(0.02)
        fresh = figure()
        if fresh != value:
            value, since = fresh, time.monotonic()
    return value


def line_of(server, file) -> str:
    """The first line of a file that an application writes, once it is there."""
    server.wait_until(
        lambda: file.exists() and file.read_text().endswith("\n"), f"{file.name} was not written"
    )
    return file.read_text().partition("\n")[0]
