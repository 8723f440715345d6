#!/usr/bin/env bash
# Builds build/pi-agent_VERSION_ARCH.deb: build-deb.sh [ARCH]. Installs what that needs; leaves the tree as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(dpkg --print-architecture)}
tests/setup.sh "deb-$arch"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
# A place that stays, with the files' own times: a second build compiles only what changed.
copy=$CARGO_TARGET_DIR/deb-$arch/pi-agent
rm -rf "$(dirname "$copy")"
mkdir -p "$copy" build
tar --create --exclude-vcs --exclude=./target --exclude=./build . | tar --extract --directory "$copy"

(cd "$copy" && dpkg-buildpackage --build=binary --host-arch="$arch" --no-sign)
package=$(cd "$copy/.." && echo pi-agent_*_"$arch".deb)
cp "$copy/../$package" build/
rm -rf "$copy"
lintian --allow-root --fail-on warning,error "build/$package"

# What a small machine and a slow line are asked to take, in bytes.
size=$(stat --format=%s "build/$package")
installed=$(($(dpkg-deb --field "build/$package" Installed-Size) * 1024))
echo "build/$package: $size bytes, installed $installed"
[ "$size" -le 4000000 ] && [ "$installed" -le 12000000 ] || {
    echo "build-deb: it may have 4000000 bytes, and 12000000 installed" >&2
    exit 1
}
