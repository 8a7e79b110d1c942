"""Application groups, the first one in the main interpreter, and how Python is started."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest
from harness import paths
from harness.config import BOTH, GROUP

MODES = BOTH

RWSGI = pytest.mark.rwsgi


@pytest.fixture
def venv():
    """The virtual environment of the tests; it is of one Python only."""
    if not paths.same_python():
        pytest.skip("the default gateway is of another Python than the virtual environment")
    return paths.VENV


def setup(httpd, text="", python_path=True, main=True):
    """Mounts the same script in several groups, with or without ``%{GLOBAL}`` among them."""
    script = httpd.apps / "interpreter.wsgi"
    if python_path:
        httpd.add(f'WSGIPythonPath "{httpd.apps}"')
    httpd.add(f"""
        <Directory "{httpd.apps}">
            Require all granted
        </Directory>
        WSGIScriptAlias /a "{script}" application-group=a
        WSGIScriptAlias /b "{script}" application-group=b
    """)
    if main:
        httpd.add(f'WSGIScriptAlias /global "{script}" application-group=%{{GLOBAL}}')
    httpd.add(f'WSGIScriptAlias / "{script}"')
    httpd.add(text)
    return httpd


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd(threads=4) as httpd:
        yield setup(httpd).start()


@pytest.mark.checklist(168)
@pytest.mark.parametrize("what", ["count", "number-of-calls"])
def test_groups_share_nothing(server, what):
    """Neither modules nor the globals of a script that both have."""
    assert [server.get(f"/{g}/{what}").text for g in "aabab"] == ["1", "2", "1", "3", "2"]


@RWSGI
def test_the_main_interpreter_shares_nothing_either(server):
    """mod_wsgi answers some of these from a sub-interpreter that the thread was in before."""
    order = ["global", "a", "global", "b", "global"]
    start = {group: int(server.get(f"/{group}/count").text) for group in ("global", "a", "b")}
    for group in order * 4:
        start[group] += 1
        assert server.get(f"/{group}/count").text == str(start[group])


@pytest.mark.checklist(169)
def test_thread_local_survives(server):
    """One thread, one state, request after request; the groups have states of their own."""
    seen = {}
    for _ in range(40):
        pid, thread, count, number = server.json("/a/thread-local")
        assert count == seen.get((pid, thread), 0) + 1
        assert number >= 1
        seen[pid, thread] = count
    assert len(seen) <= 4 and sum(seen.values()) == 40


def test_built_in_modules(server):
    facts = server.json("/a/modules")
    assert facts["application_group"] == "a"
    assert facts["process_group"] == (GROUP if server.daemon else "")
    assert len(facts["version"]) == 3
    assert facts["maximum_processes"] == 1 and facts["threads_per_process"] == 4
    assert facts["wrapper"] is True
    assert facts["apache"][:2] == [2, 4] and facts["mpm"] == "event"
    assert facts["description"].startswith("Apache/2.4")


def test_argv(server):
    facts = server.json("/a/flags")
    assert len(facts["argv"]) == 1 and facts["warnoptions"] == []


def test_subprocess_of_the_main_interpreter(new_httpd):
    with new_httpd() as httpd:
        setup(httpd).start()
        assert httpd.get("/global/subprocesses").text.strip() == "42"


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_many_groups_at_once(new_httpd, mpm):
    """Interpreters are made under load, and each keeps its own count."""
    with new_httpd(mpm=mpm, threads=8) as httpd:
        script = httpd.apps / "interpreter.wsgi"
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAliasMatch ^/g[0-9]+ "{script}"
            WSGIApplicationGroup %{{RESOURCE}}
        """)
        httpd.start()
        failures = []

        def client(number):
            try:
                with httpd.connect() as connection:
                    for _ in range(20):
                        connection.request(f"/g{number}/count")
                        assert connection.read_response().status == 200
            except Exception as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        if mpm != "prefork":
            assert {httpd.get(f"/g{n}/count").text for n in range(6)} == {"21"}


# The first group


@RWSGI
@pytest.mark.parametrize(("module", "result"), [("numpy", "48"), ("cryptography", "secret")])
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_c_extensions_in_the_first_group(new_httpd, venv, module, result, mpm):
    """No WSGIApplicationGroup: the first group of the process is in the main interpreter."""
    with new_httpd(mpm=mpm, threads=2) as httpd:
        httpd.add(f'WSGIPythonHome "{venv}"\nWSGIPythonPath "{httpd.apps}"')
        setup(httpd, python_path=False, main=False).start()
        for _ in range(4):
            assert httpd.get(f"/imports?module={module}").text == result


