#!/bin/bash
# Prints a Python of another version than PYTHON that a gateway can be built and embedded for: the
# newest one found of those supported, or nothing.
set -eu

default=$("$PYTHON" -c 'import sys; print("3.%d" % sys.version_info[1])')
embeddable='
import os, sys, sysconfig
get = sysconfig.get_config_var
name = "libpython%d.%d.so" % sys.version_info[:2]
sys.exit(not (get("Py_ENABLE_SHARED") and os.path.exists(os.path.join(get("LIBDIR"), name))))
'
for minor in 13 12 11 10 9; do
    [ "3.$minor" != "$default" ] || continue
    for python in /usr/bin/python3.$minor /usr/local/bin/python3.$minor /opt/*/bin/python3.$minor \
        "$HOME"/.pyenv/versions/*/bin/python3.$minor; do
        if [ -x "$python" ] && "$python" -c "$embeddable" 2>/dev/null; then
            echo "$python"
            exit 0
        fi
    done
done
