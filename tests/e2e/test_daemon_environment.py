"""What the workers of a process group find: environment, logs, requests from everywhere.

Items of the parity checklist (I, 181 to 206); the number is in each test's docstring."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time

import pytest
from harness import paths, processes
from harness.group import ROOT, Request, group, identity, pid, replaced, sockets
from harness.sites import applications

pytestmark = pytest.mark.rwsgi


# Environment


@pytest.mark.checklist(203)
def test_locale(new_httpd):
    """203"""
    with group(new_httpd, "lang=C.UTF-8 locale=C.UTF-8") as httpd:
        facts = identity(httpd)
        assert facts["environ"]["LANG"] == facts["environ"]["LC_ALL"] == "C.UTF-8"
        assert facts["locale"] == "C.UTF-8" or "LC_CTYPE=C.UTF-8" in facts["locale"]
        assert facts["encoding"] == "utf-8"


@pytest.mark.checklist(203)
def test_locale_that_does_not_exist(new_httpd):
    """203: a warning at most."""
    with group(new_httpd, "locale=xx_XX.UTF-8") as httpd:
        httpd.allow_log(r"RWSGI04\d\d: .*xx_XX")
        assert identity(httpd)["environ"]["LC_ALL"] == "xx_XX.UTF-8"


def test_environment(new_httpd, tmp_path):
    """``env-file`` and ``env`` are added to httpd's own environment; the later one wins."""
    with new_httpd(mode="daemon", env={"FROM_HTTPD": "kept", "BOTH": "httpd"}) as httpd:
        file = httpd.write("site.env", "# a comment\nFROM_FILE=file\nBOTH=file\n\nSPACED=a b\n")
        httpd.config.daemon = f'env-file="{file}" env=FROM_OPTION=option env="SPACES=c d"'
        httpd.config.daemon += " env=FROM_FILE=overridden"
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        environ = identity(httpd)["environ"]
        assert environ["FROM_HTTPD"] == "kept" and environ["BOTH"] == "file"
        assert environ["FROM_FILE"] == "overridden" and environ["FROM_OPTION"] == "option"
        assert environ["SPACED"] == "a b" and environ["SPACES"] == "c d"
        # Read again for every worker.
        httpd.write("site.env", "FROM_FILE=file\nBOTH=again\n")
        old = httpd.workers()
        os.kill(old[0], signal.SIGUSR1)
        replaced(httpd, old)
        assert identity(httpd)["environ"]["BOTH"] == "again"


@pytest.mark.checklist(174)
def test_home_and_python_path(new_httpd):
    """174: ``home`` is the working directory and the first of sys.path; ``python-path`` as the
    directive, for the group."""
    with new_httpd() as httpd:
        home = httpd.root / "home"
        home.mkdir()
        (home / "at_home.py").write_text("x = 1\n")
        extra = httpd.root / "extra"
        extra.mkdir()
        (extra / "more.pth").write_text(f"{httpd.root}/data\n")
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess mine home="{home}" python-path="{extra}:{httpd.apps}"
            WSGIScriptAlias /mine "{httpd.apps}/daemon.wsgi" process-group=mine \\
                application-group=%{{GLOBAL}}
        """)
        httpd.start()
        facts = httpd.json("/mine/identity")
        assert facts["cwd"] == str(home)
        assert facts["path"][0] == str(home)
        assert facts["path"][1:3] == [str(extra), str(httpd.apps)]
        assert f"{httpd.root}/data" in facts["path"]
        assert "" not in facts["path"] and str(paths.MODULE_DIR / "rwsgi") not in facts["path"]
        assert facts["argv"] == httpd.json("/app/identity")["argv"]


def test_small_options(new_httpd):
    """python-eggs, switch-interval; and options without effect are accepted."""
    options = "python-eggs=/tmp/eggs switch-interval=0.02 send-buffer-size=65536"
    options += " receive-buffer-size=65536 header-buffer-size=8192 response-flush-delay=0"
    options += " response-socket-timeout=5 server-metrics=On"
    with group(new_httpd, options) as httpd:
        facts = identity(httpd)
        assert facts["environ"]["PYTHON_EGG_CACHE"] == "/tmp/eggs"
        assert facts["switch_interval"] == 0.02
        response = httpd.get("/answer/many-headers")
        assert response.header("X-Long") == "x" * 30000
        size = 2_000_000
        target = f"/answer/large?size={size}&piece=70000"
        assert len(httpd.get(target).body) == size


@pytest.mark.parametrize("kib", [64, 0])
def test_response_buffer_size(new_httpd, kib):
    """With 64 KiB, a client that does not read 7 MiB holds its thread; by default it does not."""
    size = 7 << 20
    with group(new_httpd, f"threads=2 response-buffer-size={kib << 10}") as httpd:
        file = httpd.root / "data" / "produced"
        with httpd.connect() as connection:
            connection.request(f"/app/sized?size={size}&file={file}")
            if kib:
                time.sleep(1)
                assert not file.exists()
            else:
                httpd.wait_until(file.exists, "the thread is held")
            assert len(connection.read_response().body) == size
        httpd.wait_until(file.exists)


def test_response_socket_timeout(new_httpd):
    """A client that takes nothing for so long is given up, and its thread is free again."""
    options = "threads=1 response-buffer-size=65536 response-socket-timeout=1"
    with group(new_httpd, options) as httpd:
        with httpd.connect() as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.request(f"/app/sized?size={64 << 20}")
            connection.read_head()
            begin = time.monotonic()
            assert httpd.get("/app/pid").status == 200
            assert time.monotonic() - begin < 8


@pytest.mark.skipif(not paths.VENV.exists(), reason="no virtual environment")
@pytest.mark.checklist(173)
def test_virtual_environment(new_httpd):
    """173: ``python-home``; the interpreter is the environment's own."""
    if not paths.same_python():
        pytest.skip("the default gateway is of another Python than the virtual environment")
    with group(new_httpd, f'python-home="{paths.VENV}"') as httpd:
        facts = identity(httpd)
        assert facts["prefix"] == str(paths.VENV)
        assert facts["executable"].startswith(f"{paths.VENV}/bin/python")
        assert str(paths.site_packages()) in facts["path"]
        assert httpd.get("/look/imports?module=numpy").text == "48"
        assert httpd.get("/look/subprocesses").text.strip() == "42"
        # The interpreter was never run as root.
        assert "libpython" not in processes.maps(httpd.process.pid)


