def application(environ, start_response):
    # What the rewriting has put between is not part of where the site is mounted.
    environ["SCRIPT_NAME"] = environ["SCRIPT_NAME"].replace("/fallback.wsgi", "")
    body = "fallback|" + environ["PATH_INFO"] + "|" + environ["QUERY_STRING"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
