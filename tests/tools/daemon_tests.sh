#!/bin/bash
# daemon_tests.sh PART...: the tests of the parts of daemon mode by themselves, without httpd:
# `supervisor` (the program, with workers that the tests play), `worker` (a worker, with a client
# that the tests play).
#
# PYTHON is the interpreter of the workers, RWSGI_MODULE_DIR the directory with their gateway (build).
set -eu

export RWSGI_TEST_PYTHON=$PYTHON RWSGI_TEST_GATEWAYS=${RWSGI_MODULE_DIR:-$PWD/build}/rwsgi
export RWSGI_DAEMON=$RWSGI_TEST_GATEWAYS/rwsgi-daemon
# One run for each: their helpers have the same names.
for part in "$@"; do
    echo "== tests of the $part"
    # shellcheck disable=SC2086 # options of the caller
    build/venv/bin/pytest -ra --timeout 180 "tests/$part" $PYTEST
done
