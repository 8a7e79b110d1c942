"""Server-sent events: the time, once a second. Plain ASGI, without any package. See events.conf.

In a page: `new EventSource("/time").onmessage = event => console.log(event.data)`.
"""

import asyncio
import time

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


async def application(scope, receive, send):
    assert scope["type"] == "http", scope["type"]
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    sender = asyncio.create_task(tell_the_time(send))
    # The request, then nothing until the client has gone.
    while (await receive())["type"] != "http.disconnect":
        pass
    sender.cancel()


async def tell_the_time(send):
    while True:
        data = b"data: %s\n\n" % time.strftime("%H:%M:%S").encode()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        await asyncio.sleep(1)
