import sys

from flask import Flask, jsonify, redirect, request, url_for
from money import CURRENCY

app = Flask(__name__)


@app.route("/")
def index():
    return "<p>Catalogue</p>" * 200


@app.route("/item/<int:number>")
def item(number):
    return jsonify(
        number=number,
        currency=CURRENCY,
        url=url_for("item", number=number),
        absolute=url_for("item", number=number, _external=True),
        script=request.environ["SCRIPT_NAME"],
        path=request.environ["PATH_INFO"],
        user=request.authorization and request.authorization.username,
        layout=request.environ.get("LAYOUT", "desktop"),
        group=request.environ["mod_wsgi.application_group"],
        optimize=sys.flags.optimize,
        prefix=sys.prefix,
    )


@app.route("/old/<int:number>")
def old(number):
    return redirect(url_for("item", number=number))


@app.route("/order", methods=["POST"])
def order():
    return jsonify(fields=dict(request.form), files=sorted(request.files)), 201
