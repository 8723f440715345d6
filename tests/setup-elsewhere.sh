#!/usr/bin/env bash
# Makes another Debian to run the PostgreSQL tests in, once: setup-elsewhere.sh trixie|sid. Needs root.
#
#   trixie  PostgreSQL 17 and pgBackRest 2.55; PostgreSQL 15 too, as on a machine that was upgraded from Debian 12
#   sid     the newest PostgreSQL and pgBackRest that Debian has. It is made anew when a week has passed
set -euo pipefail

. "$(dirname "$0")/setup-common.sh"
need_root "$0"
suite=${1:-}
system=$cache/$suite

packages=acl,attr,btrfs-progs,ca-certificates,e2fsprogs,faketime,iproute2,openssl,pgbackrest,postgresql,procps,restic,util-linux
case $suite in
trixie)
    packages=$packages,postgresql-15
    others=(bookworm) week=
    ;;
sid)
    others=() week=$(date +%G-%V)
    ;;
*)
    echo "usage: setup-elsewhere.sh trixie|sid" >&2
    exit 2
    ;;
esac

# Two at a time would make the same system twice; the lock ends with this script. Another recipe makes another system.
mkdir -p "$cache"
exec 9>"$cache/$suite.lock"
flock 9
recipe="1 $packages ${others[*]} $week"
[ "$(cat "$system.recipe" 2>/dev/null)" != "$recipe" ] || exit 0
debian_packages mmdebstrap
mirror=$(mirror)
say "making a Debian $suite in $system (once)"
trap 'rm -rf --one-file-system "$system.new"' EXIT
rm -rf --one-file-system "$system.new"
sources=()
for one in "$suite" "${others[@]}"; do
    sources+=("deb $mirror $one main")
done
# The tests make clusters of their own; one made by the package would only take room. The lists of unstable expire after
# a week, and a mirror may be further behind: the signature is checked in any case. Mounts end with mmdebstrap, also when it
# is killed. dpkg syncs every file; an incomplete system is thrown away anyhow.
quietly unshare --mount mmdebstrap --variant=minbase --include="$packages" --dpkgopt=force-unsafe-io \
    --aptopt='Acquire::Check-Valid-Until "false"' \
    --essential-hook='mkdir -p "$1/etc/postgresql-common/createcluster.d"' \
    --essential-hook='echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.d/tests.conf"' \
    "$suite" "$system.new" "${sources[@]}"
# A machine of its own; mmdebstrap leaves the id to the first boot.
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$system.new/etc/machine-id"
rm -rf --one-file-system "$system" "$system.recipe"
mv "$system.new" "$system"
echo "$recipe" >"$system.recipe"
