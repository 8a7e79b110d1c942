"""Streams as many bytes as the query string says, in pieces of 64 KiB, length declared."""

PIECE = b"x" * 65536


def application(environ, start_response):
    size = int(environ["QUERY_STRING"])
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
    )
    return stream(size)


def stream(size):
    while size >= len(PIECE):
        yield PIECE
        size -= len(PIECE)
    if size:
        yield PIECE[:size]
