"""Reads the whole request body in pieces of 64 KiB and answers its length."""


def application(environ, start_response):
    read = environ["wsgi.input"].read
    total = 0
    while piece := read(65536):
        total += len(piece)
    body = str(total).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
