"""One bytes object of 10 MiB as the whole response."""

BODY = b"x" * (10 << 20)


def application(environ, start_response):
    start_response(
        "200 OK",
        [("Content-Type", "application/octet-stream"), ("Content-Length", str(len(BODY)))],
    )
    return [BODY]
