#!/usr/bin/env bash
# Compiles the program for a Debian architecture, always to the same bytes: compile.sh ARCH FILE.
# Neither where the sources lie, nor cargo's directories, nor who builds may be found in the result.
set -euo pipefail
cd "$(dirname "$0")/.."
. cross/toolchain.sh
arch=$1 result=$2
use_toolchain "$arch"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target} CARGO_INCREMENTAL=0
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS # they would replace ours

# The registry's directory must be there to be renamed.
"$cargo" fetch --locked --target "$target" --quiet
remaps=() flags= CFLAGS=${CFLAGS:-}
for directory in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/; do
    remaps+=("${directory%/}=/cargo")
done
remaps+=("$CARGO_TARGET_DIR=/target")
for remap in "${remaps[@]}"; do
    flags+=", \"--remap-path-prefix=$remap\""
    CFLAGS+=" -ffile-prefix-map=$remap"
done
export CFLAGS
# Relocations in the short form that glibc 2.36 knows, where the linker can write it: a quarter of a megabyte.
[ "$arch" != amd64 ] || flags+=', "-Clink-arg=-Wl,-z,pack-relative-relocs"'

"$cargo" build --release --locked --package pi-agent --bin pi-agent --target "$target" \
    --config "target.$target.rustflags = [${flags#, }]"
install -D -m 0755 "$CARGO_TARGET_DIR/$target/release/pi-agent" "$result"
