"""Peers that misbehave, break off, or are the wrong ones."""

import os
import random
import socket
import struct
import threading
import time

import frames
import harness
import pytest

HELLO = 'start_response("200 OK", [])\nreturn [b"hello " + environ["wsgi.input"].read()]'


def descriptors(worker):
    return len(os.listdir(f"/proc/{worker.pid}/fd"))


def test_another_version(start, app):
    script = app(HELLO)
    worker = start()
    with worker.connect() as client:
        answer = client.get(script, version=frames.VERSION + 1)
        assert answer.retry == frames.OTHER_VERSION
        assert answer.frames[-1].flags & frames.CLOSE
        assert client.answer().eof
    assert "RWSGI0455" in worker.log


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        frames.frame(frames.BODY, b"x"),
        frames.frame(frames.REQUEST, b"x" * 100, frames.END, frames.VERSION),
        struct.pack("<IBBH", 0xFFFFFFFF, frames.REQUEST, 0, frames.VERSION),
    ],
)
def test_garbage(start, app, garbage):
    script = app(HELLO)
    worker = start()
    with worker.connect() as client:
        client.send(garbage)
        answer = client.answer()
        assert answer.retry == frames.MALFORMED
    assert "RWSGI0454" in worker.log
    assert worker.get(script).body == b"hello "


def test_more_than_a_request(start, app):
    worker = start()
    script = app(HELLO)
    with worker.connect() as client:
        client.send(frames.request(script) + b"x")
        assert client.answer().retry == frames.MALFORMED


def test_damaged_requests_never_hurt(start, app):
    script = app(HELLO)
    worker = start(socket_timeout=1, threads=4)
    good = frames.request(script, body=b"body", headers=[("Host", "x"), ("Accept", "y")])
    generator = random.Random(4711)
    worker.get(script)
    before = descriptors(worker)
    for _ in range(400):
        bad = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            bad[generator.randrange(8, len(bad))] = generator.choice([0, 1, 0x7F, 0xFF])
        with worker.connect() as client:
            client.send(bytes(bad))
            client.answer(lambda *_: frames.frame(frames.BODY, b"", frames.END))
    for _ in range(50):
        with worker.connect() as client:
            client.send(good[: generator.randrange(len(good))])
    assert worker.get(script, body=b"x").body == b"hello x"
    time.sleep(0.2)
    assert descriptors(worker) <= before
    assert worker.end() == 0


def test_a_request_in_pieces(start, app):
    script = app(HELLO)
    worker = start()
    data = frames.request(script, body=b"x" * 300_000)
    with worker.connect() as client:
        for cut in (3, 8, 9, 100_000):
            client.send(data[:cut])
            time.sleep(0.05)
            client.send(data[cut:])
            assert len(client.answer().body) == 300_006


def test_half_a_request_ends_with_the_timeout(start, app):
    script = app(HELLO)
    worker = start(threads=1, socket_timeout=1)
    with worker.connect() as client:
        client.send(frames.request(script)[:20])
        time.sleep(0.1)
        assert worker.get(script).body == b"hello "
        assert client.answer().eof


