"""Tells the scope, by HTTP and by WebSocket."""

import json

from asgi_support import answer_json, serve_lifespan


def plain(value):
    """A value as JSON can have it; bytes become text, and the types are told apart by ``types``."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def types(scope):
    """The names of the types of the scope's values."""
    return {name: type(value).__name__ for name, value in scope.items()}


def told(scope):
    pairs = list(scope["headers"])
    return {
        "scope": plain(scope),
        "types": types(scope),
        "header_types": sorted({type(part).__name__ for pair in pairs for part in pair}),
    }


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return await serve_lifespan(receive, send)
    if scope["type"] == "http":
        return await answer_json(send, told(scope))
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(told(scope))})
    await send({"type": "websocket.close"})
