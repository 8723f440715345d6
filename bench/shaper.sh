#!/usr/bin/env bash
# How exact [limits] are, in percent of what was asked: RATE... in bytes a second, by default from 64 KiB to 20 MiB, each for
# SHAPER_SECONDS, files and PostgreSQL up, files back down. Everything real but the distance.
set -euo pipefail
source_tree=$(cd "$(dirname "$0")/.." && pwd)
seconds=${SHAPER_SECONDS:-30}
[ $# -gt 0 ] || set -- $((64 << 10)) $((256 << 10)) $((1 << 20)) $((5 << 20)) $((20 << 20))

"$source_tree/tests/setup.sh"
(cd "$source_tree" && cargo build --workspace --examples --bins --locked)
target=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
for rate; do
    for kind in directory postgres restore; do
        PI_AGENT_BINARY=${PI_AGENT_BINARY:-$target/debug/pi-agent} "$target/debug/examples/shaper" "$kind" "$rate" "$seconds"
    done
done
