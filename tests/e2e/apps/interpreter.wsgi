"""Looks at the interpreter that it runs in."""

import atexit
import json
import os
import signal
import sys
import threading

import support

local = threading.local()


def flags(environ, start_response):
    names = [name for name in dir(sys.flags) if not name.startswith(("_", "n_", "count", "index"))]
    facts = {name: getattr(sys.flags, name) for name in names}
    facts.update(
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        executable=sys.executable,
        version=list(sys.version_info[:3]),
        path=sys.path,
        argv=sys.argv,
        warnoptions=sys.warnoptions,
        dont_write_bytecode=sys.dont_write_bytecode,
        hash=hash("a string"),
        main=threading.current_thread() is threading.main_thread(),
        pid=os.getpid(),
    )
    return support.answer(start_response, json.dumps(facts), content_type="application/json")


def count(environ, start_response):
    """Counts in a module of the standard library, which is shared by one interpreter's scripts."""
    json.counter = getattr(json, "counter", 0) + 1
    return support.answer(start_response, str(json.counter))


number = 0


def number_of_calls(environ, start_response):
    """Counts in this script, which several groups have."""
    global number
    number += 1
    return support.answer(start_response, str(number))


def thread_local(environ, start_response):
    """How often this thread of this process has been here."""
    local.count = getattr(local, "count", 0) + 1
    facts = [os.getpid(), threading.get_ident(), local.count, environ["mod_wsgi.thread_id"]]
    return support.answer(start_response, json.dumps(facts), content_type="application/json")


def imports(environ, start_response):
    """Imports a module and uses it."""
    module = support.query(environ)["module"]
    if module == "numpy":
        import numpy

        result = int(numpy.arange(10).sum() + (numpy.eye(3) @ numpy.eye(3)).trace())
    else:
        from cryptography.fernet import Fernet

        fernet = Fernet(Fernet.generate_key())
        result = fernet.decrypt(fernet.encrypt(b"secret")).decode()
    return support.answer(start_response, str(result))


def standard_streams(environ, start_response):
    results = {}
    for name, call in {
        "stdin": lambda: sys.stdin.read(),
        "stdout": lambda: print("to stdout"),
    }.items():
        try:
            call()
            results[name] = "accepted"
        except OSError as error:
            results[name] = "OSError"
            del error
    return support.answer(start_response, json.dumps(results), content_type="application/json")


def signals(environ, start_response):
    """Tries to set a handler, here and in a forked child."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        result = "same" if signal.getsignal(signal.SIGUSR1) == before else "changed"
    except ValueError as error:
        result = f"ValueError: {error}"
    return support.answer(start_response, result)


def signals_of_a_child(environ, start_response):
    """What a forked process gets for its own handler of a signal that it sends itself."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            # The MPM's threads have it blocked.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            signal.signal(signal.SIGUSR1, lambda *_: os.write(write, b"handled"))
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    answer = os.read(read, 100)
    os.close(read)
    return support.answer(start_response, answer or b"nothing")


def modules(environ, start_response):
    """The built-in modules of the server."""
    import apache
    import mod_wsgi

    facts = {
        "version": mod_wsgi.version,
        "process_group": mod_wsgi.process_group,
        "application_group": mod_wsgi.application_group,
        "maximum_processes": mod_wsgi.maximum_processes,
        "threads_per_process": mod_wsgi.threads_per_process,
        "wrapper": environ["wsgi.file_wrapper"] is mod_wsgi.FileWrapper,
        "apache": apache.version,
        "description": apache.description,
        "mpm": apache.mpm_name,
    }
    return support.answer(start_response, json.dumps(facts), content_type="application/json")


def at_exit(environ, start_response):
    """Leaves a note when the interpreter ends; ``thread`` adds one that must be joined."""
    path = support.query(environ)["file"]
    atexit.register(support.note, path, "atexit")
    if support.query(environ).get("thread"):
        ending = threading.Event()

        def work():
            ending.wait()
            support.note(path, "thread")

        # A thread that a thread of the server starts would be a daemon one by default.
        threading.Thread(target=work, daemon=False).start()
        # What concurrent.futures uses, too: called before the threads are joined.
        threading._register_atexit(ending.set)
    return support.answer(start_response, str(os.getpid()))


def daemon_thread(environ, start_response):
    """A daemon thread that is busy until the process ends."""

    def work():
        while True:
            sum(range(1000))

    threading.Thread(target=work, daemon=True).start()
    return support.answer(start_response, "started")


def background(environ, start_response):
    """A thread that prints after its request has ended."""
    query = support.query(environ)
    if query.get("go"):
        event.set()
        thread.join()
        return support.answer(start_response, "joined")

    def work():
        event.wait(20)
        print("from the background")

    start(work)
    return support.answer(start_response, "started")


event = threading.Event()
thread = None


def start(work):
    global thread
    thread = threading.Thread(target=work)
    thread.start()


def subprocesses(environ, start_response):
    """Starts a process and waits for it."""
    import subprocess

    done = subprocess.run([sys.executable or "python3", "-c", "print(6 * 7)"], capture_output=True)
    return support.answer(start_response, done.stdout)


ROUTES = {
    "/" + function.__name__.replace("_", "-"): function
    for function in list(globals().values())
    if getattr(function, "__code__", None) and function.__code__.co_varnames[:1] == ("environ",)
}


def application(environ, start_response):
    return ROUTES[environ["PATH_INFO"]](environ, start_response)
