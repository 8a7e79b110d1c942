"""Process groups as httpd sees them: which requests may use them, what is loaded at the start, and
the supervisors' life in httpd's parent."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import paths
from harness.jail import jail
from harness.sites import applications

pytestmark = pytest.mark.rwsgi
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
GLOBAL = "application-group=%{GLOBAL}"


# Which requests may use a group


def hosts(httpd, *servers):
    """Virtual hosts with their own names: pairs of ServerName and directives."""
    for name, text in servers:
        httpd.add(f"""
            <VirtualHost *:{httpd.port}>
                ServerName {name}
                {text}
            </VirtualHost>
        """)


@pytest.mark.checklist(43)
def test_a_group_of_a_virtual_host_is_its_own(new_httpd):
    """43: not usable from another virtual host; one of the main server is, from everywhere."""
    with new_httpd() as httpd:
        applications(httpd)
        alias = f'WSGIScriptAlias / "{httpd.apps}/where.wsgi"'
        httpd.add("WSGIDaemonProcess common")
        hosts(
            httpd,
            ("a.test", f"WSGIDaemonProcess own\n{alias} process-group=own"),
            ("b.test", f"{alias} process-group=own"),
            ("c.test", f"{alias} process-group=common"),
        )
        httpd.start()
        for host, group in (("a.test", "own"), ("c.test", "common")):
            assert httpd.json("/x", headers={"Host": host})["process_group"] == group
        httpd.expect_log("RWSGI0339: .*'own'.*'b.test'.*'a.test'")
        assert httpd.request("/x", headers={"Host": "b.test"}).status == 500


@pytest.mark.checklist(43)
def test_a_group_is_shared_by_virtual_hosts_of_one_name(new_httpd):
    """43: as for one site on two ports."""
    with new_httpd(tls=True) as httpd:
        applications(httpd)
        alias = f'WSGIScriptAlias / "{httpd.apps}/where.wsgi" process-group=own'
        # The name of the TLS host of the harness is the main server's.
        hosts(httpd, ("localhost", f"WSGIDaemonProcess own\n{alias}"))
        httpd.add(alias)
        httpd.start()
        assert httpd.json("/x")["process_group"] == "own"
        assert httpd.json("/x", tls=True)["process_group"] == "own"


@pytest.mark.checklist(42, mode="both")
def test_restricted_processes(new_httpd):
    """42: a group that is not listed gives 500, and so does embedded mode."""
    with new_httpd() as httpd:
        applications(httpd, plain="where.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess one
            WSGIDaemonProcess two
            WSGIScriptAlias /one "{httpd.apps}/where.wsgi" process-group=one
            WSGIScriptAlias /two "{httpd.apps}/where.wsgi" process-group=two
            <Location />
                WSGIRestrictProcess ONE
            </Location>
            <Location /plain/all>
                WSGIRestrictProcess two %{{GLOBAL}}
            </Location>
        """)
        httpd.start()
        assert httpd.json("/one")["process_group"] == "one"
        assert httpd.json("/plain/all")["process_group"] == ""
        httpd.expect_log("RWSGI0338: .*'two'")
        assert httpd.request("/two").status == 500
        httpd.expect_log("RWSGI0338: .*%{GLOBAL}")
        assert httpd.request("/plain").status == 500


@pytest.mark.checklist(39, 40, mode="both")
def test_a_variable_names_the_group(new_httpd):
    """39, 40: and what it leads to is checked as ever."""
    with new_httpd(modules=["setenvif"]) as httpd:
        applications(httpd, app="where.wsgi")
        httpd.add("""
            WSGIDaemonProcess one
            WSGIDaemonProcess two
            SetEnvIf X-Group (.+) GROUP=$1
            WSGIProcessGroup %{ENV:GROUP}
            WSGIRestrictProcess one %{GLOBAL}
        """)
        httpd.start()

        def group(name):
            return httpd.json("/app", headers={"X-Group": name})["process_group"]

        assert group("one") == "one"
        assert group("%{GLOBAL}") == ""
        httpd.expect_log("RWSGI0338: ", count=2)
        for name in ("two", "three"):
            assert httpd.request("/app", headers={"X-Group": name}).status == 500


def test_a_service_script_serves_no_requests(new_httpd):
    with new_httpd() as httpd:
        applications(httpd)
        service = httpd.write("service.py", "import time\nwhile True:\n    time.sleep(0.1)\n")
        httpd.add(f"""
            WSGIDaemonProcess service threads=0
            WSGIImportScript "{service}" process-group=service {GLOBAL}
            WSGIScriptAlias / "{httpd.apps}/where.wsgi" process-group=service
        """)
        httpd.start()
        assert not list((httpd.root / "run").glob("*.sock"))
        httpd.expect_log("RWSGI0340: .*service")
        assert httpd.request("/").status == 500


