def handle_request(environ, start_response):
    with open(environ["SCRIPT_FILENAME"], "rb") as stream:
        text = stream.read()
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [b"<pre>", text.strip(), b"</pre>"]
