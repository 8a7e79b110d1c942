"""WSGIPassApacheRequest: httpd's own structure of the request, for extension modules."""

from __future__ import annotations

import pytest
from harness.config import BOTH

MODES = BOTH

SCRIPT = '''
    import ctypes
    import json
    from wsgiref.validate import validator

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype = ctypes.c_char_p
    name.argtypes = [ctypes.py_object]
    kept = []


    def request_line(capsule, name=None):
        """The seventh pointer of a request_rec."""
        fields = ctypes.cast(pointer(capsule, name), ctypes.POINTER(ctypes.c_void_p))
        return ctypes.string_at(fields[6]).decode() if fields[6] else None


    def answer(environ, start_response):
        told = {"version": environ["apache.version"]}
        capsule = environ.get("apache.request_rec")
        told["is there"] = capsule is not None
        if capsule is not None:
            told["kind"] = type(capsule).__name__
            told["line"] = request_line(capsule)
        if environ["PATH_INFO"] == "/keep":
            kept.append(capsule)
        elif environ["PATH_INFO"] == "/kept":
            try:
                told["kept"] = request_line(kept[0])
            except ValueError as error:
                told["kept"] = str(error)
            told["by its name"] = request_line(kept[0], name(kept[0]))
        elif environ["PATH_INFO"] == "/raise":
            kept.append(capsule)
            raise RuntimeError("not today")
        body = json.dumps(told).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]


    application = validator(answer)
    handle_request = application
'''


@pytest.fixture(scope="module")
def server(new_httpd):
    with new_httpd() as httpd:
        script = httpd.write("site/app.wsgi", SCRIPT)
        httpd.add(f"""
            <Directory "{httpd.root}/site">
                Require all granted
            </Directory>
            <Location />
                Require all granted
            </Location>
            WSGIScriptAlias /on "{script}" application-group=%{{GLOBAL}}
            WSGIScriptAlias /sub "{script}" application-group=sub
            WSGIScriptAlias /off "{script}" application-group=%{{GLOBAL}}
            WSGIScriptAlias /back "{script}" application-group=%{{GLOBAL}}
            WSGIHandlerScript mine "{script}" application-group=%{{GLOBAL}}
            <Location /on>
                WSGIPassApacheRequest On
            </Location>
            <Location /sub>
                WSGIPassApacheRequest On
            </Location>
            <Location /handled>
                WSGIPassApacheRequest On
                SetHandler mine
            </Location>
            <Location /on/back>
                WSGIPassApacheRequest Off
            </Location>
        """)
        yield httpd.start()


@pytest.mark.modes("embedded")
@pytest.mark.checklist(75)
@pytest.mark.parametrize("mount", ["/on", "/sub", "/handled"])
def test_given(server, mount):
    told = server.json(f"{mount}/x?a=b")
    assert told["kind"] == "PyCapsule"
    assert told["line"] == f"GET {mount}/x?a=b HTTP/1.1"
    assert len(told["version"]) == 3 and all(isinstance(part, int) for part in told["version"])


@pytest.mark.checklist(75)
@pytest.mark.parametrize("mount", ["/off", "/on/back"])
def test_not_given(server, mount):
    told = server.json(f"{mount}/x")
    assert told["is there"] is False
    assert told["version"][:2] == [2, 4]


@pytest.mark.modes("daemon")
@pytest.mark.checklist(75)
@pytest.mark.parametrize("mount", ["/on", "/sub", "/handled"])
def test_not_in_a_process_group(server, mount):
    """The structure lies in another process's memory."""
    assert server.json(f"{mount}/x")["is there"] is False


@pytest.mark.modes("embedded")
@pytest.mark.rwsgi
@pytest.mark.parametrize("how", ["keep", "raise"])
@pytest.mark.parametrize("mount", ["/on", "/sub"])
def test_useless_after_the_request(server, mount, how):
    if how == "raise":
        server.expect_log("RWSGI0200: ")
        assert server.request(f"{mount}/raise").status == 500
    else:
        server.get(f"{mount}/keep")
    told = server.json(f"{mount}/kept")
    assert "incorrect name" in told["kept"]
    assert told["by its name"] is None
    assert told["line"] == f"GET {mount}/kept HTTP/1.1"
