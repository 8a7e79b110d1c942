"""The ASGI application: what ASGIScriptAlias points at."""

import sys
from pathlib import Path

# httpd loads this file by its path; the project is not installed, so its directory is put first.
project = str(Path(__file__).resolve().parent.parent)
if project not in sys.path:
    sys.path.insert(0, project)

from config.environment import load  # noqa: E402

load()

from django.core.asgi import get_asgi_application  # noqa: E402

application = get_asgi_application()
