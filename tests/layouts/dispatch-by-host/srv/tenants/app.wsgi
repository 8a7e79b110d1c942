def answer(name, environ, start_response):
    keys = ("process_group", "application_group", "callable_object")
    body = "|".join([name, *[environ["mod_wsgi." + key] for key in keys]])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]


def application(environ, start_response):
    return answer("pages", environ, start_response)


def shop(environ, start_response):
    return answer("shop", environ, start_response)
