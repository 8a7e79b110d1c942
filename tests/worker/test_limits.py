"""maximum-requests, queue-timeout, activity, interrupts and dumps."""

import subprocess
import threading
import time

import frames
import harness
import pytest

HELLO = 'start_response("200 OK", [])\nreturn [b"hello"]'
MAXIMUM_REQUESTS = 3


def test_maximum_requests(start, app):
    script = app(HELLO)
    worker = start(maximum_requests=20)
    with worker.connect() as client:
        for _ in range(18):
            client.get(script)
        assert worker.expect("Retire") == ("Retire", MAXIMUM_REQUESTS)
        client.get(script)
        assert worker.said("Paused") == []
        client.get(script)
        assert worker.expect("Paused") == ("Paused", MAXIMUM_REQUESTS)
        assert worker.summary()["started"] == 20
        # No request is started any more, but none is refused either.
        client.send(frames.request(script))
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.frame()
        client.socket.settimeout(10)
        # The replacement has failed: the worker goes on for a while.
        worker.tell(frames.GO)
        assert client.answer().body == b"hello"
        client.get(script)
        client.get(script)
        assert worker.expect("Paused") == ("Paused", MAXIMUM_REQUESTS)
        client.send(frames.request(script))
        worker.tell(frames.drain(MAXIMUM_REQUESTS))
        answer = client.answer()
        assert answer.retry == -2 or answer.reset
        worker.expect("Drained")


