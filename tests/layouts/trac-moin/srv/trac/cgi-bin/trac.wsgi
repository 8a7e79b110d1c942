import os


def application(environ, start_response):
    # As Trac finds its project: the last component of where it is mounted.
    parent = environ["trac.env_parent_dir"]
    project = environ["SCRIPT_NAME"].rpartition("/")[2]
    directory = os.path.join(parent, project)
    if not os.path.isdir(directory):
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such project"]
    if environ["PATH_INFO"] == "/login":
        location = environ["SCRIPT_NAME"] + "/as/" + environ["REMOTE_USER"]
        start_response("302 Found", [("Location", location), ("Content-Type", "text/plain")])
        return [b""]
    with open(os.path.join(directory, "title")) as stream:
        title = stream.read().strip()
    print("project", project, file=environ["wsgi.errors"])
    body = "|".join(
        [title, environ["PATH_INFO"], environ["mod_wsgi.application_group"], environ["trac.locale"]]
    )
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]
