#!/bin/bash
# Builds the httpd side into build/mod_rwsgi.so. cargo decides what is to be done.
set -eu

if ! command -v "${CARGO%% *}" >/dev/null; then
    echo "There is no cargo here. 'make deps' installs Rust." >&2
    exit 1
fi
echo "== building mod_rwsgi.so"
CARGO_TARGET_DIR=target/httpd $CARGO build $CARGOFLAGS --release --features httpd
exec tests/tools/replace.sh target/httpd/release/librwsgi.so build/mod_rwsgi.so
