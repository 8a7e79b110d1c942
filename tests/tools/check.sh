#!/bin/bash
# Formatting and lints. The target directories and profiles are those of the builds, so that the
# dependencies are compiled once.
set -eu

version=$("$PYTHON" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))')
echo "== cargo fmt"
$CARGO fmt --check
echo "== clippy: pure parts"
CARGO_TARGET_DIR=target $CARGO clippy $CARGOFLAGS --quiet --all-targets -- -D warnings
echo "== clippy: httpd side"
CARGO_TARGET_DIR=target/httpd \
    $CARGO clippy $CARGOFLAGS --quiet --release --features httpd --all-targets -- -D warnings
echo "== clippy: supervisor"
CARGO_TARGET_DIR=target/supervisor \
    $CARGO clippy $CARGOFLAGS --quiet --release --features supervisor --all-targets -- -D warnings
echo "== clippy: gateway"
PYO3_PYTHON=$PYTHON PYO3_BUILD_EXTENSION_MODULE=1 CARGO_TARGET_DIR=target/python-$version \
    $CARGO clippy $CARGOFLAGS --quiet --release --features python --all-targets -- -D warnings
echo "== ruff"
build/venv/bin/ruff check
build/venv/bin/ruff format --check
