"""Requests, one at a time: what goes over the wire."""

import os

import frames

HELLO = """
body = b"hello " + environ["wsgi.input"].read()
start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
return [body]
"""


def test_hello_and_again_on_the_same_connection(start, app):
    script = app(HELLO)
    worker = start()
    with worker.connect() as client:
        for _ in range(5):
            answer = client.get(script)
            assert (answer.status, answer.line, answer.body) == (200, "200 OK", b"hello ")
            assert answer.content_length == 6
            assert answer.headers == [("Content-Type", "text/plain")]
            assert answer.flags == frames.END
            assert len(answer.frames) == 1
    assert worker.end() == 0


def test_a_body_that_comes_with_the_request(start, app):
    script = app(HELLO)
    answer = start().get(script, method="POST", body=b"world" * 800)
    assert answer.body == b"hello " + b"world" * 800
    assert len(answer.frames) == 1


def test_a_body_that_has_to_be_asked_for(start, app):
    script = app(HELLO)
    grants = []

    def more(wanted, limit):
        grants.append((wanted, limit))
        return frames.frame(frames.BODY, b"second") + frames.frame(
            frames.BODY, b"third", frames.END
        )

    worker = start()
    with worker.connect() as client:
        for _ in range(3):
            options = {"method": "POST", "body": b"first", "complete": False}
            answer = client.get(script, answer_reads=more, **options)
            assert answer.body == b"hello firstsecondthird"
            # The connection takes requests again afterwards.
            assert client.get(script).body == b"hello "
    assert len(grants) == 3


def test_large_uploads_take_few_round_trips(start, app):
    script = app(
        'start_response("200 OK", [])\nreturn [str(len(environ["wsgi.input"].read())).encode()]'
    )
    left = 10 << 20
    grants = 0

    def more(wanted, limit):
        nonlocal left, grants
        grants += 1
        count = min(left, limit)
        left -= count
        assert wanted <= limit
        return frames.frame(frames.BODY, bytes(count), frames.GRANT_DONE if left else frames.END)

    answer = start().get(script, method="POST", complete=False, answer_reads=more)
    assert answer.body == str(10 << 20).encode()
    assert grants <= 8


def test_small_reads_are_answered_from_what_came_ahead(start, app):
    body = """
count = 0
while block := environ["wsgi.input"].read(1000):
    count += len(block)
start_response("200 OK", [])
return [str(count).encode()]
"""
    script = app(body)
    left = 1 << 20
    grants = 0

    def more(_, limit):
        nonlocal left, grants
        grants += 1
        count = min(left, limit)
        left -= count
        return frames.frame(frames.BODY, bytes(count), frames.GRANT_DONE if left else frames.END)

    answer = start().get(script, method="POST", complete=False, answer_reads=more)
    assert answer.body == str(1 << 20).encode()
    assert grants <= 8


def test_environ(start, app):
    body = """
start_response("200 OK", [])
keys = [key for key in environ if key.startswith(("mod_wsgi.", "wsgi.multi", "wsgi.run"))]
return [repr({key: environ[key] for key in keys}).encode()]
"""
    script = app(body)
    worker = start(threads=3, multiprocess="on")
    environ = eval(worker.get(script, group="the|group").body)
    assert environ["mod_wsgi.server_pid"] == "4711"
    assert environ["mod_wsgi.request_start"] == 1_700_000_000.0
    assert environ["mod_wsgi.queue_start"] == 1_700_000_000.5
    assert environ["mod_wsgi.application_start"] >= environ["mod_wsgi.daemon_start"] > 1.7e9
    assert environ["mod_wsgi.process_group"] == "test"
    assert environ["mod_wsgi.application_group"] == "the|group"
    assert environ["mod_wsgi.request_id"] == "the-request-id"
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is True
    assert environ["wsgi.run_once"] is False


