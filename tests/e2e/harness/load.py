"""A bounded load of simple requests that counts what fails."""

from __future__ import annotations

import threading

from .client import Connection, Truncated


class Load:
    """Clients that repeat one request until the block is left.

    ``keep_alive`` clients reuse their connection, as browsers do: one that the server closed while
    it was idle is replaced, which is no failure. Any other answer than ``good`` is one.
    """

    def __init__(self, port, target="/", clients=4, keep_alive=False, good=None, pause=0.0):
        self.port = port
        self.target = target
        self.keep_alive = keep_alive
        self.good = good or (lambda response: response.status == 200)
        self.pause = pause
        self.done = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int, timeout: float = 60) -> None:
        """Waits until so many more requests have been answered."""
        goal = self.done + count
        pulse = threading.Event()
        for _ in range(int(timeout / 0.01)):
            if self.done >= goal or self.failures:
                return
            pulse.wait(0.01)
        raise AssertionError(f"only {self.done} of {goal} requests were answered")

    def _client(self) -> None:
        connection = None
        while not self._stop.wait(self.pause) if self.pause else not self._stop.is_set():
            reused = connection is not None
            try:
                if connection is None:
                    connection = Connection(self.port)
                headers = {} if self.keep_alive else {"Connection": "close"}
                connection.request(self.target, headers=headers)
                response = connection.read_response()
            except (Truncated, ConnectionError) as error:
                idle = reused and (connection is None or not connection.buffer)
                connection.close() if connection else None
                connection = None
                if not idle:
                    self._failed(repr(error))
                continue
            except Exception as error:
                self._failed(repr(error))
                connection.close() if connection else None
                connection = None
                continue
            with self._lock:
                self.done += 1
            if not self.good(response):
                self._failed(f"{response.status} {response.body[:200]!r}")
            if not self.keep_alive or response.header("Connection") == "close":
                connection.close()
                connection = None
        if connection:
            connection.close()

    def _failed(self, what: str) -> None:
        with self._lock:
            self.failures.append(what)
