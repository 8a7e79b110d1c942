#!/bin/bash
# Builds the supervisor of daemon mode into build/rwsgi/rwsgi-daemon.
set -eu

echo "== building rwsgi-daemon"
CARGO_TARGET_DIR=target/supervisor \
    $CARGO build $CARGOFLAGS --release --features supervisor --bin rwsgi-daemon
exec tests/tools/replace.sh target/supervisor/release/rwsgi-daemon build/rwsgi/rwsgi-daemon 755
