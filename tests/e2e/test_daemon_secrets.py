"""What a process group cannot get at: the TLS key, the sockets and the logs of the server, and what
belongs to other groups."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from harness import paths, processes
from harness.server import _shared_directory
from harness.sites import applications
from harness.tls import make_certificate

pytestmark = [
    pytest.mark.rwsgi,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def server(new_httpd):
    options = "user=nobody group=nogroup home=/ threads=4"
    with new_httpd(mode="daemon", threads=8, daemon=options, tls=True) as httpd:
        applications(httpd, app="daemon.wsgi", answer="response.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess same threads=2 python-path="{httpd.apps}"
            WSGIScriptAlias /same "{httpd.apps}/daemon.wsgi" process-group=same
            WSGIScriptAlias /embedded "{httpd.apps}/daemon.wsgi" process-group=%{{GLOBAL}}
        """)
        httpd.start()
        # The key is in use, and everything is connected.
        for path in ("/app/pid", "/same/pid", "/embedded/pid", "/answer/hello"):
            for tls in (True, False):
                httpd.get(path, tls=tls)
        yield httpd


def secrets():
    """The key in every form that a process may hold it in: text, numbers in both byte orders."""
    _, key = make_certificate(_shared_directory())
    text = key.read_bytes()
    lines = [line for line in text.splitlines() if not line.startswith(b"-----")]
    found = {"PEM": b"".join(lines[3:5])[:100], "PEM line": lines[5]}
    dump = subprocess.run(
        ["openssl", "rsa", "-in", str(key), "-noout", "-text"], capture_output=True, text=True
    ).stdout
    for name in ("prime1", "prime2", "privateExponent"):
        digits = re.search(rf"{name}:\n((?:\s+[0-9a-f:]+\n)+)", dump)[1]
        number = bytes.fromhex(re.sub(r"[^0-9a-f]", "", digits)).lstrip(b"\0")
        found[name] = number[:64]
        found[f"{name} reversed"] = number[::-1][:64]
    assert len(found) == 8
    return found


def memory(pid):
    """All that can be read of a process's memory, region by region."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        for line in processes.maps(pid).splitlines():
            place, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            begin, end = (int(part, 16) for part in place.split("-"))
            try:
                file.seek(begin)
                yield file.read(end - begin)
            except (OSError, ValueError, OverflowError):
                continue


def found_in(pid):
    wanted = secrets()
    found, size = set(), 0
    for region in memory(pid):
        size += len(region)
        found |= {name for name, value in wanted.items() if value in region}
    assert size > 1_000_000, "the memory could not be read"
    return found


def test_the_search_finds_the_key_where_it_is(server):
    """In httpd's own children, which need it. Without this, the next test could not fail."""
    assert found_in(server.children()[0])


def test_the_tls_key_is_in_no_worker_and_no_supervisor(server):
    daemons = [*server.workers(), *server.supervisors()]
    assert len(daemons) == 4
    for pid in daemons:
        assert found_in(pid) == set(), f"{processes.title(pid)} holds the key"


SPY = """
import os, sys
uid = int(sys.argv[1])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
for name in ("mem", "environ", "maps"):
    try:
        with open(f"/proc/{sys.argv[2]}/{name}", "rb") as file:
            print(name, "opened")
    except OSError as error:
        print(name, type(error).__name__)
"""


