"""What the ASGI test applications share."""

import asyncio
import json
import os
import threading
from urllib.parse import parse_qs

import support


def query(scope):
    """The query string as a dictionary, last value of each name."""
    text = scope["query_string"].decode("latin-1")
    return {name: values[-1] for name, values in parse_qs(text).items()}


def below(scope):
    """The path below the mount point."""
    return scope["path"][len(scope["root_path"]) :]


async def start(send, status=200, headers=(), content_type=b"text/plain"):
    """The head of a response."""
    fields = [(b"content-type", content_type), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})


async def part(send, body=b"", more=True):
    """A piece of its body."""
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def answer(send, body, status=200, headers=(), content_type=b"text/plain"):
    """A plain answer of known length."""
    if isinstance(body, str):
        body = body.encode("utf-8")
    length = (b"content-length", str(len(body)).encode())
    await start(send, status, [length, *headers], content_type)
    await part(send, body, more=False)


async def answer_json(send, value):
    """A JSON answer."""
    await answer(send, json.dumps(value), content_type=b"application/json")


async def read(receive):
    """The whole body of a request."""
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def step(gate):
    """Waits until the test opens its gate for one step, in no thread of the loop's own."""
    await asyncio.get_running_loop().run_in_executor(None, support.wait, gate)


def introspect():
    """What there is in this process, for tests that look for leaks."""
    loop = asyncio.get_running_loop()
    return {
        "pid": os.getpid(),
        "loop": type(loop).__module__.partition(".")[0],
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def routes(namespace):
    """The handlers of a module by path: its coroutine functions whose first argument is ``scope``,
    but for ``application``."""
    return {
        "/" + name.replace("_", "-"): function
        for name, function in namespace.items()
        if asyncio.iscoroutinefunction(function)
        and function.__code__.co_varnames[:3] == ("scope", "receive", "send")
        and name != "application"
    }


async def serve_lifespan(receive, send):
    """The life of an application that has nothing to do in it."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
