#!/usr/bin/env bash
# Type-checks the program for the Raspberry Pi without making its package: `make test-long` makes and runs that.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(dpkg --print-architecture)" != arm64 ] || exit 0
tests/setup.sh deb-arm64
. cross/toolchain.sh
use_toolchain arm64
# A directory of its own: nobody waits for its lock.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/check-arm64
CARGO_INCREMENTAL=0 "$cargo" check --quiet --locked --package pi-agent --target "$target"
