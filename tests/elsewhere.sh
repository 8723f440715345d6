#!/usr/bin/env bash
# The PostgreSQL tests once more, in another Debian beside its PostgreSQL and pgBackRest, by the program that was built
# here: elsewhere.sh trixie|sid [TEST]. With TEST, only the tests whose name contains that.
#
#   trixie  also the tests that upgrade from 15 to 17 (postgres_upgrade::), which run nowhere else
#
# In a short run only what depends most on the version; in a full one every test of a server outside of a container.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/setup-common.sh"
need_root "$0"
suite=${1:-}
"$here/setup.sh" elsewhere
"$here/setup-elsewhere.sh" "$suite"

# Containers are Docker's, and Docker runs beside the tests of this machine. What a disk can hold is no matter of the version, and needs
# tools of other file systems.
choice='test(/^postgres/)'
[ "${PI_AGENT_TEST_EFFORT:-short}" = short ] ||
    choice='test(/^(postgres|hostile_clusters::|in_place::|pitr::|random_histories::|restore_test::|timelines::|unarchived::)/) and not test(what_the_disk_of_the_test_cannot_hold)'
# Only trixie has a second PostgreSQL to upgrade from.
[ "$suite" = trixie ] || choice="$choice and not test(/^postgres_upgrade::/)"
[ $# -lt 2 ] || choice="test($2)"

export PI_AGENT_TEST_CACHE=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
chroot "$PI_AGENT_TEST_CACHE/$suite" dpkg-query --show --showformat='${db:Status-Abbrev}${Package} ${Version}\n' \
    'postgresql-[0-9]*' pgbackrest | sed -n 's/^ii  *//p'
cd "$here/.."
# The whole workspace, as `make test` builds it: anything less has other features and is built anew.
exec cargo nextest run --workspace --locked --profile "$suite" --ignore-default-filter \
    --config "target.'cfg(unix)'.runner = ['$here/in-chroot.sh', '$suite']" \
    -E "binary(system) and ($choice) and not test(container_)"
