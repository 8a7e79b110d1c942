"""WebSockets: what an application may do with them, right and wrong."""

import asyncio
import json

import support
from asgi_support import answer, answer_json, below, introspect, query, routes, serve_lifespan, step

COUNTS = {}
#: The sockets of the room.
ROOM = set()


async def connected(scope, receive, send, **accept):
    """Takes the connection."""
    message = await receive()
    assert message == {"type": "websocket.connect"}, message
    await send({"type": "websocket.accept", **accept})


async def messages(receive):
    """The messages until the end."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        assert message["type"] == "websocket.receive", message
        # One of them is there, and is not None.
        text, data = message.get("text"), message.get("bytes")
        assert (text is None) != (data is None), message
        yield text if data is None else data


async def say(send, message):
    """A message of its own kind."""
    kind = "text" if isinstance(message, str) else "bytes"
    await send({"type": "websocket.send", kind: message})


async def echo(scope, receive, send):
    await connected(scope, receive, send)
    async for message in messages(receive):
        await say(send, message)


async def sizes(scope, receive, send):
    """Answers with the length and the kind of what came."""
    await connected(scope, receive, send)
    async for message in messages(receive):
        await say(send, f"{type(message).__name__} {len(message)}")


async def subprotocol(scope, receive, send):
    await connected(scope, receive, send, subprotocol=scope["subprotocols"][-1])
    await say(send, scope["subprotocols"][-1])
    await send({"type": "websocket.close"})


async def headers(scope, receive, send):
    """Header fields of the handshake's answer."""
    fields = [(b"x-one", b"1"), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await connected(scope, receive, send, headers=fields)
    await send({"type": "websocket.close"})


async def close(scope, receive, send):
    """Closes with what the query says."""
    await connected(scope, receive, send)
    told = query(scope)
    code = {"code": int(told["code"])} if "code" in told else {}
    reason = {"reason": told["reason"]} if "reason" in told else {}
    await send({"type": "websocket.close", **code, **reason})
    if "file" in told:
        support.note(told["file"], str((await receive())["code"]))


async def told(scope, receive, send):
    """Notes how the other side has closed."""
    await connected(scope, receive, send)
    message = await receive()
    while message["type"] != "websocket.disconnect":
        message = await receive()
    support.note(query(scope)["file"], json.dumps([message["code"], message.get("reason")]))


async def refuse(scope, receive, send):
    await receive()
    await send({"type": "websocket.close", "code": 4000})


async def deny(scope, receive, send):
    """Answers the handshake by HTTP."""
    await receive()
    fields = [(b"content-type", b"text/plain"), (b"x-why", b"full")]
    start = {"type": "websocket.http.response.start", "status": 429, "headers": fields}
    await send(start)
    for part in (b"not ", b"now"):
        body = {"type": "websocket.http.response.body", "body": part, "more_body": part != b"now"}
        await send(body)


async def slow_accept(scope, receive, send):
    await receive()
    await step(query(scope)["gate"])
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close"})


async def broken_before(scope, receive, send):
    raise RuntimeError("broken on purpose")


async def broken(scope, receive, send):
    await connected(scope, receive, send)
    raise RuntimeError("broken on purpose")


async def broken_at_the_end(scope, receive, send):
    await connected(scope, receive, send)
    async for _ in messages(receive):
        pass
    raise RuntimeError("broken on purpose")


async def silent(scope, receive, send):
    """Returns without a word."""


async def leaves(scope, receive, send):
    """Returns without closing."""
    await connected(scope, receive, send)


ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "x"}
#: Messages of which the last one must be refused.
WRONG = {
    "send-first": [SEND],
    "accept-twice": [ACCEPT, ACCEPT],
    "unknown-type": [{"type": "websocket.nothing"}],
    "http": [{"type": "http.response.start", "status": 200, "headers": []}],
    "send-nothing": [ACCEPT, {"type": "websocket.send"}],
    "text-that-is-bytes": [ACCEPT, {"type": "websocket.send", "text": b"x"}],
    "bytes-that-are-text": [ACCEPT, {"type": "websocket.send", "bytes": "x"}],
    "text-with-surrogate": [ACCEPT, {"type": "websocket.send", "text": "\ud800"}],
    "close-code-5": [ACCEPT, {"type": "websocket.close", "code": 5}],
    "close-code-1005": [ACCEPT, {"type": "websocket.close", "code": 1005}],
    "deny-after-accept": [
        ACCEPT,
        {"type": "websocket.http.response.start", "status": 403, "headers": []},
    ],
    "bad-subprotocol": [{**ACCEPT, "subprotocol": "a\r\nb"}],
    "bad-header": [{**ACCEPT, "headers": [(b"x", b"a\r\nb")]}],
}


async def wrong(scope, receive, send):
    """Sends one of :data:`WRONG`; ``caught`` goes on properly."""
    await receive()
    told = query(scope)
    *right, last = WRONG[told["name"]]
    for message in right:
        await send(message)
    if "caught" not in told:
        return await send(last)
    try:
        await send(last)
        text = "not refused"
    except Exception as error:
        text = type(error).__name__
    if not right:
        await send(ACCEPT)
    await say(send, text)
    await send({"type": "websocket.close"})


async def send_after_close(scope, receive, send):
    await connected(scope, receive, send)
    await send({"type": "websocket.close"})
    try:
        await send(SEND)
        text = "nothing"
    except Exception as error:
        text = type(error).__name__
    support.note(query(scope)["file"], text)


async def send_to_nobody(scope, receive, send):
    """Sends when the other side has gone: OSError, or nothing (ASGI)."""
    await connected(scope, receive, send)
    async for _ in messages(receive):
        pass
    try:
        await send(SEND)
        text = "nothing"
    except OSError:
        text = "OSError"
    support.note(query(scope)["file"], text)


async def flood(scope, receive, send):
    """Sends messages of 64 KiB and counts those that ``send`` has taken."""
    await connected(scope, receive, send)
    told = query(scope)
    COUNTS[told["name"]] = 0
    for _ in range(int(told["count"])):
        await send({"type": "websocket.send", "bytes": b"x" * 65536})
        COUNTS[told["name"]] += 1
    await send({"type": "websocket.close"})


async def deaf(scope, receive, send):
    """Receives nothing before the gate opens, then counts."""
    await connected(scope, receive, send)
    await step(query(scope)["gate"])
    total = 0
    async for message in messages(receive):
        if message == "how many":
            await say(send, str(total))
        total += 1


async def beside(scope, receive, send):
    """One task receives, another one sends."""
    await connected(scope, receive, send)

    async def count():
        for i in range(10):
            await say(send, str(i))
            await asyncio.sleep(0.001)

    task = asyncio.create_task(count())
    async for message in messages(receive):
        await say(send, message)
    await task


async def room(scope, receive, send):
    """What one says, all hear."""
    await connected(scope, receive, send)
    ROOM.add(send)
    try:
        async for message in messages(receive):
            for other in list(ROOM):
                await say(other, message)
    finally:
        ROOM.discard(send)


async def look(scope, receive, send):
    await answer_json(send, {**introspect(), "room": len(ROOM)})


async def count(scope, receive, send):
    await answer(send, str(COUNTS.get(query(scope)["name"], 0)))


async def hello(scope, receive, send):
    await answer(send, b"Hello, world\n")


ROUTES = routes(globals())


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    route = ROUTES[below(scope)]
    is_http = route in (look, count, hello)
    assert (scope["type"] == "http") == is_http, scope["type"]
    await route(scope, receive, send)
