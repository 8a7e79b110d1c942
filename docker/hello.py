"""What the image serves when no site is mounted over /srv/mysite."""


def application(environ, start_response):
    body = f"rwsgi works: {environ['SERVER_SOFTWARE']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
