#!/usr/bin/env bash
# Compresses a package that was made without compression: compress.sh ARCH FILE. The same xz makes the same bytes.
# xz can turn a program's relative jumps into absolute ones first, which repeat, and dpkg-deb does not ask for that: a twelfth
# less for everyone to download. dpkg unpacks it by liblzma, which knows the one for arm64 since 5.4 (Debian 12).
set -euo pipefail
arch=$1 package=$(realpath "$2")
case $arch in
amd64) filters=(--x86 --lzma2=preset=6e) ;;
arm64) filters=(--arm64 --lzma2=preset=6e,lp=2,lc=2) ;; # instructions are four bytes each
*) filters=(--lzma2=preset=6e) ;;
esac

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
cd "$work"
ar x "$package"
unset XZ_DEFAULTS XZ_OPT
xz --threads=1 -6e control.tar
xz --threads=1 "${filters[@]}" data.tar
rm "$package"
# The order is the format's; D: no times and no users.
ar qcSD "$package" debian-binary control.tar.xz data.tar.xz
