#!/usr/bin/env bash
# pi-agent beside restic, rustic and borg, in one run on one machine: a first, a changed and an unchanged night of a Foundry
# tree, everything restored, everything read and checked; into a folder and into a bucket of a real S3 server on loopback.
#
# A first night begins with nothing: making the repository is a part of it.
#
# Per command: wall time, CPU time, peak memory (of its largest process), and requests and bytes as the server's side saw them.
# On a machine that others use as well, believe the CPU time and not the wall time. Prints a table, and leaves it with a chart
# (results, table.md, chart.svg) in BENCH_OUT.
#
#   BENCH_BYTES, BENCH_FILES   how large the tree is         BENCH_PLACES    "folder bucket", or one of them
#   BENCH_RUNS                 how often everything is done but the changed night; the median counts
#   BENCH_LINE                 "100mbit": the bucket's server is behind a line of that rate, each way (needs root)
#   PI_AGENT_BINARY            one that is built already, such as a package's
#   PI_AGENT_BEFORE            another one, such as an older package's, that takes its turn as "before"
#   BENCH_TOOLS                "pi-agent before": these only
set -euo pipefail

source_tree=$(cd "$(dirname "$0")/.." && pwd)
bytes=${BENCH_BYTES:-1500000000}
files=${BENCH_FILES:-2700}
runs=${BENCH_RUNS:-3}
line=${BENCH_LINE:-}
# Of the files, each night.
changed=0.005
cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}

main() {
    build
    if [ -n "$line" ] && [ "${1:-}" != inside ]; then
        # In a network of its own, where nobody else's packets wait.
        PI_AGENT_BINARY=$program exec unshare --net "$0" inside
    fi
    prepare
    describe | tee "$out/machine"
    for place in ${BENCH_PLACES:-folder bucket}; do
        # The same nights again.
        rm -rf "$tree/srv"
        echo "making $bytes bytes in about $files files" >&2
        "$household" make "$tree/srv" "$bytes" "$files"
        for round in $(seq "$runs"); do
            nothing_is_there
            "open_$place"
            write_config pi-agent
            write_config before
            read_sources
            every_tool first "$round"
        done
        "$household" change "$tree/srv" "$changed" 1
        read_sources
        every_tool changed 1
        for what in unchanged restore check; do
            for round in $(seq "$runs"); do every_tool "$what" "$round"; done
        done
        nothing_is_there
    done
    python3 "$source_tree/bench/table.py" "$out"
    echo "table and chart: $out/table.md, $out/chart.svg"
}

build() {
    "$source_tree/tests/setup.sh" bench
    (cd "$source_tree" && cargo build --workspace --examples --locked)
    target=$(cd "$source_tree" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
    [ -n "${PI_AGENT_BINARY:-}" ] || "$source_tree/packaging/compile.sh" "$(dpkg --print-architecture)" "$target/bench/pi-agent"
    program=${PI_AGENT_BINARY:-$target/bench/pi-agent}
    before=${PI_AGENT_BEFORE:-}
}

# Which of these are measured.
these_tools() { # TOOL...
    local tool
    tools=
    for tool in "$@" ${before:+before}; do
        case " ${BENCH_TOOLS:-$tool} " in *" $tool "*) tools+="${tools:+ }$tool" ;; esac
    done
}

prepare() {
    household=$target/debug/examples/household
    rustic=$cache/peers/rustic-rs/bin/rustic
    out=${BENCH_OUT:-$target/bench}
    mkdir -p "$out"
    rm -f "$out/results"

    work=$(mktemp -d -t pi-agent-bench-XXXXXX)
    # Apart: in an unchanged night the directories above are unchanged, too.
    tree=$(mktemp -d -p /var/tmp pi-agent-bench-XXXXXX)
    children=() server=$work/garage
    trap 'end_children; rm -rf "$work" "$tree" "$server"' EXIT
    source=$tree/srv/foundry
    export RESTIC_PASSWORD=bench RUSTIC_PASSWORD=bench BORG_PASSPHRASE=bench
    export RESTIC_CACHE_DIR=$work/cache/restic BORG_BASE_DIR=$work/cache/borg
    export XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
    export AWS_ACCESS_KEY_ID=GK0123456789abcdef01234567 AWS_DEFAULT_REGION=garage
    AWS_SECRET_ACCESS_KEY=$(openssl rand -hex 32)
    export AWS_SECRET_ACCESS_KEY
    mkdir -m 0700 "$work/secrets"
    (
        umask 077
        openssl rand -base64 32 >"$work/secrets/restic.key"
        printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" \
            >"$work/secrets/aws.env"
    )
}

describe() {
    date -u '+measured: %F'
    printf 'tree: %s bytes in about %s files, %s %% of them changed\n' "$bytes" "$files" "$(awk "BEGIN { print 100 * $changed }")"
    printf 'machine: %s processors (%s), Linux %s\n' "$(nproc)" "$(uname -m)" "$(uname -r)"
    [ -z "$line" ] || echo "line: $line"
    "$program" --version
    [ -z "$before" ] || echo "before: $("$before" --version)"
    restic version
    [ ! -x "$rustic" ] || "$rustic" --version
    borg --version
    "$cache/peers/garage/bin/garage" --version | head -1
}

