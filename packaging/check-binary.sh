#!/usr/bin/env bash
# What a program must be before it is packaged: check-binary.sh ARCH FILE.
set -euo pipefail
arch=$1 program=$2
newest_glibc=2.36 # Debian 12's

fail() {
    echo "check-binary: $program: $*" >&2
    exit 1
}

glibc=$(readelf --version-info --wide "$program" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort --version-sort | tail -n 1)
[ -n "$glibc" ] || fail "no version of glibc is asked for"
[ "$(printf '%s\n' "$glibc" "$newest_glibc" | sort --version-sort | tail -n 1)" = "$newest_glibc" ] ||
    fail "needs glibc $glibc; Debian 12 has $newest_glibc"

# Names of this machine's directories would make it another program on the next one.
for place in "$PWD" "${CARGO_HOME:-$HOME/.cargo}" "${CARGO_TARGET_DIR:-$PWD/target}"; do
    ! grep --quiet --text --fixed-strings "$place/" "$program" || fail "names $place"
done

# Found at run time, so they must be there, on the oldest ARMv8 too (cross/README.md).
if [ "$arch" = arm64 ]; then
    objdump=$(command -v aarch64-linux-gnu-objdump || command -v objdump)
    found=$("$objdump" --disassemble --no-show-raw-insn "$program" | grep --only-matching --word-regexp 'aese\|sha256h' | sort --unique)
    [ "$(echo $found)" = "aese sha256h" ] || fail "of aese and sha256h it has only: $found"
fi
echo "check-binary: $arch: $(stat --format=%s "$program") bytes, glibc $glibc or newer"
