#!/bin/bash
# checklist.sh begin|end: around the tests of `make test`, which note in build/checklist/results what
# they show of the checklist (tests/checklist). `end` prints the report, and fails if items are
# missing; after a run of chosen tests only (PYTEST) it only prints.
set -eu

directory=build/checklist
case $1 in
begin)
    rm -rf "$directory"
    mkdir -p "$directory"
    : >"$directory/results"
    build/venv/bin/pytest -q tests/checklist
    ;;
end)
    complete=--complete
    [ -z "${PYTEST:-}" ] || complete=
    # shellcheck disable=SC2086 # nothing or one word
    build/venv/bin/python tests/checklist/report.py "$directory/results" \
        --list "$directory/report.txt" $complete
    ;;
esac
