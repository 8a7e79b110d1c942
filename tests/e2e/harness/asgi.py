"""What the tests of ASGI share: messages of the error log, and waiting for figures."""

from __future__ import annotations

import time

#: The application raised before anything was sent: 500.
RAISED = "RWSGI0200: "
#: It raised after the head: a visible cut.
RAISED_LATE = "RWSGI0206: "
#: It raised SystemExit.
EXITED = "RWSGI0201: "
#: Less was sent than its Content-Length said.
SHORT = "RWSGI0203: "
#: Any message about a request or a WebSocket.
ANY = r"RWSGI0[27]\d\d: "


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
