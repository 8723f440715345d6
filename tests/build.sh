#!/usr/bin/env bash
# Builds what is tested: build.sh short|full. Both runs compile the programs and their tests.
#
#   short  packages the program that was just compiled for the tests, into PI_AGENT_PACKAGES
#   full   makes both packages as they are shipped, which takes two release builds
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO_TARGET_DIR=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR PI_AGENT_PACKAGES=${PI_AGENT_PACKAGES:-$CARGO_TARGET_DIR/packages}

cargo build --workspace --all-targets --locked
case ${1:-short} in
full)
    env --unset=PI_AGENT_PROGRAM packaging/build-deb.sh
    env --unset=PI_AGENT_PROGRAM packaging/build-deb.sh arm64
    ;;
*)
    PI_AGENT_PROGRAM=$CARGO_TARGET_DIR/debug/pi-agent packaging/build-deb.sh
    ;;
esac