def test_streams_are_sent_as_they_come(start, app):
    body = """
start_response("200 OK", [])
def blocks():
    yield b"one"
    yield b""
    yield b"two"
return blocks()
"""
    answer = start().get(app(body))
    kinds = [(frame.kind, frame.flags) for frame in answer.frames]
    assert kinds == [
        (frames.REPLY, frames.FLUSH),
        (frames.DATA, frames.FLUSH),
        (frames.DATA, frames.END),
    ]
    assert answer.body == b"onetwo"


def test_large_blocks_are_sent_whole(start, app):
    body = """
start_response("200 OK", [])
return [b"a" * 20_000_000, b"b", b"c" * 20_000]
"""
    answer = start().get(app(body))
    assert answer.body == b"a" * 20_000_000 + b"b" + b"c" * 20_000
    assert answer.flags & frames.END


def test_files_travel_as_descriptors(start, app, tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 10)
    body = f"""
file = open({str(tmp_path / "file")!r}, "rb")
file.seek(3)
start_response("200 OK", [])
return environ["wsgi.file_wrapper"](file)
"""
    answer = start().get(app(body))
    [(fd, offset, length)] = answer.files
    assert (offset, length) == (3, 2557)
    assert os.pread(fd, length, offset) == (bytes(range(256)) * 10)[3:]
    os.close(fd)
    assert answer.flags & frames.END


def test_log_lines_belong_to_their_request(start, app):
    body = """
import sys
print("to stdout")
environ["wsgi.errors"].write("one\\ntwo\\nunfinished")
start_response("200 OK", [])
return [b"x"]
"""
    answer = start().get(app(body))
    assert [line for _, line in answer.log] == ["to stdout", "one", "two", "unfinished"]
    assert answer.body == b"x"


def test_log_lines_after_the_end_go_to_the_process(start, app):
    body = """
class Blocks:
    def __iter__(self):
        yield b"x"
    def close(self):
        print("closing")
start_response("200 OK", [("Content-Length", "1")])
return Blocks()
"""
    worker = start()
    answer = worker.get(app(body))
    assert answer.body == b"x"
    assert answer.log == []
    assert worker.expect("Log")[2] == "closing"


def test_an_exception_before_the_head(start, app):
    worker = start()
    with worker.connect() as client:
        answer = client.get(app("1 / 0"))
        assert answer.error == 500
        assert "ZeroDivisionError" in answer.log_text
        assert "process group 'test'" in answer.log_text
        assert client.get(app(HELLO, "other.wsgi")).body == b"hello "


def test_an_exception_after_the_head(start, app):
    body = """
start_response("200 OK", [])
def blocks():
    yield b"one"
    raise ValueError("late")
return blocks()
"""
    worker = start()
    with worker.connect() as client:
        answer = client.get(app(body))
        assert answer.body == b"one"
        assert answer.flags & frames.BAD and answer.flags & frames.END
        assert "late" in answer.log_text
        assert client.get(app(HELLO, "other.wsgi")).body == b"hello "


def test_a_response_that_is_too_short(start, app):
    answer = start().get(app('start_response("200 OK", [("Content-Length", "9")])\nreturn [b"x"]'))
    assert answer.body == b"x"
    assert answer.flags & frames.BAD


def test_a_lost_body(start, app):
    worker = start()
    script = app(HELLO)
    with worker.connect() as client:
        answer = client.get(
            script,
            method="POST",
            complete=False,
            answer_reads=lambda *_: frames.frame(frames.BODY_FAILED, aux=413),
        )
        assert answer.error == 413
        assert client.get(script).status == 200


def test_a_body_that_is_not_read_is_not_asked_for(start, app):
    answer = start().get(
        app('start_response("200 OK", [])\nreturn [b"x"]'), method="POST", complete=False
    )
    assert answer.body == b"x"
    assert len(answer.frames) == 1


def test_the_last_head_counts(start, app):
    body = """
start_response("200 OK", [("X", "1")])
class Blocks(list):
    def close(self):
        pass
start_response("404 Not Found", [("X", "2")], (ValueError, ValueError(), None))
return [b"x"]
"""
    answer = start().get(app(body))
    assert (answer.status, answer.headers, answer.body) == (404, [("X", "2")], b"x")
