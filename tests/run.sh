#!/usr/bin/env bash
# Runs the tests: run.sh short|full. `make test` is short, `make test-long` is full; docs/testing.md says what each covers.
# Ends with the time of each phase and the ten slowest tests.
set -euo pipefail
cd "$(dirname "$0")/.."
effort=${1:-short}
case $effort in
short) profile=default ;;
full) profile=long ;;
*)
    echo "usage: run.sh short|full" >&2
    exit 2
    ;;
esac
export PI_AGENT_TEST_EFFORT=$effort PI_AGENT_TEST_CACHE=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
[ "$effort" = full ] || export PI_AGENT_PACKAGES=$CARGO_TARGET_DIR/packages
results=$CARGO_TARGET_DIR/nextest
rm -rf "$results"/*/junit.xml

times=
phase() { # NAME COMMAND...
    local name=$1 began=$SECONDS failed=0
    shift
    printf '\n== %s: %s\n' "$(date +%H:%M)" "$name"
    "$@" || failed=$?
    times+=$(printf '%7d s  %s' $((SECONDS - began)) "$name")$'\n'
    return "$failed"
}

# The tests in another Debian mostly wait for their servers, so they run beside the others; so does the compiler for arm64.
every_test() {
    local failed=0 beside=() logs job
    logs=$(mktemp --directory)
    tests/elsewhere.sh trixie >"$logs/trixie" 2>&1 &
    beside+=($!)
    [ "$effort" = full ] || { nice tests/check-arm64.sh >"$logs/arm64" 2>&1 & beside+=($!); }
    cargo nextest run --workspace --locked --profile "$profile" || failed=$?
    for job in "${beside[@]}"; do wait "$job" || failed=$?; done
    tail -n +1 "$logs"/*
    rm -r "$logs"
    return "$failed"
}

summary() {
    printf '\nSeconds by phase (%s run):\n%s' "$effort" "$times"
    tests/slowest.sh "$results"/*/junit.xml
}

phase 'installing what the tests need' tests/setup.sh test "$effort"
phase 'compiling, and making the packages' tests/build.sh "$effort"
phase 'examples in the documentation of the code' cargo test --doc --workspace --locked --quiet
failed=0
phase 'tests' every_test || failed=$?
if [ "$effort" = full ] && [ "$failed" = 0 ]; then
    phase 'PostgreSQL of Debian unstable' tests/elsewhere.sh sid || failed=$?
fi
summary
exit "$failed"
