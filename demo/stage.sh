# How the demo speaks, and how it cleans up after itself. Sourced by demo.sh.

# Only a directory with this file in it is ever removed.
marker=.made-by-pi-agent-demo
bold='' dim='' plain=''
[ ! -t 1 ] || bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'

chapter() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

say() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }

# Shows the command as one would type it, and runs it.
show() {
    printf '%s$ %s%s\n' "$bold" "$(typed "$@")" "$plain"
    "$@"
}

typed() {
    local word text=
    for word in "$@"; do
        case $word in
        *' '*) text+="'$word' " ;;
        *) text+="$word " ;;
        esac
    done
    printf '%s' "${text% }"
}

pi-agent() {
    recorded "$program" --config "$demo/etc/config.toml" --state-directory "$demo/state" "$@"
}

# Runs a command that the next try can find and end should this one be killed.
recorded() {
    DEMO=$demo bash -c 'echo "$$ $(cut -d " " -f 22 /proc/$$/stat)" >>"$DEMO/processes"; unset DEMO; exec "$@"' -- "$@"
}

# A process is ours when its number and its start are those that were written down.
start_of() { # PID
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

record() { # PID
    echo "$1 $(start_of "$1")" >>"$demo/processes"
}

is_ours() { # PID START
    [ "$(start_of "$1")" = "$2" ]
}

end_recorded() {
    local pid start try
    [ -f "$demo/processes" ] || return 0
    while read -r pid start; do
        for try in $(seq 1 150); do
            is_ours "$pid" "$start" || break
            # PostgreSQL's fast shutdown; what does not listen in ten seconds is ended.
            [ "$try" -gt 1 ] || kill -INT "$pid" 2>/dev/null || true
            [ "$try" -lt 100 ] || kill -KILL "$pid" 2>/dev/null || true
            sleep 0.1
        done
    done <"$demo/processes"
    rm -f "$demo/processes"
}

remove_leftovers() {
    [ -e "$demo" ] || return 0
    if [ ! -f "$demo/$marker" ]; then
        echo "demo: $demo exists and was not made by the demo; choose another place with PI_AGENT_DEMO" >&2
        exit 1
    fi
    end_recorded
    rm -rf "$demo"
}

leave() { # STATUS
    trap '' INT TERM HUP
    if [ "$1" -ne 0 ]; then
        echo "demo: ended early with status $1" >&2
        tail -n 20 "$demo/initdb.log" "$demo/server/log" >&2 2>/dev/null || true
    fi
    cd /
    remove_leftovers
    exit "$1"
}
