"""Requests whose clients go away: what the application learns of it, and what is left."""

import asyncio

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
)

#: How many requests are in their handlers.
INSIDE = {"now": 0}


async def look(scope, receive, send):
    await answer_json(send, {**introspect(), **INSIDE})


async def long_poll(scope, receive, send):
    """Waits for the client to go."""
    await read(receive)
    message = await receive()
    note(scope, message["type"])


async def poll_beside_work(scope, receive, send):
    """As frameworks do it: one task waits for the disconnect and cancels the one that works."""
    await read(receive)
    work = asyncio.create_task(asyncio.sleep(60))
    message = await receive()
    work.cancel()
    note(scope, message["type"])


async def stream(scope, receive, send):
    """Sends until ``send`` raises, the disconnect is told, or the task is cancelled."""
    await start(send)
    try:
        while True:
            await part(send, b"x" * 1000)
            await asyncio.sleep(0.01)
    except OSError:
        note(scope, "OSError")
    except asyncio.CancelledError:
        note(scope, "cancelled")
        raise


async def stream_and_listen(scope, receive, send):
    """Server-sent events: one task sends, the other one waits for the disconnect."""
    await read(receive)
    await start(send, content_type=b"text/event-stream")
    await part(send, b"data: 1\n\n")

    async def listen():
        message = await receive()
        note(scope, message["type"])

    listener = asyncio.create_task(listen())
    await asyncio.wait([listener], timeout=30)


async def late_answer(scope, receive, send):
    """Answers when the client has gone: that harms nobody."""
    await read(receive)
    await receive()
    for _ in range(3):
        try:
            await answer(send, b"too late")
        except OSError:
            pass
    note(scope, "done")


async def again(scope, receive, send):
    """Each further ``receive`` gives a disconnect again."""
    await read(receive)
    note(scope, " ".join([(await receive())["type"] for _ in range(3)]))


def note(scope, text):
    file = query(scope).get("file")
    if file:
        support.note(file, text)


ROUTES = routes(globals())


async def websocket(receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return message["code"]
        await send({"type": "websocket.send", "text": message["text"]})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    if below(scope) == "/look":
        return await look(scope, receive, send)
    INSIDE["now"] += 1
    if "file" in query(scope):
        support.note(query(scope)["file"] + ".begun", "begun")
    try:
        if scope["type"] == "websocket":
            note(scope, str(await websocket(receive, send)))
        else:
            await ROUTES[below(scope)](scope, receive, send)
    finally:
        INSIDE["now"] -= 1
