"""Threads that use the objects of a request while it runs and after it has ended."""

import json
import threading

import support

count = {}
lock = threading.Lock()


def tally(what):
    with lock:
        count[what] = count.get(what, 0) + 1


def attempt(call):
    try:
        call()
        tally("accepted")
    except Exception as error:
        tally(type(error).__name__)


def foreign(environ, start_response):
    """Threads read the body, log, and write, while the request's own thread does, too."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    stream, errors = environ["wsgi.input"], environ["wsgi.errors"]
    stop = threading.Event()

    def read():
        while not stop.is_set():
            attempt(lambda: stream.read(100))
            attempt(lambda: stream.readline(50))
        attempt(stream.readlines)

    def log():
        for _ in range(50):
            attempt(lambda: errors.write("from a foreign thread\n"))
            attempt(errors.flush)

    def send():
        for _ in range(50):
            attempt(lambda: write(b"x"))
            attempt(lambda: start_response("200 OK", []))

    workers = [threading.Thread(target=work) for work in (read, read, log, send, send)]
    for worker in workers:
        worker.start()
    for _ in range(20):
        attempt(lambda: write(b"y"))
        attempt(lambda: stream.read(10))
    stop.set()
    if support.query(environ).get("join"):
        for worker in workers:
            worker.join()
    return [b"z"]


def report(environ, start_response):
    """Waits for all threads; what their calls came to."""
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and thread is not threading.current_thread():
            thread.join(20)
    return support.answer(start_response, json.dumps(count), content_type="application/json")


def read_all(environ, start_response):
    """Reads its body, whatever comes, and answers."""
    try:
        length = len(environ["wsgi.input"].read())
    except OSError:
        length = -1
    return support.answer(start_response, str(length))


def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (b"x" * 1000 for _ in range(200))


def work(environ, start_response):
    total = sum(i * i for i in range(2000))
    return support.answer(start_response, str(total))


ROUTES = {"/foreign": foreign, "/report": report, "/read": read_all, "/stream": stream}


def application(environ, start_response):
    return ROUTES.get(environ["PATH_INFO"], work)(environ, start_response)
