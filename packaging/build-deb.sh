#!/usr/bin/env bash
# Builds build/pi-agent_VERSION_ARCH.deb: build-deb.sh [ARCH]. Installs what that needs; leaves the tree as it is.
# PI_AGENT_PROGRAM=FILE packages that program instead of compiling one, into PI_AGENT_PACKAGES: for tests of the package, which
# need none that is as small as the one that is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(dpkg --print-architecture)}
tests/setup.sh "deb-$arch"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
packages=build
[ -z "${PI_AGENT_PROGRAM:-}" ] || packages=$PI_AGENT_PACKAGES
# A place that stays, with the files' own times: a second build compiles only what changed.
copy=$CARGO_TARGET_DIR/deb-$arch/pi-agent
rm -rf "$(dirname "$copy")"
mkdir -p "$copy" "$packages"
tar --create --exclude-vcs --exclude=./target --exclude=./build . | tar --extract --directory "$copy"

(cd "$copy" && DEB_BUILD_OPTIONS=noautodbgsym dpkg-buildpackage --build=binary --host-arch="$arch" --no-sign)
package=$(cd "$copy/.." && echo pi-agent_*_"$arch".deb)
cp "$copy/../$package" "$packages/"
rm -rf "$copy"
lintian --allow-root --fail-on warning,error "$packages/$package"

# What a small machine and a slow line are asked to take, in bytes.
size=$(stat --format=%s "$packages/$package")
installed=$(($(dpkg-deb --field "$packages/$package" Installed-Size) * 1024))
echo "$packages/$package: $size bytes, installed $installed"
[ -n "${PI_AGENT_PROGRAM:-}" ] || { [ "$size" -le 6000000 ] && [ "$installed" -le 16000000 ]; } || {
    echo "build-deb: it may have 6000000 bytes, and 16000000 installed" >&2
    exit 1
}
