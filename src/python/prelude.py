"""What the gateway does in Python itself: everything that is cold.

Executed once in every interpreter, in a namespace of its own that is no module. `install` is called
first; the other functions are called by the gateway, by name. `native` offers what only the gateway
can do.
"""

import atexit
import gc
import io
import os
import signal
import site
import stat
import sys
import threading
import traceback
import types
import warnings
from importlib.machinery import ModuleSpec, SourceFileLoader

SOURCE = "<rwsgi>"
LEVEL_WARNING = 4
LEVEL_INFO = 6

native = None
# Before an application or `install` can replace it.
set_signal_handler = signal.signal
# The process whose signals are the server's.
server_process = os.getpid()


class FileWrapper:
    """`wsgi.file_wrapper` of PEP 3333. A regular file in it is sent by the server itself."""

    def __init__(self, filelike, blksize=8192):
        if blksize < 0:
            raise ValueError("blksize must not be negative")
        self._filelike = filelike
        self._blksize = blksize
        self._closed = False

    @property
    def filelike(self):
        return self._filelike

    @property
    def blksize(self):
        return self._blksize

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed:
            raise ValueError("I/O operation on a closed file wrapper")
        block = self._filelike.read(self._blksize)
        if not block:
            raise StopIteration
        return block

    def close(self):
        if self._closed:
            return
        self._closed = True
        try:
            close = self._filelike.close
        except AttributeError:
            return
        try:
            close()
        except Exception as error:
            native["log"](LEVEL_INFO, f"close() of a wrapped file raised {error!r}")


class RequestTimeout(BaseException):
    """Raised in a request that ran for too long."""


class Log:
    """The binary side of a log stream, its `buffer`."""

    encoding = "utf-8"
    errors = "replace"
    mode = "wb"
    closed = False
    warned = False

    def __init__(self, text):
        self._text = text

    name = property(lambda self: self._text.name)

    def isatty(self):
        return False

    def readable(self):
        return False

    def seekable(self):
        return False

    def writable(self):
        return True

    def fileno(self):
        raise io.UnsupportedOperation("a log stream has no file descriptor")

    def write(self, data):
        if isinstance(data, str):
            if not Log.warned:
                Log.warned = True
                warnings.warn(
                    "writing str to the buffer of a log stream is deprecated; write bytes",
                    DeprecationWarning,
                    stacklevel=2,
                )
            data = data.encode("utf-8", "replace")
        return self._text.write_bytes(data)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self._text.flush()

    # Nothing can be closed: other parts of the application write there, too.
    close = flush

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.flush()


class Restricted:
    """Takes the place of a standard stream that applications must not use."""

    def __init__(self, name):
        object.__setattr__(self, "_name", name)

    def __getattribute__(self, attribute):
        name = object.__getattribute__(self, "_name")
        raise OSError(f"{name} access is restricted by the configuration (WSGIRestrict…)")


def _public_class(cls):
    cls.__module__ = "mod_wsgi"
    cls.__qualname__ = cls.__name__
    return cls


def install(services):
    """Makes this interpreter one that serves applications."""
    global native
    native = services
    for cls in (FileWrapper, RequestTimeout, Log, Restricted):
        _public_class(cls)
    sys.stdout = sys.__stdout__ = services["stdout"]
    sys.stderr = sys.__stderr__ = services["stderr"]
    sys.argv = ["mod_wsgi"]
    if not services["is_main"] and sys.version_info < (3, 12):
        # The C part of asyncio has one set of tasks, and one current task, for all interpreters of
        # the process. Without it the Python part of asyncio does the same, for each its own.
        sys.modules["_asyncio"] = None
    if services["python_eggs"] is not None:
        os.environ["PYTHON_EGG_CACHE"] = services["python_eggs"]
    # In the main interpreter this thread becomes `threading.main_thread()`.
    threading.current_thread()


# What `configure` replaces: the streams, `sys.path`, and which layers that has got.
_streams = {}
_own_path = None
_layers = []


