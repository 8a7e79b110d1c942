"""ASGI over HTTP: what an application may ask and say, right and wrong."""

import asyncio
import contextvars
import hashlib
import json
import os
import threading
import time

import support
from asgi_support import (
    answer,
    answer_json,
    below,
    introspect,
    part,
    query,
    read,
    routes,
    serve_lifespan,
    start,
    step,
)

#: Counters that tests read with ``/count?name=``.
COUNTS = {}


async def hello(scope, receive, send):
    await answer(send, b"Hello, world\n")


async def pid(scope, receive, send):
    await answer(send, str(os.getpid()))


async def look(scope, receive, send):
    await answer_json(send, introspect())


async def count(scope, receive, send):
    await answer(send, str(COUNTS.get(query(scope)["name"], 0)))


# Requests


async def echo(scope, receive, send):
    await answer(send, await read(receive))


async def digest(scope, receive, send):
    """Reads piece by piece, and tells what the pieces were."""
    told, sizes, digest = query(scope), [], hashlib.sha256()
    while True:
        message = await receive()
        if "gate" in told:
            await step(told["gate"])
        assert message["type"] == "http.request", message
        sizes.append(len(message["body"]))
        digest.update(message["body"])
        if not message["more_body"]:
            break
    await answer_json(send, {"sizes": sizes, "sha256": digest.hexdigest()})


async def first_piece(scope, receive, send):
    """Answers with the first piece of the body, and whether there is more."""
    message = await receive()
    await answer_json(send, [message["body"].decode("latin-1"), message["more_body"]])


async def unread(scope, receive, send):
    """Answers a request without looking at its body."""
    await answer(send, b"unread")


async def slow_reader(scope, receive, send):
    """Counts what it has received; the gate is opened before each piece."""
    told = query(scope)
    COUNTS[told["name"]] = 0
    while True:
        await step(told["gate"])
        message = await receive()
        COUNTS[told["name"]] += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, str(COUNTS[told["name"]]))


async def after_the_body(scope, receive, send):
    """What ``receive`` gives when the body is read and the response has been sent."""
    await read(receive)
    await answer(send, b"sent")
    message = await receive()
    support.note(query(scope)["file"], message["type"])


async def disconnect_while_reading(scope, receive, send):
    """Notes the message that ends the body."""
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message["more_body"]:
            break
    support.note(query(scope)["file"], message["type"])


# Responses


async def stream(scope, receive, send):
    """Lines, each after a step of the gate; ``length`` declares their length."""
    told = query(scope)
    number = int(told["count"])
    headers = [(b"content-length", b"%d" % (2 * number))] if "length" in told else []
    await start(send, headers=headers)
    for i in range(number):
        await step(told["gate"])
        await part(send, b"%d\n" % i)
    await part(send, more=False)


async def blob(scope, receive, send):
    """So many bytes in one message."""
    await answer(send, b"b" * int(query(scope)["size"]))


async def head_only(scope, receive, send):
    """The head at once, the body after a step."""
    await start(send)
    await step(query(scope)["gate"])
    await part(send, b"late", more=False)


async def flood(scope, receive, send):
    """Sends pieces of 64 KiB and counts those that ``send`` has taken."""
    told = query(scope)
    COUNTS[told["name"]] = 0
    piece = b"x" * 65536
    await start(send)
    for _ in range(int(told["count"])):
        await part(send, piece)
        COUNTS[told["name"]] += 1
    await part(send, more=False)


async def status(scope, receive, send):
    """A status without a body, or with one where it may have none."""
    told = query(scope)
    await start(send, int(told["code"]))
    await part(send, told.get("body", "").encode(), more=False)


async def short(scope, receive, send):
    await start(send, headers=[(b"content-length", b"10")])
    await part(send, b"short", more=False)


async def long(scope, receive, send):
    await start(send, headers=[(b"content-length", b"5")])
    await part(send, b"longer than that", more=False)


async def short_in_pieces(scope, receive, send):
    await start(send, headers=[(b"content-length", b"10")])
    await part(send, b"short")
    await part(send, more=False)


async def long_in_pieces(scope, receive, send):
    await start(send, headers=[(b"content-length", b"10")])
    await part(send, b"short")
    await part(send, b"longer than that", more=False)


async def silent(scope, receive, send):
    """Returns without an answer."""


async def silent_after_head(scope, receive, send):
    await start(send)


async def silent_in_mid_body(scope, receive, send):
    await start(send)
    await part(send, b"half")


async def broken(scope, receive, send):
    raise RuntimeError("broken on purpose")


async def broken_after_head(scope, receive, send):
    await start(send)
    raise RuntimeError("broken on purpose")


async def broken_in_mid_body(scope, receive, send):
    await start(send)
    await part(send, b"half")
    raise RuntimeError("broken on purpose")


async def broken_after_end(scope, receive, send):
    await answer(send, b"whole")
    raise RuntimeError("broken on purpose")


async def exits(scope, receive, send):
    raise SystemExit(3)


async def cancels_itself(scope, receive, send):
    raise asyncio.CancelledError


async def working_after_end(scope, receive, send):
    """A background task, as Starlette has it: work after the response."""
    await answer(send, b"whole")
    told = query(scope)
    await step(told["gate"])
    support.note(told["file"], "done")


