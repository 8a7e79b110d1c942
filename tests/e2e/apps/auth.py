"""A script for access, users and groups: names say what the functions do."""

import json
import os
import sys
from hashlib import md5

HASH = md5(b"%b:realm:secret")
EXPIRED = {}


def note(environ, what, **more):
    """Leaves what a function was given to the test."""
    told = {key: value for key, value in environ.items() if isinstance(value, (str, tuple))}
    told.update(more, types=sorted({type(key).__name__ for key in environ}))
    told["native"] = repr(environ.get("apache.request_rec"))
    told["callables"] = sorted(key for key, value in environ.items() if callable(value))
    told["module"] = [__name__, __file__]
    place = os.path.join(os.path.dirname(__file__), "..", "data", what + ".json")
    with open(place, "w") as file:
        json.dump(told, file)


def answer(name):
    """What a function returns for a name."""
    answers = {
        "true": True,
        "false": False,
        "none": None,
        "empty": "",
        "rename": "somebody else",
        "wide": "j\u00fcrgen \u20ac",
        "surrogate": "\udc80",
        "nul": "a\0b",
        "int": 1,
        "bytes": b"somebody",
        "list": ["true"],
    }
    if name == "raise":
        raise RuntimeError("not today")
    if name == "exit":
        sys.exit(3)
    return answers[name]


def check_password(environ, user, password):
    if user == "note":
        https = environ["mod_ssl.is_https"]()
        lookup = environ["mod_ssl.var_lookup"]
        note(
            environ,
            "check_password",
            arguments=[user, password],
            is_https=https,
            protocol=lookup("SSL_PROTOCOL"),
            bytes_protocol=lookup(b"SSL_PROTOCOL"),
            nonsense=lookup("NO_SUCH_VARIABLE"),
        )
        return True
    if user == "log":
        print("check_password printed", file=environ["wsgi.errors"])
        print("and to stdout")
        sys.stderr.write("an unfinished line")
        return True
    if user.startswith("member-of-"):
        return True
    if user == "check":
        return password == "secret"
    return answer(user)


def get_realm_hash(environ, user, realm):
    digest = md5(f"{user}:{realm}:secret".encode("latin-1")).hexdigest()
    if user == "str":
        return digest
    if user == "bytes":
        return digest.encode()
    return answer(user)


def groups_for_user(environ, user):
    if user.startswith("member-of-"):
        kind, _, names = user[len("member-of-") :].partition("=")
        names = [name for name in names.split(",") if name]
        if kind == "list":
            return names
        if kind == "set":
            return set(names)
        if kind == "bytes":
            return [name.encode() for name in names]
        if kind == "generator":
            return (name for name in names)
        if kind == "str":
            return names[0]
        if kind == "wide":
            return ["\u20ac"]
        if kind == "ints":
            return [1, 2]
        if kind == "raising":

            def half():
                yield from names
                raise RuntimeError("half way")

            return half()
        if kind == "none":
            return None
        if kind == "int":
            return 7
        if kind == "raise":
            raise RuntimeError("not today")
    return []


def allow_access(environ, host):
    query = environ["QUERY_STRING"]
    if query == "note":
        note(environ, "allow_access", host=host)
        return True
    if query == "keep":
        EXPIRED.update(environ)
        return True
    if query == "expired":
        found = {}
        for name in ("mod_ssl.is_https", "mod_ssl.var_lookup"):
            arguments = () if name.endswith("https") else ("HTTPS",)
            try:
                EXPIRED[name](*arguments)
            except RuntimeError as error:
                found[name] = str(error)
        try:
            EXPIRED["wsgi.errors"].write("late\n")
        except RuntimeError as error:
            found["wsgi.errors"] = str(error)
        kept = repr(EXPIRED.get("apache.request_rec"))
        note(environ, "expired", found=found, kept=kept)
        return True
    if environ["PATH_INFO"].endswith("/refused"):
        return False
    return answer(query or "true")
