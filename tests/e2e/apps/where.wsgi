"""Tells which script, callable and group answered."""

import json
from wsgiref.validate import validator


def answer(name, environ, start_response):
    keys = ["SCRIPT_NAME", "PATH_INFO", "SCRIPT_FILENAME", "HTTP_AUTHORIZATION"]
    keys += ["mod_wsgi.application_group", "mod_wsgi.callable_object", "mod_wsgi.process_group"]
    told = {key.replace("mod_wsgi.", ""): environ.get(key) for key in keys}
    told["callable"] = name
    told["file"] = __file__
    told["name"] = __name__
    body = json.dumps(told).encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


def named(name):
    def call(environ, start_response):
        return answer(name, environ, start_response)

    return validator(call)


application = named("application")
other = named("other")
a = named("a")
not_callable = 42
