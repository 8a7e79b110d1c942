"""Prints the record of a gateway: which Python it belongs to, and where that one's library lies.

Run by `make` with the interpreter that a gateway is built for; httpd reads the result beside the
gateway.
"""

import os
import platform
import sys
import sysconfig


def shared_library():
    """The path of libpython, or nothing if this Python has none."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") and not sysconfig.get_config_var(
        "INSTSONAME"
    ):
        return ""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if not name.startswith("libpython") or ".so" not in name:
        return ""
    directories = [
        sysconfig.get_config_var("LIBDIR") or "",
        os.path.join(sysconfig.get_config_var("LIBDIR") or "", platform.machine() + "-linux-gnu"),
        sysconfig.get_config_var("LIBPL") or "",
        os.path.join(sys.base_prefix, "lib"),
    ]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        directories.insert(0, os.path.join(sys.base_prefix, "lib", multiarch))
    for directory in directories:
        path = os.path.join(directory, name)
        if os.path.exists(path):
            return path
    return ""


def main():
    print("version =", platform.python_version())
    print("libpython =", shared_library())
    print("prefix =", sys.base_prefix)
    print("executable =", getattr(sys, "_base_executable", None) or sys.executable)


main()