def configure(restrict_stdin, restrict_stdout, restrict_signal, python_path, switch_interval):
    """Applies what is configured for this interpreter.

    Called a second time where it becomes known only later which application group it serves.
    """
    global _own_path
    for name, restricted in ("stdin", restrict_stdin), ("stdout", restrict_stdout):
        original = _streams.setdefault(name, getattr(sys, name))
        setattr(sys, name, Restricted(f"sys.{name}") if restricted else original)
    if restrict_signal:
        signal.signal = _intercept_signal
    elif signal.signal is _intercept_signal:
        signal.signal = set_signal_handler
    if _own_path is None:
        _own_path = list(sys.path)
    elif _layers != python_path[: len(_layers)]:
        # Another layer is to come first: from the beginning.
        sys.path[:] = _own_path
        _layers.clear()
    for layer in python_path[len(_layers) :]:
        _extend_path(layer)
    _layers[:] = python_path
    directory = native["working_directory"]
    if directory is not None:
        while directory in sys.path:
            sys.path.remove(directory)
        sys.path.insert(0, directory)
    if switch_interval is not None:
        sys.setswitchinterval(switch_interval)


def _intercept_signal(signalnum, handler):
    """Signal handlers belong to the server; an application's are logged and ignored.

    Processes that the application forks may do as they like.
    """

    if os.getpid() != server_process:
        return set_signal_handler(signalnum, handler)
    caller = "".join(traceback.format_stack(sys._getframe(1), 3))
    native["log"](
        LEVEL_WARNING,
        f"RWSGI0109: signal.signal({signalnum!r}, …) was ignored: signals belong to the "
        f"server (WSGIRestrictSignal Off allows it). Called from:\n{caller}",
    )
    return handler


def _extend_path(directories):
    """`site.addsitedir` for each, so that .pth files count; what is new goes to the front."""
    known = list(sys.path)
    for directory in directories:
        if not os.path.isdir(directory):
            native["log"](
                LEVEL_WARNING,
                f"RWSGI0110: WSGIPythonPath: {directory} is no directory that this user can read",
            )
            continue
        site.addsitedir(directory)
        if directory not in sys.path:
            sys.path.append(directory)
    wanted = [entry for entry in directories if entry in sys.path]
    added = [entry for entry in sys.path if entry not in known and entry not in wanted]
    front = list(dict.fromkeys(wanted + added))
    sys.path[:] = front + [entry for entry in sys.path if entry not in front]


def load_script(path, mtime):
    """Executes a script file as a module of its own and returns that.

    The module that an earlier version of the file gave stays in `sys.modules` if this one fails.
    """
    name = module_name(path)
    with open(path, "rb") as file:
        source = file.read()
    module = types.ModuleType(name)
    # As of an imported module: what looks for resources beside the script asks for these (Flask's
    # instance folder, importlib.resources, pkgutil).
    loader = SourceFileLoader(name, path)
    module.__spec__ = ModuleSpec(name, loader, origin=path)
    module.__spec__.has_location = True
    module.__loader__ = loader
    module.__file__ = path
    module.__cached__ = None
    module.__mtime__ = mtime
    previous = sys.modules.get(name)
    code = compile(source, path, "exec", dont_inherit=True)
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        if previous is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = previous
        raise
    return module


def module_name(path):
    """mod_wsgi's names, which applications test for by their prefix."""
    try:
        from _md5 import md5
    except ImportError:
        from hashlib import md5
    return "_mod_wsgi_" + md5(os.fsencode(path), usedforsecurity=False).hexdigest()


