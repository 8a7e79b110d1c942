#!/bin/bash
# gateway.sh PYTHON [default [DIRECTORY]]: builds the gateway for one Python, with its record, into
# DIRECTORY (build/rwsgi). With `default`, httpd uses it where the configuration names no Python.
set -eu

python=$(realpath -s "$(command -v "$1")" 2>/dev/null) || { echo "there is no Python at $1" >&2; exit 1; }
directory=${3:-build/rwsgi}
read -r version stem < <("$python" - <<'PY'
import sys, sysconfig
suffix = sysconfig.get_config_var("EXT_SUFFIX")
print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags), "_rwsgi" + suffix[: -len(".so")])
PY
)
echo "== building the gateway for Python $version ($python)"
PYO3_PYTHON=$python PYO3_BUILD_EXTENSION_MODULE=1 CARGO_TARGET_DIR=target/python-$version \
    $CARGO build $CARGOFLAGS --release --features python

mkdir -p "$directory"
tests/tools/replace.sh "target/python-$version/release/librwsgi.so" "$directory/$stem.so"
record=$(mktemp)
trap 'rm -f "$record"' EXIT
"$python" src/python/record.py >"$record"
tests/tools/replace.sh "$record" "$directory/$stem.conf"
if [ "${2:-}" = default ]; then
    echo "$stem" >"$record"
    tests/tools/replace.sh "$record" "$directory/default"
fi
