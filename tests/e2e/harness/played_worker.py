"""A worker that the tests play: an echo behind a switch of protocols, whatever the bytes are.

It takes the place of the Python of a process group (:mod:`harness.played`), finds the descriptors
of a worker, and serves every connection by itself, without a gateway.
"""

import asyncio
import base64
import hashlib
import os
import signal
import socket
import struct

CONTROL, LISTENER = 4, 6
HEADER = struct.Struct("<IBBH")
REPLY, DATA, LOG, SWITCH = 17, 18, 21, 25
END = 1
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(kind, payload=b"", flags=0, aux=0):
    return HEADER.pack(len(payload), kind, flags, aux) + payload


def head(line, fields):
    line = line.encode()
    text = struct.pack("<I", len(line)) + line
    for name, value in fields:
        text += struct.pack("<II", len(name), len(value)) + name + value
    return struct.pack("<HHqI", int(line[:3]), len(fields), -1, len(text)) + text


def decode(payload):
    """Path and header fields of a REQUEST."""
    fields, variables = struct.unpack_from("<HH", payload, 47)
    at = 51
    lengths = struct.unpack_from("<10I", payload, at)
    site = struct.unpack_from("<18I", payload, at + 44)
    at += 44 + 72
    at += sum(length for length in site if length != 0xFFFFFFFF)
    texts = []
    for length in lengths:
        length = 0 if length == 0xFFFFFFFF else length
        texts.append(payload[at : at + length])
        at += length
    headers = {}
    for _ in range(fields):
        name, value = struct.unpack_from("<II", payload, at)
        at += 8
        headers[payload[at : at + name].lower()] = payload[at + name : at + name + value]
        at += name + value
    return texts[1].decode(), headers


async def serve(reader, writer):
    try:
        while True:
            length, _, _, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
            path, headers = decode(await reader.readexactly(length))
            if b"upgrade" in headers:
                await tunnel(path, headers, reader, writer)
                return
            body = b"hello from %d" % os.getpid()
            writer.write(frame(REPLY, head("200 OK", []) + body, END))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def tunnel(path, headers, reader, writer):
    key = headers.get(b"sec-websocket-key", b"")
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    fields = [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", accept)]
    answer = frame(SWITCH, head("101 Switching Protocols", fields))
    if path.endswith("/early"):
        answer += frame(DATA, b"early")
    writer.write(answer)
    if path.endswith("/deaf"):
        await asyncio.sleep(3600)
    while data := await reader.read(65536):
        for line in data.splitlines() if data.startswith(b"!") else ():
            if not await obey(line, writer):
                return
        if not data.startswith(b"!"):
            writer.write(frame(DATA, data))
            await writer.drain()
    note("gone")


async def obey(line, writer):
    command, _, rest = line[1:].partition(b" ")
    if command == b"end":
        writer.write(frame(DATA, rest, END))
        await writer.drain()
        return False
    if command == b"close":
        return False
    if command == b"half":
        writer.write(frame(DATA, b"x" * 100)[:50])
        await writer.drain()
        return False
    if command == b"garbage":
        writer.write(frame(REPLY))
    if command == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if command == b"log":
        writer.write(frame(LOG, rest, 0, 4) + frame(DATA, b"logged"))
    if command == b"flood":
        count = int(rest)
        while count > 0:
            size = min(count, 1 << 18)
            writer.write(frame(DATA, b"f" * size))
            await writer.drain()
            count -= size
        note("flooded")
    return True


def note(what):
    """For the test, in the file that the environment names."""
    name = os.environ.get("PLAYED_NOTES")
    if name:
        with open(name, "a") as file:
            file.write(what + "\n")


async def main():
    listener = socket.socket(fileno=LISTENER)
    control = socket.socket(fileno=CONTROL)
    server = await asyncio.start_unix_server(serve, sock=listener, backlog=1024)
    control.send(b"\1" + struct.pack("<I", os.getpid()))
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def hear():
        packet = control.recv(1 << 16)
        if not packet or packet[0] == 2:
            loop.remove_reader(control)
            if not told.done():
                told.set_result(None)

    control.setblocking(False)
    loop.add_reader(control, hear)
    await told
    server.close()
    # Tunnels go on, as long as the supervisor has patience.
    control.send(b"\7")
    await asyncio.sleep(float(os.environ.get("PLAYED_DRAIN", "0")))
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