def test_the_limit_is_exact_with_many_threads(start, app):
    script = app(HELLO)
    worker = start(maximum_requests=200, threads=4)
    count = [0] * 16

    def client(index):
        with worker.connect() as connection:
            while True:
                try:
                    answer = connection.get(script)
                except OSError:
                    return
                if answer.body != b"hello":
                    return
                count[index] += 1

    threads = [threading.Thread(target=client, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    worker.expect("Paused")
    time.sleep(0.2)
    assert worker.summary()["started"] == 200
    worker.tell(frames.drain(MAXIMUM_REQUESTS))
    worker.expect("Drained")
    for thread in threads:
        thread.join()
    assert sum(count) == 200
    assert len(worker.said("Retire")) == 1


def test_jitter(start, app):
    script = app(HELLO)
    worker = start(maximum_requests=5, max_requests_jitter=1000, threads=1)
    with worker.connect() as client:
        for _ in range(5):
            client.get(script)
        # One in a thousand that the jitter is that small.
        assert worker.said("Paused") == []


def test_run_once(start, app):
    script = app('start_response("200 OK", [])\nreturn [repr(environ["wsgi.run_once"]).encode()]')
    assert start(maximum_requests=1, threads=1).get(script).body == b"True"


def test_queue_timeout(start, app):
    script = app(HELLO)
    worker = start(queue_timeout=5)
    now = time.time_ns() // 1000
    with worker.connect() as client:
        answer = client.get(script, request_time_us=now - 20_000_000)
        assert answer.retry == frames.QUEUE_TIMEOUT
        assert client.get(script, request_time_us=now - 1_000_000).body == b"hello"


def test_the_board_shows_what_runs(start, app):
    script = app('import time; time.sleep(0.5); start_response("200 OK", []); return [b"x"]')
    worker = start(inactivity_timeout=10, threads=1)
    assert worker.summary()["first_request_ms"] == 0
    with worker.connect() as client:
        client.send(frames.request(script, path="/a/b?c", method="POST"))
        _, number, text = worker.wait_for_row()
        assert text == "POST /a/b?c the-request-id"
        summary = worker.summary()
        assert summary["busy"] == 1 and summary["started"] == 1
        assert summary["first_request_ms"] > 0 and summary["activity_ms"] > 0
        client.answer()
        client.send(frames.request(script, path="/again"))
        assert worker.wait_for_row("/again")[1] == number + 2
        client.answer()
    worker.end()
    assert worker.rows() == []
    assert worker.summary()["busy"] == 0


def test_ignored_activity(start, app):
    script = app(HELLO)
    worker = start(inactivity_timeout=10)
    worker.get(script, bits=frames.RELOADING | frames.KEEP | frames.IGNORE_ACTIVITY)
    assert worker.summary()["activity_ms"] == 0


def test_the_pulse(start, app):
    worker = start(deadlock_timeout=10)
    time.sleep(0.2)
    first = worker.summary()["pulse_ms"]
    time.sleep(1.3)
    assert worker.summary()["pulse_ms"] > first > 0
    if harness.FREE:
        return
    # A thread that keeps the GIL stops it.
    script = app(
        "import ctypes; ctypes.PyDLL(None).sleep(3)\n" + HELLO,
        "hold.wsgi",
    )
    with worker.connect() as client:
        client.send(frames.request(script))
        worker.wait_for_row()
        time.sleep(1.2)
        held = worker.summary()["pulse_ms"]
        worker.tell(frames.DUMP_ALL)
        time.sleep(0.5)
        assert worker.summary()["pulse_ms"] == held
        assert "stacks of all threads" in worker.stderr
        assert "hold.wsgi" in worker.stderr
        assert client.answer().body == b"hello"


LOOP = """
import time
print("it loops")
end = time.monotonic() + 20
while time.monotonic() < end:
    time.sleep(0.01)
start_response("200 OK", [])
return [b"never"]
"""


@pytest.mark.parametrize("group", ["", "sub"])
def test_interrupt(start, app, group):
    worker = start(reserve_main="on")
    script = app(LOOP)
    with worker.connect() as client:
        client.send(frames.request(script, group=group))
        row, number, _ = worker.wait_for_row()
        assert client.frame().kind == frames.LOG
        time.sleep(0.1)
        # Another request's number does nothing.
        worker.tell(frames.interrupt(row, number + 2))
        worker.tell(frames.dump_request(row, number))
        worker.tell(frames.interrupt(row, number))
        answer = client.answer()
        assert answer.error == 504
        assert "RWSGI0459" in answer.log_text and "time.sleep(0.01)" in answer.log_text
        assert "RWSGI0207" in answer.log_text and "RequestTimeout" in answer.log_text
        # The thread goes on.
        script = app(HELLO, "hello.wsgi")
        for _ in range(4):
            assert client.get(script, group=group).body == b"hello"


def test_interrupt_after_the_head(start, app):
    body = """
start_response("200 OK", [])
def blocks():
    yield b"begun"
    import time
    for _ in range(2000):
        time.sleep(0.01)
return blocks()
"""
    worker = start()
    with worker.connect() as client:
        client.send(frames.request(app(body)))
        row, number, _ = worker.wait_for_row()
        assert client.frame().kind == frames.REPLY
        worker.tell(frames.interrupt(row, number))
        answer = client.answer()
        assert answer.flags & frames.BAD
        assert "cut short" in answer.log_text


def test_an_interrupt_never_hits_the_next_request(start, app):
    script = app(HELLO)
    worker = start(threads=1)
    stop = threading.Event()

    def interrupt():
        while not stop.is_set():
            for row, number, _ in worker.rows():
                try:
                    worker.tell(frames.interrupt(row, number))
                except OSError:
                    return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with worker.connect() as client:
            for _ in range(1500):
                answer = client.get(script)
                assert answer.body == b"hello" or answer.error == 504, answer
    finally:
        stop.set()
        thread.join()


def exports_dump_function():
    code = "import ctypes; print(hasattr(ctypes.pythonapi, '_Py_DumpTracebackThreads'))"
    return subprocess.check_output([harness.PYTHON, "-c", code], text=True) == "True\n"


def test_stacks_of_all_threads(start, app):
    worker = start(reserve_main="on")
    with worker.connect() as client, worker.connect() as other:
        client.send(frames.request(app(LOOP, "one.wsgi")))
        other.send(frames.request(app(LOOP, "two.wsgi"), group="sub"))
        harness.wait_until(lambda: len(worker.rows()) == 2)
        time.sleep(0.2)
        worker.tell(frames.DUMP_ALL)
        time.sleep(0.5)
        assert "one.wsgi" in worker.stderr
        # Python's own fallback knows the main interpreter only.
        if exports_dump_function():
            assert "two.wsgi" in worker.stderr


def test_fatal_errors_leave_text(start, app):
    script = app("import ctypes; ctypes.string_at(0)")
    worker = start()
    with worker.connect() as client:
        assert client.get(script).eof
    assert worker.process.wait(10) < 0
    assert "Fatal Python error: Segmentation fault" in worker.stderr
    assert "app.wsgi" in worker.stderr


def test_interrupt_while_the_script_is_loaded(start, tmp_path):
    script = tmp_path / "slow.wsgi"
    script.write_text("print('it loads')\nimport time\nwhile True:\n    time.sleep(0.01)")
    worker = start()
    with worker.connect() as client:
        client.send(frames.request(script))
        row, number, _ = worker.wait_for_row()
        assert client.frame().kind == frames.LOG
        time.sleep(0.1)
        worker.tell(frames.interrupt(row, number))
        answer = client.answer()
        assert answer.error == 504
        assert "RWSGI0103" in answer.log_text
