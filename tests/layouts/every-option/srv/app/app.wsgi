import json
import os
import resource
import sys

try:
    import inlib
except ImportError:  # the group `other` has no python-path
    inlib = None

IMPORTED = os.getpid()


def application(environ, start_response):
    umask = os.umask(0)
    os.umask(umask)
    seen = {
        "pid": os.getpid(),
        "preloaded": IMPORTED == os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": sorted(os.getgroups()),
        "umask": umask,
        "cwd": os.getcwd(),
        "path0": sys.path[0],
        "inlib": bool(inlib),
        "lang": os.environ.get("LANG"),
        "locale": os.environ.get("LC_ALL"),
        "eggs": os.environ.get("PYTHON_EGG_CACHE"),
        "prefix": sys.prefix,
        "switch": sys.getswitchinterval(),
        "nice": os.nice(0),
        "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "space": resource.getrlimit(resource.RLIMIT_AS)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        "multiprocess": environ["wsgi.multiprocess"],
        "multithread": environ["wsgi.multithread"],
        "run_once": environ["wsgi.run_once"],
        "group": environ["mod_wsgi.process_group"],
    }
    body = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
