#!/bin/bash
# copy_python.sh PYTHON: prints a Python of the same installation that httpd's user can read.
#
# That is PYTHON itself, or, where it lies in somebody's home directory, a copy of its executable,
# standard library and libpython in build/pythons/VERSION. Tests only: the copy has no test suite of
# its own and no packages.
set -eu
umask 022

python=$(realpath -s "$(command -v "$1")" 2>/dev/null) || { echo "there is no Python at $1" >&2; exit 1; }
IFS='|' read -r full short prefix stdlib libdir library < <("$python" - <<'PY'
import platform, sys, sysconfig
get = sysconfig.get_config_var
short = "%d.%d%s" % (*sys.version_info[:2], sys.abiflags)
shared = get("INSTSONAME") if get("Py_ENABLE_SHARED") else ""
print(platform.python_version(), short, sys.base_prefix, sysconfig.get_path("stdlib"),
      get("LIBDIR"), shared, sep="|")
PY
)
# As root, what the children's user can read; else what we can.
if [ "$(id -u)" != 0 ] || runuser -u www-data -- test -r "$stdlib/os.py"; then
    echo "$python"
    exit 0
fi

copy=$PWD/build/pythons/$full
# The number is that of this script's way of copying.
if [ "$(cat "$copy/complete" 2>/dev/null)" != 2 ]; then
    echo "== copying Python $full to build/pythons, where www-data can read it" >&2
    rm -rf "$copy"
    mkdir -p "$copy/bin" "$copy/lib"
    tar -c -C "$(dirname "$stdlib")" --exclude=test --exclude=tests --exclude=site-packages \
        --exclude=__pycache__ --exclude=idlelib --exclude='*.a' "$(basename "$stdlib")" |
        tar -x -C "$copy/lib" --no-same-owner
    mkdir -p "$copy/lib/$(basename "$stdlib")/site-packages"
    if [ -n "$library" ]; then
        cp "$libdir/$library" "$copy/lib/"
        ln -s "$library" "$copy/lib/${library%.so.*}.so"
    fi
    cp "$(readlink -f "$python")" "$copy/bin/python$short"
    ln -s "python$short" "$copy/bin/python3"
    ln -s python3 "$copy/bin/python"
    # Where the executable looks for libpython: a worker of daemon mode runs it without a wrapper.
    "$python" - "$copy/bin/python$short" "$libdir" <<'PY'
import sys
path, old = sys.argv[1], sys.argv[2].encode() + b"\0"
new = b"$ORIGIN/../lib".ljust(len(old), b"\0")
data = open(path, "rb").read()
if old in data and len(new) == len(old):
    open(path, "wb").write(data.replace(b"\0" + old, b"\0" + new))
PY
    # What sysconfig says of places is written down at build time.
    sed -i "s#$prefix#$copy#g" "$copy/lib/$(basename "$stdlib")"/_sysconfigdata*.py
    runuser -u www-data -- "$copy/bin/python" -c 'import json' || {
        echo "the copy of $python in $copy does not run" >&2
        exit 1
    }
    echo 2 >"$copy/complete"
fi
echo "$copy/bin/python"
