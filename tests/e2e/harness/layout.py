"""A configuration from tests/layouts, installed for one server.

A layout is what one finds in the wild: an ``httpd.conf`` written for mod_wsgi, and the files that
it speaks of. Nothing of it is changed but what belongs to a machine: the ``LoadModule`` line of
mod_wsgi, the places of httpd's modules, of directories and of the Python, ports, names of users.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from functools import cache
from pathlib import Path

from . import paths
from .config import module_line
from .server import Httpd

LAYOUTS = paths.REPOSITORY / "tests" / "layouts"
#: The users that layouts name, and what they are here.
USERS = ("alice", "bob")
#: A path of a machine: at the beginning of a word, a value, or a regular expression.
PLACE = re.compile(r"(?<![\w/.$)])(\^?)/(srv|home|var|etc|usr/local)/")


def names() -> list[str]:
    """All layouts."""
    return sorted(path.parent.name for path in LAYOUTS.glob("*/httpd.conf"))


@cache
def accounts() -> dict[str, str]:
    """For each name in :data:`USERS` a user of this machine, none of them root or httpd's."""
    own = (paths.httpd_user() or ("", ""))[0]
    found = []
    for entry in pwd.getpwall():
        # The group of the same number, since layouts give user and group one name.
        if 0 < entry.pw_uid < 1000 and entry.pw_name != own and _group_of(entry.pw_name):
            found.append(entry.pw_name)
    assert len(found) >= len(USERS), "too few users on this machine"
    return dict(zip(USERS, found))


def _group_of(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


class Layout:
    """``Layout(name).install(server)`` puts the files under the server's root and gives it the
    configuration."""

    def __init__(self, name: str, module: str = "wsgi_module"):
        self.directory = LAYOUTS / name
        self.text = (self.directory / "httpd.conf").read_text()
        self.module = module

    def install(self, server: Httpd) -> Httpd:
        for source in sorted(self.directory.rglob("*")):
            target = server.root / source.relative_to(self.directory)
            if source.is_dir() or source.name == "httpd.conf" or "__pycache__" in source.parts:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._placed(source.read_text(), server))
        for name in ("var/run", "var/log", "var/cache"):
            (server.root / name).mkdir(parents=True, exist_ok=True)
        (server.root / "srv").mkdir(exist_ok=True)
        (server.root / "srv/venv").symlink_to(paths.VENV)
        for log in re.findall(r"^\s*ErrorLog /(\S+)", self.text, re.M):
            server.log.watch(server.root / log)
        server.add(self.adapted(server))
        server.add(f"LogLevel {'wsgi' if paths.PEER else 'rwsgi'}:info")
        return server

    def own(self, server: Httpd, directory: str, user: str) -> None:
        """Gives a directory and what is in it to one of :data:`USERS`."""
        name = accounts()[user]
        root = server.root / directory
        for path in [root, *root.rglob("*")]:
            shutil.chown(path, name, name)

    def adapted(self, server: Httpd) -> str:
        """The configuration on this machine."""
        text = re.sub(r"^LoadModule (\w+)_module .*$", self._load, self.text, flags=re.M)
        assert text.count("mod_rwsgi.so") + bool(paths.PEER) == 1
        if paths.PEER:
            # Directives that the mod_wsgi of today does not know any more.
            text = re.sub(r"(?=WSGILazyInitialization|WSGIReloadMechanism)", "# ", text)
        text = self._placed(text, server)
        text = re.sub(r"(?<=[*:\w]):80\b", f":{server.port}", text)
        text = text.replace("*:", "127.0.0.1:")
        text = re.sub(r"(?<=:)8080\b", str(server.tls_port), text)
        if os.geteuid() == 0:
            for name, account in accounts().items():
                text = re.sub(rf"(?<=[=,]){name}\b", account, text)
            text = text.replace("=www-data", f"={paths.httpd_user()[0]}")
        else:
            # Who is not root cannot choose.
            options = "user|group|supplementary-groups|socket-user|script-user|script-group"
            text = re.sub(rf"\b(?:{options}|cpu-priority)=\S+", "", text)
        return text

    def _load(self, line: re.Match[str]) -> str:
        name = line[1]
        if name != "wsgi":
            return module_line(name)
        ours = paths.load_module_under_test()
        return ours if paths.PEER else ours.replace("rwsgi_module", self.module)

    def _placed(self, text: str, server: Httpd) -> str:
        return PLACE.sub(rf"\1{server.root}/\2/", text)


def expected_users() -> dict[str, int]:
    """The numbers of :data:`USERS`."""
    return {name: pwd.getpwnam(account).pw_uid for name, account in accounts().items()}


def relative(server: Httpd, path: str) -> Path:
    """A path as a layout names it."""
    return server.root / path.lstrip("/")
