#!/usr/bin/env bash
# Builds the package here and once more from nothing, in other directories and another environment, and compares:
# reproduce.sh [ARCH].
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${1:-$(dpkg --print-architecture)}
packaging/build-deb.sh "$arch"
package=$(echo build/pi-agent_*_"$arch".deb)

other=$(mktemp --directory --tmpdir pi-agent-elsewhere.XXXXXX)
trap 'rm -rf "$other"' EXIT
mkdir -p "$other/a longer place/pi-agent" "$other/cargo"
tar --create --exclude-vcs --exclude=./target --exclude=./build . | tar --extract --directory "$other/a longer place/pi-agent"
# The crates under another name; they need not be fetched again.
ln -s "${CARGO_HOME:-$HOME/.cargo}/registry" "$other/cargo/registry"

(
    export CARGO_HOME=$other/cargo CARGO_TARGET_DIR=$other/built TZ=Pacific/Auckland LC_ALL=C USER=somebody
    umask 0027
    "$other/a longer place/pi-agent/packaging/build-deb.sh" "$arch"
)
cmp "$package" "$other/a longer place/pi-agent/$package"
sha256sum "$package"
echo "reproduce: both packages are the same"
