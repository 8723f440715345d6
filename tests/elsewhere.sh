#!/usr/bin/env bash
# The PostgreSQL tests once more, in another Debian beside its PostgreSQL and pgBackRest, by the program that was built
# here: elsewhere.sh trixie|sid [TEST]. With TEST, only the tests of that name.
#
#   trixie  also the tests that upgrade from 15 to 17 (postgres_upgrade::), which run nowhere else
#   sid     also those of moments in time and of the restore test
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
suite=${1:-}
system=$cache/$suite
[ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,PI_AGENT_TEST_CACHE "$0" "$@"
"$here/setup-elsewhere.sh" "$suite"

cd "$here/.."
target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
# The whole workspace, as `make test` builds it: anything less has other features and is built anew.
cargo build --workspace --all-targets --locked
tests=$(cargo test --workspace --test system --no-run --locked --message-format json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)

# Every module whose name begins so; containers are Docker's, and Docker runs beside the tests of this machine.
case $suite in
trixie) choice=(postgres --skip container_) ;;
sid) choice=(postgres pitr:: restore_test:: --skip container_ --skip postgres_upgrade::) ;;
esac
[ $# -lt 2 ] || choice=("$2" --skip container_)

chroot "$system" dpkg-query --show --showformat='${Package} ${Version}\n' 'postgresql-[0-9]*' pgbackrest
# A mount namespace of our own: whatever happens, no mount stays behind.
export system cache target tests
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
        chroot "$system" "/target/${tests#"$target/"}" "$@" --test-threads "$(nproc)"
' elsewhere.sh "${choice[@]}"
