#!/bin/bash
# free_threaded.sh [PYTHON]: the core tests in a Python that can run without the GIL, with its GIL (as
# rwsgi runs it by default) and without (WSGIFreeThreading On). PYTHON is built if it is not named.
set -eu

# The tests that need nothing but the standard library on the application's side.
core=(environ input response streaming file_wrapper reloading logging faults mapping interpreters
    free_threading)

python=${1:-$(tests/tools/python_free_threaded.sh)}
modules=build/matrix/free-threaded
tests/tools/gateway.sh "$python" default "$modules/rwsgi"
tests/tools/replace.sh build/mod_rwsgi.so "$modules/mod_rwsgi.so"
tests/tools/replace.sh build/rwsgi/rwsgi-daemon "$modules/rwsgi/rwsgi-daemon" 755
export RWSGI_MODULE_DIR=$PWD/$modules
files=()
for name in "${core[@]}"; do
    files+=("tests/e2e/test_$name.py")
done

# run GIL: PYTHON_GIL is for the workers that tests start by hand; others are told what to do.
run() {
    echo "=== $python, PYTHON_GIL=$1"
    tests/tools/python_tests.sh "$python"
    PYTHON=$python PYTHON_GIL=$1 tests/tools/daemon_tests.sh worker
    # shellcheck disable=SC2086 # options of the caller
    build/venv/bin/pytest "${files[@]}" -k "event or not (worker or prefork)" $PYTEST
}
unset RWSGI_TEST_FREE_THREADING
run 1
export RWSGI_TEST_FREE_THREADING=1
run 0
