"""A file of 10 MiB through wsgi.file_wrapper; the harness makes it beside this script's copy."""

import os

PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "htdocs/file.bin")


def application(environ, start_response):
    size = os.path.getsize(PATH)
    start_response(
        "200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
    )
    return environ["wsgi.file_wrapper"](open(PATH, "rb"), 65536)
