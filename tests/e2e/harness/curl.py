"""HTTP/2 (and whatever else) through curl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass
class CurlResponse:
    """What curl reported."""

    code: int
    status: int
    protocol: str
    headers: list[tuple[str, str]]
    body: bytes
    error: str

    def header(self, name: str) -> str | None:
        """The first header field of that name."""
        for field, value in self.headers:
            if field.lower() == name.lower():
                return value
        return None


def curl(url: str, *options: str, data: bytes | None = None, timeout: int = 30) -> CurlResponse:
    """One request; ``code`` is curl's exit code, not 0 where the response was cut short."""
    command = ["curl", "--silent", "--show-error", "--insecure", "--noproxy", "*", "--include"]
    command += ["--max-time", str(timeout)]
    if data is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(
        [*command, *options, url], input=data, capture_output=True, timeout=timeout + 10
    )
    rest = done.stdout
    protocol, status, headers = "", 0, []
    while rest.startswith(b"HTTP/"):
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        protocol, code, *_ = first.split(" ", 2)
        status = int(code)
        headers = [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)]
        # An interim response, the switch to h2c, or a challenge that curl has met (without its
        # body), is followed by the real one.
        if status >= 200 and not (status == 401 and rest.startswith(b"HTTP/")):
            break
    return CurlResponse(done.returncode, status, protocol, headers, rest, done.stderr.decode())
