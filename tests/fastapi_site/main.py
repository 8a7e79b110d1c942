"""A small FastAPI application: JSON, a chat over WebSockets, server-sent events, a lifespan.

What ASGIScriptAlias points at: its `app` is found by that name. Try `make run APP=fastapi`.
"""

import asyncio
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Optional

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse
from pydantic import BaseModel, Field

PAGE = Path(__file__).with_name("page.html")


class Room:
    """The sockets of one chat, in this process."""

    def __init__(self):
        self.sockets: set[WebSocket] = set()
        self.said: list[str] = []

    async def say(self, text: str):
        self.said.append(text)
        for socket in list(self.sockets):
            try:
                await socket.send_text(text)
            except (RuntimeError, WebSocketDisconnect):
                # It has gone; its own task is about to learn that.
                self.sockets.discard(socket)


@asynccontextmanager
async def lifespan(app: FastAPI):
    """What begins and ends with the process; each request finds it in `request.state`."""
    clock = Clock()
    ticking = asyncio.create_task(clock.tick())
    yield {"clock": clock, "room": Room(), "notes": {}}
    ticking.cancel()


class Clock:
    """Wakes all who wait for its next beat."""

    def __init__(self):
        self.beat = 0
        self.changed = asyncio.Condition()

    async def tick(self):
        while True:
            await asyncio.sleep(1)
            async with self.changed:
                self.beat += 1
                self.changed.notify_all()

    async def next(self) -> int:
        async with self.changed:
            await self.changed.wait()
            return self.beat


class Note(BaseModel):
    title: str = Field(min_length=1, max_length=80)
    text: Optional[str] = None


app = FastAPI(title="Notes", version="1.0", lifespan=lifespan)


@app.get("/", response_class=HTMLResponse, include_in_schema=False)
async def index(request: Request):
    """The page, which finds everything below the mount point."""
    base = request.scope["root_path"].rstrip("/") + "/"
    return PAGE.read_text(encoding="utf-8").replace("{base}", base)


@app.get("/notes")
async def notes(request: Request) -> dict[int, Note]:
    return request.state.notes


@app.post("/notes", status_code=201)
async def add_note(request: Request, note: Note) -> dict[str, int]:
    number = len(request.state.notes) + 1
    request.state.notes[number] = note
    return {"number": number}


@app.get("/notes/{number}")
async def note(request: Request, number: int) -> Note:
    if number not in request.state.notes:
        raise HTTPException(404, "no such note")
    return request.state.notes[number]


@app.get("/slow")
async def slow(seconds: float = 1.0):
    """Waits without holding a thread."""
    await asyncio.sleep(min(seconds, 10))
    return {"waited": seconds, "thread": threading.current_thread().name}


@app.get("/blocking")
def blocking(seconds: float = 0.1):
    """An ordinary function: FastAPI runs it in a thread, so that it may block."""
    time.sleep(min(seconds, 10))
    return {"waited": seconds, "thread": threading.current_thread().name}


@app.get("/source")
async def source():
    """This file; the server sends it from the disk."""
    return FileResponse(__file__, media_type="text/x-python")


@app.get("/server")
async def server(request: Request):
    """What the server says of the request."""
    scope = request.scope
    return {
        "pid": os.getpid(),
        "http_version": scope["http_version"],
        "scheme": scope["scheme"],
        "client": scope["client"],
        "root_path": scope["root_path"],
        "path": scope["path"],
        "url": str(request.url_for("server")),
        "loop": type(asyncio.get_running_loop()).__module__,
        "extensions": sorted(scope.get("extensions", {})),
    }


@app.get("/events")
async def events(request: Request, count: int = 0):
    """Server-sent events: a beat each second, for ever or `count` times."""
    clock = request.state.clock

    async def stream():
        yield f"retry: 1000\ndata: {clock.beat}\n\n"
        sent = 1
        while sent != count:
            yield f"data: {await clock.next()}\n\n"
            sent += 1

    headers = {"Cache-Control": "no-cache"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


@app.get("/broken")
async def broken():
    raise RuntimeError("this route is broken on purpose")


@app.websocket("/chat")
async def chat(socket: WebSocket, name: str = "somebody"):
    """What one says, all in this process hear; who comes late hears the last ten."""
    room: Room = socket.state.room
    await socket.accept()
    for text in room.said[-10:]:
        await socket.send_text(text)
    room.sockets.add(socket)
    await room.say(f"{name} has come")
    try:
        async for text in socket.iter_text():
            await room.say(f"{name}: {text}")
    except WebSocketDisconnect:
        pass
    finally:
        room.sockets.discard(socket)
        await room.say(f"{name} has left")
