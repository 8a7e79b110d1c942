#!/bin/bash
# one_python.sh PYTHON: the gateway for this Python, its unit tests, and the core end-to-end tests
# with it as the default of a module directory of its own, build/matrix/VERSION.
set -eu

# The tests that need nothing but the standard library on the application's side.
core=(environ input response streaming file_wrapper reloading logging faults mapping)
core+=(handler_scripts dispatch_scripts apache_request)
core+=(auth auth_combinations auth_config)
core+=(events api metrics telemetry)
core+=(asgi_scope asgi_receive asgi_send asgi_websocket)

python=$(tests/tools/copy_python.sh "$1")
version=$("$python" -c 'import platform; print(platform.python_version())')
echo "=== Python $version"
modules=build/matrix/$version
tests/tools/gateway.sh "$python" default "$modules/rwsgi"
tests/tools/replace.sh build/mod_rwsgi.so "$modules/mod_rwsgi.so"
tests/tools/replace.sh build/rwsgi/rwsgi-daemon "$modules/rwsgi/rwsgi-daemon" 755
tests/tools/python_tests.sh "$python"
if [ -d tests/worker ]; then
    PYTHON=$python RWSGI_MODULE_DIR=$PWD/$modules tests/tools/daemon_tests.sh worker
fi

files=()
for name in "${core[@]}"; do
    [ ! -f "tests/e2e/test_$name.py" ] || files+=("tests/e2e/test_$name.py")
done
echo "== end-to-end tests in Python $version"
RWSGI_MODULE_DIR=$PWD/$modules build/venv/bin/pytest "${files[@]}" -k "event or not (worker or prefork)"
