#!/bin/bash
# The end-to-end tests of `make test`: the core ones with one more Python, where there is one, then
# all of them with the default one.
set -eu

other=$(tests/tools/other_python.sh)
if [ -n "$other" ]; then
    tests/tools/one_python.sh "$other"
else
    echo "== no second Python here; only $PYTHON is tested"
fi
tests/tools/several.sh
echo "== end-to-end tests"
# shellcheck disable=SC2086 # options of the caller
exec build/venv/bin/pytest tests/e2e $PYTEST