@pytest.mark.checklist(47, mode="embedded")
def test_python_in_httpd_only_where_it_is_needed(new_httpd):
    """47: with WSGIRestrictEmbedded, httpd's processes have no Python at all."""
    with group(new_httpd, text="WSGIRestrictEmbedded On") as httpd:
        assert httpd.get("/app/pid").status == 200
        for child in httpd.children():
            assert "libpython" not in processes.maps(child)


@pytest.mark.checklist(163)
def test_preloaded_by_import_script(new_httpd):
    """163, 164: before the first request, in every process; the module of the requests."""
    with new_httpd(mode="daemon", daemon="processes=2 threads=2") as httpd:
        log = httpd.root / "data" / "loads"
        script = httpd.write(
            "site/app.wsgi",
            f"""\
            import os
            with open({str(log)!r}, "a") as file:
                file.write("%d\\n" % os.getpid())

            def application(environ, start_response):
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(os.getpid()).encode()]
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIImportScript "{script}" process-group=tests application-group=%{{GLOBAL}}
            WSGIScriptAlias / "{script}" application-group=%{{GLOBAL}}
        """)
        httpd.start()
        httpd.wait_until(lambda: log.exists() and len(log.read_text().split()) == 2)
        assert sorted(map(int, log.read_text().split())) == httpd.workers()
        for _ in range(8):
            httpd.get("/")
        assert len(log.read_text().split()) == 2


# Logs


