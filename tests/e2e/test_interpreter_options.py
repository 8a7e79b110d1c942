"""``<WSGIInterpreterOptions>`` and what may stand in it: who gets which interpreter."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest
from harness import pythons as gateways
from harness.config import BOTH, GROUP

MODES = BOTH

pytestmark = pytest.mark.rwsgi


@pytest.fixture(scope="module")
def modern(tmp_path_factory):
    """An installation of the module with the newest Python that has per-interpreter locks."""
    found = gateways.records()
    newest = max(found, key=lambda version: int(version.split(".")[1]))
    if int(newest.split(".")[1]) < 12:
        pytest.skip("no gateway for Python 3.12 or later: tests/tools/several.sh finds none")
    directory = gateways.install(tmp_path_factory.mktemp("modules"), found)
    return directory, found[newest][1]


@pytest.fixture
def new_modern(new_httpd, modern, monkeypatch):
    """Makes a server with that Python."""
    directory, record = modern
    monkeypatch.setattr(gateways.paths, "MODULE_DIR", directory)

    @contextmanager
    def make(text="", **options):
        with new_httpd(**options) as httpd:
            library = gateways.environment(record)["LD_LIBRARY_PATH"]
            httpd.config.daemon += f" env=LD_LIBRARY_PATH={library}"
            httpd.add(f'WSGIPythonHome "{record["prefix"]}"')
            yield setup(httpd, text)

    return make


def setup(httpd, text=""):
    """The groups a, b, c and the main interpreter, by path."""
    if not httpd.daemon:
        httpd.add(f'WSGIPythonPath "{httpd.apps}"')
    else:
        httpd.config.daemon += f" python-path={httpd.apps}"
    httpd.add(f"""
        <Directory "{httpd.apps}">
            Require all granted
        </Directory>
    """)
    for group in "abc":
        httpd.add(f'WSGIScriptAlias /{group} "{httpd.apps}/gil.wsgi" application-group={group}')
    httpd.add(f'WSGIScriptAlias /main "{httpd.apps}/gil.wsgi" application-group=%{{GLOBAL}}')
    return httpd.add(text)


def block(text, **selectors):
    words = "".join(f" {name.replace('_', '-')}={value}" for name, value in selectors.items())
    lines = "\n".join(f"    {line.strip()}" for line in text.strip().splitlines())
    return f"<WSGIInterpreterOptions{words}>\n{lines}\n</WSGIInterpreterOptions>"


def own(mode):
    """The selector for the processes that the applications run in."""
    return GROUP if mode == "daemon" else "%{GLOBAL}"


def other(mode):
    return "%{GLOBAL}" if mode == "daemon" else "elsewhere"


# Which block decides


@pytest.mark.checklist(171)
def test_what_selects_more_decides_and_the_last_among_equals(new_httpd, mode):
    with new_httpd(threads=2) as httpd:
        setup(
            httpd,
            "\n".join(
                [
                    "WSGIRestrictStdin Off",
                    block("WSGIRestrictStdin Off", process_group=own(mode), application_group="a"),
                    block("WSGIRestrictStdin On"),
                    # Another process group's says nothing here.
                    block("WSGIRestrictStdout On", process_group=other(mode)),
                    # Two equal ones: the last counts. A third, of the same rank, is for others.
                    block("WSGIRestrictStdout On", application_group="b"),
                    block("WSGIRestrictStdout Off", process_group=own(mode)),
                    block("WSGIRestrictStdout On", application_group="c"),
                    # Each directive by itself.
                    block("WSGIRestrictSignal Off", application_group="c"),
                ]
            ),
        ).start()
        for group, expected in {
            "a": ("accepted", "accepted", "ignored"),
            "b": ("refused", "accepted", "ignored"),
            "c": ("refused", "refused", "accepted"),
            "main": ("refused", "accepted", "ignored"),
        }.items():
            found = httpd.json(f"/{group}/streams")
            # A stream that is accepted says that it is no file.
            stdin, stdout, signal = (
                "refused" if found["stdin"] == "refused" else "accepted",
                "refused" if found["stdout"] == "refused" else "accepted",
                found["signal"],
            )
            assert (stdin, stdout, signal) == expected, group


@pytest.mark.checklist(171)
def test_the_empty_block_is_for_all_and_names_may_be_quoted(new_httpd, mode):
    with new_httpd(threads=2) as httpd:
        script = httpd.apps / "gil.wsgi"
        text = block("WSGIRestrictStdin On") + "\n"
        text += block("WSGIRestrictStdin Off", application_group='"two words"')
        text += f'\nWSGIScriptAlias /words "{script}" application-group="two words"'
        setup(httpd, text).start()
        assert httpd.json("/words/streams")["stdin"] != "refused"
        for group in ("a", "main"):
            assert httpd.json(f"/{group}/streams")["stdin"] == "refused"


@pytest.mark.checklist(171, 175)
def test_the_first_group_gets_its_own_settings(new_httpd, mode):
    """The main interpreter is made before it is known whose it will be."""
    with new_httpd(threads=2) as httpd:
        for name in ("all", "mine"):
            httpd.write(f"{name}/module_{name}.py", "")
        httpd.config.daemon += f" home={httpd.root}/data"
        path = f"python-path={httpd.apps}"
        if httpd.daemon:
            httpd.config.daemon += f" {path}"
        else:
            httpd.add(f'WSGIPythonPath "{httpd.apps}"')
        httpd.add(f"""
            <Directory "{httpd.apps}">
                Require all granted
            </Directory>
            WSGIScriptAlias /first "{httpd.apps}/gil.wsgi" application-group=first
        """)
        httpd.add(
            block(f"WSGIRestrictStdin On\nWSGIRestrictSignal On\nWSGIPythonPath {httpd.root}/all")
        )
        text = f"""
            WSGIRestrictStdin Off
            WSGIRestrictStdout On
            WSGIRestrictSignal Off
            WSGIPythonPath {httpd.root}/mine
        """
        httpd.add(block(text, application_group="first"))
        httpd.start()
        found = httpd.json("/first/streams")
        assert found["stdin"] != "refused"
        assert (found["stdout"], found["signal"]) == ("refused", "accepted")
        path = httpd.json("/first/facts")["path"]
        home = [f"{httpd.root}/data"] if httpd.daemon else []
        places = [f"{httpd.root}/mine", f"{httpd.root}/all", str(httpd.apps)]
        assert path[: len(home) + 3] == home + places


@pytest.mark.checklist(172)
def test_python_path_in_layers(new_httpd, mode):
    """What selects least comes first and so ends up last; .pth files of each layer are read."""
    with new_httpd(threads=2) as httpd:
        for name in ("all", "group", "app", "both", "late"):
            httpd.write(f"{name}/lib/module_{name}.py", "")
            httpd.write(f"{name}/more/x.py", "")
            httpd.write(f"{name}/lib/extra.pth", f"{httpd.root}/{name}/more\n")
        path = {
            name: f"{httpd.root}/{name}/lib" for name in ("all", "group", "app", "both", "late")
        }
        setup(
            httpd,
            "\n".join(
                [
                    block(
                        f"WSGIPythonPath {path['both']}",
                        process_group=own(mode),
                        application_group="a",
                    ),
                    block(f"WSGIPythonPath {path['app']}", application_group="a"),
                    block(f"WSGIPythonPath {path['group']}", process_group=own(mode)),
                    block(f"WSGIPythonPath {path['all']}"),
                    block(f"WSGIPythonPath {path['late']}", process_group=other(mode)),
                ]
            ),
        ).start()
        layers = {
            "a": ["both", "group", "app", "all"],
            "b": ["group", "all"],
            "main": ["group", "all"],
        }
        for group, names in layers.items():
            expected = []
            for name in names:
                expected += [path[name], f"{httpd.root}/{name}/more"]
            expected.append(str(httpd.apps))
            assert httpd.json(f"/{group}/facts")["path"][: len(expected)] == expected, group


def test_a_block_within_conditions(new_httpd, mode):
    """<IfModule> and its like may stand around a block and in it."""
    with new_httpd(threads=2) as httpd:
        setup(
            httpd,
            """
            <IfModule rwsgi_module>
            <WSGIInterpreterOptions application-group=a>
                # A comment.
                <IfDefine !NOT_THERE>
                    WSGIRestrictStdin On
                </IfDefine>
                <IfModule not_there.c>
                    WSGIRestrictStdout On
                </IfModule>
            </WSGIInterpreterOptions>
            </IfModule>
            """,
        ).start()
        found = httpd.json("/a/streams")
        assert found["stdin"] == "refused" and found["stdout"] != "refused"
        assert httpd.json("/b/streams")["stdin"] != "refused"


# A global lock of its own


def meet(httpd, first, second, seconds=10):
    """Two requests that never give their lock up: whether each saw the other one run."""
    shared = httpd.root / "data" / f"shared-{first}-{second}"
    shared.write_bytes(b"\0\0")
    shared.chmod(0o666)
    answers = {}

    def ask(number, group):
        target = f"/{group}/together?file={shared}&own={number}&seconds={seconds}"
        answers[number] = httpd.get(target).text

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[0], answers[1]]


@pytest.mark.checklist(170)
@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_interpreters_with_a_lock_of_their_own_compute_at_once(new_modern, mpm):
    text = block("WSGIPerInterpreterGIL On", application_group="a") + "\n"
    text += block("WSGIPerInterpreterGIL On", application_group="b")
    with new_modern(text, threads=4, mpm=mpm) as httpd:
        httpd.expect_log("created sub-interpreter 'a'.* with own GIL")
        httpd.expect_log("created sub-interpreter 'b'.* with own GIL")
        httpd.start()
        assert len({httpd.json(f"/{group}/facts")["pid"] for group in ("a", "b", "main")}) == 1
        assert meet(httpd, "a", "b") == ["together", "together"]
        assert meet(httpd, "a", "main") == ["together", "together"]


@pytest.mark.checklist(170)
def test_interpreters_that_share_the_lock_do_not(new_modern):
    """The counter-proof: the second request begins when the first has given up."""
    with new_modern(threads=4) as httpd:
        httpd.start()
        httpd.get("/c/facts")
        assert "alone" in meet(httpd, "c", "main", seconds=0.5)


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_interpreters_with_their_own_lock_under_load(new_modern, mpm, mode):
    """Made under load, used by threads that also serve others, changed, and taken down."""
    text = block("WSGIPerInterpreterGIL On", application_group="a") + "\n"
    text += block("WSGIPerInterpreterGIL On", application_group="b")
    # A thread for each connection: httpd closes idle ones that keep others waiting.
    with new_modern(text, threads=10, mpm=mpm) as httpd:
        httpd.start()
        failures = []

        def client(number):
            try:
                with httpd.connect() as connection:
                    for step in range(60):
                        group = ("a", "b", "c", "main")[(number + step) % 4]
                        connection.request(f"/{group}/facts")
                        answer = connection.read_response()
                        if answer.status != 200 or json.loads(answer.body)["group"] != (
                            "" if group == "main" else group
                        ):
                            failures.append((group, answer.status))
            except Exception as error:
                failures.append(repr(error))

        clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in clients:
            thread.start()
        script = httpd.apps / "gil.wsgi"
        for _ in range(3):
            httpd.write("apps/gil.wsgi", script.read_text())
            httpd.get("/a/facts")
        for thread in clients:
            thread.join()
        assert failures == []


REFUSED = {
    "daemon thread": "RuntimeError",
    "thread": "done",
    "extension": "ImportError",
    "subprocess": "done",
    "rwsgi": "RuntimeError",
}


@pytest.mark.checklist(170)
def test_what_an_interpreter_with_its_own_lock_refuses(new_modern):
    text = "WSGIPerInterpreterGIL On\n" + block("WSGIPerInterpreterGIL Off", application_group="c")
    with new_modern(text, threads=2) as httpd:
        httpd.start()
        assert httpd.json("/a/attempt?fork=yes") == REFUSED | {"fork": "RuntimeError"}
        allowed = {name: "done" for name in REFUSED} | {"rwsgi": "RuntimeError"}
        assert httpd.json("/c/attempt") == allowed
        assert httpd.json("/main/attempt") == allowed
        # And the process lives.
        assert httpd.json("/a/facts")["pid"] == httpd.json("/main/facts")["pid"]


@pytest.mark.checklist(170)
def test_the_first_group_with_its_own_lock_is_not_in_the_main_interpreter(new_modern, mode):
    """Only it is asked, so without the directive it would be there."""
    with new_modern("WSGIPerInterpreterGIL On", threads=2) as httpd:
        httpd.config.added = [text for text in httpd.config.added if "GLOBAL" not in text]
        httpd.start()
        assert httpd.json("/b/attempt") == REFUSED


@pytest.mark.modes("daemon")
def test_a_preloaded_group_with_its_own_lock(new_modern):
    """Such an interpreter does not survive a fork: it is made in the worker."""
    text = block("WSGIPerInterpreterGIL On", application_group="a")
    with new_modern(text, threads=2, daemon="preload=on") as httpd:
        for group in ("a", "b"):
            script = httpd.apps / "gil.wsgi"
            httpd.add(
                f'WSGIImportScript "{script}" process-group={GROUP} application-group={group}'
            )
        httpd.start()
        assert httpd.json("/a/attempt") == REFUSED
        assert httpd.json("/b/attempt")["daemon thread"] == "done"


@pytest.mark.modes("daemon")
@pytest.mark.checklist(188)
def test_a_lock_that_is_held_for_ever_is_noticed(new_modern):
    """The pulse visits every lock, not only the main interpreter's."""
    text = block("WSGIPerInterpreterGIL On", application_group="a")
    with new_modern(text, threads=2, daemon="deadlock-timeout=2") as httpd:
        httpd.start()
        old = httpd.json("/a/facts")["pid"]
        shared = httpd.root / "data" / "never"
        shared.write_bytes(b"\0\0")
        shared.chmod(0o666)
        httpd.expect_log("RWSGI0414")
        httpd.allow_log("RWSGI040[78]|RWSGI0410|RWSGI03")
        httpd.allow_log(
            r"^(main interpreter|sub-interpreter|Thread 0x|Current thread 0x)|^  File |^$"
        )
        httpd.allow_log("Python stacks of all threads")
        answer = httpd.request(f"/a/together?file={shared}&own=0&seconds=60")
        assert answer.status in (502, 503)
        assert httpd.json("/a/facts")["pid"] != old