def test_an_undeclared_group_is_told_at_the_start(new_httpd):
    with new_httpd() as httpd:
        applications(httpd)
        httpd.add(f'WSGIScriptAlias / "{httpd.apps}/where.wsgi" process-group=misty')
        done = httpd.check()
        assert done.returncode == 0 and "RWSGI0345" in done.stderr and "'misty'" in done.stderr
        httpd.expect_log("RWSGI0345: .*'misty'")
        httpd.start()
        httpd.expect_log("RWSGI0009: .*'misty'.*none")
        assert httpd.request("/").status == 500


# What is loaded at the start

NOTES = """
    import os
    with open({file!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")

    def application(environ, start_response):
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
"""


def noting(httpd, name="noting.wsgi"):
    """A script that notes the processes that load it, and the file of the notes."""
    file = httpd.root / "data" / f"{name}.loaded"
    script = httpd.write(f"apps/{name}", NOTES.format(file=str(file)))
    return script, file


def noted(file):
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize("group", ["site", "%{GLOBAL}"])
@pytest.mark.parametrize("way", ["import", "alias", "match"])
@pytest.mark.checklist(163, 164, mode="both")
def test_scripts_are_loaded_at_the_start(new_httpd, group, way):
    """163, 164: by WSGIImportScript, and by an alias with literal groups; in both modes."""
    with new_httpd() as httpd:
        applications(httpd)
        script, file = noting(httpd)
        groups = f"process-group={group} application-group=mine"
        line = {
            "import": f'WSGIImportScript "{script}" {groups}\nWSGIScriptAlias / "{script}"'
            f" process-group={group}\nWSGIApplicationGroup mine",
            "alias": f'WSGIScriptAlias / "{script}" {groups}',
            "match": f'WSGIScriptAliasMatch ^/ "{script}" {groups}',
        }[way]
        httpd.add(f"WSGIDaemonProcess site processes=2\n{line}")
        httpd.start()
        count = 2 if group == "site" else 1
        httpd.wait_until(lambda: len(noted(file)) == count, "the script is not loaded")
        pid = int(httpd.get("/").body)
        assert pid in noted(file) and len(noted(file)) == count
        where = httpd.workers() if group == "site" else httpd.children()
        assert set(noted(file)) == set(where)


def test_an_alias_with_variable_groups_loads_nothing(new_httpd):
    with new_httpd() as httpd:
        applications(httpd)
        script, file = noting(httpd)
        httpd.add(f"""
            WSGIDaemonProcess site
            WSGIScriptAlias /a "{script}" process-group=site
            WSGIScriptAlias /b "{script}" process-group=site application-group=%{{RESOURCE}}
            WSGIScriptAlias /c "{httpd.apps}/" process-group=site {GLOBAL}
        """)
        httpd.start()
        httpd.log.wait_for(r"\bready\b")
        assert noted(file) == []
        httpd.get("/a")
        assert len(noted(file)) == 1


@pytest.mark.checklist(163, mode="embedded")
def test_embedded_script_that_does_not_load(new_httpd):
    """163: told, but the process serves; a request tries again."""
    with new_httpd() as httpd:
        applications(httpd, app="where.wsgi")
        script = httpd.write("apps/broken.wsgi", "raise ValueError('at the start')\n")
        httpd.add(f'WSGIImportScript "{script}" process-group=%{{GLOBAL}} {GLOBAL}')
        told = httpd.expect_log("RWSGI0452: .*ValueError.*broken.wsgi")
        httpd.start()
        httpd.get("/app")
        httpd.wait_until(lambda: httpd.log.read() or told.lines, "nothing is told")


@pytest.mark.checklist(165, mode="embedded")
def test_imports_despite_restricted_embedded_mode(new_httpd):
    """165: the script runs in httpd's processes, requests do not."""
    with new_httpd() as httpd:
        applications(httpd, app="where.wsgi")
        script, file = noting(httpd)
        httpd.add(f"""
            WSGIRestrictEmbedded On
            WSGIImportScript "{script}" process-group=%{{GLOBAL}} {GLOBAL}
        """)
        httpd.start()
        httpd.wait_until(lambda: noted(file), "the script is not loaded")
        assert noted(file) == httpd.children()
        httpd.expect_log("RWSGI0008: ")
        assert httpd.request("/app").status == 500


# Supervisors


