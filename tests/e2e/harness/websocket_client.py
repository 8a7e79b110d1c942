"""The client of the ``websockets`` package, one call at a time.

It is the asynchronous one: the package's synchronous client reads and writes in two threads, which
the TLS of Python before 3.13 does not bear.
"""

from __future__ import annotations

import asyncio
import ssl

from websockets.asyncio.client import connect


class Client:
    """A WebSocket to ``url`` (of http or https). What takes too long is a failure."""

    def __init__(self, url: str, timeout: float = 20, **options):
        if url.startswith("https"):
            options["ssl"] = ssl.create_default_context()
            options["ssl"].check_hostname = False
            options["ssl"].verify_mode = ssl.CERT_NONE
        options = {"open_timeout": timeout, "close_timeout": timeout, **options}
        self.timeout = timeout
        self.loop = asyncio.new_event_loop()
        try:
            # In the loop, which the client looks for when it is made.
            self.client = self._run(self._connect(url.replace("http", "ws", 1), options))
        except BaseException:
            self.loop.close()
            raise

    @staticmethod
    async def _connect(url, options):
        return await connect(url, **options)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()
        self.loop.close()

    def send(self, message: str | bytes) -> None:
        """Sends a message."""
        self._run(self.client.send(message))

    def recv(self) -> str | bytes:
        """The next message."""
        return self._run(self.client.recv())

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes, and waits until that is done."""
        self._run(self.client.close(code, reason))

    def wait_closed(self) -> None:
        """Waits until the other side has closed."""
        self._run(self.client.wait_closed())

    def _run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, self.timeout))
