"""What the servers are asked to do: request, application, the answer that counts as right."""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1 << 10
MIB = 1 << 20

# The only headers of the small workloads.
SMALL = {"Accept-Encoding": "identity"}

# What a desktop browser sends, in its order; with Host they are 15.
BROWSER = {
    "Connection": "keep-alive",
    "sec-ch-ua": '"Chromium";v="130", "Not?A_Brand";v="99"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/130.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Referer": "http://localhost/accounts/orders/?page=2",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-US,en;q=0.9",
    "Cookie": "",
}


def _cookie(size: int) -> str:
    """Cookies of together `size` bytes: a session, a CSRF token, and what analytics leave."""
    pairs = [
        "sessionid=3t9vq6mhc2kq9x0z5w1y7r8u4p6s2n1b",
        "csrftoken=Kq7VwX2m9cN4bT1zR8yL5pD3sF6gH0jA",
    ]
    text = "; ".join(pairs)
    number = 0
    while len(text) < size:
        text += (
            f"; _ga_{number:02d}=GS1.1.{1730000000 + number * 7919}.{number}.1.1730003600.60.0.0"
        )
        number += 1
    return text[:size]


BROWSER["Cookie"] = _cookie(KIB)


@dataclass(frozen=True)
class Workload:
    """One kind of request.

    `app` is the script under apps/, `asgi` whether it is an ASGI application, `c_handler` httpd's
    handler for the C system ("" = httpd's own static file, None = the C system does not take part).
    """

    name: str
    app: str
    c_handler: str | None = None
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: dict(SMALL))
    body_bytes: int = 0
    answer_bytes: int | None = 13
    header_count: int | None = None
    connections: int = 16
    asgi: bool = False

    def request(self, host: str) -> bytes:
        """The request as it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body_bytes:
            lines.append(f"Content-Length: {self.body_bytes}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * self.body_bytes


_ALL = [
    Workload("hello", "hello.py", "bench-hello", header_count=2),
    Workload("headers", "headers.py", "bench-headers", headers=BROWSER, header_count=10),
    Workload(
        "echo4k",
        "echo.py",
        "bench-echo",
        method="POST",
        headers={**SMALL, "Content-Type": "application/octet-stream"},
        body_bytes=4 * KIB,
        answer_bytes=4 * KIB,
    ),
    Workload("django", "django_site.py", path="/hello/"),
    Workload("download10m", "body.py", answer_bytes=10 * MIB, connections=4),
    Workload(
        "upload10m", "upload.py", method="POST", body_bytes=10 * MIB, answer_bytes=8, connections=4
    ),
    Workload("stream1000", "stream.py", answer_bytes=1000 * KIB, connections=4),
    Workload("file10m", "file.py", "", path="/file.bin", answer_bytes=10 * MIB, connections=4),
    Workload("sleep10ms", "sleep.py", connections=64),
    Workload("asgi-hello", "asgi_hello.py", header_count=2, asgi=True),
    Workload("fastapi", "asgi_fastapi.py", header_count=2, answer_bytes=25, asgi=True),
    Workload("crowd", "asgi_crowd.py", asgi=True),
]

WORKLOADS = {workload.name: workload for workload in _ALL}
