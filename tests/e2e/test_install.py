"""`make install` gives a tree that httpd can load from any place."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from harness import paths
from harness.server import Httpd

pytestmark = pytest.mark.rwsgi

HELLO = """
def application(environ, start_response):
    body = b"hello from the installed tree"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def make(target: str, destination) -> str:
    """Runs `make TARGET DESTDIR=...`; its output."""
    # Not the surrounding make's flags: they would hand its DESTDIR, or its -n, to this one.
    hidden = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "DESTDIR")
    done = subprocess.run(
        ["make", target, f"DESTDIR={destination}"],
        cwd=paths.REPOSITORY,
        env={name: value for name, value in os.environ.items() if name not in hidden},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def load_line(modules) -> str:
    return f'LoadModule rwsgi_module "{modules}/mod_rwsgi.so"'


@pytest.fixture(scope="module")
def installed():
    """A server, and below its directory an installation, which it loads."""
    with Httpd(module_under_test=False) as server:
        destination = server.root / "destination"
        make("install", destination)
        modules = destination / str(paths.httpd_modules()).lstrip("/")
        script = server.write("site/hello.py", HELLO)
        server.add(
            f"""
            {load_line(modules)}
            WSGIDaemonProcess installed threads=2
            WSGIScriptAlias /daemon "{script}" process-group=installed \\
                application-group=%{{GLOBAL}}
            WSGIScriptAlias / "{script}"
            <Directory "{script.parent}">
                Require all granted
            </Directory>
            """
        )
        server.start()
        yield server, destination, modules


def test_serves_from_where_it_was_installed(installed):
    server, _, modules = installed
    assert server.get("/").body == b"hello from the installed tree"
    # The gateway came from the installation too, not from the build directory.
    maps = "".join(open(f"/proc/{pid}/maps", encoding="utf-8").read() for pid in server.children())
    assert f"{modules}/mod_rwsgi.so" in maps
    assert f"{modules}/rwsgi/_rwsgi." in maps
    assert str(paths.MODULE_DIR / "rwsgi") not in maps


def test_default_gateway_is_complete(installed):
    _, _, modules = installed
    stem = (modules / "rwsgi" / "default").read_text().strip()
    record = (modules / "rwsgi" / f"{stem}.conf").read_text()
    assert "version = 3." in record
    assert (modules / "rwsgi" / f"{stem}.so").stat().st_size > 0


def test_serves_in_daemon_mode_from_where_it_was_installed(installed):
    server, _, modules = installed
    program = modules / "rwsgi" / "rwsgi-daemon"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert server.get("/daemon").body == b"hello from the installed tree"
    if os.geteuid() != 0:
        return  # its own user may not look into a worker
    running = {os.readlink(f"/proc/{pid}/exe") for pid in server.supervisors()}
    assert running == {str(program)}
    for pid in server.workers():
        maps = open(f"/proc/{pid}/maps", encoding="utf-8").read()
        assert f"{modules}/rwsgi/_rwsgi." in maps


def test_debian_files_load_the_module(installed):
    server, destination, modules = installed
    available = destination / "etc/apache2/mods-available"
    if not available.exists():
        pytest.skip("not Debian's layout: no rwsgi.load is installed")
    # The file names the place without DESTDIR, where a package would put it.
    load = (available / "rwsgi.load").read_text()
    assert str(paths.httpd_modules() / "mod_rwsgi.so") in load
    here = load.replace(str(paths.httpd_modules()), str(modules))
    with Httpd(module_under_test=False) as other:
        other.add(here)
        other.add((available / "rwsgi.conf").read_text())
        done = other.check()
        assert done.returncode == 0, done.stderr


def test_uninstall_leaves_nothing(tmp_path):
    make("install", tmp_path)
    assert list(tmp_path.rglob("mod_rwsgi.so"))
    make("uninstall", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
