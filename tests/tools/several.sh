#!/bin/bash
# several.sh: gateways for the oldest and the newest Python found here besides PYTHON, in
# build/several/rwsgi: what the test of several Pythons in one httpd takes.
set -eu

directory=build/several
supported=' 9 10 11 12 13 '
found=()
for python in /usr/bin/python3.* /usr/local/bin/python3.* /opt/*/bin/python3.* \
    "$HOME"/.pyenv/versions/*/bin/python3.*; do
    minor=${python##*/python3.}
    [[ $supported == *" $minor "* ]] && [ -x "$python" ] || continue
    # A gateway is built with the headers.
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null ||
        continue
    found[minor]=$python
done
unset "found[$("$PYTHON" -c 'import sys; print(sys.version_info[1])')]"
others=(${found[@]+"${found[@]}"})
if [ ${#others[@]} -gt 2 ]; then
    others=("${others[0]}" "${others[-1]}")
fi

rm -rf "$directory"
for python in ${others[@]+"${others[@]}"}; do
    tests/tools/gateway.sh "$(tests/tools/copy_python.sh "$python")" "" "$directory/rwsgi"
done