def test_an_older_python_says_so(new_httpd, mode):
    with new_httpd(threads=2) as httpd:
        version = gateways.paths.gateway_record()["version"]
        if int(version.split(".")[1]) >= 12:
            pytest.skip("the default gateway's Python knows own locks")
        httpd.expect_log("RWSGI0560.*" + version.replace(".", r"\."), count=None)
        setup(httpd, "WSGIPerInterpreterGIL On").start()
        assert httpd.json("/a/attempt")["daemon thread"] == "done"


# The switch interval


@pytest.mark.checklist(170, 171)
def test_switch_interval(new_modern, mode):
    if mode == "daemon":
        text, options = "", {"daemon": "switch-interval=0.02"}
    else:
        text, options = "WSGISwitchInterval 0.02", {}
    text += "\n" + block("WSGIPerInterpreterGIL On\nWSGISwitchInterval 0.25", application_group="a")
    text += "\n" + block("WSGIPerInterpreterGIL On", application_group="b")
    text += "\n" + block("WSGISwitchInterval 0.5", application_group="c")
    with new_modern(text, threads=2, **options) as httpd:
        httpd.expect_log("RWSGI0564.*'c'")
        httpd.start()
        intervals = {
            group: httpd.json(f"/{group}/facts")["switch_interval"]
            for group in ("main", "a", "b", "c")
        }
        assert intervals == {"main": 0.02, "a": 0.25, "b": 0.02, "c": 0.02}


