"""Requests that take too long, and what they make of their cancellation."""

import asyncio

import support
from asgi_support import answer, below, part, query, routes, serve_lifespan, start


async def sleep(scope, receive, send):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if "file" in query(scope):
            support.note(query(scope)["file"], "cancelled")
        raise


async def late_sleep(scope, receive, send):
    await start(send)
    await part(send, b"begun")
    await asyncio.sleep(60)


async def handles(scope, receive, send):
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await answer(send, b"handled")


async def stubborn(scope, receive, send):
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass


ROUTES = routes(globals())


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    await ROUTES[below(scope)](scope, receive, send)
