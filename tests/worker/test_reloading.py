"""Changed scripts: a worker loads nothing twice."""

import os
import time

import frames
import pytest

HELLO = 'start_response("200 OK", [])\nreturn [b"hello"]'


def touch(script):
    now = time.time_ns()
    os.utime(script, ns=(now, now))


def stays(client, seconds=0.3):
    """Nothing comes."""
    client.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        client.frame()
    client.socket.settimeout(10)


def test_the_first_waits_and_the_others_get_the_old_code(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    with worker.connect() as first, worker.connect() as other:
        first.get(script)
        other.get(script)
        touch(script)
        first.send(frames.request(script))
        mtime = frames.modification_time(script)
        assert worker.expect("Stale") == ("Stale", "", str(script), mtime)
        stays(first)
        for _ in range(3):
            assert other.get(script).body == b"hello"
        assert worker.said("Stale") == []
        # The replacement is there.
        worker.tell(frames.drain(10))
        answer = first.answer()
        assert answer.retry == frames.DRAINING and answer.frames[-1].flags & frames.CLOSE
        worker.expect("Drained")


def test_the_old_code_stays(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    with worker.connect() as first, worker.connect() as other:
        first.get(script)
        touch(script)
        mtime = frames.modification_time(script)
        first.send(frames.request(script))
        worker.expect("Stale")
        worker.tell(frames.stays_old("", script, mtime, 400))
        assert first.answer().body == b"hello"
        assert other.get(script).body == b"hello"
        assert worker.said("Stale") == []
        # It is tried again after a while.
        time.sleep(0.5)
        first.send(frames.request(script))
        worker.expect("Stale")
        stays(first)
        # And at once when the file changes.
        touch(script)
        other.send(frames.request(script))
        worker.expect("Stale")
        worker.tell(frames.stays_old("", script, frames.modification_time(script), 1000))
        assert first.answer().body == b"hello"
        assert other.answer().body == b"hello"


def test_without_keep_all_wait_and_fail(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    bits = frames.RELOADING
    with worker.connect() as first, worker.connect() as other:
        first.get(script)
        touch(script)
        for client in (first, other):
            client.send(frames.request(script, bits=bits))
            stays(client)
        assert len(worker.said("Stale")) == 1
        worker.tell(frames.stays_old("", script, frames.modification_time(script), 1000))
        for client in (first, other):
            answer = client.answer()
            assert answer.error == 500
            assert "RWSGI0103" in answer.log_text


def test_a_request_that_was_older_than_the_worker(start, app):
    """httpd had looked at the file before it changed; the worker was started after."""
    script = app(HELLO)
    worker = start()
    with worker.connect() as client:
        client.get(script)
        assert client.get(script, mtime_us=1_000_000).body == b"hello"
    assert worker.said("Stale") == []


def test_reload_required(start, app):
    before = "def reload_required(path):\n    return path.endswith('.wsgi')"
    script = app(HELLO, before=before)
    worker = start(threads=1)
    with worker.connect() as first, worker.connect() as other:
        first.get(script)
        first.send(frames.request(script))
        mtime = frames.modification_time(script)
        assert worker.expect("Stale") == ("Stale", "", str(script), mtime)
        assert other.get(script).body == b"hello"
        worker.tell(frames.stays_old("", script, mtime, 60_000))
        assert first.answer().body == b"hello"


def test_without_reloading_nothing_is_asked(start, app):
    script = app(HELLO)
    worker = start()
    with worker.connect() as client:
        client.get(script, bits=0)
        touch(script)
        assert client.get(script, bits=0).body == b"hello"


def test_a_script_that_never_loaded_is_tried_again(start, app):
    script = app(HELLO)
    good = script.read_text()
    script.write_text("1 / 0")
    worker = start()
    with worker.connect() as client:
        answer = client.get(script)
        assert answer.error == 500 and "ZeroDivisionError" in answer.log_text
        script.write_text(good)
        assert client.get(script).body == b"hello"
    assert worker.expect("Loaded") == ("Loaded", "", str(script))
    assert worker.summary()["loaded"] == 1


def test_the_body_of_a_request_that_waits_is_kept(start, app):
    body = 'start_response("200 OK", [])\nreturn [environ["wsgi.input"].read()]'
    script = app(body)
    worker = start()
    with worker.connect() as client:
        client.get(script)
        touch(script)
        client.send(frames.request(script, body=b"first ", complete=False))
        worker.expect("Stale")
        worker.tell(frames.stays_old("", script, frames.modification_time(script), 1000))
        answer = client.answer(lambda *_: frames.frame(frames.BODY, b"second", frames.END))
        assert answer.body == b"first second"


def test_clients_that_wait_may_go(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    client = worker.connect()
    client.get(script)
    touch(script)
    client.send(frames.request(script))
    worker.expect("Stale")
    client.close()
    worker.tell(frames.stays_old("", script, frames.modification_time(script), 1000))
    assert worker.get(script).body == b"hello"
    assert worker.end() == 0


def test_a_fresh_worker_answers_before_it_asks_again(start, app):
    """Otherwise a script that always wants to be loaded anew would never answer."""
    before = "def reload_required(path):\n    return True"
    script = app(HELLO, before=before)
    worker = start(require=f":{script}", threads=1)
    with worker.connect() as client:
        assert client.get(script).body == b"hello"
        client.send(frames.request(script))
        worker.expect("Stale")