def spy(uid, pid):
    done = subprocess.run(
        [sys.executable, "-c", SPY, str(uid), str(pid)], capture_output=True, text=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.mark.parametrize("group", ["tests", "same"])
def test_processes_of_the_same_user_cannot_look_into_each_other(server, group):
    """daemon.md, trap 12: after exec a process would be dumpable again."""
    pid = int(server.get("/app/pid" if group == "tests" else "/same/pid").body)
    uid = int(processes.status(pid)["Uid"].split()[0])
    for each in (pid, processes.parent(pid)):
        assert spy(uid, each)["mem"] == "PermissionError"
    # Nor may an application read the server's memory.
    for child in server.children():
        assert spy(uid, child)["mem"] == "PermissionError"


def tcp_listeners():
    """The inodes of all listening TCP sockets."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.add(fields[9])
    return found


def unix_paths():
    """The paths of UNIX sockets by inode."""
    found = {}
    for line in open("/proc/net/unix").read().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            found[fields[6]] = fields[7]
    return found


def inode(target):
    match = re.fullmatch(r"socket:\[(\d+)\]", target)
    return match[1] if match else ""


def listeners_of(pid):
    """The paths of listening UNIX sockets that a process has open."""
    names = unix_paths()
    found = set()
    for target in processes.descriptors(pid).values():
        if names.get(inode(target), "").endswith(".sock"):
            found.add(names[inode(target)])
    return found


def test_descriptors_of_a_worker(server):
    """Nothing of httpd but, through its supervisor, the error log."""
    listening = tcp_listeners()
    root = str(server.root)
    sockets = {}
    for pid in server.workers():
        descriptors = processes.descriptors(pid)
        assert descriptors[0] == "/dev/null"
        for number in (1, 2):
            assert descriptors[number].startswith("pipe:"), descriptors[number]
        for number, target in descriptors.items():
            assert inode(target) not in listening, "a listening socket of httpd"
            assert not target.startswith(root), f"{number}: {target}"
            assert not target.startswith("pipe:") or number in (1, 2), f"{number}: {target}"
        sockets[pid] = listeners_of(pid)
    for pid, own in sockets.items():
        others = set().union(*(paths_ for other, paths_ in sockets.items() if other != pid))
        assert len([path for path in own if path not in others]) == 1, sockets


def test_descriptors_of_a_supervisor(server):
    listening = tcp_listeners()
    root = str(server.root)
    error_log = f"{root}/logs/error.log"
    own = []
    for pid in server.supervisors():
        descriptors = processes.descriptors(pid)
        assert descriptors[0] == "/dev/null"
        assert descriptors[1] == descriptors[2] == error_log
        for number, target in descriptors.items():
            assert inode(target) not in listening, "a listening socket of httpd"
            assert not target.startswith(root) or number in (1, 2), f"{number}: {target}"
        own.append(listeners_of(pid))
    assert all(len(each) == 1 for each in own) and not own[0] & own[1]


def test_programs_of_the_application_inherit_nothing(server):
    """What an application starts gets descriptors 0, 1 and 2 only."""
    server.write(
        "apps/starting.wsgi",
        """\
        import subprocess, sys

        CODE = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"

        def application(environ, start_response):
            answers = []
            for close in (True, False):
                done = subprocess.run(
                    [sys.executable, "-c", CODE], close_fds=close, stdout=subprocess.PIPE
                )
                answers.append(done.stdout)
            start_response("200 OK", [("Content-Type", "text/plain")])
            return answers
        """,
    )
    server.write(
        "apps/daemon.wsgi",
        (server.apps / "daemon.wsgi").read_text()
        + "\nimport runpy\nROUTES['/starting'] = runpy.run_path("
        f"{str(server.apps / 'starting.wsgi')!r})['application']\n",
    )
    lines = server.get("/app/starting").text.splitlines()
    # The directory that is listed is one more.
    for line in lines:
        assert len(line.split(",")) <= 4, line


def test_the_interpreter_never_runs_as_root(server):
    for pid in [*server.workers(), *server.supervisors()]:
        uids = processes.status(pid)["Uid"].split()
        assert "0" not in uids
    assert "libpython" not in processes.maps(server.process.pid)
    assert paths.httpd_user()


def test_the_configuration_is_not_readable_for_strangers(server):
    """A group's ``env=`` may hold secrets: they are in no command line."""
    for pid in [*server.workers(), *server.supervisors()]:
        assert "user=" not in processes.title(pid)
