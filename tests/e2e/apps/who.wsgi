"""Tells who was let in."""

import json
import os
from wsgiref.validate import validator


@validator
def application(environ, start_response):
    names = ["REMOTE_USER", "AUTH_TYPE", "PATH_INFO", "mod_wsgi.process_group"]
    told = {name: environ.get(name) for name in names}
    told["pid"] = os.getpid()
    told["tls"] = sorted(name for name in environ if name.startswith("mod_ssl."))
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