def test_the_switch_interval_of_a_process(new_httpd, mode):
    """A block for all interpreters of a process wins over what stands outside."""
    text = "WSGISwitchInterval 0.5\n"
    text += block("WSGISwitchInterval 0.25", process_group=own(mode)) + "\n"
    text += block("WSGISwitchInterval 0.125", process_group=other(mode))
    with new_httpd(threads=2) as httpd:
        setup(httpd, text).start()
        for group in ("a", "main"):
            assert httpd.json(f"/{group}/facts")["switch_interval"] == 0.25


# The end


@pytest.mark.checklist(178)
@pytest.mark.parametrize("destroy", ["On", "Off"])
def test_the_end_of_a_process(new_httpd, destroy):
    with new_httpd(threads=2) as httpd:
        setup(httpd, f"WSGIDestroyInterpreter {destroy}").start()
        files = {}
        for group in ("a", "main"):
            files[group] = httpd.root / "data" / f"end-{group}"
            assert httpd.get(f"/{group}/on-exit?file={files[group]}").text == "registered"
        httpd.stop()
        for file in files.values():
            notes = file.read_text().split("\n")
            assert notes[0] == "thread begins"
            assert ("atexit" in notes) == (destroy == "On")
            assert ("thread ends" in notes) == (destroy == "On")


