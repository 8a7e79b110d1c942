"""Quart's quick start, and what else it is used for."""

import asyncio
from dataclasses import dataclass

from quart import Quart, jsonify, make_response, render_template_string, request, session, websocket

app = Quart(__name__)
app.secret_key = "for this test only"


@dataclass
class Life:
    begun: bool = False


life = Life()


@app.before_serving
async def begin():
    life.begun = True


@app.route("/")
async def hello():
    return await render_template_string("<h1>Hello {{ name }}</h1>", name="<world>")


@app.route("/visits")
async def visits():
    session["visits"] = session.get("visits", 0) + 1
    return str(session["visits"])


@app.route("/api/echo", methods=["POST"])
async def echo():
    data = await request.get_json()
    return {"input": data, "begun": life.begun}


@app.route("/form", methods=["POST"])
async def form():
    fields = await request.form
    files = await request.files
    return jsonify(title=fields["title"], size=len(files["file"].read()))


@app.route("/events")
async def events():
    async def send():
        for i in range(3):
            yield f"data: {i}\r\n\r\n".encode()
            await asyncio.sleep(0)

    headers = {
        "Content-Type": "text/event-stream",
        "Cache-Control": "no-cache",
        "Transfer-Encoding": "chunked",
    }
    response = await make_response(send(), headers)
    response.timeout = None
    return response


@app.route("/work")
async def work():
    async def later():
        life.worked = True

    app.add_background_task(later)
    return "begun"


@app.route("/worked")
async def worked():
    return str(getattr(life, "worked", False))


@app.route("/broken")
async def broken():
    raise ValueError("broken on purpose")


@app.websocket("/ws")
async def ws():
    while True:
        data = await websocket.receive()
        await websocket.send(f"echo {data}")
