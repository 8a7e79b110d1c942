#!/bin/bash
# autobahn.sh: installs the Autobahn test suite into build/autobahn, unless it is there, and prints the
# Python that runs it.
#
# The suite is written in Python 2.7. Where that is not installed (PYTHON2 names it), there is nothing
# to be had, and this fails; tests/e2e/test_asgi_autobahn.py has the same cases in a shorter form.
set -eu
umask 022

directory=$PWD/build/autobahn
python=${PYTHON2:-}
for guess in "$HOME"/.pyenv/versions/2.7.*/bin/python2.7 /usr/local/bin/python2.7 /usr/bin/python2.7; do
    [ -n "$python" ] || [ ! -x "$guess" ] || python=$guess
done
if [ -z "$python" ]; then
    echo "there is no Python 2.7 here, in which the Autobahn test suite is written" >&2
    exit 1
fi
if [ ! -e "$directory/made" ]; then
    echo "== installing the Autobahn test suite for $python into $directory" >&2
    rm -rf "$directory"
    mkdir -p "$directory"
    # The last version that installs what it needs.
    "$python" -m pip install --quiet --disable-pip-version-check \
        --target "$directory/packages" "autobahntestsuite==0.8.2" >"$directory/install.log" 2>&1 || {
        tail -n 20 "$directory/install.log" >&2
        exit 1
    }
    echo "$python" >"$directory/made"
fi
echo "$python"
