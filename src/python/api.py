"""The modules `mod_wsgi`, `rwsgi` and `apache`, and the events that they tell of.

Executed once in every interpreter, in a namespace of its own that is no module. `install` is called
first; `publish` is called by the gateway for every event. `native` offers what only the gateway
can do.
"""

import io
import sys
import traceback
import types

LEVELS = ((50, 2), (40, 3), (30, 4), (20, 6))
LEVEL_INFO = 6
LEVEL_DEBUG = 7

native = None
RequestTimeout = None
own_apache = None

#: What has been subscribed, in order. The gateway looks at the first one before it makes an event.
event_callbacks = []
shutdown_callbacks = []
signal_callbacks = []
LISTS = ("event_callbacks", "shutdown_callbacks", "signal_callbacks")

modules = []


class ServerModule(types.ModuleType):
    """`mod_wsgi` or `rwsgi`. What costs time or memory is made when it is first asked for."""

    def __getattr__(self, name):
        if name == "__path__":
            return _package_path(self.__name__)
        if name == "active_requests":
            value = native["active_requests"]()
        elif name == "LogHandler":
            value = _log_handler()
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        for module in modules:
            setattr(module, name, value)
        return value

    def __setattr__(self, name, value):
        if name in LISTS:
            # The gateway knows the list itself.
            self.__dict__[name][:] = value
        else:
            super().__setattr__(name, value)

    def __dir__(self):
        return sorted({*self.__dict__, "LogHandler", "active_requests"})


def install(services):
    """Makes the modules."""
    global native, RequestTimeout, own_apache
    native = services
    RequestTimeout = services["RequestTimeout"]
    for name in ("mod_wsgi", "rwsgi"):
        modules.append(_server_module(name))
        sys.modules[name] = modules[-1]
    sys.modules["apache"] = own_apache = _fill_apache(
        types.ModuleType("apache", "The httpd that this process belongs to.")
    )
    # What says `isinstance(sys.stdout, io.TextIOBase)` means "text, not bytes".
    io.TextIOBase.register(type(services["stdout"]))


def _server_module(name):
    # The type of `__spec__` is importlib.machinery.ModuleSpec, which need not be imported for it.
    module = ServerModule(name, "The server that runs this application.")
    module.__spec__ = type(sys.__spec__)(name, None, origin="built into the server")
    module.__dict__.update(
        version=native["mod_wsgi_version"] if name == "mod_wsgi" else native["version"],
        process_group=native["process_group"],
        application_group=None,
        maximum_processes=native["processes"],
        threads_per_process=native["threads"],
        FileWrapper=native["FileWrapper"],
        RequestTimeout=RequestTimeout,
        event_callbacks=event_callbacks,
        shutdown_callbacks=shutdown_callbacks,
        signal_callbacks=signal_callbacks,
        subscribe_events=subscribe_events,
        subscribe_shutdown=subscribe_shutdown,
        subscribe_signals=subscribe_signals,
        request_data=native["request_data"],
        **native["metrics"],
    )
    return module


def set_application_group(name):
    """Called when it is known which application group this interpreter serves."""
    for module in modules:
        module.application_group = name


def _find(name):
    """The specification of a module that can be imported, whatever `sys.modules` has."""
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        specification = find(name, None) if find else None
        if specification is not None:
            return specification
    return None


def _package_path(name):
    """Where the package of this name lies that `pip install mod_wsgi` gives.

    Its modules (`mod_wsgi.express`, `mod_wsgi.server`) can be imported from it.
    """
    specification = _find(name)
    locations = getattr(specification, "submodule_search_locations", None)
    if not locations:
        raise AttributeError(f"module {name!r} has no attribute '__path__'")
    return list(locations)


def _fill_apache(module):
    module.version = native["server_version"]
    module.maximum_processes = native["processes"]
    module.threads_per_process = native["threads"]
    module.description = native["server_description"]
    module.build_date = native["server_built"]
    module.mpm_name = native["mpm_name"]
    return module


def complete_apache():
    """Called whenever `sys.path` has been set up."""
    if not native["daemon"] and sys.modules["apache"] is own_apache:
        module = _existing_apache_module()
        sys.modules["apache"] = own_apache if module is None else _fill_apache(module)


def _existing_apache_module():
    """A module `apache` of somebody else (bindings of httpd's functions), to be completed.

    A mere directory of that name, as many sites have, is none.
    """
    try:
        specification = _find("apache")
        if specification is None or specification.loader is None or not specification.has_location:
            return None
        del sys.modules["apache"]
        import apache

        return apache
    except BaseException as error:
        native["failed"]("the module 'apache' that was found could not be imported", error)
        return None


def subscribe_events(callback, /):
    """`callback(name, **event)` is called for every event of a request and of the process."""
    event_callbacks.append(callback)
    native["want_events"]()
    return callback


def subscribe_shutdown(callback, /):
    """`callback(name, **event)` is called when the process stops."""
    shutdown_callbacks.append(callback)
    return callback


def subscribe_signals(callback, /):
    """`callback(name, **event)` is called for SIGHUP and SIGUSR2, in a process group only."""
    if native["daemon"]:
        signal_callbacks.append(callback)
    else:
        caller = "".join(traceback.format_stack(sys._getframe(1), 3))
        native["log"](
            LEVEL_INFO,
            "subscribe_signals() was ignored: signals of httpd's own processes belong to httpd; "
            f"only process groups tell of them. Called from:\n{caller}",
        )
    return callback


def publish(name, event):
    """Tells subscribers of an event; what they return is added to it. Returns the event.

    The lists are those of this moment, whatever a callback does to them. What a callback raises is
    logged and ignored, but for the exception that interrupts the request.
    """
    callbacks = list(event_callbacks)
    if name == "process_stopping":
        callbacks += shutdown_callbacks
    elif name == "process_signal":
        callbacks += signal_callbacks
    for callback in callbacks:
        try:
            result = callback(name, **event)
            if isinstance(result, dict):
                event.update(result)
        except RequestTimeout:
            raise
        except BaseException as error:
            native["failed"](f"a callback for the event '{name}' raised", error)
    return event


def _log_handler():
    """`LogHandler`, for whose sake alone `logging` is not imported everywhere."""
    import logging

    class LogHandler(logging.Handler):
        """Puts records into the error log, each with its own level and place in the program."""

        def emit(self, record):
            level = next((ours for least, ours in LEVELS if record.levelno >= least), LEVEL_DEBUG)
            # Formatting is dear: not for what nobody is to see (`LogLevel rwsgi:…`).
            if not native["logs"](level):
                return
            try:
                text = self.format(record)
                place = getattr(record, "pathname", None), getattr(record, "lineno", None)
                native["log_record"](level, str(text), *place)
            except RequestTimeout:
                raise
            except Exception:
                self.handleError(record)

    LogHandler.__module__ = "mod_wsgi"
    LogHandler.__qualname__ = "LogHandler"
    return LogHandler
