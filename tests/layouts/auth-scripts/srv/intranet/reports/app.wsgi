def application(environ, start_response):
    body = "|".join([environ["REMOTE_USER"], environ["AUTH_TYPE"], environ["PATH_INFO"]])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