def test_a_dead_supervisor_is_started_again(new_httpd):
    """At once the first time, later with a delay, and with the same sockets."""
    with new_httpd(mode="daemon") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        sockets = sorted((httpd.root / "run").glob("*.sock"))
        httpd.allow_log(r"RWSGI04\d\d: |RWSGI030\d: ")
        for told in ("is started again$", "begins in 1 s", "begins in 2 s"):
            httpd.expect_log(f"RWSGI0335: .*'tests'.*signal 9.*{told}")
            # One that dies sooner than it was told to begin is not started again at once.
            httpd.wait_until(httpd.workers, "no worker")
            old = httpd.supervisors()
            os.kill(old[0], signal.SIGKILL)
            httpd.wait_until(
                lambda old=old: httpd.supervisors() and httpd.supervisors() != old,
                "no new supervisor",
            )
        assert httpd.get("/app/pid")
        assert sorted((httpd.root / "run").glob("*.sock")) == sockets


def test_a_supervisor_that_ends_by_request_is_no_error(new_httpd):
    with new_httpd(mode="daemon") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        old = httpd.supervisors()
        os.kill(old[0], signal.SIGTERM)
        httpd.wait_until(
            lambda: httpd.supervisors() and httpd.supervisors() != old, "no new supervisor"
        )
        httpd.get("/app/pid")
        httpd.log.wait_for(f"pid {old[0]}.* ended with exit code 0; it is started again")


def test_a_supervisor_that_never_begins(new_httpd):
    """No storm of processes; told a few times; it heals."""
    with new_httpd(mode="daemon", module_under_test=False) as httpd:
        modules = httpd.root / "modules"
        shutil.copytree(paths.MODULE_DIR / "rwsgi", modules / "rwsgi")
        shutil.copy(paths.MODULE_DIR / "mod_rwsgi.so", modules)
        program = modules / "rwsgi" / "rwsgi-daemon"
        good = program.read_bytes()
        program.write_bytes(Path("/bin/false").read_bytes())
        applications(httpd, app="daemon.wsgi")
        httpd.config.added.insert(0, f'LoadModule rwsgi_module "{modules}/mod_rwsgi.so"')
        told = httpd.expect_log("RWSGI0335: .* signal 1;", count=None)
        httpd.start()
        httpd.log.wait_for("is started again in some seconds")
        # The file that was opened at the start, and nothing runs it now.
        httpd.allow_log("RWSGI0334: .*Text file busy")

        def replaced():
            try:
                program.write_bytes(good)
            except OSError:
                # It is just being tried again.
                return False
            return True

        httpd.wait_until(replaced, "the program stays busy")
        httpd.wait_until(httpd.workers, "it does not heal", timeout=40)
        httpd.get("/app/pid")
        # httpd looks for dead processes once a second: a short life may seem as long as that.
        assert len(told.lines) <= 6


def test_nothing_is_left_open_by_restarts(new_httpd):
    """Descriptors of httpd's parent, supervisors, sockets."""
    with new_httpd(mode="daemon", daemon="processes=2") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()

        def quiet():
            return len(httpd.supervisors()) == 1 and len(httpd.workers()) == 2

        def opened():
            return len(os.listdir(f"/proc/{httpd.process.pid}/fd"))

        httpd.get("/app/pid")
        before = opened()
        for _ in range(5):
            httpd.graceful()
            httpd.get("/app/pid")
            httpd.wait_until(quiet, "an old generation stays")
            httpd.wait_until(lambda: opened() <= before, "descriptors stay open")


def test_a_wrong_configuration_at_a_restart_ends_everything(new_httpd):
    """httpd ends by itself then, and leaves no process and no socket."""
    with new_httpd(mode="daemon") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        httpd.add("WSGIDaemonProcess broken threads=many")
        httpd.rewrite_config()
        parent = httpd.process
        parent.send_signal(signal.SIGUSR1)
        parent.wait(20)
        httpd.process = None
        httpd.wait_until(lambda: not httpd._await_none_left(parent.pid), "processes stay")
        assert not list((httpd.root / "run").glob("*.sock"))
        (httpd.root / "logs" / "stderr").unlink()
        httpd.log.read()
        httpd.log.problems.clear()


def test_a_supervisor_that_hangs_is_killed_at_the_end(new_httpd):
    """httpd's stop waits for shutdown-timeout and a little more, not for ever."""
    with new_httpd(mode="daemon", daemon="shutdown-timeout=1") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        httpd.get("/app/pid")
        supervisor = httpd.supervisors()[0]
        os.kill(supervisor, signal.SIGSTOP)
        began = time.monotonic()
        httpd.stop()
        assert 3 < time.monotonic() - began < 10
        said = (httpd.root / "logs" / "error.log").read_text()
        assert re.search(rf"RWSGI0336: .*'tests'.*pid {supervisor}", said)
        httpd.log.read()
        httpd.log.problems.clear()


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_every_mpm(new_httpd, mpm):
    """Start, restarts, stop: no process and no socket is left."""
    with new_httpd(mode="daemon", mpm=mpm) as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.start()
        seen = {int(httpd.get("/app/pid").body)}
        for again in (httpd.graceful, httpd.restart, httpd.graceful):
            again()
            httpd.wait_until(lambda: len(httpd.supervisors()) == 1, "the old one stays")
            httpd.wait_until(
                lambda: len(list((httpd.root / "run").glob("*.sock"))) == 1, "old sockets stay"
            )
            # A process of the old generation might have answered before.
            seen.add(int(httpd.get("/app/pid").body))
        assert len(seen) == 4
        httpd.stop()
        assert not list((httpd.root / "run").glob("*.sock"))


