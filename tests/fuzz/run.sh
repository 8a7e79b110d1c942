#!/bin/bash
# run.sh [SECONDS]: builds the fuzz targets with coverage feedback and runs each for so long.
set -eu

seconds=${1:-30}
cd "$(dirname "$0")"
# What libFuzzer needs to see which branches an input takes; part of stable rustc.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
target=$PWD/../../target/fuzz
# With --target the flags do not reach build scripts.
CARGO_TARGET_DIR=$target ${CARGO:-cargo} build --release --target "$host"
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
for name in request reply control group headers proxies websocket; do
    echo "== fuzzing $name for $seconds s"
    mkdir "$corpus/$name"
    "$target/$host/release/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$corpus/" "$corpus/$name" || {
        cp "$corpus"/crash-* "$corpus"/oom-* "$corpus"/timeout-* . 2>/dev/null || true
        exit 1
    }
done
