//! Stand-ins for PostgreSQL's official images, which no test can fetch: their users, paths, shells and entry point.

use std::path::Path;

use crate::DockerEngine;

/// One of the official images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Official {
    /// Debian: the server is user 999.
    Debian,
    /// Alpine: the server is user 70, `/bin/sh` and the tools are busybox's, PostgreSQL's programs are in `/usr/local/bin`, and
    /// any locale sorts as C does. The C library stays Debian's.
    Alpine,
}

/// What matters here of the entry point: root makes the directories and becomes the server's user. The first start makes the cluster,
/// and asks a temporary server to make the database and to run what is in `/docker-entrypoint-initdb.d`.
const ENTRY: &str = r#"#!/bin/bash
set -eo pipefail
[ "${1:0:1}" != - ] || set -- postgres "$@"
mkdir -p "$PGDATA" "${POSTGRES_INITDB_WALDIR:-$PGDATA}"
chmod 700 "$PGDATA" "${POSTGRES_INITDB_WALDIR:-$PGDATA}"
if [ "$(id -u)" = 0 ]; then
    chmod 3775 /var/run/postgresql
    find "$PGDATA" "${POSTGRES_INITDB_WALDIR:-$PGDATA}" /var/run/postgresql ! -user postgres -exec chown postgres:postgres {} +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="${POSTGRES_USER:=postgres}" --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
        ${POSTGRES_INITDB_WALDIR:+--waldir "$POSTGRES_INITDB_WALDIR"} $POSTGRES_INITDB_ARGS
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${@:2}" -c listen_addresses= -p 5432)" -w start
    ask=(psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc)
    [ "${POSTGRES_DB:=$POSTGRES_USER}" = postgres ] || "${ask[@]}" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) . "$file" ;;
        *.sql) "${ask[@]}" -d "$POSTGRES_DB" -f "$file" ;;
        esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
"#;

/// Debian's image becomes that of Debian. `$1` is the entry point.
const DEBIAN: &str = r#"
groupmod -g 999 postgres; usermod -u 999 -g 999 postgres
printf %s "$1" >/usr/local/bin/docker-entrypoint.sh; chmod 755 /usr/local/bin/docker-entrypoint.sh
install -d -m 3777 -o postgres -g postgres /docker-entrypoint-initdb.d /var/run/postgresql
"#;

/// Debian's image becomes that of Alpine: whatever busybox has is busybox's.
const ALPINE: &str = r#"
groupmod -g 70 postgres; usermod -u 70 -g 70 postgres
rm /usr/lib/locale/locale-archive; localedef -i POSIX -f UTF-8 en_US.UTF-8 || [ $? = 1 ]
printf %s "$1" >/usr/local/bin/docker-entrypoint.sh; chmod 755 /usr/local/bin/docker-entrypoint.sh
install -d -m 3777 -o postgres -g postgres /docker-entrypoint-initdb.d /var/run/postgresql
mv /usr/lib/postgresql/15/bin/* /usr/local/bin; mv /usr/lib/postgresql/15/lib/* /usr/local/lib; rm -r /usr/lib/postgresql
cp /busybox /bin/busybox
for name in $(/bin/busybox --list); do
    [ "$name" != busybox ] && [ "$name" != setpriv ] || continue
    for folder in /bin /sbin; do [ ! -e "$folder/$name" ] || /bin/busybox ln -sf /bin/busybox "$folder/$name"; done
done
rm -f /bin/dash /usr/bin/perl
"#;

impl Official {
    /// Where `busybox-static` has it.
    const BUSYBOX: &str = "/bin/busybox";

    /// The number of the server's user in it.
    pub fn uid(self) -> u32 {
        match self {
            Self::Debian => 999,
            Self::Alpine => 70,
        }
    }

    /// Gives the engine the image; its name.
    pub fn provide(self, engine: &DockerEngine) -> &'static str {
        assert!(Path::new(Self::BUSYBOX).exists(), "busybox-static is missing: run tests/setup.sh");
        let (name, script) = match self {
            Self::Debian => ("postgres:15", DEBIAN),
            Self::Alpine => ("postgres:15-alpine", ALPINE),
        };
        let busybox = format!("{}:/busybox:ro", Self::BUSYBOX);
        let make = ["run", "--network=none", "--name=base", "--volume", &busybox, DockerEngine::IMAGE];
        engine.docker(make.into_iter().chain(["bash", "-euc", script, "make", ENTRY]));
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin";
        let environment = format!("ENV PATH={path} LANG=en_US.utf8 PGDATA=/var/lib/postgresql/data");
        let changes = [&environment, "ENTRYPOINT [\"docker-entrypoint.sh\"]", "CMD [\"postgres\"]"];
        let changes = changes.into_iter().flat_map(|change| ["--change", change]);
        engine.docker(["commit"].into_iter().chain(changes).chain(["base", name]));
        engine.docker(["rm", "base"]);
        name
    }
}
