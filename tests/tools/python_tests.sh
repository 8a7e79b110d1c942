#!/bin/bash
# python_tests.sh PYTHON: the gateway's unit tests, in a process that embeds this Python.
set -eu

python=$(realpath -s "$(command -v "$1")" 2>/dev/null) || { echo "there is no Python at $1" >&2; exit 1; }
read -r version libdir < <("$python" -c 'import sys, sysconfig
print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags), sysconfig.get_config_var("LIBDIR"))')
echo "== unit tests: the gateway in Python $version"
# A Python outside the linker's own directories is found by LD_LIBRARY_PATH. PYTHONHOME only where
# the prefix compiled in is not the one in use (a copied installation).
export LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
PYO3_PYTHON=$python CARGO_TARGET_DIR=target/python-$version \
    $CARGO test $CARGOFLAGS --quiet --features python
