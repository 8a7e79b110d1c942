import sitelib


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/broken":
        raise ValueError("this page is broken")
    if path == "/missing":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"the site's own page for what is missing"]
    body = "|".join([sitelib.NAME, environ["REQUEST_METHOD"], environ["SCRIPT_NAME"], path])
    if "is_robot" in environ:
        body += "|robot"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
