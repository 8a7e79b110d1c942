import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

from wikiconfig import sitename  # noqa: E402


def application(environ, start_response):
    eggs = os.environ["PYTHON_EGG_CACHE"]
    body = "|".join(
        [sitename, environ["PATH_INFO"], environ["mod_wsgi.application_group"], eggs]
    )
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield body.encode()