# All of them read from memory.
read_sources() {
    find "$source" -type f -exec cat {} + >/dev/null
}

# Ends the servers, if any run.
end_children() {
    [ ${#children[@]} -gt 0 ] || return 0
    kill "${children[@]}" 2>/dev/null || true
    wait
    children=()
}

# As before the first night.
nothing_is_there() {
    end_children
    rm -rf "$work/repositories" "$work/cache" "$work/pi-agent" "$work/before" "$server" "$work/counter"
}

open_folder() {
    mkdir -p "$work/repositories/pi-agent" "$work/repositories/before" "$work/cache"
    place_url=file://$work/repositories
    place_more=
    export RESTIC_REPOSITORY=$work/repositories/restic RUSTIC_REPOSITORY=$work/repositories/rustic
    these_tools pi-agent restic rustic borg
}

open_bucket() {
    mkdir -p "$work/cache" "$work/config/rustic"
    [ -z "$line" ] || ip link set lo up
    start_garage
    start_counter
    [ -z "$line" ] || slow_down "$counter_port"
    local endpoint=http://127.0.0.1:$counter_port
    place_url=s3://backups
    place_more=$(printf 'region = "garage"\nendpoint = "%s"\n' "$endpoint")
    unset RUSTIC_REPOSITORY
    export RESTIC_REPOSITORY=s3:$endpoint/backups/restic RUSTIC_USE_PROFILE=rustic
    cat >"$work/config/rustic/rustic.toml" <<PROFILE
[repository]
repository = "opendal:s3"
[repository.options]
bucket = "backups"
root = "/rustic"
endpoint = "$endpoint"
region = "garage"
access_key_id = "$AWS_ACCESS_KEY_ID"
secret_access_key = "$AWS_SECRET_ACCESS_KEY"
PROFILE
    # borg knows no S3.
    these_tools pi-agent restic rustic
}

# What goes to and comes from that port; the server behind the counter is as near as ever.
slow_down() { # PORT
    tc qdisc del dev lo root 2>/dev/null || true
    tc qdisc add dev lo root handle 1: htb default 9
    tc class add dev lo parent 1: classid 1:9 htb rate 100gbit quantum 65536
    for class in 1:1 1:2; do
        tc class add dev lo parent 1: classid "$class" htb rate "$line" burst 256kb quantum 65536
    done
    tc filter add dev lo parent 1: protocol ip u32 match ip dport "$1" 0xffff flowid 1:1
    tc filter add dev lo parent 1: protocol ip u32 match ip sport "$1" 0xffff flowid 1:2
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# In memory, where there is enough: the server's disk is nobody's merit, and slow in creating files after many were deleted.
server_place() {
    if (($(df --output=avail -B1 /dev/shm | tail -1) > 4 * bytes)); then echo /dev/shm; else echo "$work"; fi
}

start_garage() {
    local port rpc
    port=$(free_port) rpc=$(free_port)
    server=$(mktemp -d -p "$(server_place)" pi-agent-bench-XXXXXX)
    mkdir -p "$work/garage"
    cat >"$work/garage/config" <<GARAGE
metadata_dir = "$server/meta"
data_dir = "$server/data"
db_engine = "sqlite"
replication_factor = 1
compression_level = "none"
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$AWS_SECRET_ACCESS_KEY"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$port"
GARAGE
    GARAGE_DEFAULT_BUCKET=backups GARAGE_DEFAULT_ACCESS_KEY=$AWS_ACCESS_KEY_ID \
        GARAGE_DEFAULT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY RUST_LOG=garage=warn \
        "$cache/peers/garage/bin/garage" --config "$work/garage/config" server --single-node --default-bucket \
        >"$work/garage/log" 2>&1 &
    children+=($!)
    garage_port=$port
    wait_for_port "$port"
}

# Passes everything on, and writes a line for each request.
start_counter() {
    counter_port=$(free_port)
    mkdir -p "$work/counter"
    cat >"$work/counter/nginx.conf" <<NGINX
daemon off;
pid $work/counter/pid;
error_log $work/counter/error.log;
user $(id -un);
events {}
http {
    log_format requests '\$request_method \$request_length \$bytes_sent \$request_uri';
    access_log $work/counter/requests requests;
    client_body_temp_path $work/counter/body;
    proxy_temp_path $work/counter/proxy;
    fastcgi_temp_path $work/counter/fastcgi;
    uwsgi_temp_path $work/counter/uwsgi;
    scgi_temp_path $work/counter/scgi;
    # Connections are kept, as the server's own would be.
    upstream garage { server 127.0.0.1:$garage_port; keepalive 16; keepalive_requests 100000; }
    keepalive_requests 100000;
    server {
        listen 127.0.0.1:$counter_port;
        client_max_body_size 0;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_http_version 1.1;
        proxy_set_header Host \$http_host;
        proxy_set_header Connection "";
        location / { proxy_pass http://garage; }
    }
}
NGINX
    nginx -c "$work/counter/nginx.conf" -e "$work/counter/error.log" &
    children+=($!)
    wait_for_port "$counter_port"
}

wait_for_port() { # PORT
    for _ in $(seq 300); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    return 1
}

write_config() { # TOOL
    mkdir -p "$work/$1"
    cp -a "$work/secrets" "$work/$1/"
    cat >"$work/$1.toml" <<CONFIG
[host]
name = "bench"

[storage]
url = "$place_url/$1"
$place_more

[secrets]
directory = "$work/$1/secrets"

[local]
cache = "$work/cache/$1"
spool = "$work/$1/spool"
runtime = "$work/$1/runtime"

[[step]]
name = "foundry"
kind = "directory"
paths = ["$source"]
# So that a check reads everything, as the others' do.
check-every = "30d"
read-all-months = 1
CONFIG
}

# Each round another begins: what the one before leaves to do, in the server and in the machine, is not always the same one's burden.
every_tool() { # WHAT ROUND
    local order=$tools
    for _ in $(seq 2 "$2"); do order="${order#* } ${order%% *}"; done
    for tool in $order; do
        printf '%s, %s: %s\n' "$place" "$1" "$tool" >&2
        rm -rf "$work/restored"
        mkdir "$work/restored"
        "${tool/-/_}_" "$1"
        [ "$1" != restore ] || same_tree "$tool"
    done
}

pi_agent_() {
    pi_agent_program pi-agent "$program" "$1"
}

before_() {
    pi_agent_program before "$before" "$1"
}

pi_agent_program() { # TOOL PROGRAM WHAT
    # Like the others without regard for anybody: here the server is one that it would give way to.
    local pi_agent=("$2" --config "$work/$1.toml" --state-directory "$work/$1/state" --no-limits)
    case $3 in
    restore) measure "$3" "$1" "${pi_agent[@]}" restore foundry --to "$work/restored/to" ;;
    check) measure "$3" "$1" "${pi_agent[@]}" check foundry ;;
    *) measure "$3" "$1" "${pi_agent[@]}" run foundry ;;
    esac
}

restic_() {
    case $1 in
    restore) measure "$1" restic restic restore latest --target "$work/restored" ;;
    check) measure "$1" restic restic check --read-data ;;
    first) measure "$1" restic sh -c 'restic init --quiet && restic backup "$1"' sh "$source" ;;
    *) measure "$1" restic restic backup "$source" ;;
    esac
}