def test_one_process(new_httpd):
    """``-X``: httpd is its own child."""
    with new_httpd(mode="daemon") as httpd:
        applications(httpd, app="daemon.wsgi")
        with open(httpd.root / "logs" / "stderr", "ab") as stderr:
            httpd.process = subprocess.Popen(
                [*httpd._command(), "-X"],
                env=httpd._environment(),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        # In this mode httpd does not say that it serves.
        httpd.log.wait_for("Python started")
        assert int(httpd.get("/app/pid").body) in httpd.workers()
        httpd.stop()
        # That process has given up root's rights: its pid file and sockets stay.
        httpd.log.read()
        assert any("has ended" in line.message for line in httpd.log.seen)


@ROOT
def test_without_root(new_httpd):
    """httpd started by another user: everything runs as that one; user= is told to be ignored."""
    account = pwd.getpwnam(paths.httpd_user()[0])
    with new_httpd(mode="daemon", daemon="user=nobody group=nogroup") as httpd:
        prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"]
        command = httpd._command
        httpd._command = lambda: [*prefix, "--clear-groups", *command()]
        for path in (httpd.root, *httpd.root.rglob("*")):
            shutil.chown(path, account.pw_uid, account.pw_gid)
        applications(httpd, app="daemon.wsgi")
        httpd.expect_log("RWSGI0337: .*tests.*user")
        httpd.start()
        facts = httpd.json("/app/identity")
        assert facts["uid"] == [account.pw_uid] * 3
        socket = next((httpd.root / "run").glob("*.sock"))
        assert socket.stat().st_mode & 0o777 == 0o600


@ROOT
def test_core_dumps_beside_tls_keys(new_httpd):
    """With CoreDumpDirectory, processes of httpd's user could read its children's memory."""
    for user, count in (("", 1), ("user=nobody group=nogroup", 0)):
        with new_httpd(mode="daemon", daemon=user) as httpd:
            applications(httpd, app="daemon.wsgi")
            httpd.add("CoreDumpDirectory /tmp")
            if count:
                httpd.expect_log("RWSGI0344: .*tests")
            httpd.start()


def test_the_accept_mutex_has_no_effect(new_httpd):
    with new_httpd(mode="daemon", log_level="notice rwsgi:debug") as httpd:
        applications(httpd, app="daemon.wsgi")
        httpd.add("WSGIAcceptMutex sysvsem")
        httpd.start()
        httpd.get("/app/pid")
        httpd.log.wait_for("WSGIAcceptMutex sysvsem has no effect")


# A root directory of its own


WHO = """
import json, os, sys

def application(environ, start_response):
    facts = {"pid": os.getpid(), "cwd": os.getcwd(), "path": sys.path, "uid": os.getresuid()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(facts).encode()]
"""


@ROOT
def test_chroot(new_httpd):
    """The processes see the root directory only; paths lose its prefix; scripts outside are
    refused."""
    with new_httpd() as httpd:
        root = jail(httpd)
        shutil.copy(httpd.apps / "where.wsgi", root / "srv")
        (root / "srv" / "who.wsgi").write_text(WHO)
        applications(httpd, outside="where.wsgi")
        httpd.add(f"""
            WSGIDaemonProcess jailed chroot="{root}" home=/srv user=nobody group=nogroup
            WSGIProcessGroup jailed
            <Directory "{root}/srv">
                Require all granted
            </Directory>
            WSGIScriptAlias /who "{root}/srv/who.wsgi" process-group=jailed {GLOBAL}
            WSGIScriptAlias /where "{root}/srv/where.wsgi"
        """)
        httpd.start()
        facts = httpd.json("/who")
        assert facts["cwd"] == "/srv" and facts["path"][0] == "/srv"
        assert facts["uid"] == [pwd.getpwnam("nobody").pw_uid] * 3
        worker = facts["pid"]
        assert os.readlink(f"/proc/{worker}/root") == str(root)
        told = httpd.json("/where")
        assert told["SCRIPT_FILENAME"] == told["file"] == "/srv/where.wsgi"
        httpd.expect_log(f"RWSGI0342: .*where.wsgi.*{root}")
        assert httpd.request("/outside").status == 403
