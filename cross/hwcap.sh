#!/usr/bin/env bash
# Shows that the arm64 program runs AES and SHA instructions where the kernel says the processor has them, and none where
# it does not: restores a file on an emulated processor, once as it is and once with these bits of AT_HWCAP hidden.
# hwcap.sh PROGRAM; needs `apt install restic qemu-user-static crossbuild-essential-arm64 libc6:arm64` and binfmt_misc.
set -euo pipefail
program=$(realpath "$1")
work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT

cat >"$work/hide.c" <<'C'
#include <dlfcn.h>
#include <sys/auxv.h>
/* HWCAP_AES, HWCAP_PMULL, HWCAP_SHA1, HWCAP_SHA2 (bits 3 to 6), SHA3, SHA512 (17, 21): what a Pi 4 has not. */
unsigned long getauxval(unsigned long type) {
    unsigned long (*real)(unsigned long) = dlsym(RTLD_NEXT, "getauxval");
    unsigned long value = real(type);
    return type == AT_HWCAP ? value & ~(0x78ul | 1ul << 17 | 1ul << 21) : value;
}
C
aarch64-linux-gnu-gcc -D_GNU_SOURCE -shared -fPIC -o "$work/hide.so" "$work/hide.c" -ldl

mkdir -p "$work/source"
install -d -m 0700 "$work/secrets"
head -c 1000000 /dev/urandom >"$work/source/file"
(umask 077 && echo a-password >"$work/secrets/restic.key")
cat >"$work/config.toml" <<TOML
[host]
name = "emulated"
[storage]
url = "file://$work/storage"
[secrets]
directory = "$work/secrets"
[local]
cache = "$work/cache"
runtime = "$work/run"
spool = "$work/spool"
[[step]]
name = "files"
kind = "directory"
paths = ["$work/source"]
TOML
export RESTIC_PASSWORD=a-password
restic --quiet --repo "$work/storage/files" init
restic --quiet --repo "$work/storage/files" backup --host emulated "$work/source"

# The code that was translated is the code that ran.
ran() { # NAME [VARIABLE]
    rm -rf "$work/restored" "$work/cache"
    mkdir "$work/log"
    env "${@:2}" MALLOC_ARENA_MAX=1 QEMU_LOG=in_asm QEMU_LOG_FILENAME="$work/log/%d" \
        "$program" --config "$work/config.toml" --state-directory "$work/state" restore files --to "$work/restored" >"$work/said" 2>&1 ||
        { cat "$work/said" >&2; exit 1; }
    cmp "$work/source/file" "$work/restored/$work/source/file"
    aes=$(cat "$work"/log/* | grep -cw 'aese\|aesd') || true
    sha=$(cat "$work"/log/* | grep -cw 'sha256h\|sha256h2\|sha512h') || true
    rm -rf "$work/log"
    echo "$1: $aes AES and $sha SHA-2 instructions"
}

ran "a processor that has them"
[ "$aes" -gt 0 ] && [ "$sha" -gt 0 ]
ran "a processor that has not" "LD_PRELOAD=$work/hide.so"
[ "$aes" -eq 0 ] && [ "$sha" -eq 0 ]
