"""A small Flask application: routes, a session, a form, JSON, files and a stream."""

import io
import os
from pathlib import Path

from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    url_for,
)

app = Flask(__name__)
app.secret_key = os.environ.get("FLASK_SITE_SECRET_KEY", "for demonstration on this machine only")

PAGE = """<!doctype html>
<title>Flask</title>
<p>Hello {{ session.name or "stranger" }}, visit {{ session.visits }}.</p>
<form method="post" action="{{ url_for('name') }}"><input name="name"><button>Save</button></form>
<a href="{{ url_for('source') }}">source</a>
"""


@app.get("/")
def index():
    session["visits"] = session.get("visits", 0) + 1
    return render_template_string(PAGE)


@app.post("/name")
def name():
    session["name"] = request.form["name"]
    return redirect(url_for("index"))


@app.post("/sum")
def total():
    """JSON in, JSON out."""
    return jsonify(total=sum(request.get_json()["numbers"]))


@app.post("/reverse")
def reverse():
    """An uploaded file comes back with its bytes in reverse order."""
    upload = request.files["file"]
    data = upload.read()[::-1]
    return send_file(io.BytesIO(data), "application/octet-stream", download_name=upload.filename)


@app.get("/source")
def source():
    """This file; send_file uses the server's wsgi.file_wrapper."""
    return send_file(Path(__file__), mimetype="text/x-python")


@app.get("/count/<int:lines>")
def count(lines):
    return Response((f"line {number}\n" for number in range(lines)), mimetype="text/plain")


@app.get("/where")
def where():
    """How the URL was divided into the mount point and the path inside the application."""
    return jsonify(
        script_name=request.environ["SCRIPT_NAME"],
        path_info=request.environ["PATH_INFO"],
        query=request.query_string.decode("ascii"),
        url=url_for("where", _external=True),
    )


@app.get("/teapot")
def teapot():
    abort(418)


@app.get("/broken")
def broken():
    raise RuntimeError("this route is broken on purpose")
