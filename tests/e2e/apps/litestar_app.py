"""Litestar's quick start, and what else it is used for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from litestar import Litestar, WebSocket, get, post, websocket_listener
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.response import ServerSentEvent, Stream


@dataclass
class Item:
    name: str
    price: float


@get("/")
async def index() -> str:
    return "Hello, world!"


@get("/books/{book_id:int}")
async def get_book(book_id: int, state: State) -> dict[str, object]:
    if book_id > 100:
        raise NotFoundException("no such book")
    return {"book_id": book_id, "started": state.started}


@post("/items")
async def add_item(data: Item) -> Item:
    return Item(data.name.upper(), data.price * 2)


@get("/sync", sync_to_thread=True)
def sync() -> dict[str, bool]:
    """In a thread, which has no loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return {"in a thread": True}
    return {"in a thread": False}


async def numbers() -> AsyncIterator[bytes]:
    for i in range(5):
        yield b"%d\n" % i
        await asyncio.sleep(0)


@get("/stream")
async def stream() -> Stream:
    return Stream(numbers())


@get("/events", sync_to_thread=False)
def events() -> ServerSentEvent:
    return ServerSentEvent(iter(["one", "two"]))


@websocket_listener("/greet")
async def greet(data: dict[str, str], socket: WebSocket) -> dict[str, str]:
    return {"hello": data["name"], "scheme": socket.scope["scheme"]}


async def begin(app: Litestar) -> None:
    app.state.started = True


app = Litestar(
    route_handlers=[index, get_book, add_item, sync, stream, events, greet],
    on_startup=[begin],
)
