"""Configuration that several test files share."""

from __future__ import annotations


def applications(httpd, **mounts: str) -> None:
    """Mounts applications of ``tests/e2e/apps`` in the main interpreter.

    ``applications(httpd, raw="response.wsgi")`` serves ``/raw`` by that file; a mount may name a
    callable after a colon.
    """
    lines = [
        f'WSGIPythonPath "{httpd.apps}"',
        "WSGIApplicationGroup %{GLOBAL}",
        f'<Directory "{httpd.apps}">',
        "    Require all granted",
        "</Directory>",
    ]
    for mount, script in mounts.items():
        file, _, name = script.partition(":")
        option = f" callable-object={name}" if name else ""
        lines.append(f'WSGIScriptAlias /{mount} "{httpd.apps / file}"{option}')
    httpd.add("\n".join(lines))


def asgi_applications(httpd, **mounts: str) -> None:
    """The same for ASGI applications; what follows a mount's file but for the callable are further
    options of ASGIScriptAlias: ``asgi_applications(httpd, ws="asgi_websocket.py:echo pass-...")``.
    """
    lines = [
        f'WSGIPythonPath "{httpd.apps}"',
        "WSGIApplicationGroup %{GLOBAL}",
        f'<Directory "{httpd.apps}">',
        "    Require all granted",
        "</Directory>",
    ]
    for mount, script in mounts.items():
        file, _, options = script.partition(" ")
        file, _, name = file.partition(":")
        option = f" callable-object={name}" if name else ""
        lines.append(f'ASGIScriptAlias /{mount} "{httpd.apps / file}"{option} {options}'.rstrip())
    httpd.add("\n".join(lines))