@pytest.mark.checklist(178)
def test_the_end_of_an_interpreter_with_its_own_lock(new_modern):
    with new_modern("WSGIPerInterpreterGIL On", threads=2) as httpd:
        httpd.start()
        for group in ("a", "b"):
            httpd.get(f"/{group}/on-exit?file={httpd.root}/data/end-{group}")
        httpd.stop()
        for group in ("a", "b"):
            notes = (httpd.root / "data" / f"end-{group}").read_text().split()
            assert "atexit" in notes and "ends" in notes


# Without a build for it


def test_free_threading_without_a_build_for_it(new_httpd, mode):
    version = gateways.paths.gateway_record()["version"]
    with new_httpd(threads=2) as httpd:
        httpd.expect_log("RWSGI0561.*" + version.replace(".", r"\."), count=None)
        httpd.expect_log("RWSGI0562", count=None)
        text = "WSGIFreeThreading On\n" + block("WSGIFreeThreading On", application_group="a")
        setup(httpd, text).start()
        assert httpd.json("/a/facts")["gil"] is True


# Events with own locks


@pytest.mark.checklist(219, 224)
def test_events_with_locks_of_their_own(new_modern):
    """What subscribers of one interpreter are told does not depend on the lock of another."""
    with new_modern("WSGIPerInterpreterGIL On") as httpd:
        mounts = ("/one", "/two")
        for mount in mounts:
            script = f'"{httpd.apps}/events.wsgi" application-group={mount[1:]}'
            httpd.add(f"WSGIScriptAlias {mount} {script}")
        httpd.start()
        if not httpd.daemon:
            httpd.expect_log("subscribe_signals.. was ignored", count=2)
            httpd.allow_log("events.wsgi., line|^    ")
        files = {mount: httpd.root / "data" / mount[1:] for mount in mounts}
        for mount, file in files.items():
            httpd.get(f"{mount}/subscribe?file={file}")

        def ask(mount):
            for _ in range(20):
                assert httpd.get(f"{mount}/fine").body == b"fine"

        threads = [threading.Thread(target=ask, args=(mount,)) for mount in mounts * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mount in mounts:
            answer = httpd.json(f"{mount}/active")
            assert list(answer["running"]) == [answer["own"]]

            def finished(mount=mount):
                names = [name for name, _ in httpd.json(f"{mount}/of?path=/fine")]
                return names.count("request_finished") == 40 and names

            names = httpd.wait_until(finished)
            assert names.count("request_started") == names.count("response_started") == 40
        httpd.stop()
        for file in files.values():
            assert file.read_text().count("process_stopping") == 2
