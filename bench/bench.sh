#!/usr/bin/env bash
# A first, a changed and an unchanged night of a Foundry tree, local repositories: pi-agent beside restic, rustic and borg.
# Wall time, CPU time and peak memory (the largest process of each tool), and how they compare to pi-agent. On a machine
# that others use as well, believe the CPU time rather than the wall time.
set -euo pipefail

source_tree=$(cd "$(dirname "$0")/.." && pwd)
bytes=${BENCH_BYTES:-1500000000}
files=${BENCH_FILES:-2700}
# Of the files, each night.
changed=0.005

main() {
    "$source_tree/tests/setup.sh" bench
    local target
    (cd "$source_tree" && cargo build --examples --locked)
    target=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
    # PI_AGENT_BINARY: one that is built already, such as a package's.
    program=${PI_AGENT_BINARY:-$target/release/pi-agent}
    [ -n "${PI_AGENT_BINARY:-}" ] || (cd "$source_tree" && cargo build --release --package pi-agent --locked)
    household=$target/debug/examples/household
    rustic=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}/rustic-rs/bin/rustic

    work=$(mktemp -d -t pi-agent-bench-XXXXXX)
    trap 'rm -rf "$work"' EXIT
    source=$work/srv/foundry
    results=$work/results
    export RESTIC_PASSWORD=bench RUSTIC_PASSWORD=bench BORG_PASSPHRASE=bench
    export RESTIC_CACHE_DIR=$work/cache/restic BORG_BASE_DIR=$work/cache/borg XDG_CACHE_HOME=$work/cache
    mkdir -p "$work/cache"
    write_config

    echo "making $bytes bytes in about $files files"
    "$household" make "$work/srv" "$bytes" "$files"
    # All of them read from memory.
    find "$source" -type f -exec cat {} + >/dev/null

    restic init --quiet --repo "$work/restic"
    "$rustic" --no-progress --log-level error --repository "$work/rustic" init >/dev/null
    borg init --encryption repokey "$work/borg" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
    every_tool first
    "$household" change "$work/srv" "$changed" 1
    every_tool changed
    every_tool unchanged
    print_table
}

every_tool() { # NIGHT
    measure "$1" pi-agent "$program" --config "$work/config.toml" --state-directory "$work/state" run foundry
    measure "$1" restic restic --repo "$work/restic" backup "$source"
    measure "$1" rustic "$rustic" --no-progress --log-level error --repository "$work/rustic" backup "$source"
    measure "$1" borg borg create --compression zstd,3 "$work/borg::$1" "$source"
}

measure() { # NIGHT TOOL COMMAND...
    local night=$1 tool=$2
    shift 2
    printf '%s night: %s\n' "$night" "$tool" >&2
    if ! /usr/bin/time --output "$work/time" --format '%e %U %S %M' "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        return 1
    fi
    printf '%s %s %s\n' "$night" "$tool" "$(cat "$work/time")" >>"$results"
}

write_config() {
    mkdir -m 0700 "$work/secrets"
    (umask 077 && openssl rand -base64 32 >"$work/secrets/restic.key")
    mkdir "$work/storage"
    cat >"$work/config.toml" <<CONFIG
[host]
name = "bench"

[storage]
url = "file://$work/storage"

[secrets]
directory = "$work/secrets"

[local]
cache = "$work/cache/pi-agent"
spool = "$work/spool"
runtime = "$work/runtime"

[[step]]
name = "foundry"
kind = "directory"
paths = ["$source"]
CONFIG
}

print_table() {
    echo
    awk '
        BEGIN {
            format = "%-10s %-9s %8s %8s %9s   %9s %9s %9s\n"
            printf format, "night", "tool", "wall s", "CPU s", "peak MiB", "wall", "CPU", "peak"
        }
        $2 == "pi-agent" { wall[$1] = $3; cpu[$1] = $4 + $5; peak[$1] = $6 }
        {
            printf "%-10s %-9s %8.2f %8.2f %9.0f   %8.2fx %8.2fx %8.2fx\n",
                $1, $2, $3, $4 + $5, $6 / 1024, $3 / wall[$1], ($4 + $5) / cpu[$1], $6 / peak[$1]
        }
    ' "$results"
}

main
