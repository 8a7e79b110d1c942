"""Reads the site's settings file into the environment, before Django is imported.

httpd's `SetEnv` reaches the WSGI environ of a request, not `os.environ`, so a site that is
configured through the environment reads it from a file, as here. The file is `SITE_ENV` if that
is set, otherwise `site.env` beside `manage.py`: lines `NAME=value`, `#` begins a comment line.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def load():
    """Set what the file says; a variable that is already set keeps its value."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    path = Path(os.environ.get("SITE_ENV") or PROJECT / "site.env")
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            os.environ.setdefault(name.strip(), value.strip())
