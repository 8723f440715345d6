#!/usr/bin/env bash
# Runs the tests: run.sh short|full. `make test` is short, `make test-long` is full; docs/testing.md says what each covers.
# Ends with the time of each phase and the ten slowest tests.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup-common.sh
need_root "$0"
effort=${1:-short}
case $effort in
short) profile=default ;;
full) profile=long ;;
*)
    echo "usage: run.sh short|full" >&2
    exit 2
    ;;
esac
# In a mount namespace of its own: whatever ends the run, its disk is gone with it.
[ "${2:-}" = apart ] || exec unshare --mount --propagation private "$0" "$effort" apart
export PI_AGENT_TEST_EFFORT=$effort PI_AGENT_TEST_CACHE=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
CARGO_TARGET_DIR=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR
# Only what this run builds is tested.
unset PI_AGENT_PACKAGES PI_AGENT_PROGRAM PI_AGENT_BINARY
[ "$effort" = full ] || export PI_AGENT_PACKAGES=$CARGO_TARGET_DIR/packages
results=$CARGO_TARGET_DIR/nextest
rm -rf "$results"/*/junit.xml
beside=() disk=
trap summary EXIT
trap 'exit 130' INT TERM

times=
phase() { # NAME COMMAND...
    local name=$1 began=$SECONDS failed=0
    shift
    printf '\n== %s: %s\n' "$(date +%H:%M)" "$name"
    "$@" || failed=$?
    times+=$(printf '%7d s  %s' $((SECONDS - began)) "$name")$'\n'
    return "$failed"
}

# The tests in another Debian mostly wait for their servers, so they run beside the others; so does the compiler for arm64. Tests in
# which a step gives way to everybody else run before them, alone.
every_test() {
    local failed=0 logs=$CARGO_TARGET_DIR/test-logs job
    rm -rf "$logs"
    mkdir -p "$logs"
    cargo nextest run --workspace --locked --profile alone || failed=$?
    tests/elsewhere.sh trixie >"$logs/trixie" 2>&1 &
    beside+=($!)
    if [ "$effort" = short ]; then
        nice tests/check-arm64.sh >"$logs/arm64" 2>&1 &
        beside+=($!)
    fi
    cargo nextest run --workspace --locked --profile "$profile" || failed=$?
    for job in "${beside[@]}"; do wait "$job" || failed=$?; done
    beside=()
    tail -n +1 "$logs"/*
    return "$failed"
}

# At every end, also when a phase failed or somebody lost patience.
summary() {
    [ -z "$disk" ] || { umount --lazy "$disk"; rmdir "$disk"; }
    [ ${#beside[@]} -eq 0 ] || kill "${beside[@]}" 2>/dev/null || true
    printf '\nSeconds by phase (%s run):\n%s' "$effort" "$times"
    tests/slowest.sh "$results"/*/junit.xml
}

# Tests make and remove hundreds of thousands of files, and PostgreSQL waits until each of its own is on the disk. Here nothing waits;
# and an ext4 without a journal, which some virtual machines have, spends a tenth of all processor time on new files' names.
scratch_disk() {
    local file
    file=$(mktemp "$PI_AGENT_TEST_CACHE/disk.XXXXXX")
    truncate --size 24G "$file"
    mkfs.ext4 -q -m 0 -E nodiscard "$file"
    # Sockets lie in there, and their paths may not be long.
    disk=$(mktemp -d /tmp/t.XXXXXX)
    mount -o loop,nobarrier "$file" "$disk"
    rm "$file"
    chmod 1777 "$disk"
    export TMPDIR=$disk
}

phase 'installing what the tests need' tests/setup.sh test "$effort"
phase 'a disk for what they write' scratch_disk
phase 'compiling, and making the packages' tests/build.sh "$effort"
phase 'examples in the documentation of the code' cargo test --doc --workspace --locked --quiet
failed=0
phase 'tests' every_test || failed=$?
[ "$effort" = short ] || phase 'PostgreSQL of Debian unstable' tests/elsewhere.sh sid || failed=$?
exit "$failed"
