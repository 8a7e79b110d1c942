"""What `mod_wsgi` tells of requests, processes and the server; and requests to be told of."""

import gc
import json
import os
import time
from urllib.parse import parse_qsl
from wsgiref.validate import validator

import mod_wsgi
import support


def start(environ):
    return mod_wsgi.start_recording_metrics()


def request(environ):
    return mod_wsgi.request_metrics()


def process(environ):
    return mod_wsgi.process_metrics()


def server(environ):
    return mod_wsgi.server_metrics()


def pid(environ):
    return [os.getpid(), environ["mod_wsgi.thread_id"], mod_wsgi.application_group]


def compute(environ):
    """Uses the processor for 0.2 s."""
    deadline = time.thread_time() + 0.2
    while time.thread_time() < deadline:
        pass
    return None


def collect(environ):
    for _ in range(int(environ["QUERY_STRING"] or 3)):
        gc.collect()
    return None


def read(environ):
    """Reads the body in portions of 1000 bytes."""
    stream = environ["wsgi.input"]
    total = 0
    while data := stream.read(1000):
        total += len(data)
    return total


def fork(environ):
    """What a process is told that the application has forked."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        mod_wsgi.start_recording_metrics()
        told = [mod_wsgi.request_metrics(), mod_wsgi.process_metrics()]
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:
        told = json.load(file)
    os.waitpid(child, 0)
    return told


def hold(environ):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    with open(query["file"], "w"):
        support.wait(query["gate"])
    return None


def answer(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    if name.isdigit():
        start_response(f"{name} Whatever", [("Content-Type", "text/plain")])
        return [b"first", b"second"]
    if name == "raise":
        raise ValueError("meant to be")
    result = globals()[name](environ)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]


application = validator(answer)
