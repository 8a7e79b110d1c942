def application(environ, start_response):
    fields = [environ["SCRIPT_NAME"], environ["PATH_INFO"], str(environ["wsgi.multithread"])]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["|".join(fields).encode()]