@RWSGI
def test_the_first_group_is_in_the_main_interpreter(new_httpd):
    """It shares its modules with nobody, and its name stays what was configured."""
    with new_httpd(threads=2) as httpd:
        setup(httpd, main=False).start()
        assert httpd.json("/modules")["application_group"] == f"localhost:{httpd.port}|"
        assert httpd.get("/count").text == "1"
        assert httpd.get("/a/count").text == "1"
        assert httpd.get("/count").text == "2"


@RWSGI
def test_global_keeps_the_main_interpreter(new_httpd, venv):
    """Where %{GLOBAL} is configured, C extensions work there, whoever comes first."""
    with new_httpd(threads=2) as httpd:
        httpd.add(f'WSGIPythonHome "{venv}"\nWSGIPythonPath "{httpd.apps}"')
        setup(httpd, python_path=False).start()
        assert httpd.get("/a/count").text == "1"
        assert httpd.get("/global/imports?module=numpy").text == "48"


# Starting Python


@pytest.mark.checklist(173)
def test_virtual_environment(new_httpd, venv):
    with new_httpd() as httpd:
        httpd.add(f'WSGIPythonHome "{venv}"\nWSGIPythonPath "{httpd.apps}"')
        setup(httpd, python_path=False).start()
        facts = httpd.json("/flags")
        assert facts["prefix"] == str(venv)
        assert facts["base_prefix"] != facts["prefix"]
        assert str(paths.site_packages()) in facts["path"]
        assert facts["executable"] == str(venv / "bin" / "python") or facts[
            "executable"
        ].startswith(str(venv))


