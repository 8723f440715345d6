#!/usr/bin/env bash
# The PostgreSQL tests once more, in another Debian beside its PostgreSQL and pgBackRest, by the program that was built
# here: elsewhere.sh trixie|sid [TEST]. With TEST, only the tests whose name contains that.
#
#   trixie  also the tests that upgrade from 15 to 17 (postgres_upgrade::), which run nowhere else
#   sid     also those of moments in time and of the restore test
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/setup-common.sh"
need_root "$0"
suite=${1:-}
"$here/setup.sh" elsewhere
"$here/setup-elsewhere.sh" "$suite"

# Containers are Docker's, and Docker runs beside the tests of this machine.
case $suite in
trixie) choice='test(/^postgres/)' ;;
sid) choice='test(/^(postgres|pitr::|restore_test::)/) and not test(/^postgres_upgrade::/)' ;;
esac
[ $# -lt 2 ] || choice="test($2)"

export PI_AGENT_TEST_CACHE=${PI_AGENT_TEST_CACHE:-/var/cache/pi-agent-tests}
chroot "$PI_AGENT_TEST_CACHE/$suite" dpkg-query --show --showformat='${db:Status-Abbrev}${Package} ${Version}\n' \
    'postgresql-[0-9]*' pgbackrest | sed -n 's/^ii  *//p'
cd "$here/.."
# The whole workspace, as `make test` builds it: anything less has other features and is built anew.
exec cargo nextest run --workspace --locked --profile "$suite" --ignore-default-filter \
    --config "target.'cfg(unix)'.runner = ['$here/in-chroot.sh', '$suite']" \
    -E "binary(system) and ($choice) and not test(container_)"
