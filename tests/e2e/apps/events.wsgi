"""Subscribes to events, notes what it is told, and behaves as the path says.

``/of?path=P`` tells the events of the requests for P, each as its name and its payload.
"""

import json
import os
import signal
import threading
import time
from wsgiref.validate import validator

import mod_wsgi
import support

EVENTS = []


def plain(value):
    """What JSON can say of a value."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if isinstance(key, str)}
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], BaseException):
        return [value[0].__name__, str(value[1]), type(value[2]).__name__]
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return type(value).__name__


def path_of(event):
    return event["request_data"].get("path")


@mod_wsgi.subscribe_events
def note(name, **event):
    if name == "request_started":
        event["request_data"]["path"] = event["request_environ"]["PATH_INFO"]
        event["request_environ"]["tests.event"] = "seen"
        assert mod_wsgi.request_data() is event["request_data"]
        if event["request_environ"]["PATH_INFO"] == "/slow":
            for _ in range(3000):
                time.sleep(0.01)
    if "request_data" in event:
        EVENTS.append((name, path_of(event), plain(event)))


def of(environ, start_response):
    path = support.query(environ)["path"]
    events = [(name, event) for name, of, event in EVENTS if of == path]
    return support.answer(start_response, json.dumps(events))


def fine(environ, start_response):
    assert environ["tests.event"] == "seen"
    mod_wsgi.request_data()["from"] = "application"
    return support.answer(start_response, "fine")


def echo(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return support.answer(start_response, body)


def stream(environ, start_response):
    start_response("201 Created", [("Content-Type", "text/plain")])
    return iter([b"one ", b"two ", b"three"])


def raising(environ, start_response):
    raise KeyError("broken")


def raising_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    raise ValueError("too late")


class Unclosable:
    def __iter__(self):
        return iter([b"body"])

    def close(self):
        raise OSError("not closed")


def raising_in_close(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Unclosable()


def exiting(environ, start_response):
    raise SystemExit(3)


def replacing(environ, start_response):
    """Its second start_response has exc_info."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise RuntimeError("on the way")
    except RuntimeError:
        import sys

        start_response("503 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"sorry"]


def bad_head(environ, start_response):
    """Its head is not valid, of which it is told after the event."""
    try:
        start_response("no status", [])
    except ValueError:
        return support.answer(start_response, "refused")


def data(environ, start_response):
    """Who has request_data, and what it is."""
    found = {"same": mod_wsgi.request_data() is mod_wsgi.request_data()}

    def elsewhere():
        try:
            mod_wsgi.request_data()
        except RuntimeError as error:
            found["thread"] = str(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    return support.answer(start_response, json.dumps(found))


def active(environ, start_response):
    """The running requests."""
    running = {key: plain(value) for key, value in mod_wsgi.active_requests.items()}
    own = environ.get("mod_wsgi.request_id")
    answer = {"own": own, "running": running, "dict": type(mod_wsgi.active_requests).__name__}
    return support.answer(start_response, json.dumps(answer))


def hold(environ, start_response):
    """Runs until the gate is opened."""
    query = support.query(environ)
    mod_wsgi.request_data()["held"] = query["file"]
    support.note(query["file"], "begun")
    support.wait(query["gate"])
    return support.answer(start_response, "held")


def subscribe(environ, start_response):
    """Has events of the process noted in a file."""
    file = support.query(environ)["file"]

    def told(name, **event):
        support.note(file, json.dumps(["events", name, event]))

    @mod_wsgi.subscribe_shutdown
    def stopping(name, **event):
        support.note(file, json.dumps(["shutdown", name, event]))

    @mod_wsgi.subscribe_signals
    def signalled(name, **event):
        support.note(file, json.dumps(["signals", name, event]))

    mod_wsgi.subscribe_events(
        lambda name, **event: told(name, **event) if name.startswith("process") else None
    )
    assert callable(stopping) and callable(signalled)
    return support.answer(start_response, str(os.getpid()))


def burn(environ, start_response):
    """Uses a second of the processor."""
    while time.process_time() < 1.1:
        pass
    return support.answer(start_response, "burnt")


STOPPING = threading.Event()


def until_stopping(environ, start_response):
    """Answers when the process stops, as an application that waits for news does."""
    mod_wsgi.subscribe_shutdown(lambda name, **event: STOPPING.set())
    support.note(support.query(environ)["file"], "begun")
    assert STOPPING.wait(15)
    return support.answer(start_response, str(os.getpid()))


def forking(environ, start_response):
    """A process forked off this one signals itself; how it ends."""
    child = os.fork()
    if child == 0:
        for sign in (signal.SIGHUP, signal.SIGUSR2):
            os.kill(os.getpid(), sign)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    return support.answer(start_response, str(os.waitstatus_to_exitcode(status)))


def hanging(environ, start_response):
    """Its process does not want to stop."""
    mod_wsgi.subscribe_shutdown(lambda name, **event: time.sleep(30))
    return support.answer(start_response, str(os.getpid()))


PATHS = {
    function.__name__.replace("_", "-"): function
    for function in (of, fine, echo, stream, raising, raising_in_close, exiting, replacing)
    + (raising_late, bad_head, data, active, hold, subscribe, burn, until_stopping, forking, hanging)
}


def bare(environ, start_response):
    return PATHS[environ["PATH_INFO"].strip("/")](environ, start_response)


application = validator(bare)
