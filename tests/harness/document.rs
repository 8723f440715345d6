//! The household of docs/docker.md, as it stands there. Only its images are stand-ins: they cannot be fetched by a test.

use crate::DockerEngine;
use crate::leveldb::WRITER;

/// The document.
pub const TEXT: &str = include_str!("../../docs/docker.md");

/// The contents of its blocks in that language.
pub fn blocks(language: &str) -> Vec<&'static str> {
    let begin = format!("```{language}\n");
    let rest = TEXT.split(&begin).skip(1);
    rest.map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// The content of its only block in that language.
#[track_caller]
pub fn block(language: &str) -> &'static str {
    let [only] = blocks(language)[..] else { panic!("not one block in {language}") };
    only
}

/// What matters here of the official image's entry point: root reads the secret and makes the directories, `postgres`,
/// which is 999, makes the cluster at the first start.
const POSTGRES_ENTRY: &str = r#"
set -e
if [ "$(id -u)" = 0 ]; then
    export POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    install -d -o postgres -g postgres -m 3777 /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups bash "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --username="${POSTGRES_USER:-postgres}" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
fi
unset POSTGRES_PASSWORD
exec "$@"
"#;

/// Something like Foundry: data of a user of its own, a world that is written to all the time, and a page.
const FOUNDRY_ENTRY: &str = r#"
set -e
world=/data/Data/worlds/saltmarsh
as="setpriv --reuid=421 --regid=421 --clear-groups"
chown 421:421 /data
$as mkdir -p "$world" /data/Config
echo '{"port": 30000}' >/data/Config/options.json
echo '{"title": "Saltmarsh"}' >"$world/world.json"
$as python3 -m http.server --directory /data 30000 &
exec $as python3 /writer "$world"
"#;

/// Gives the engine stand-ins for the images that the compose file names.
pub fn stand_ins(engine: &DockerEngine) {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin";
    let prepare = "groupmod -g 999 postgres; usermod -u 999 -g 999 postgres;
        printf %s \"$1\" >/postgres-entry; printf %s \"$2\" >/foundry-entry; printf %s \"$3\" >/writer";
    let image = ["run", "--network=none", "--name=base", DockerEngine::IMAGE, "bash", "-euc", prepare, "prepare"];
    engine.docker(image.into_iter().chain([POSTGRES_ENTRY, FOUNDRY_ENTRY, WRITER]));
    let commit = |name: &str, changes: &[&str]| {
        let changes = changes.iter().flat_map(|change| ["--change", *change]);
        engine.docker(["commit"].into_iter().chain(changes).chain(["base", name]));
    };
    let path = format!("ENV PATH={path} LANG=en_US.utf8 PGDATA=/var/lib/postgresql/data");
    let entry = "ENTRYPOINT [\"bash\", \"/postgres-entry\"]";
    let volume = "VOLUME /var/lib/postgresql/data";
    commit("postgres:15", &[&path, entry, "CMD [\"postgres\"]", volume, "EXPOSE 5432"]);
    commit("felddy/foundryvtt:release", &["ENTRYPOINT [\"bash\", \"/foundry-entry\"]", "VOLUME /data"]);
    engine.docker(["rm", "base"]);
}
