#!/usr/bin/env bash
# The memory that each command takes, in MiB of its largest process at its peak, each in a control group of 512 MiB:
# 1.5 GB in 2,700 files and 4 GB in 50,000, local, on an S3 server, and on one behind a slow uplink.
set -euo pipefail
source_tree=$(cd "$(dirname "$0")/.." && pwd)

"$source_tree/tests/setup.sh" bench
(cd "$source_tree" && cargo build --workspace --examples --locked)
target=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
# PI_AGENT_BINARY: one that is built already, such as a package's.
[ -n "${PI_AGENT_BINARY:-}" ] || "$source_tree/packaging/compile.sh" "$(dpkg --print-architecture)" "$target/bench/pi-agent"
export PI_AGENT_BINARY=${PI_AGENT_BINARY:-$target/bench/pi-agent}

"$PI_AGENT_BINARY" --version
for storage in local s3; do
    "$target/debug/examples/footprint" "$storage" 1500000000 2700
    "$target/debug/examples/footprint" "$storage" 4000000000 50000
done
"$target/debug/examples/footprint" s3 600000000 2700 2MiB
