import os


def handle_request(environ, start_response):
    parts = [
        os.path.basename(environ["SCRIPT_FILENAME"]),
        environ["mod_wsgi.process_group"],
        environ["mod_wsgi.application_group"],
        environ["mod_wsgi.request_handler"],
        os.path.basename(environ["mod_wsgi.handler_script"]),
        environ.get("PRINTED", "0"),
    ]
    if os.path.exists(environ["SCRIPT_FILENAME"]):
        with open(environ["SCRIPT_FILENAME"]) as stream:
            parts.append(stream.read().strip())
    start_response("200 OK", [("Content-Type", "text/html")])
    return ["|".join(parts).encode()]