rustic_() {
    local rustic=("$rustic" --no-progress --log-level error)
    case $1 in
    restore) measure "$1" rustic "${rustic[@]}" restore latest "$work/restored" ;;
    check) measure "$1" rustic "${rustic[@]}" check --read-data ;;
    first) measure "$1" rustic sh -c '"$@" init && "$@" backup "$0"' "$source" "${rustic[@]}" ;;
    *) measure "$1" rustic "${rustic[@]}" backup "$source" ;;
    esac
}

borg_() {
    local repository=$work/repositories/borg
    case $1 in
    restore) measure "$1" borg sh -c 'cd "$1" && exec borg extract "$2"' sh "$work/restored" "$repository::$borg_archive" ;;
    check) measure "$1" borg borg check --verify-data "$repository" ;;
    first)
        borg_archive=first
        measure "$1" borg sh -c 'borg init --encryption repokey "$1" && borg create --compression zstd,3 "$1::first" "$2"' \
            sh "$repository" "$source"
        ;;
    *)
        borg_archive=$1-$(date +%s%N)
        measure "$1" borg borg create --compression zstd,3 "$repository::$borg_archive" "$source"
        ;;
    esac
}

measure() { # WHAT TOOL COMMAND...
    local what=$1 tool=$2 log=$work/counter/requests
    shift 2
    mkdir -p "$work/counter"
    : >"$log"
    # What was written before is not this one's to wait for.
    sync
    if ! /usr/bin/time --output "$work/time" --format '%e %U %S %M' "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        return 1
    fi
    # The proxy writes its line after the answer is out.
    [ "$place" = folder ] || sleep 0.3
    # Requests; those of the step alone, where more than the step is done; bytes to and from the server.
    printf '%s %s %s %s %s\n' "$place" "$what" "$tool" "$(cat "$work/time")" "$(awk '
        { n++; up += $2; down += $3; step += $4 ~ /foundry|host\.json/ || $4 !~ /pi-agent|before/ }
        END { print n + 0, step + 0, up + 0, down + 0 }' "$log")" >>"$out/results"
}

same_tree() { # TOOL
    local found
    found=$(find "$work/restored" -type d -path "*$source" -print -quit)
    [ -n "$found" ] || found=$work/restored
    diff -r "$source" "$found" >"$work/log" || { echo "$1 restored something else:" >&2; head "$work/log" >&2; return 1; }
}

main "$@"