START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
#: Messages of which the last one must be refused.
WRONG = {
    "body-first": [BODY],
    "start-twice": [START, START],
    "unknown-type": [{"type": "http.response.nothing"}],
    "other-protocol": [{"type": "websocket.accept"}],
    "no-type": [{"status": 200, "headers": []}],
    "no-dict": [None],
    "no-status": [{"type": "http.response.start", "headers": []}],
    "text-status": [{**START, "status": "200"}],
    "status-99": [{**START, "status": 99}],
    "status-101": [{**START, "status": 101}],
    "status-1000": [{**START, "status": 1000}],
    "text-header": [{**START, "headers": [("name", "value")]}],
    "header-of-three": [{**START, "headers": [(b"a", b"b", b"c")]}],
    "header-with-line-end": [{**START, "headers": [(b"name", b"a\r\nSet-Cookie: b=c")]}],
    "header-with-nul": [{**START, "headers": [(b"name", b"a\0b")]}],
    "header-with-blank-in-name": [{**START, "headers": [(b"na me", b"a")]}],
    "header-with-colon-in-name": [{**START, "headers": [(b"name:", b"a")]}],
    "header-without-name": [{**START, "headers": [(b"", b"a")]}],
    "length-no-number": [{**START, "headers": [(b"content-length", b"five")]}],
    "text-body": [START, {**BODY, "body": "text"}],
    "list-body": [START, {**BODY, "body": [b"text"]}],
}


async def wrong(scope, receive, send):
    """Sends one of :data:`WRONG`; ``caught`` goes on with a proper answer."""
    told = query(scope)
    *right, last = WRONG[told["name"]]
    for message in right:
        await send(message)
    if "caught" not in told:
        await send(last)
        return
    try:
        await send(last)
    except Exception as error:
        name = type(error).__name__.encode()
        if not right:
            await answer(send, name)
        else:
            await part(send, name, more=False)
        return
    await part(send, b"not refused", more=False)


async def after_the_end(scope, receive, send):
    """A message after the last one."""
    await answer(send, b"whole")
    try:
        await part(send, b"more")
    except Exception as error:
        support.note(query(scope)["file"], type(error).__name__)
    else:
        support.note(query(scope)["file"], "nothing")


async def headers(scope, receive, send):
    """Sends the fields that the request's body lists."""
    fields = [
        (n.encode("latin-1"), v.encode("latin-1")) for n, v in json.loads(await read(receive))
    ]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await part(send, b"body", more=False)


async def lazy_values(scope, receive, send):
    """What the specification leaves out may be left out; sequences may be of any kind."""
    fields = ([name, value] for name, value in [(b"x-one", b"1"), (b"X-Two", b" 2 ")])
    await send({"type": "http.response.start", "status": 201, "headers": fields})
    await send({"type": "http.response.body", "body": bytearray(b"one,"), "more_body": True})
    await send({"type": "http.response.body", "body": memoryview(b"two"), "more_body": True})
    await send({"type": "http.response.body"})


async def hints(scope, receive, send):
    """Two times early hints."""
    for links in ([b"</a.css>; rel=preload; as=style", b"</b.js>; rel=preload"], [b"</c>; rel=x"]):
        await send({"type": "http.response.early_hint", "links": links})
        if "gate" in query(scope):
            await step(query(scope)["gate"])
    await answer(send, b"hinted")


async def pathsend(scope, receive, send):
    """A file; ``piece`` sends something before it."""
    told = query(scope)
    size = [(b"content-length", told["length"].encode())] if "length" in told else []
    await start(send, headers=size, content_type=b"application/octet-stream")
    await send({"type": "http.response.pathsend", "path": told["path"]})


async def trailers(scope, receive, send):
    """Fields behind a body or a file, in ``count`` + 1 messages; ``name`` is in the last."""
    told = query(scope)
    count = int(told.get("count", "0"))
    await send({**START, "headers": [(b"trailer", b"x-sum")], "trailers": True})
    if "path" in told:
        await send({"type": "http.response.pathsend", "path": told["path"]})
    else:
        await part(send, b"body", more=False)
    if "missing" in told:
        return
    for number in range(count):
        fields = [(f"x-{number}".encode(), str(number).encode())]
        await send({"type": "http.response.trailers", "headers": fields, "more_trailers": True})
    fields = [(told.get("name", "x-sum").encode(), b"42")] if count >= 0 else []
    await send({"type": "http.response.trailers", "headers": fields, "more_trailers": False})


async def offers(scope, receive, send):
    await answer(send, str(query(scope)["name"] in scope["extensions"]))


# Many at once


async def wait(scope, receive, send):
    told = query(scope)
    COUNTS["waiting"] = COUNTS.get("waiting", 0) + 1
    COUNTS["most"] = max(COUNTS.get("most", 0), COUNTS["waiting"])
    try:
        await asyncio.sleep(float(told["seconds"]))
    finally:
        COUNTS["waiting"] -= 1
    await answer(send, str(COUNTS["most"]))


async def hold(scope, receive, send):
    """Notes that it has begun, and waits for the gate."""
    told = query(scope)
    COUNTS[told["name"]] = COUNTS.get(told["name"], 0) + 1
    await step(told["gate"])
    await answer(send, str(os.getpid()))


async def block(scope, receive, send):
    """Blocks the loop, as it must not be done."""
    time.sleep(float(query(scope)["seconds"]))
    await answer(send, b"blocked")


async def threaded(scope, receive, send):
    """Work of a thread, which the loop does not wait for; the context goes with it in tasks."""
    variable = contextvars.ContextVar("variable")
    variable.set("of the request")
    loop = asyncio.get_running_loop()

    def work():
        time.sleep(float(query(scope).get("seconds", 0)))
        return threading.current_thread() is not loop_thread

    loop_thread = threading.current_thread()
    other = await loop.run_in_executor(None, work)

    async def child():
        return variable.get()

    await answer_json(send, [other, await asyncio.create_task(child())])


ROUTES = routes(globals())


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    assert scope["type"] == "http", scope["type"]
    await ROUTES[below(scope)](scope, receive, send)
