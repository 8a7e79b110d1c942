"""How long ordinary requests take while something else goes on: one connection, a request every few
milliseconds, in a process of its own so that it does not wait for what it looks at.

    probe.py PORT PATH      until standard input ends; then the latencies as a line of JSON
"""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import time
from dataclasses import replace

from client import Connection
from workloads import WORKLOADS

#: Seconds between two requests: enough to see a stall, too few to be a load.
PAUSE = 0.003
WORKLOAD = WORKLOADS["asgi-hello"]


class Probe:
    """Runs this file as a program; use it as a context manager, then look at `figures`."""

    def __init__(self, port: int, path: str):
        command = [sys.executable, __file__, str(port), path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.figures: dict[str, float] = {}
        # Its first request is answered.
        self.process.stdout.readline()

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, kind, *_) -> None:
        output = self.process.communicate(timeout=120)[0]
        if kind is None:
            if self.process.returncode:
                raise OSError("an ordinary request failed meanwhile")
            self.figures = json.loads(output)


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    workload = replace(WORKLOAD, path=path)
    taken = []
    with Connection(port, timeout=60) as connection:
        connection.run(workload, 1)
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            start = time.perf_counter()
            connection.run(workload, 1)
            taken.append(time.perf_counter() - start)
    taken.sort()
    figures = {
        "p50_us": statistics.median(taken) * 1e6,
        "p99_us": taken[min(len(taken) - 1, len(taken) * 99 // 100)] * 1e6,
        "max_us": taken[-1] * 1e6,
        "requests": len(taken),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
