import json
from wsgiref.util import application_uri


def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return [body]
    if environ["PATH_INFO"] == "/moved":
        # For clients within; the front server translates it.
        location = "http://127.0.0.1:%s/backend/here" % environ["mod_wsgi.listener_port"]
        start_response("302 Found", [("Location", location)])
        return []
    keys = ["REMOTE_ADDR", "HTTP_HOST", "SERVER_PORT", "SCRIPT_NAME", "PATH_INFO"]
    keys += ["HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_CLIENT_IP"]
    keys += ["wsgi.url_scheme", "mod_wsgi.mount_point", "mod_wsgi.script_name"]
    seen = {key: environ[key] for key in keys if key in environ}
    seen["uri"] = application_uri(environ)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]
