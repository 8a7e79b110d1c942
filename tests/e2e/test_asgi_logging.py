"""What an ASGI application says reaches the error log of its request's virtual host, with the id
of the request, though hundreds of them share one thread."""

from __future__ import annotations

import pytest
from harness.asgi import ANY
from harness.config import BOTH

pytestmark = pytest.mark.rwsgi
MODES = BOTH


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=24) as httpd:
        script = httpd.apps / "asgi_logging.py"
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIApplicationGroup %{{GLOBAL}}
            ASGIScriptAlias /log "{script}"
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                ErrorLog "{httpd.vhost_log("second.log")}"
            </VirtualHost>
        """)
        httpd.start()
        httpd.expect_log("said at the startup")
        httpd.allow_log("written|printed|logged")
        httpd.get("/log/speak")
        httpd.settle_log()
        yield httpd


@pytest.fixture(params=["main", "second"])
def host(request, server):
    """The name of a virtual host, and the error log that is its own."""
    if request.param == "main":
        return {"Host": f"localhost:{server.port}"}, "error.log", "localhost"
    return {"Host": f"second.example:{server.port}"}, "second.log", "second.example"


def lines_of(server, name, text):
    """The lines of one log file that have a text."""
    content = (server.root / "logs" / name).read_text()
    return [line for line in content.splitlines() if text in line]


@pytest.mark.parametrize(
    ("route", "texts"),
    [
        (
            "speak",
            ["printed by print", "printed to stderr", "written to stdout", "INFO logged"],
        ),
        ("child-task", ["said by a child task"]),
        ("executor", ["said by to_thread", "said by run_in_executor"]),
        ("callback", ["said by call_soon"]),
        ("speak-after-waiting?name=me", ["said after waiting by me"]),
    ],
)
def test_said_for_a_request(server, host, route, texts):
    headers, log, vhost = host
    expected = [server.expect_log(f"^{text}$") for text in texts]
    before = [len(lines_of(server, log, text)) for text in texts]
    server.get(f"/log/{route}", headers=headers)
    server.settle_log()
    ids = {line.log_id for expectation in expected for line in expectation.lines}
    assert len(ids) == 1 and ids != {"-"}
    for expectation, text, count in zip(expected, texts, before):
        (line,) = expectation.lines
        assert (line.module, line.level, line.vhost) == ("rwsgi", "error", vhost)
        assert len(lines_of(server, log, text)) == count + 1


def test_each_has_its_own_id(server):
    """Twenty at once: what they say does not get mixed up."""
    expected = [server.expect_log(f"^said after waiting by n{i}$") for i in range(20)]
    connections = [server.connect() for _ in range(20)]
    for i, connection in enumerate(connections):
        host = "second.example" if i % 2 else "localhost"
        connection.request(f"/log/speak-after-waiting?name=n{i}", headers={"Host": host})
    for connection in connections:
        assert connection.read_response().status == 200
        connection.close()
    server.settle_log()
    lines = [expectation.lines[0] for expectation in expected]
    assert len({line.log_id for line in lines}) == 20
    assert [line.vhost for line in lines] == ["localhost", "second.example"] * 10


def test_thread_of_ones_own(server):
    """It belongs to no request; its words are not lost."""
    server.expect_log("said by a thread")
    server.get("/log/plain-thread")


def test_said_after_the_end(server):
    """The request is over for the client; nothing is lost."""
    gate = server.gate()
    server.expect_log("said after the end")
    assert server.get(f"/log/after-the-end?gate={gate.path}").body == b"said"
    gate.step()
    server.settle_log()


def test_exception_of_a_task(server):
    """asyncio's own words on it."""
    server.expect_log("Task exception was never retrieved", count=None)
    server.expect_log("ValueError: nobody fetches this", count=None)
    server.allow_log(r'^future: |^Traceback|^  +(File "|\S)')
    server.get("/log/lost-task")


def test_warning(server):
    server.expect_log("UserWarning: a warning of the application")
    server.allow_log(r"^  warnings.warn")
    server.get("/log/warned")


def test_long_and_several_lines(server):
    server.expect_log("^two$")
    server.expect_log("^lines$")
    long = server.expect_log("x{1000}", count=None)
    server.get("/log/long-line")
    server.settle_log()
    assert long.lines[-1].message.endswith("xend of the long line")


def test_traceback_after_the_head(server, host):
    headers, log, vhost = host
    told = server.expect_log(ANY)
    server.request("/log/broken-in-mid-body", headers=headers)
    server.settle_log()
    assert told.lines[0].vhost == vhost
    assert any("broken on purpose" in line.message for line in told.traceback)


def test_websocket(server, host):
    """Over the whole life of a WebSocket."""
    headers, log, vhost = host
    first = server.expect_log("said at the handshake")
    others = [server.expect_log(f"^said of {i}$") for i in range(3)]
    with server.websocket("/log/ws", headers) as socket:
        for i in range(3):
            socket.text(str(i))
            assert socket.message() == "said"
        server.settle_log()
        socket.close()
        socket.closed()
    lines = first.lines + [other.lines[0] for other in others]
    assert {line.vhost for line in lines} == {vhost}
    assert len({line.log_id for line in lines}) == 1
