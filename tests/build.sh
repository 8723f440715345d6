#!/usr/bin/env bash
# Builds what is tested: the programs and their tests, and beside them both packages. Linking a package takes one
# processor for minutes; they have a target directory's other half to themselves, so nobody waits for a lock.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# One after the other: both compile the same build scripts.
(packaging/build-deb.sh && packaging/build-deb.sh arm64) >"$log" 2>&1 &
packages=$!
built=0
cargo build --workspace --all-targets --locked || built=$?
if ! wait $packages; then
    cat "$log" >&2
    exit 1
fi
grep '^build/' "$log"
exit $built
