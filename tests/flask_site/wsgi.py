"""The WSGI application: what WSGIScriptAlias points at."""

import sys
from pathlib import Path

project = str(Path(__file__).resolve().parent)
if project not in sys.path:
    sys.path.insert(0, project)

from app import app as application  # noqa: E402

__all__ = ["application"]
