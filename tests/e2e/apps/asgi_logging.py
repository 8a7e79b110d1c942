"""What an ASGI application says, from wherever it says it."""

import asyncio
import contextvars
import logging
import sys
import threading
import warnings

from asgi_support import answer, below, query, routes, serve_lifespan, start, step

logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s", level=logging.INFO)


async def speak(scope, receive, send):
    print("printed by print")
    print("printed to stderr", file=sys.stderr)
    sys.stdout.write("written to stdout\n")
    logging.info("logged")
    await answer(send, b"said")


async def speak_after_waiting(scope, receive, send):
    await asyncio.sleep(0.01)
    print("said after waiting by", query(scope)["name"])
    await answer(send, b"said")


async def child_task(scope, receive, send):
    async def child():
        await asyncio.sleep(0)
        print("said by a child task")

    await asyncio.create_task(child())
    await answer(send, b"said")


async def executor(scope, receive, send):
    """asyncio.to_thread takes the context with it; run_in_executor does not."""
    await asyncio.to_thread(print, "said by to_thread")
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, context.run, print, "said by run_in_executor")
    await answer(send, b"said")


async def callback(scope, receive, send):
    done = asyncio.Event()

    def said():
        print("said by call_soon")
        done.set()

    asyncio.get_running_loop().call_soon(said)
    await done.wait()
    await answer(send, b"said")


async def plain_thread(scope, receive, send):
    """A thread of one's own: it belongs to no request."""
    thread = threading.Thread(target=print, args=("said by a thread",))
    thread.start()
    thread.join()
    await answer(send, b"said")


async def after_the_end(scope, receive, send):
    await answer(send, b"said")
    await step(query(scope)["gate"])
    print("said after the end")


async def lost_task(scope, receive, send):
    """A task whose exception nobody fetches; asyncio tells of it when it is collected."""

    async def fail():
        raise ValueError("nobody fetches this")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    await answer(send, b"said")


async def warned(scope, receive, send):
    warnings.warn("a warning of the application", stacklevel=1)
    await answer(send, b"said")


async def long_line(scope, receive, send):
    print("x" * 20_000 + "end of the long line")
    print("two\nlines")
    await answer(send, b"said")


async def broken_in_mid_body(scope, receive, send):
    await start(send)
    raise RuntimeError("broken on purpose")


ROUTES = routes(globals())


async def websocket(scope, receive, send):
    print("said at the handshake")
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        print("said of", message["text"])
        await send({"type": "websocket.send", "text": "said"})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        print("said at the startup")
        return await serve_lifespan(receive, send)
    if scope["type"] == "websocket":
        return await websocket(scope, receive, send)
    await ROUTES[below(scope)](scope, receive, send)
