def site(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"tool|" + environ["PATH_INFO"].encode()]
