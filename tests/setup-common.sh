# Sourced by the setup scripts: messages, Debian packages, and the mirror to take them from.

cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)

# Ends the script that calls it when it is not run by root: most tests boot machines, mount or change users.
need_root() { # SCRIPT
    [ "$(id -u)" -ne 0 ] || return 0
    echo "$1 needs root: it mounts, boots machines and becomes other users. Run it as root, or by sudo with cargo in its PATH" >&2
    exit 1
}

say() { printf 'setup: %s\n' "$*"; }

# Runs a command and shows its output only when it fails; says every half minute that it is still at work.
quietly() { # COMMAND...
    local log running began=$SECONDS failed=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null &
    running=$!
    # What runs in the background does not hear of Ctrl-C.
    trap 'kill "$running" 2>/dev/null; wait "$running"; rm -f "$log"; exit 130' INT TERM
    while kill -0 "$running" 2>/dev/null; do
        sleep 0.5
        ((SECONDS - began >= 30)) || continue
        began=$SECONDS
        say "  still at it: $(tail -n 1 "$log" | tr -dc '[:print:]' | cut -c 1-100)"
    done
    wait "$running" || failed=$?
    trap - INT TERM
    if [ "$failed" -ne 0 ]; then
        cat "$log" >&2
        say "failed: $*" >&2
    fi
    rm -f "$log"
    return "$failed"
}

debian_packages() { # PACKAGE...
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    update_lists
    # The tests make PostgreSQL clusters of their own; the package's `main` would only take a port.
    "${as_root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
    echo 'create_main_cluster = false' |
        "${as_root[@]}" tee /etc/postgresql-common/createcluster.d/pi-agent-tests.conf >/dev/null
    quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install --yes \
        --no-install-recommends "${missing[@]}"
}

# Two at a time would fail at apt's lock.
update_lists() {
    "${as_root[@]}" mkdir -p "$cache"
    quietly "${as_root[@]}" flock "$cache" apt-get update
}

# The Debian mirror that this machine itself uses.
mirror() {
    local found
    found=$(mirror_of_apt)
    [ -n "$found" ] || { update_lists >&2 && found=$(mirror_of_apt); }
    [ -n "$found" ] || { say "apt names no Debian mirror to take machines from" >&2; return 1; }
    echo "$found"
}

mirror_of_apt() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' | awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}
