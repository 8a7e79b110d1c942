"""What an interpreter may do, and how long it computes."""

import json
import mmap
import os
import signal
import sys
import threading
import time

import support


def facts(environ, start_response):
    """Python's own view of the interpreter."""
    found = {
        "pid": os.getpid(),
        "path": sys.path,
        "switch_interval": sys.getswitchinterval(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "group": environ["mod_wsgi.application_group"],
        "version": sys.version_info[:2],
    }
    return support.answer(start_response, json.dumps(found), content_type="application/json")


def attempt(environ, start_response):
    """Tries what interpreters with a lock of their own refuse."""
    results = {}
    calls = {
        "daemon thread": lambda: threading.Thread(target=int, daemon=True).start(),
        "thread": lambda: threading.Thread(target=int).start(),
        "extension": lambda: __import__("readline"),
        "subprocess": subprocesses,
        "rwsgi": rwsgi,
    }
    if support.query(environ).get("fork"):
        # Elsewhere but in the main interpreter CPython allows it, and ends the child.
        calls["fork"] = fork
    for name, call in calls.items():
        try:
            call()
            results[name] = "done"
        except Exception as error:
            results[name] = type(error).__name__
    return support.answer(start_response, json.dumps(results), content_type="application/json")


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def subprocesses():
    import subprocess

    done = subprocess.run(["/bin/echo", "42"], capture_output=True, check=True)
    assert done.stdout == b"42\n"


def rwsgi():
    """The gateway's module, where it is a module at all: in a worker."""
    if "_rwsgi" in sys.modules:
        sys.modules["_rwsgi"].worker()
    raise RuntimeError("there is none")


def streams(environ, start_response):
    results = {}
    for name in ("stdin", "stdout"):
        try:
            getattr(sys, name).fileno
            results[name] = "accepted"
        except OSError:
            results[name] = "refused"
        except Exception as error:
            results[name] = type(error).__name__
    before = signal.signal
    results["signal"] = "ignored" if before.__module__ != "signal" else "accepted"
    return support.answer(start_response, json.dumps(results), content_type="application/json")


def together(environ, start_response):
    """Computes until another request does so at the same time.

    The GIL is never given up meanwhile: no call releases it, and no thread asks for it.
    """
    query = support.query(environ)
    own, other = int(query["own"]), 1 - int(query["own"])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    with open(query["file"], "r+b") as file, mmap.mmap(file.fileno(), 2) as shared:
        shared[own] = 1
        end = time.monotonic() + float(query["seconds"])
        while shared[other] == 0 and time.monotonic() < end:
            pass
        met = shared[other] == 1
    sys.setswitchinterval(interval)
    return support.answer(start_response, "together" if met else "alone")


def on_exit(environ, start_response):
    """Notes the end: at exit, and of a thread that goes on until then."""
    import atexit

    path = support.query(environ)["file"]
    atexit.register(support.note, path, "atexit")

    def until_the_end():
        support.note(path, "thread begins")
        stop.wait(1)
        support.note(path, "thread ends")

    stop = threading.Event()
    # A thread that a thread of the server starts would be a daemon one by default.
    threading.Thread(target=until_the_end, daemon=False).start()
    return support.answer(start_response, "registered")


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
