"""What applications find in the modules of the server."""

import importlib.util
import io
import json
import logging
import sys
import threading

import apache
import mod_wsgi
import rwsgi
import support

FORMATTED = []


class Formatter(logging.Formatter):
    def format(self, record):
        FORMATTED.append(record.getMessage())
        return super().format(record)


HANDLER = mod_wsgi.LogHandler()
HANDLER.setFormatter(Formatter("%(message)s"))
LOG = logging.getLogger("site")
LOG.addHandler(HANDLER)
LOG.setLevel(1)
LOG.propagate = False


def describe(value):
    if callable(value):
        return type(value).__name__
    return value if isinstance(value, (int, str)) else repr(value)


def modules(environ, start_response):
    names = set(dir(mod_wsgi))
    found = {
        "mod_wsgi": {name: describe(getattr(mod_wsgi, name)) for name in names},
        "apache": {name: describe(value) for name, value in vars(apache).items()},
        "same": sorted(
            name for name in names if getattr(rwsgi, name, None) is getattr(mod_wsgi, name)
        ),
        "rwsgi": rwsgi.version,
        "found": importlib.util.find_spec("mod_wsgi") is not None,
        "environ": repr(environ["mod_wsgi.version"]),
        "apache environ": repr(environ["apache.version"]),
        "timeout": [each.__name__ for each in mod_wsgi.RequestTimeout.__mro__],
        "types": [
            f"{type(each).__module__}.{type(each).__name__}"
            for each in (
                *(environ["wsgi.input"], environ["wsgi.errors"].buffer, HANDLER),
                *(environ["wsgi.file_wrapper"](io.BytesIO()), mod_wsgi.RequestTimeout()),
            )
        ],
        "argv": sys.argv,
    }
    try:
        mod_wsgi.nonsense
    except AttributeError as error:
        found["nonsense"] = str(error)
    return support.answer(start_response, json.dumps(found))


def package(environ, start_response):
    """The package that `pip install mod_wsgi` gives, and a module apache, if they are there."""
    import mod_wsgi.express
    import mod_wsgi.server.deep

    found = [mod_wsgi.express.NAME, mod_wsgi.server.deep.NAME, getattr(apache, "EXTRA", None)]
    found += [callable(mod_wsgi.subscribe_events), hasattr(mod_wsgi, "EXECUTED")]
    found += [repr(apache.version) == repr(environ["apache.version"])]
    return support.answer(start_response, json.dumps(found))


def no_package(environ, start_response):
    try:
        import mod_wsgi.express
    except ModuleNotFoundError as error:
        return support.answer(start_response, str(error))


def log(environ, start_response):
    for level in (60, 50, 40, 30, 25, 20, 10, 5):
        LOG.log(level, "at %s", level)
    return support.answer(start_response, json.dumps(FORMATTED))


def log_place(environ, start_response):
    LOG.error("two\nlines \u20ac")
    line = sys._getframe().f_lineno - 1
    return support.answer(start_response, str(line))


def log_exception(environ, start_response):
    try:
        raise KeyError("caught")
    except KeyError:
        LOG.exception("it was")
    return support.answer(start_response, "logged")


def log_elsewhere(environ, start_response):
    def work():
        LOG.error("from a thread")
        LOG.debug("unseen from a thread")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return support.answer(start_response, json.dumps(FORMATTED))


def log_broken(environ, start_response):
    """The handler fails as logging's own do: it is reported, and nothing is raised."""
    LOG.error("%d", "no number")
    LOG.error("odd \udc80 text")
    return support.answer(start_response, "logged")


def forget(environ, start_response):
    FORMATTED.clear()
    return support.answer(start_response, "")


KEPT = []


def streams(environ, start_response):
    """Everything of a log stream, and what is left of it after the request."""
    errors = environ["wsgi.errors"]
    buffer = errors.buffer
    found = {
        "text": [errors.isatty(), errors.readable(), errors.writable(), errors.seekable()],
        "binary": [buffer.isatty(), buffer.readable(), buffer.writable(), buffer.seekable()],
        "attributes": [
            [each.name, each.encoding, each.errors, each.closed] for each in (errors, buffer)
        ],
        "is text": isinstance(errors, io.TextIOBase) and isinstance(sys.stdout, io.TextIOBase),
        "written": [errors.write("\u20acuro\n"), buffer.write(b"\xe2\x82")],
        "raised": [],
    }
    # The rest of a character, and of a line.
    buffer.write(bytearray(b"\xac split\n"))
    buffer.writelines([b"a", memoryview(b"b"), b"\n"])
    errors.reconfigure(encoding="utf-8", line_buffering=True)
    sys.stdout.reconfigure(encoding="utf-8")
    io.TextIOWrapper(buffer, "utf-8", write_through=True).write("wrapped\n")
    errors.write("closed")
    errors.close()
    errors.write("still open\n")
    for attempt in (
        errors.fileno,
        buffer.fileno,
        lambda: errors.write(b"bytes"),
        lambda: buffer.write(5),
        lambda: errors.writelines([1]),
    ):
        try:
            attempt()
        except Exception as error:
            found["raised"].append(isinstance(error, OSError) or type(error).__name__)
    found["expired"] = []
    for kept in KEPT:
        for name, arguments in [
            *[("write", ("x",)), ("writelines", (["x"],)), ("flush", ()), ("close", ())],
        ]:
            try:
                getattr(kept, name)(*arguments)
            except RuntimeError:
                found["expired"].append(name)
        try:
            kept.buffer.write(b"x")
        except RuntimeError:
            found["expired"].append("buffer")
    KEPT[:] = [errors]
    return support.answer(start_response, json.dumps(found))


def deprecated(environ, start_response):
    """Text for the binary stream: mod_wsgi takes it."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        environ["wsgi.errors"].buffer.write("text for bytes\n")
        environ["wsgi.errors"].buffer.write("and more\n")
    names = [warning.category.__name__ for warning in caught]
    return support.answer(start_response, json.dumps(names))


PATHS = {
    "/" + function.__name__.replace("_", "-"): function
    for function in (modules, package, no_package, log, log_place, log_exception, log_elsewhere)
    + (log_broken, forget, streams, deprecated)
}


def application(environ, start_response):
    return PATHS[environ["PATH_INFO"]](environ, start_response)
