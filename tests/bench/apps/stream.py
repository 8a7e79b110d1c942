"""1000 pieces of 1 KiB from a generator, no length declared: each piece must be sent at once."""

PIECE = b"x" * 1024


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (PIECE for _ in range(1000))
