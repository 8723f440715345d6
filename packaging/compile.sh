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
# zstd without what is never asked for: the strategies of levels above ours (a repository that another tool set to such a level
# gets what is left). A quarter of a megabyte, 80 KB of the package.
for strategy in GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do
    CFLAGS+=" -DZSTD_EXCLUDE_${strategy}_BLOCK_COMPRESSOR"
done
# Tables for unwinding through C code, which nothing does: no function of ours that C calls panics.
CFLAGS+=" -fno-asynchronous-unwind-tables -fno-unwind-tables"
export CFLAGS
# Relocations in the short form that glibc 2.36 knows, where the linker can write it: a quarter of a megabyte.
[ "$arch" != amd64 ] || flags+=', "-Clink-arg=-Wl,-z,pack-relative-relocs"'

# Everything is optimised once more when it is linked, as far as the program's own crate is; and that is compiled for size, which
# would leave the others' loops as they are: encrypting took twice as long. What is compiled for size stays so (84 KB more).
"$cargo" rustc --release --locked --package pi-agent --bin pi-agent --target "$target" \
    --config "target.$target.rustflags = [${flags#, }]" -- -C opt-level=3
install -D -m 0755 "$CARGO_TARGET_DIR/$target/release/pi-agent" "$result"
