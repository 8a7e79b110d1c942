import sys


def handle_request(environ, start_response):
    # All that httpd has no file for.
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = "", environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    fields = [
        "site",
        environ["mod_wsgi.process_group"],
        environ["mod_wsgi.application_group"],
        environ["PATH_INFO"],
        environ.get("REMOTE_USER", "-"),
        sys.prefix,
    ]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["|".join(fields).encode()]
