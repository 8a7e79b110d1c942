import os
import time

STARTED = time.time()


def application(environ, start_response):
    begun = environ["mod_wsgi.daemon_start"]
    body = "|".join(
        [
            environ["mod_wsgi.process_group"],
            "preloaded" if STARTED < begun else "late",
            str(os.getpid()),
        ]
    )
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
