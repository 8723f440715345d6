#!/usr/bin/env bash
# The PostgreSQL tests once more, in a Debian 13: the same built program beside PostgreSQL 17 and pgBackRest 2.55. And
# those that upgrade from 15 to 17 (postgres_upgrade::), which run nowhere else.
# trixie.sh [TEST]: only the tests of that name.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
system=$cache/trixie
[ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,PI_AGENT_TEST_CACHE "$0" "$@"
"$here/setup-trixie.sh"

cd "$here/.."
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
# The whole workspace, as `make test` builds it: anything less has other features and is built anew.
cargo build --workspace --all-targets --locked
tests=$(cargo test --workspace --test system --no-run --locked --message-format json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

# A mount namespace of our own: whatever happens, no mount stays behind.
# Every module whose name begins so; containers are Docker's, and Docker runs beside the tests of this machine.
name=${1:-postgres}
export system cache target tests name
exec unshare --mount --propagation private bash -euo pipefail -c '
    # The root of a mount namespace must be a mount, for the test that makes one of its own.
    mount --bind "$system" "$system"
    mkdir -p "$system/target" "$system$cache"
    mount --bind "$target" "$system/target"
    mount --bind "$cache" "$system$cache"
    mount -t proc proc "$system/proc"
    mount --rbind /dev "$system/dev"
    mount -t tmpfs tmpfs "$system/tmp"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin PI_AGENT_BINARY=/target/debug/pi-agent PI_AGENT_TEST_CACHE="$cache" \
        chroot "$system" "/target/${tests#"$target/"}" "$name" --skip container_ --test-threads "$(nproc)"
'
