#!/usr/bin/env bash
# How much a service notices of a backup: pgbench on its own, and beside first backups that pi-agent (files, and the very
# server) and restic (files) make of a Foundry tree to a folder on the same disk. Each measurement is the service beside the backup,
# and alone right before and right after it, when nobody else seems to be at work: a machine that is shared gets faster and slower
# by a tenth within minutes. Ratios are of the middle of those two, and medians of all.
set -euo pipefail

source_tree=$(cd "$(dirname "$0")/.." && pwd)
bytes=${BENCH_BYTES:-1500000000}
files=${BENCH_FILES:-2700}
# Long enough for the seconds before a run gives way to count as they do in a night.
seconds=${NEIGHBOUR_SECONDS:-60}
rounds=${NEIGHBOUR_ROUNDS:-3}
# Of the processors' time that others may take as a measurement begins, in percent, and how many seconds it waits for that.
noise=${NEIGHBOUR_NOISE:-8}
patience=${NEIGHBOUR_PATIENCE:-120}
rivals=${NEIGHBOUR_RIVALS:-"files postgres restic restic-nice hurry"}

main() {
    "$source_tree/tests/setup.sh" bench
    (cd "$source_tree" && cargo build --examples --locked)
    target=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
    # PI_AGENT_BINARY: one that is built already, such as a package's.
    program=${PI_AGENT_BINARY:-$target/bench/pi-agent}
    [ -n "${PI_AGENT_BINARY:-}" ] || "$source_tree/packaging/compile.sh" "$(dpkg --print-architecture)" "$program"

    work=$(mktemp -d -t pi-agent-bench-XXXXXX)
    trap finish EXIT
    chmod 0711 "$work"
    export RESTIC_PASSWORD=bench RESTIC_CACHE_DIR=$work/restic-cache
    results=$work/results
    echo "making $bytes bytes in about $files files, and a database" >&2
    "$target/debug/examples/household" make "$work/srv" "$bytes" "$files"
    find "$work/srv" -type f -exec cat {} + >/dev/null
    make_server
    write_config

    for round in $(seq "$rounds"); do
        for rival in $rivals; do
            wait_for_quiet
            serve "$round $rival alone"
            start_rival "$rival"
            # Until it reads.
            sleep 2
            serve "$round $rival beside"
            end_rival
            # What the rival has left to be written is none of the service's.
            sync && sleep 5
            serve "$round $rival alone-after"
        done
    done
    print_table
}

make_server() {
    server_bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
    install -d -o postgres "$work/server"
    as_postgres "$server_bin/initdb" --auth=trust --pgdata="$work/server/data" >/dev/null
    cat >>"$work/server/data/postgresql.conf" <<CONFIG
port = 5499
listen_addresses = ''
unix_socket_directories = '$work/server'
archive_mode = on
archive_command = 'd="$work/spool/bench"; test -e "\$d/%f" && exec cmp -s "%p" "\$d/%f"; cp "%p" "\$d/.%f" && mv "\$d/.%f" "\$d/%f" # pgbackrest'
CONFIG
    as_postgres "$server_bin/pg_ctl" --pgdata="$work/server/data" --log="$work/server/log" --wait start >/dev/null
    as_postgres "$server_bin/pgbench" --host="$work/server" --port=5499 --initialize --scale=20 --quiet postgres 2>/dev/null
}

as_postgres() { runuser -u postgres -- "$@"; }

write_config() {
    mkdir -m 0700 "$work/secrets"
    (umask 077 && for key in restic pgbackrest; do openssl rand -base64 32 >"$work/secrets/$key.key"; done)
    install -d -o postgres "$work/spool"
    cat >"$work/config.toml" <<CONFIG
[host]
name = "bench"

[storage]
url = "file://$work/storage"

[secrets]
directory = "$work/secrets"

[local]
cache = "$work/cache"
spool = "$work/spool"
runtime = "$work/runtime"

[[step]]
name = "files"
kind = "directory"
paths = ["$work/srv/foundry"]

[[step]]
name = "postgres"
kind = "postgres"
stanza = "bench"
data-directory = "$work/server/data"
port = 5499
socket-directory = "$work/server"
monthly-dump = false
CONFIG
}

# One first backup after the other.
start_rival() { # RIVAL
    (
        while true; do
            rm -rf "$work/storage" "$work/cache" "$work/state" "$work/restic" "$work/restic-cache"
            install -d -m 0711 "$work/storage"
            case $1 in
            files | postgres) agent run "$1" ;;
            hurry) agent --no-limits run files ;;
            restic) restic_backup ;;
            restic-nice) restic_backup nice -n 19 ionice -c 3 ;;
            esac
            echo finished >>"$work/finished"
        done
    ) >"$work/log" 2>&1 &
    rival_pid=$!
    : >"$work/finished"
}

