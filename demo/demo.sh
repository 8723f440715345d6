#!/usr/bin/env bash
# Three nights of a household, a disaster, and everything restored: with the real program, a real PostgreSQL and real files.
# All it makes lies in one directory, which is removed at the end; what an interrupted try left is removed at the start.
set -euo pipefail

source_tree=$(cd "$(dirname "$0")/.." && pwd)
demo=${PI_AGENT_DEMO:-/tmp/pi-agent-demo}
. "$source_tree/demo/stage.sh"
. "$source_tree/demo/server.sh"
. "$source_tree/demo/household.sh"

main() {
    prepare
    write_config

    chapter "A household: a campaign database, Foundry VTT, logs and configs"
    make_server
    make_household
    describe_household

    chapter "The first night: everything"
    show pi-agent run
    chapter "The second night: the players were here"
    a_day_passes 1
    show pi-agent run
    chapter "The third night"
    a_day_passes 2
    show pi-agent run

    chapter "Am I safe, and what could I go back to?"
    show pi-agent status
    show pi-agent points

    chapter "The next evening: one more session is written down, and then somebody forgets a WHERE"
    a_fatal_evening
    chapter "And the disk dies"
    remember_household
    destroy_originals

    chapter "Getting everything back"
    show pi-agent restore foundry --to "$demo/restored/foundry"
    show pi-agent restore logs --to "$demo/restored/logs"
    show pi-agent restore configs --to "$demo/restored/configs"
    show pi-agent restore database --to "$demo/restored/database" --at "$moment"

    chapter "Is it all there?"
    prove_files
    prove_database
    printf '\n%sEverything is back.%s The demo took %s s.\n' "$bold" "$plain" "$SECONDS"
}

prepare() {
    "$source_tree/tests/setup.sh" demo
    (cd "$source_tree" && cargo build --package pi-agent --locked)
    program=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/debug/pi-agent
    SECONDS=0
    remove_leftovers
    mkdir -p "$demo"
    chmod 0755 "$demo"
    touch "$demo/$marker"
    trap 'leave $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # Where nobody else needs to go, and where everybody may.
    cd /
}

write_config() {
    mkdir -m 0755 "$demo"/{etc,storage,cache,spool,runtime,restored}
    mkdir -m 0700 "$demo/etc/secrets"
    (
        umask 077
        openssl rand -base64 32 >"$demo/etc/secrets/restic.key"
        openssl rand -base64 32 >"$demo/etc/secrets/pgbackrest.key"
    )
    cat >"$demo/etc/config.toml" <<CONFIG
[host]
name = "demo"

[storage]
url = "file://$demo/storage"

[secrets]
directory = "$demo/etc/secrets"

[local]
cache = "$demo/cache"
spool = "$demo/spool"
runtime = "$demo/runtime"

[[step]]
name = "database"
kind = "postgres"
stanza = "pgbackrest-demo"
data-directory = "$data_directory"
socket-directory = "$socket_directory"
port = $port
keep = { daily = 30, monthly = "forever" }

[[step]]
name = "foundry"
kind = "directory"
paths = ["$household/foundry"]
exclude = ["**/*.tmp"]
keep = { daily = 30, monthly = "forever" }

[[step]]
name = "logs"
kind = "directory"
paths = ["$household/logs"]
keep = "forever"

[[step]]
name = "configs"
kind = "directory"
paths = ["$household/configs"]
keep = { daily = 30, monthly = "forever" }
CONFIG
    say "pi-agent stands for: $program \\"
    say "    --config $demo/etc/config.toml --state-directory $demo/state"
}

a_day_passes() { # DAY
    play_sessions "$1"
    change_household "$1"
}

a_fatal_evening() {
    play_sessions 3
    remember_database
    # A whole second after the last session and before what follows.
    sleep 1
    moment=$(sql "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    sleep 1
    say "it is $moment, and all is well"
    show_sql "delete from sessions"
    finish_wal_segment
    show pi-agent wal push
}

destroy_originals() {
    end_recorded
    show rm -rf "$household" "$data_directory"
}

prove_files() {
    local step
    for step in foundry logs configs; do
        fingerprint "$demo/restored/$step$household/$step" >"$demo/restored/$step.fingerprint"
        if ! diff -u "$demo/remembered/$step" "$demo/restored/$step.fingerprint"; then
            say "$step is not what it was"
            return 1
        fi
        say "$step: $(wc -l <"$demo/remembered/$step") entries are what they were: contents, owners, modes, times"
    done
}

prove_database() {
    start_server "$demo/restored/database"
    aggregates >"$demo/restored/aggregates"
    diff -u "$demo/remembered/aggregates" "$demo/restored/aggregates"
    say "database: as it was between the last session and the missing WHERE:"
    sed 's/^/    /' "$demo/restored/aggregates"
}

main