def format_exception(error):
    """The lines of a traceback, without the frames of this file at its top."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == SOURCE:
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException as second:
        reason = type(second).__name__
        text = f"{type(error).__name__} (its traceback cannot be formatted: {reason})"
    return [line for line in text.encode("utf-8", "replace").split(b"\n") if line]


def file_range(wrapper):
    """(descriptor, offset, bytes left) if the wrapped file can be sent by the server, else None.

    That is so for a regular file that is read as it is: not through a decoder, not decompressed.
    """
    filelike = wrapper._filelike
    if isinstance(filelike, io.TextIOBase):
        return None
    # gzip, bz2 and lzma offer the descriptor of what they decompress.
    if any(cls.__name__ == "BaseStream" for cls in type(filelike).__mro__):
        return None
    try:
        descriptor = filelike.fileno()
        status = os.fstat(descriptor)
        offset = filelike.tell()
    except (AttributeError, OSError, ValueError, TypeError):
        return None
    if not stat.S_ISREG(status.st_mode) or not isinstance(offset, int) or offset < 0:
        return None
    return descriptor, offset, max(0, status.st_size - offset)


def be_worker(dump_signal):
    """Called once in the main interpreter of a worker process.

    Fatal errors leave the stacks of all threads on stderr; so does `dump_signal`, if it is one.
    """
    # Interpreters with a GIL of their own cannot import it.
    import faulthandler

    faulthandler.enable(2)
    if dump_signal:
        faulthandler.register(dump_signal, 2)


def switch_interval():
    return sys.getswitchinterval()


def gc_counters():
    """17 numbers about the garbage collector, those of generations in threes."""
    stats = gc.get_stats()
    lists = [gc.get_count(), gc.get_threshold()]
    for key in ("collections", "collected", "uncollectable"):
        lists.append([generation[key] for generation in stats])
    # Whatever generations a version of Python has.
    numbers = [number for each in lists for number in (*each, 0, 0, 0)[:3]]
    return (*numbers, int(gc.isenabled()), gc.get_freeze_count())


def terminate_by_exception():
    """SIGTERM raises SystemExit in the main thread: for service scripts."""

    def terminate(signalnum, frame):
        raise SystemExit(0)

    set_signal_handler(signal.SIGTERM, terminate)


def write_signals_to(descriptor):
    """Called on the main thread, which has to be told of signals while it waits elsewhere."""
    signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)


def before_first_fork():
    """What has been imported is not looked at by the garbage collector any more: looking writes."""
    gc.collect()
    gc.freeze()


def after_fork():
    """This process has been forked by the server itself, and is a server."""
    global server_process
    server_process = os.getpid()


def thread_stack(thread):
    """The stack of a thread of this interpreter, as lines; empty if it runs no Python code."""
    frame = sys._current_frames().get(thread)
    lines = traceback.format_stack(frame) if frame is not None else []
    return [line for line in "".join(lines).encode("utf-8", "replace").split(b"\n") if line]


def _forget_main_thread():
    """Keeps `threading._shutdown` from waiting for a thread of the server.

    In a sub-interpreter `main_thread()` is whichever thread of the server made it. 3.11 and 3.12
    would wait for that one to end, unless it were the one that calls.
    """
    main = threading.main_thread()
    locks = getattr(threading, "_shutdown_locks", None)
    if locks is not None and main.ident != threading.get_ident():
        locks.discard(getattr(main, "_tstate_lock", None))


def shut_down():
    """What Python does at its end: joins threads, runs exit handlers, flushes.

    Returns the exceptions that exit handlers let through.
    """
    failures = []
    _forget_main_thread()
    for step in (threading._shutdown, atexit._run_exitfuncs):
        try:
            step()
        except BaseException as error:
            failures.append(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    return failures


def is_coroutine_callable(application):
    """Whether `application(scope, receive, send)` gives a coroutine, as far as can be told."""
    import inspect

    seen = 0
    while hasattr(application, "func") and hasattr(application, "args") and seen < 10:
        # functools.partial
        application = application.func
        seen += 1
    if inspect.iscoroutinefunction(application):
        return True
    if isinstance(application, type) or not callable(application):
        return False
    return inspect.iscoroutinefunction(type(application).__call__)
