import os
import pwd


def application(environ, start_response):
    umask = os.umask(0)
    os.umask(umask)
    lines = [
        "bob",
        pwd.getpwuid(os.getuid()).pw_name,
        environ["mod_wsgi.process_group"],
        environ["mod_wsgi.application_group"],
        environ["SCRIPT_NAME"] + "|" + environ["PATH_INFO"],
        os.getcwd(),
        oct(umask),
        str(environ["wsgi.multithread"]),
        str(environ["wsgi.multiprocess"]),
    ]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(lines).encode()]
