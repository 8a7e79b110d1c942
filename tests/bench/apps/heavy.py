"""Computes in byte code for about 30 ms while it never lets go of the GIL of its own accord."""

ROUNDS = 1_300_000
HEADERS = [("Content-Type", "text/plain")]


def application(environ, start_response):
    total = 0
    for i in range(ROUNDS):
        total += i & 7
    body = str(total).encode()
    start_response("200 OK", [*HEADERS, ("Content-Length", str(len(body)))])
    return [body]
