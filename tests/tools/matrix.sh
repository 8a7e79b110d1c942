#!/bin/bash
# matrix.sh PYTHON...: everything that depends on the version, for each of them.
set -eu

[ $# -gt 0 ] || { echo 'Name the Pythons: make test-matrix PYTHONS="/usr/bin/python3 ..."' >&2; exit 2; }
failed=()
for python in "$@"; do
    tests/tools/one_python.sh "$python" || failed+=("$python")
done
if [ ${#failed[@]} != 0 ]; then
    echo "=== failed: ${failed[*]}" >&2
    exit 1
fi
echo "=== passed: $*"