agent() { "$program" --config "$work/config.toml" --state-directory "$work/state" "$@"; }

restic_backup() {
    restic init --quiet --repo "$work/restic"
    "$@" restic --quiet --repo "$work/restic" backup "$work/srv/foundry"
}

end_rival() {
    local all process
    kill -0 "$rival_pid" || { cat "$work/log" >&2; return 1; }
    # The loop first, and each as it is: who has lost its parent is found no more.
    all="$rival_pid $(below "$rival_pid")"
    kill $all 2>/dev/null || true
    wait "$rival_pid" 2>/dev/null || true
    for process in $all; do
        while kill -0 "$process" 2>/dev/null; do sleep 0.1; done
    done
    rival_pid=
}

below() { # PID
    local child
    for child in $(pgrep -P "$1"); do
        echo "$child"
        below "$child"
    done
}

wait_for_quiet() {
    local waited
    for waited in $(seq "$patience"); do
        [ "$(busy)" -ge "$noise" ] || return 0
    done
    echo "others are at work on this machine (waited $waited s): believe the table the less" >&2
}

# Percent of the processors' time over a second.
busy() {
    local before after
    before=$(ticks) && sleep 1 && after=$(ticks)
    echo "$before $after" | awk '{ print int(($3 - $1) * 100 / ($4 - $2)) }'
}

ticks() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat; }

serve() { # LABEL
    local tps
    rm -f "$work"/server/latency.*
    tps=$(cd "$work/server" && as_postgres "$server_bin/pgbench" --host="$work/server" --port=5499 --client=4 --time="$seconds" \
        --no-vacuum --log --log-prefix="$work/server/latency" postgres 2>/dev/null | awk '/^tps/ { print $3 }')
    # Microseconds in the third column.
    echo "$1 $tps $(cat "$work"/server/latency.* | awk '{ print $3 }' | sort -n |
        awk '{ all[NR] = $1 } END { print all[int(NR * 0.5) + 1] / 1000, all[int(NR * 0.99) + 1] / 1000 }')" |
        tee -a "$results" >&2
}

print_table() {
    awk '
        function median(list,    sorted, count, i, j, one) {
            count = split(list, sorted, " ")
            for (i = 2; i <= count; i++) {
                one = sorted[i] + 0
                for (j = i - 1; j > 0 && sorted[j] + 0 > one; j--) sorted[j + 1] = sorted[j]
                sorted[j + 1] = one
            }
            return count % 2 ? sorted[(count + 1) / 2] : (sorted[count / 2] + sorted[count / 2 + 1]) / 2
        }
        $3 ~ /^alone/ { alone_tps = alone_tps " " $4; alone_p50 = alone_p50 " " $5; alone_p99 = alone_p99 " " $6 }
        $3 == "alone" { tps = $4; p99 = $6 }
        $3 == "beside" {
            if (!($2 in tps_all)) order[++count] = $2
            tps_all[$2] = tps_all[$2] " " $4; p50_all[$2] = p50_all[$2] " " $5; p99_all[$2] = p99_all[$2] " " $6
            beside_tps = $4; beside_p99 = $6
        }
        $3 == "alone-after" {
            tps_ratio[$2] = tps_ratio[$2] " " 2 * beside_tps / (tps + $4); p99_ratio[$2] = p99_ratio[$2] " " 2 * beside_p99 / (p99 + $6)
        }
        END {
            name["files"] = "pi-agent, files"; name["postgres"] = "pi-agent, that server"
            name["hurry"] = "pi-agent --no-limits, files"
            name["restic"] = "restic, files"; name["restic-nice"] = "restic, nice and ionice"
            printf "\n| beside | transactions/s | of alone | median ms | p99 ms | of alone |\n|---|---|---|---|---|---|\n"
            printf "| nothing | %.0f | | %.1f | %.1f | |\n", median(alone_tps), median(alone_p50), median(alone_p99)
            for (i = 1; i <= count; i++) {
                rival = order[i]
                printf "| %s | %.0f | %.0f %% | %.1f | %.1f | %.1f x |\n", name[rival], median(tps_all[rival]),
                    median(tps_ratio[rival]) * 100, median(p50_all[rival]), median(p99_all[rival]), median(p99_ratio[rival])
            }
        }
    ' "$results"
}

finish() {
    [ -z "${rival_pid:-}" ] || end_rival || true
    [ ! -e "$work/server/data/postmaster.pid" ] ||
        as_postgres "$server_bin/pg_ctl" --pgdata="$work/server/data" --mode=immediate stop >/dev/null || true
    rm -rf "$work"
}

main
