"""Where httpd, the module under test, and the test applications are.

Environment:

``RWSGI_MODULE_DIR``
    The directory that holds ``mod_rwsgi.so`` and ``rwsgi/``; ``build`` of this tree by default.
``RWSGI_TEST_PEER``
    A ``mod_wsgi.so``: the tests run against it instead, without those marked ``rwsgi``.
``RWSGI_HTTPD``, ``RWSGI_HTTPD_MODULES``
    The httpd binary and the directory of its modules, where they cannot be found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

E2E = Path(__file__).resolve().parent.parent
REPOSITORY = E2E.parent.parent
APPS = E2E / "apps"
MODULE_DIR = Path(os.environ.get("RWSGI_MODULE_DIR") or REPOSITORY / "build")
PEER = os.environ.get("RWSGI_TEST_PEER") or ""
VENV = REPOSITORY / "build" / "venv"


@cache
def httpd_binary() -> str:
    """The httpd to start."""
    chosen = os.environ.get("RWSGI_HTTPD")
    for name in [chosen] if chosen else ["apache2", "httpd"]:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found:
            return found
    raise RuntimeError("no httpd found: install apache2 (Debian) or set RWSGI_HTTPD")


@cache
def httpd_modules() -> Path:
    """The directory of httpd's own modules."""
    chosen = os.environ.get("RWSGI_HTTPD_MODULES")
    if chosen:
        return Path(chosen)
    for tool in ("apxs", "apxs2"):
        if shutil.which(tool):
            answer = subprocess.run([tool, "-q", "LIBEXECDIR"], capture_output=True, text=True)
            if answer.returncode == 0:
                return Path(answer.stdout.strip())
    for guess in ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules"):
        if Path(guess).is_dir():
            return Path(guess)
    raise RuntimeError("no httpd modules found: set RWSGI_HTTPD_MODULES")


@cache
def httpd_user() -> tuple[str, str] | None:
    """User and group of httpd's children, None where the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    import grp
    import pwd

    for user, group in (("www-data", "www-data"), ("apache", "apache"), ("nobody", "nogroup")):
        try:
            pwd.getpwnam(user)
            grp.getgrnam(group)
        except KeyError:
            continue
        return user, group
    raise RuntimeError("no user for httpd's children found")


def load_module_under_test() -> str:
    """The LoadModule line of the module under test."""
    if PEER:
        return f'LoadModule wsgi_module "{PEER}"'
    return f'LoadModule rwsgi_module "{MODULE_DIR / "mod_rwsgi.so"}"'


def site_packages() -> Path:
    """The packages of the test environment, for ``WSGIPythonPath``."""
    found = sorted(VENV.glob("lib/python3*/site-packages"))
    if not found:
        raise RuntimeError(f"{VENV} is no virtual environment: make test makes it")
    return found[0]


@cache
def gateway_record() -> dict[str, str]:
    """What the default gateway was built for: version, libpython, prefix, executable."""
    directory = MODULE_DIR / "rwsgi"
    stem = (directory / "default").read_text().strip()
    lines = (directory / f"{stem}.conf").read_text().splitlines()
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def same_python() -> bool:
    """Whether the default gateway is of the Python that runs the tests, which has the packages."""
    if PEER:
        return True
    return gateway_record()["version"].split(".")[:2] == [str(n) for n in sys.version_info[:2]]
