def application(environ, start_response):
    status = "200 OK" if environ["PATH_INFO"] in ("", "/") else "404 Not Found"
    start_response(status, [("Content-Type", "text/plain")])
    return [b"admin"]
