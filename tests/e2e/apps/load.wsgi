"""For tests under load: answers with its version, notes the number of each request."""

import os
import time

import support

VERSION = "old"
PAUSE = float(os.environ.get("LOAD_PAUSE", "0"))


def application(environ, start_response):
    path = environ.get("load.file")
    if path:
        support.note(path, f"{environ['PATH_INFO'][1:]} {os.getpid()}")
    if PAUSE:
        time.sleep(PAUSE)
    return support.answer(start_response, f"{VERSION} {os.getpid()}")