@pytest.mark.checklist(173)
def test_prefix(new_httpd, venv):
    """A home that is no virtual environment."""
    answer = subprocess.run(
        [str(venv / "bin" / "python"), "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True,
        text=True,
        check=True,
    )
    prefix = answer.stdout.strip()
    with new_httpd() as httpd:
        httpd.add(f'WSGIPythonHome "{prefix}"')
        setup(httpd).start()
        assert httpd.json("/flags")["prefix"] == prefix


@pytest.mark.checklist(172)
def test_python_path(new_httpd):
    """Directories come first and in order; their .pth files are read."""
    with new_httpd() as httpd:
        for name in ("one", "two", "by-pth"):
            httpd.write(f"{name}/in_{name.replace('-', '_')}.py", f"NAME = {name!r}\n")
        httpd.write("two/extra.pth", f"{httpd.root}/by-pth\n")
        httpd.add(f'WSGIPythonPath "{httpd.root}/one:{httpd.root}/two:{httpd.apps}"')
        setup(httpd, python_path=False).start()
        for group in ("a", "global"):
            path = httpd.json(f"/{group}/flags")["path"]
            places = [str(httpd.root / name) for name in ("one", "two")]
            assert path[:2] == places
            assert str(httpd.root / "by-pth") in path


@RWSGI
def test_python_path_that_is_missing(new_httpd):
    with new_httpd() as httpd:
        httpd.add(f'WSGIPythonPath "/does/not/exist:{httpd.apps}"')
        httpd.expect_log("RWSGI0110.*/does/not/exist", count=None)
        setup(httpd, python_path=False).start()
        assert httpd.get("/count").text == "1"
        httpd.settle_log()


def test_defaults(server):
    facts = server.json("/a/flags")
    assert facts["optimize"] == 0 and facts["hash_randomization"] == 1
    assert facts["dont_write_bytecode"] is False


@pytest.mark.checklist(180)
def test_options(new_httpd, venv):
    with new_httpd() as httpd:
        httpd.add("""
            WSGIPythonOptimize 2
            WSGIPythonWarnings error
            WSGIPythonWarnings ignore::DeprecationWarning
            WSGIPythonHashSeed 7
            WSGIDontWriteBytecode On
        """)
        setup(httpd).start()
        done = subprocess.run(
            [str(venv / "bin" / "python"), "-c", "print(hash('a string'))"],
            env={"PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )
        for group in ("a", "global"):
            facts = httpd.json(f"/{group}/flags")
            assert facts["optimize"] == 2
            assert facts["warnoptions"] == ["error", "ignore::DeprecationWarning"]
            assert facts["dont_write_bytecode"] is True
            assert facts["hash"] == int(done.stdout)


@RWSGI
def test_random_hash_seed(new_httpd):
    """The word means what it says (mod_wsgi takes it for 0)."""
    hashes = set()
    for _ in range(2):
        with new_httpd() as httpd:
            setup(httpd, "WSGIPythonHashSeed random").start()
            facts = httpd.json("/flags")
            assert facts["hash_randomization"] == 1
            hashes.add(facts["hash"])
    assert len(hashes) == 2


@RWSGI
def test_python_version(server):
    """The Python that the default gateway was built for."""
    version = ".".join(map(str, server.json("/a/flags")["version"]))
    assert version == paths.gateway_record()["version"]


@RWSGI
@pytest.mark.modes("embedded")
def test_python_that_cannot_start(new_httpd):
    """A prefix without a standard library: told at start-up, or by a 500 and the reason."""
    with new_httpd() as httpd:
        major_minor = ".".join(paths.gateway_record()["version"].split(".")[:2])
        home = httpd.root / "hollow"
        (home / "bin").mkdir(parents=True)
        (home / "lib" / f"python{major_minor}").mkdir(parents=True)
        httpd.add(f'WSGIPythonHome "{home}"')
        setup(httpd)
        if httpd.check().returncode == 0:
            httpd.expect_log("RWSGI0100", count=None)
            httpd.allow_log("RWSGI0007|encodings|[Pp]ython|sys\\.|PYTHON|^$|^  ")
            httpd.start()
            assert httpd.request("/count").status == 500
            assert httpd.request("/count").status == 500
        else:
            assert "RWSGI0004" in httpd.check().stderr


# Restrictions


@pytest.mark.checklist(175)
def test_streams(server):
    server.expect_log("^to stdout")
    assert server.json("/a/standard-streams") == {"stdin": "accepted", "stdout": "accepted"}


@pytest.mark.checklist(175)
def test_restricted_streams(new_httpd):
    with new_httpd() as httpd:
        setup(httpd, "WSGIRestrictStdin On\nWSGIRestrictStdout On").start()
        for group in ("a", "global"):
            answer = httpd.json(f"/{group}/standard-streams")
            assert answer == {"stdin": "OSError", "stdout": "OSError"}


@pytest.mark.checklist(176)
def test_signals_are_ignored(server):
    server.expect_log("RWSGI0109: signal.signal.* was ignored")
    server.expect_log("in signals$", count=None)
    server.allow_log("^(Called from|  )")
    assert server.get("/global/signals").text == "same"


@pytest.mark.checklist(176)
def test_signals_of_a_forked_process_are_its_own(new_httpd):
    """In the main interpreter alone: CPython ends processes that are forked beside another one."""
    with new_httpd() as httpd:
        httpd.add(f"""
            WSGIPythonPath "{httpd.apps}"
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias / "{httpd.apps}/interpreter.wsgi" application-group=%{{GLOBAL}}
        """)
        httpd.start()
        assert httpd.get("/signals-of-a-child").text == "handled"


@pytest.mark.checklist(176)
@RWSGI
@pytest.mark.modes("daemon")
def test_a_handler_that_is_allowed_is_called(new_httpd):
    """A script that is imported at the start runs on Python's main thread."""
    with new_httpd() as httpd:
        file = httpd.root / "data" / "handled"
        script = httpd.write(
            "site/handler.py",
            f"""\
            import os, signal
            def note(*_):
                with open({str(file)!r}, "a") as file:
                    file.write("%d\\n" % os.getpid())
            signal.signal(signal.SIGUSR2, note)
            """,
        )
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            WSGIImportScript "{script}" process-group={GROUP} application-group=%{{GLOBAL}}
        """)
        setup(httpd, "WSGIRestrictSignal Off").start()
        pid = httpd.json("/global/flags")["pid"]
        os.kill(pid, signal.SIGUSR2)
        httpd.wait_until(lambda: file.exists() and str(pid) in file.read_text(), "not handled")


@pytest.mark.checklist(176)
@RWSGI
def test_signals_can_be_allowed(new_httpd):
    """Then Python itself decides: not outside of its main thread."""
    with new_httpd() as httpd:
        setup(httpd, "WSGIRestrictSignal Off").start()
        assert httpd.get("/global/signals").text.startswith("ValueError")
