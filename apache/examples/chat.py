"""A chat: what one says, all hear. Plain ASGI, without any package. See chat.conf."""

import asyncio

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<form><input id="text" autocomplete="off" autofocus><button>Send</button></form>
<pre id="said"></pre>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws"))
  socket.onmessage = event => said.textContent = event.data + "\\n" + said.textContent
  socket.onclose = event => said.textContent = `closed: ${event.code}\\n` + said.textContent
  document.querySelector("form").onsubmit = event => {
    event.preventDefault()
    socket.send(text.value)
    text.value = ""
  }
</script>
"""

#: Of each participant: what is to be sent to him. Who does not keep up loses messages, not the
#: others.
participants = set()


async def application(scope, receive, send):
    if scope["type"] == "http":
        await page(send)
    elif scope["type"] == "websocket":
        await chat(receive, send)
    else:
        # No startup and no shutdown to speak of.
        raise NotImplementedError(scope["type"])


async def page(send):
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(PAGE))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE})


async def chat(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    queue = asyncio.Queue(maxsize=100)
    sender = asyncio.create_task(pass_on(queue, send))
    participants.add(queue)
    try:
        while (message := await receive())["type"] != "websocket.disconnect":
            for other in participants:
                if not other.full():
                    other.put_nowait(message.get("text") or "")
    finally:
        participants.discard(queue)
        sender.cancel()


async def pass_on(queue, send):
    while True:
        await send({"type": "websocket.send", "text": await queue.get()})
