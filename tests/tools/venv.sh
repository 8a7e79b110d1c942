#!/bin/bash
# Creates build/venv for PYTHON from tests/requirements.txt, unless it is there and up to date.
set -eu
umask 022

venv=${1:-build/venv}
requirements=tests/requirements.txt
key="$("$PYTHON" -c 'import sys; print(sys.executable, sys.version)' | tr '\n' ' ')$(sha256sum "$requirements")"
[ "$(cat "$venv/made-from" 2>/dev/null || true)" = "$key" ] && exit 0

echo "== creating $venv for $PYTHON from $requirements"
rm -rf "$venv"
mkdir -p "$(dirname "$venv")"
"$PYTHON" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
echo "$key" >"$venv/made-from"
