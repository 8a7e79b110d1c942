def site(environ, start_response):
    lines = [
        "customer",
        environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"],
        environ["REQUEST_URI"],
        environ["QUERY_STRING"],
        environ.get("HTTP_AUTHORIZATION", "-"),
        environ["CUSTOMER_DATABASE"],
        environ["mod_wsgi.process_group"],
    ]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(lines).encode()]
