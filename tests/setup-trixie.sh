#!/usr/bin/env bash
# Makes a Debian 13 (PostgreSQL 17, pgBackRest 2.55) to run tests in, once. Needs root. PostgreSQL 15 is still there,
# as on a machine that was upgraded from Debian 12.
set -euo pipefail

cache=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
system=$cache/trixie

mirror() { # the one this machine itself uses
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' | awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }'
}

[ ! -e "$system/usr/lib/postgresql/15/bin/pg_upgrade" ] || exit 0
if ! command -v mmdebstrap >/dev/null; then
    echo "setup: installing Debian packages: mmdebstrap"
    apt-get update >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends mmdebstrap >/dev/null
fi
[ -n "$(mirror)" ] || apt-get update >/dev/null
[ -n "$(mirror)" ] || { echo "setup: apt names no Debian mirror to take Debian 13 from" >&2; exit 1; }

echo "setup: making a Debian 13 in $system (once)"
log=$(mktemp)
trap 'rm -rf "$log" "$system.new"' EXIT
rm -rf "$system.new"
mkdir -p "$cache"
# The tests make clusters of their own; one made by the package would only take room.
if ! mmdebstrap --variant=minbase \
    --include=attr,ca-certificates,openssl,pgbackrest,postgresql,postgresql-15,procps,restic,util-linux \
    --essential-hook='mkdir -p "$1/etc/postgresql-common/createcluster.d"' \
    --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.d/tests.conf"' \
    trixie "$system.new" "deb $(mirror) trixie main" "deb $(mirror) bookworm main" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    exit 1
fi
# A machine of its own; mmdebstrap leaves the id to the first boot.
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$system.new/etc/machine-id"
rm -rf "$system"
mv "$system.new" "$system"
