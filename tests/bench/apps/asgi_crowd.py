"""What crowd.py asks for: WebSockets that echo, server-sent events, long polls, and a hello.

/publish lets every stream send its next event and every poll end; /waiting?N is answered when N
of them wait.
"""

import asyncio

EVENT = b"data: something happened\n\n"

waiting = set()
changed = asyncio.Event()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http":
        await ROUTES.get(scope["path"], hello)(scope, receive, send)
    else:
        raise NotImplementedError(scope["type"])


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def events(scope, receive, send):
    """A stream with an event for each /publish, until the client goes away."""
    await start(send, b"text/event-stream")
    await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    gone = asyncio.ensure_future(disconnect(receive))
    try:
        while await published(gone):
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    finally:
        gone.cancel()


async def poll(scope, receive, send):
    """Answers at the next /publish."""
    gone = asyncio.ensure_future(disconnect(receive))
    try:
        if await published(gone):
            await answer(send, b"Hello, world!")
    finally:
        gone.cancel()


async def publish(scope, receive, send):
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()
    await answer(send, b"Hello, world!")


async def wait(scope, receive, send):
    while len(waiting) < int(scope["query_string"]):
        changed.clear()
        await changed.wait()
    await answer(send, b"Hello, world!")


async def hello(scope, receive, send):
    await answer(send, b"Hello, world!")


async def disconnect(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def published(gone):
    """Waits for /publish; False: the client went away first."""
    future = asyncio.get_running_loop().create_future()
    waiting.add(future)
    changed.set()
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.discard(future)
    return future.done()


async def start(send, content_type, *more):
    headers = [(b"content-type", content_type), *more]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send, body):
    await start(send, b"text/plain", (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.body", "body": body})


ROUTES = {"/events": events, "/poll": poll, "/publish": publish, "/waiting": wait}