def test_a_client_that_goes_while_it_is_asked(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    client = worker.connect()
    client.send(frames.request(script, method="POST", complete=False))
    assert client.frame().kind == frames.READ
    client.close()
    assert worker.get(script).body == b"hello "
    assert worker.end() == 0
    assert worker.rows() == []


def test_a_client_that_is_silent_when_asked(start, app):
    script = app(HELLO)
    worker = start(threads=1, socket_timeout=1)
    with worker.connect() as client:
        client.send(frames.request(script, method="POST", complete=False))
        assert client.frame().kind == frames.READ
        assert worker.get(script).body == b"hello "
        answer = client.answer()
        assert answer.error == 408 and answer.flags & frames.CLOSE
        assert client.answer().eof


def test_a_client_that_goes_in_mid_response(start, app):
    body = """
def blocks():
    try:
        for _ in range(100000):
            yield b"x" * 10000
    finally:
        open(__file__ + ".closed", "w").close()
start_response("200 OK", [])
return blocks()
"""
    script = app(body)
    worker = start(threads=1)
    client = worker.connect()
    client.send(frames.request(script))
    assert client.frame().kind == frames.REPLY
    client.close()
    assert worker.get(app(HELLO, "hello.wsgi")).body == b"hello "
    assert script.with_name(script.name + ".closed").exists()


def test_a_client_that_does_not_read(start, app):
    script = app('start_response("200 OK", [])\nreturn [b"x" * 10_000_000]')
    worker = start(threads=1, socket_timeout=1)
    with worker.connect() as client:
        client.send(frames.request(script))
        time.sleep(1.5)
        assert worker.get(app(HELLO, "hello.wsgi")).body == b"hello "
        with pytest.raises((EOFError, ConnectionResetError)):
            client.frame()


def test_strangers_are_refused(start, app):
    worker = start()
    os.chmod(os.path.dirname(worker.path), 0o755)
    os.chmod(worker.path, 0o777)
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "sys.stdout.write(s.recv(100).hex())\n"
    )
    import subprocess

    directory = os.path.dirname(worker.path)
    while directory != "/":
        os.chmod(directory, os.stat(directory).st_mode | 0o011)
        directory = os.path.dirname(directory)
    got = subprocess.check_output([harness.PYTHON, "-c", code, worker.path], text=True)
    answer = frames.HEADER.unpack(bytes.fromhex(got))
    assert answer == (0, frames.RETRY, frames.CLOSE, frames.FORBIDDEN)
    assert "RWSGI0451" in worker.log


def test_full_duplex(start, app):
    """It writes while it reads, 30 MiB each way."""
    body = """
def blocks():
    while block := environ["wsgi.input"].read(100_000):
        yield block
start_response("200 OK", [])
return blocks()
"""
    left = 30 << 20

    def more(_, limit):
        nonlocal left
        count = min(left, limit)
        left -= count
        return frames.frame(frames.BODY, b"z" * count, frames.GRANT_DONE if left else frames.END)

    answer = start().get(app(body), method="POST", complete=False, answer_reads=more)
    assert len(answer.body) == 30 << 20
    assert answer.flags & frames.END


def test_64_connections_on_4_threads(start, app):
    script = app('start_response("200 OK", [])\nreturn [environ["PATH_INFO"].encode()]')
    worker = start(threads=4)
    failures = []

    def client(number):
        with worker.connect() as connection:
            for index in range(200):
                path = f"/{number}/{index}"
                answer = connection.get(script, path=path)
                if answer.body != path.encode() or answer.flags != frames.END:
                    failures.append(answer)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert worker.summary()["started"] == 64 * 200
    assert worker.end() == 0


def test_bursts_of_new_connections(start, app):
    script = app(HELLO)
    worker = start(threads=2)
    for _ in range(5):
        clients = [worker.connect() for _ in range(80)]
        for client in clients:
            client.send(frames.request(script))
        for client in clients:
            assert client.answer().body == b"hello "
            client.close()
    time.sleep(0.2)
    before = descriptors(worker)
    worker.get(script)
    time.sleep(0.1)
    assert descriptors(worker) <= before


def test_want_of_descriptors(start, app):
    import resource

    script = app(HELLO)
    worker = start(threads=2)
    worker.get(script)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (30, 30))
    clients = [worker.connect() for _ in range(40)]
    assert "RWSGI0456" in worker.expect("Log")[2]
    for client in clients[:35]:
        client.close()
    assert clients[39].get(script).body == b"hello "
    for client in clients:
        client.close()


def test_a_message_of_the_supervisor_that_is_none(start, app):
    worker = start()
    worker.tell(b"\xff\xff")
    assert "RWSGI0453" in worker.expect("Log")[2]
    assert worker.get(app(HELLO)).body == b"hello "


def test_listener_is_shared_with_a_successor(start, app, tmp_path):
    """Both accept from one socket while one takes the other's place."""
    script = app(HELLO)
    worker = start()
    listener = worker.listener
    assert worker.get(script).body == b"hello "
    worker.tell(frames.drain())
    worker.expect("Drained")
    client = socket.socket(socket.AF_UNIX)
    client.connect(worker.path)
    client.sendall(frames.request(script))
    accepted, _ = listener.accept()
    assert len(accepted.recv(1 << 20)) > 100, "it waited in the backlog"
    client.close()
    accepted.close()
