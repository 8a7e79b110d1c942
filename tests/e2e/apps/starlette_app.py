"""Starlette's quick start, and what else it is used for."""

import contextlib
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

DONE = []


async def homepage(request):
    return JSONResponse({"hello": "world"})


async def upload(request):
    async with request.form() as form:
        content = await form["file"].read()
        return JSONResponse(
            {"name": form["file"].filename, "size": len(content), "text": form["t"]}
        )


async def stream(request):
    async def lines():
        for i in range(100):
            yield f"line {i}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def source(request):
    return FileResponse(__file__)


async def redirect(request):
    return RedirectResponse(request.url_for("homepage"))


async def background(request):
    return PlainTextResponse("sent", background=BackgroundTask(DONE.append, "done"))


async def done(request):
    return JSONResponse(DONE)


async def state(request):
    return JSONResponse({"database": request.state.database, "user": request.path_params["user"]})


async def broken(request):
    raise ValueError("broken on purpose")


async def echo(websocket):
    await websocket.accept(subprotocol="echo" if "echo" in websocket["subprotocols"] else None)
    async for message in websocket.iter_json():
        await websocket.send_json({"you said": message})
    await websocket.close()


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["x-stamp"] = request.method
        return response


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"database": "connected"}


app = Starlette(
    routes=[
        Route("/", homepage),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        Route("/source", source),
        Route("/redirect", redirect),
        Route("/background", background),
        Route("/done", done),
        Route("/state/{user}", state),
        Route("/broken", broken),
        WebSocketRoute("/echo", echo),
        Mount("/static", StaticFiles(directory=Path(__file__).parent)),
    ],
    middleware=[Middleware(Stamp)],
    lifespan=lifespan,
)