@pytest.mark.checklist(204)
def test_log_of_a_virtual_host(new_httpd):
    """204: requests log to their virtual host, what belongs to none to the group's."""
    with new_httpd() as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName localhost
            </VirtualHost>
            <VirtualHost *:{httpd.port}>
                ServerName second.example
                ErrorLog "{httpd.vhost_log("second.log")}"
                WSGIDaemonProcess second threads=2 python-path="{httpd.apps}"
                WSGIProcessGroup second
            </VirtualHost>
        """)
        httpd.start()
        host = {"Host": f"second.example:{httpd.port}"}
        expected = [
            httpd.expect_log(f"by {what}$")
            for what in ("wsgi.errors", "print", "a thread", "descriptor 2")
        ]
        httpd.get("/app/talking", headers=host)
        httpd.expect_log("RWSGI0200: .*ValueError")
        assert httpd.request("/app/raising", headers=host).status == 500
        httpd.settle_log()
        second = (httpd.root / "logs" / "second.log").read_text()
        main = (httpd.root / "logs" / "error.log").read_text()
        for expectation in expected:
            (line,) = expectation.lines
            assert line.raw in second and line.raw not in main
        assert "ValueError: raised" in second and "ValueError: raised" not in main
        # Of the request: its id, and the virtual host's name.
        assert {expectation.lines[0].vhost for expectation in expected[:2]} == {"second.example"}
        assert len({expectation.lines[0].log_id for expectation in expected[:2]}) == 1


@ROOT
@pytest.mark.checklist(205)
def test_priority(new_httpd):
    """205: nice."""
    with group(new_httpd, "cpu-priority=5") as httpd:
        assert identity(httpd)["nice"] == 5


@ROOT
@pytest.mark.checklist(205)
def test_stack_size(new_httpd):
    """205: the threads that serve have so much stack."""
    size = 1 << 20
    with group(new_httpd, f"threads=7 stack-size={size}") as httpd:
        (worker,) = httpd.workers()
        sizes = []
        for line in processes.maps(worker).splitlines():
            first, last = line.split()[0].split("-")
            if line.split()[1] == "rw-p" and len(line.split()) == 5:
                sizes.append(int(last, 16) - int(first, 16))
        # glibc takes the guard page out of it, or adds it; neighbours may have been joined.
        assert sum(abs(each - size) <= 8192 for each in sizes) >= 7, sorted(sizes)[-20:]


@ROOT
@pytest.mark.parametrize(("option", "owner"), [("", None), ("socket-user=#1234", 1234)])
@pytest.mark.checklist(206)
def test_owner_of_the_socket(new_httpd, option, owner):
    """206"""
    import pwd

    with new_httpd(mode="daemon", daemon=option) as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        status = (httpd.root / "run" / sockets(httpd)[0]).stat()
        assert status.st_mode & 0o777 == 0o600
        user = pwd.getpwnam(paths.httpd_user()[0]).pw_uid
        assert status.st_uid == (user if owner is None else owner)
        if owner is None:
            assert httpd.get("/app/pid").status == 200
        else:
            # Whoever may not connect is told so.
            httpd.expect_log("RWSGI0310: .*Permission denied")
            assert httpd.request("/app/pid").status == 503


# Routing


def test_error_override(new_httpd):
    """WSGIErrorOverride: httpd's own page instead of the application's, in daemon mode."""
    text = """
        <Location /app/failing>
            WSGIErrorOverride On
            ErrorDocument 503 "the page of the server"
        </Location>
    """
    with group(new_httpd, text=text) as httpd:
        response = httpd.request("/app/failing")
        assert response.status == 503
        assert response.body == b"the page of the server"
        # Without it the application's own answer stands.
    with group(new_httpd) as httpd:
        response = httpd.request("/app/failing")
        assert (response.status, response.reason) == (503, "My Own")
        assert response.body == b"my own error"


def test_several_groups(new_httpd):
    """Groups are apart: processes, threads, replacement."""
    with new_httpd() as httpd:
        applications(httpd, embedded="daemon.wsgi")
        for name in ("one", "two"):
            httpd.add(f"""
                WSGIDaemonProcess {name} threads=2 display-name=%{{GROUP}} \\
                    python-path="{httpd.apps}"
                WSGIScriptAlias /{name} "{httpd.apps}/daemon.wsgi" process-group={name} \\
                    application-group=%{{GLOBAL}}
            """)
        httpd.start()
        assert len(httpd.supervisors()) == 2
        pids = {name: int(httpd.get(f"/{name}/pid").body) for name in ("one", "two", "embedded")}
        assert len(set(pids.values())) == 3
        assert pids["embedded"] in httpd.children()
        assert {processes.title(pids[name]) for name in ("one", "two")} == {
            "(wsgi:one)",
            "(wsgi:two)",
        }
        os.kill(pids["one"], signal.SIGUSR1)
        httpd.wait_until(lambda: int(httpd.get("/one/pid").body) != pids["one"])
        assert int(httpd.get("/two/pid").body) == pids["two"]


def test_one_group_from_every_process_of_httpd(new_httpd):
    """Several processes of httpd share the workers."""
    with new_httpd(mode="daemon", mpm="prefork", threads=6, daemon="processes=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        gate = httpd.gate()
        requests = [Request(httpd, f"/app/hold?gate={gate.path}") for _ in range(6)]
        for request in requests:
            request.begun()
        gate.step(6)
        assert {int(r.response().body) for r in requests} <= set(httpd.workers())


def test_load_is_shared(new_httpd):
    """The less loaded of two: with half of the threads held, the rest serves without waiting."""
    with group(new_httpd, "processes=2 threads=4", threads=24) as httpd:
        gate = httpd.gate()
        held = [Request(httpd, f"/app/hold?gate={gate.path}") for _ in range(4)]
        for request in held:
            request.begun()
        begin = time.monotonic()
        results = []
        threads = [threading.Thread(target=lambda: results.append(pid(httpd))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begin < 5 and len(results) == 20
        gate.step(4)
        for request in held:
            assert request.response().status == 200


def test_message_of_start_and_end(new_httpd):
    """What a person reads in the log at level info: who started, who ended and why."""
    with group(new_httpd) as httpd:
        old = httpd.workers()[0]
        os.kill(old, signal.SIGTERM)
        replaced(httpd, [old])
        new = httpd.workers()[0]
        httpd.stop()
        httpd.log.read()
        ours = [line for line in httpd.log.seen if line.module == "rwsgi"]
        for worker in (old, new):
            about = [
                line
                for line in ours
                if line.pid == worker or re.search(rf"\b{worker}\b", line.message)
            ]
            assert len(about) >= 2, f"nothing about {worker}"
        assert any("shutdown_signal" in line.message for line in ours)
