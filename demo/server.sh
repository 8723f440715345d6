# A throwaway PostgreSQL with a campaign database. Sourced by demo.sh.

server=$demo/server
data_directory=$server/data
socket_directory=$server/socket
server_log=$server/log
spool=$demo/spool/pgbackrest-demo
# Names the socket; nothing listens on the network.
port=54329

# PostgreSQL refuses to be root.
as_server() {
    if [ "$(id -u)" -eq 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

postgres_programs() { # the newest installed
    printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1
}

owned_by_server() { # DIRECTORY...
    [ "$(id -u)" -ne 0 ] || chown postgres: "$@"
}

make_server() {
    mkdir -m 0755 "$server" "$socket_directory"
    mkdir -m 0750 "$spool"
    owned_by_server "$server" "$socket_directory" "$spool"
    as_server "$(postgres_programs)/initdb" --pgdata "$data_directory" --auth trust --data-checksums \
        --no-locale --encoding UTF8 >"$demo/initdb.log"
    cat >>"$data_directory/postgresql.conf" <<CONFIG
listen_addresses = ''
unix_socket_directories = '$socket_directory'
port = $port
timezone = 'UTC'
archive_mode = on
# Into the spool, whole or not at all; the same file twice is fine, a different one of the same name is not.
archive_command = 'if test -f $spool/%f; then cmp -s %p $spool/%f; else cp %p $spool/.%f.tmp && sync $spool/.%f.tmp && mv $spool/.%f.tmp $spool/%f && sync $spool; fi'
CONFIG
    start_server "$data_directory"
    sql "create database campaigns" template1
    sql_file "$source_tree/demo/schema.sql"
    say "PostgreSQL $(sql 'show server_version'): $(sql 'select count(*) from sessions') sessions of $(sql 'select count(*) from campaigns') campaigns"
}

start_server() { # DATA-DIRECTORY
    as_server "$(postgres_programs)/pg_ctl" --pgdata "$1" --log "$server_log" --wait --silent start
    record "$(head -n 1 "$1/postmaster.pid")"
    # pg_ctl returns before a recovery is over.
    local try
    for try in $(seq 1 300); do
        [ "$(sql 'select pg_is_in_recovery()' template1 2>/dev/null)" != f ] || return 0
        sleep 0.1
    done
    echo "demo: PostgreSQL is still recovering after 30 s" >&2
    return 1
}

psql_in() { # DATABASE ARGUMENT...
    local database=$1
    shift
    as_server "$(postgres_programs)/psql" --host "$socket_directory" --port "$port" --dbname "$database" \
        --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 "$@"
}

sql() { psql_in "${2:-campaigns}" --command "$1"; } # STATEMENT [DATABASE]

sql_file() { psql_in campaigns <"$1"; }

show_sql() { # STATEMENT
    printf '%scampaigns=# %s;%s\n' "$bold" "$1" "$plain"
    psql_in campaigns --set QUIET=off --command "$1"
}

play_sessions() { # DAY
    sql "insert into sessions (campaign_id, played_on, experience, notes)
         select 1 + i % 40, date '2026-11-20' + $1, 100 + i, 'day $1, table ' || i from generate_series(1, 500) i;
         update players set last_seen = now() where id % 5 = $1"
}

# What must be the same after the restore.
aggregates() {
    psql_in campaigns --field-separator ': ' <<'SQL'
select 'sessions', count(*) || ', ' || sum(experience) || ' experience, ' || md5(string_agg(s::text, '' order by id)) from sessions s
union all select 'players', count(*) || ', ' || md5(string_agg(p::text, '' order by id)) from players p
union all select 'campaigns', count(*) || ', ' || md5(string_agg(c::text, '' order by id)) from campaigns c
union all select 'seats', count(*) || ', ' || md5(string_agg(s::text, '' order by campaign_id, player_id)) from seats s;
SQL
}

remember_database() {
    mkdir -p "$demo/remembered"
    aggregates >"$demo/remembered/aggregates"
}

# Ends the current WAL segment and waits until the server has handed it over.
finish_wal_segment() {
    local segment try
    segment=$(sql 'select pg_walfile_name(pg_switch_wal())')
    for try in $(seq 1 300); do
        [ ! -f "$spool/$segment" ] || return 0
        sleep 0.1
    done
    echo "demo: PostgreSQL has not archived $segment after $((try / 10)) s" >&2
    return 1
}
