#!/usr/bin/env bash
# Type-checks the program for the Raspberry Pi without making its package: `make test-long` makes and runs that.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(dpkg --print-architecture)" != arm64 ] || exit 0
tests/setup.sh deb-arm64
. cross/toolchain.sh
use_toolchain arm64
CARGO_INCREMENTAL=0 "$cargo" check --quiet --locked --package pi-agent --target "$target"
