"""Looks at its process, and does to it what only a process of its own survives."""

import ctypes
import json
import locale
import os
import resource
import signal
import sys
import threading
import time

import support

TEXT = [("Content-Type", "text/plain")]
kept = []


def pid(environ, start_response):
    return support.answer(start_response, str(os.getpid()))


def identity(environ, start_response):
    """Who and where the process is."""
    mask = os.umask(0)
    os.umask(mask)
    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "umask": mask,
        "cwd": os.getcwd(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "path": sys.path,
        "prefix": sys.prefix,
        "executable": sys.executable,
        "argv": sys.argv,
        "version": list(sys.version_info[:3]),
        "environ": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL, None),
        "encoding": sys.getfilesystemencoding(),
        "multithread": environ["wsgi.multithread"],
        "multiprocess": environ["wsgi.multiprocess"],
        "run_once": environ["wsgi.run_once"],
        "limits": {
            name: resource.getrlimit(getattr(resource, name))
            for name in ("RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_CORE")
        },
        "masked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "threads": threading.active_count(),
        "switch_interval": sys.getswitchinterval(),
    }
    return support.answer(start_response, json.dumps(facts), content_type="application/json")


def become_root(environ, start_response):
    """Tries to get back what was given up."""
    results = {}
    for name, call in {"setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0)}.items():
        try:
            call()
            results[name] = "accepted"
        except OSError as error:
            results[name] = type(error).__name__
    return support.answer(start_response, json.dumps(results), content_type="application/json")


def hold(environ, start_response):
    """Notes that it has begun, then waits for the gate."""
    query = support.query(environ)
    if "file" in query:
        support.note(query["file"], "begun")
    support.wait(query["gate"], float(query.get("seconds", "20")))
    return support.answer(start_response, str(os.getpid()))


def sleep(environ, start_response):
    """Waits in Python code, where an exception can be raised in the thread."""
    query = support.query(environ)
    if "file" in query:
        support.note(query["file"], "begun")
    deadline = time.monotonic() + float(query["seconds"])
    while time.monotonic() < deadline:
        time.sleep(0.02)
    return support.answer(start_response, str(os.getpid()))


def stubborn(environ, start_response):
    """As :func:`sleep`, but swallows whatever is raised in it."""
    deadline = time.monotonic() + float(support.query(environ)["seconds"])
    while time.monotonic() < deadline:
        try:
            time.sleep(0.02)
        except BaseException as error:
            print("swallowed", type(error).__name__)
    return support.answer(start_response, str(os.getpid()))


def late_sleep(environ, start_response):
    """The same with the head already sent."""
    start_response("200 OK", TEXT)
    yield b"begun"
    deadline = time.monotonic() + float(support.query(environ)["seconds"])
    while time.monotonic() < deadline:
        time.sleep(0.02)
    yield b"ended"


def hold_gil(environ, start_response):
    """Calls a C function with the GIL held."""
    ctypes.PyDLL(None).sleep(int(support.query(environ)["seconds"]))
    return support.answer(start_response, str(os.getpid()))


def burn(environ, start_response):
    """Uses processor time."""
    end = time.process_time() + float(support.query(environ)["seconds"])
    while time.process_time() < end:
        sum(range(1000))
    return support.answer(start_response, str(os.getpid()))


def allocate(environ, start_response):
    """Takes memory, for good with ``keep``."""
    query = support.query(environ)
    try:
        block = bytearray(int(query["mib"]) << 20)
        block[:: 4096] = b"x" * len(block[:: 4096])
    except MemoryError:
        return support.answer(start_response, "MemoryError")
    if query.get("keep"):
        kept.append(block)
    return support.answer(start_response, str(os.getpid()))


def die(how):
    if how == "exit":
        os._exit(7)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "fatal":
        ctypes.pythonapi.Py_FatalError(b"a fatal error of this test")
    else:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(20)


def dying(environ, start_response):
    """Dies before the answer."""
    die(support.query(environ)["how"])


def dying_later(environ, start_response):
    """Dies in mid-body, which the test has seen to begin."""
    query = support.query(environ)
    length = [("Content-Length", query["length"])] if "length" in query else []
    start_response("200 OK", [*TEXT, *length])
    yield b"first,"
    yield b"second,"
    if "gate" in query:
        support.wait(query["gate"])
    die(query["how"])


def truncated(environ, start_response):
    """Fails in mid-body."""
    query = support.query(environ)
    length = [("Content-Length", query["length"])] if "length" in query else []
    start_response("200 OK", [*TEXT, *length])
    yield b"first,"
    yield b"second,"
    raise ValueError("in mid-body")


def exit_handler(environ, start_response):
    """Registers one that waits."""
    import atexit

    atexit.register(time.sleep, float(support.query(environ)["seconds"]))
    return support.answer(start_response, str(os.getpid()))


def failing(environ, start_response):
    """An error status of the application's own."""
    return support.answer(start_response, "my own error", status="503 My Own")


def talking(environ, start_response):
    """Writes to the log in every way, a thread of its own included."""
    environ["wsgi.errors"].write("by wsgi.errors\n")
    print("by print")
    thread = threading.Thread(target=print, args=("by a thread",))
    thread.start()
    thread.join()
    os.write(2, b"by descriptor 2\n")
    return support.answer(start_response, "said")


def raising(environ, start_response):
    raise ValueError("raised")


def sized(environ, start_response):
    """``size`` bytes in pieces of 64 KiB; notes when it is closed with all of them taken."""
    query = support.query(environ)
    size = int(query["size"])
    start_response("200 OK", [*TEXT, ("Content-Length", str(size))])

    def pieces():
        left = size
        try:
            while left:
                piece = b"s" * min(left, 65536)
                left -= len(piece)
                yield piece
        finally:
            # The last piece is the end of the declared length: nobody asks for another one.
            if "file" in query and left == 0:
                support.note(query["file"], "produced")

    return pieces()


def echo(environ, start_response):
    """Writes back what it reads, while it reads."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(65536), b"")


def unread(environ, start_response):
    """Waits for the gate with the body unread."""
    query = support.query(environ)
    support.note(query["file"], "begun")
    support.wait(query["gate"])
    support.note(query["file"], "ended")
    return support.answer(start_response, str(os.getpid()))


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
