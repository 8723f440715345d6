#!/usr/bin/env bash
# Runs a test program of this tree in another Debian: in-chroot.sh SUITE PROGRAM ARGUMENT... For nextest, see elsewhere.sh.
set -euo pipefail
suite=$1 program=$2
shift 2
case $program in
*/deps/system-*) ;;
*) exec "$program" "$@" ;; # nextest lists the tests of the other programs too, and runs none
esac
export cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
export system=$cache/$suite program target=${program%/*/deps/*}
# A mount namespace of our own: whatever happens, no mount stays behind.
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
        PI_AGENT_TEST_EFFORT="${PI_AGENT_TEST_EFFORT:-short}" ${PI_AGENT_TEST_SEED:+PI_AGENT_TEST_SEED="$PI_AGENT_TEST_SEED"} chroot "$system" "/target/${program#"$target/"}" "$@"
' in-chroot.sh "$@"
