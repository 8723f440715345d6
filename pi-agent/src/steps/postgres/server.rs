//! The live server, asked through psql.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::catalogue::ALWAYS_THERE;
use super::session;
use crate::config::Postgres;
use crate::error::{Context, Error, Kind, Result};
use crate::process::{Program, User};

/// A server that should be running.
pub(super) struct Server<'a> {
    pub postgres: &'a Postgres,
    pub user: &'a User,
}

/// What a server says of itself.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Identity {
    #[serde(deserialize_with = "number_in_text")]
    pub system_id: u64,
    version_num: u32,
    pub data_directory: PathBuf,
    pub archive_mode: String,
    pub archive_command: String,
    pub archive_library: String,
    pub wal_level: String,
    /// Bytes of a WAL segment.
    pub wal_segment_size: u64,
    /// Seconds after which a segment that is not full is handed over; 0: never.
    pub archive_timeout: u64,
    pub in_recovery: bool,
    /// The segment of WAL that it writes; none in recovery.
    pub segment: Option<String>,
    /// The one for sessions that may last: `postgres`, else a user's. In `template1` they would keep others from making databases.
    pub database: String,
    /// Databases whose names have a line break.
    pub broken_names: Vec<String>,
}

impl Identity {
    /// The major version.
    pub fn version(&self) -> u32 {
        self.version_num / 10_000
    }

    /// The timeline that it writes; none in recovery.
    pub fn timeline(&self) -> Option<u32> {
        u32::from_str_radix(self.segment.as_ref()?.get(..8)?, 16).ok()
    }
}

/// JSON numbers lose digits in many readers, so PostgreSQL is asked for text.
fn number_in_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// How archiving fares.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Archiver {
    /// The last file that archive_command accepted.
    pub last_archived_wal: Option<String>,
    /// How often it failed.
    pub failed_count: u64,
    /// The last file that it refused, unless it accepted one since.
    pub failing: Option<String>,
}

/// A server that starts answers within a minute, or is not starting at all.
const STARTING_UP: Duration = Duration::from_secs(60);

impl Server<'_> {
    /// Who it is and how it archives.
    pub fn identity(&self) -> Result<Identity> {
        self.json(
            "select json_build_object(\
               'system_id', (select system_identifier::text from pg_control_system()), \
               'version_num', current_setting('server_version_num')::int, \
               'data_directory', current_setting('data_directory'), \
               'archive_mode', current_setting('archive_mode'), \
               'archive_command', current_setting('archive_command'), \
               'archive_library', coalesce(current_setting('archive_library', true), ''), \
               'wal_level', current_setting('wal_level'), \
               'archive_timeout', (select setting::int from pg_settings where name = 'archive_timeout'), \
               'wal_segment_size', pg_size_bytes(current_setting('wal_segment_size')), \
               'in_recovery', pg_is_in_recovery(), \
               'segment', case when not pg_is_in_recovery() then pg_walfile_name(pg_current_wal_lsn()) end, \
               'database', coalesce((select datname from pg_database where datallowconn and datconnlimit <> -2 \
                 and datname not in ('template0', 'template1') order by datname <> 'postgres', oid limit 1), 'template1'), \
               'broken_names', (select coalesce(json_agg(datname), '[]') from pg_database where strpos(datname, chr(10)) > 0))",
        )
    }

    /// What `pg_stat_archiver` says.
    pub fn archiver(&self) -> Result<Archiver> {
        self.json(
            "select json_build_object('last_archived_wal', last_archived_wal, 'failed_count', failed_count, 'failing', \
               case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end) \
             from pg_stat_archiver",
        )
    }

    /// Writes a record and switches to the next segment; the name of the one that must now be archived.
    pub fn switch_wal(&self) -> Result<String> {
        // Without a record in it, an unused segment would not be switched.
        let segment = self.query("select pg_walfile_name(pg_create_restore_point('pi-agent: archiving works'))")?;
        self.query("select pg_switch_wal()")?;
        Ok(segment)
    }

    /// Every database one can connect to, and its encoding; none of those that new ones are made from.
    pub fn databases(&self) -> Result<Vec<(String, String)>> {
        // -2 is what is left of a DROP DATABASE that was interrupted.
        self.json(
            "select coalesce(json_agg(json_build_array(datname, pg_encoding_to_char(encoding)) order by datname), '[]') from pg_database \
             where datallowconn and datconnlimit <> -2 and datname not in ('template0', 'template1')",
        )
    }

    /// The arguments with which every program of PostgreSQL's finds it.
    pub fn connection(&self) -> [String; 4] {
        [
            "--no-password".to_owned(),
            format!("--host={}", self.postgres.socket_directory.display()),
            format!("--port={}", self.postgres.port),
            format!("--username={}", self.role()),
        ]
    }

    /// Where it is asked, for messages.
    fn place(&self) -> String {
        let Postgres { container, socket_directory, port, .. } = self.postgres;
        match container {
            Some(container) => format!("in the container {container}, port {port}"),
            None => format!("on {} port {port}", socket_directory.display()),
        }
    }

    fn role(&self) -> &str {
        self.postgres.user.as_deref().unwrap_or(&self.user.name)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, sql: &str) -> Result<T> {
        let text = self.query(sql)?;
        serde_json::from_str(&text).context(|| format!("understand what PostgreSQL says: {text:?}"))
    }

    fn query(&self, sql: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            // Somebody may have dropped or renamed it.
            let answer = self.query_once("postgres", sql).or_else(|error| match error.kind() {
                Kind::NotFound => self.query_once(ALWAYS_THERE, sql).map_err(|second| match second.kind() {
                    Kind::NotFound => error.kind_of(Kind::Permanent),
                    _ => second,
                }),
                _ => Err(error),
            });
            match answer {
                Err(error) if error.kind() == Kind::Transient && started.elapsed() < STARTING_UP => {
                    std::thread::sleep(Duration::from_secs(1));
                }
                result => return result,
            }
        }
    }

    /// Kind `NotFound`: nobody is let in there.
    fn query_once(&self, database: &str, sql: &str) -> Result<String> {
        let postgres = self.postgres;
        let role = self.role();
        let place = self.place();
        let query = [
            "--no-psqlrc".to_owned(),
            "--no-align".into(),
            "--tuples-only".into(),
            "--quiet".into(),
            "--set=ON_ERROR_STOP=1".into(),
            format!("--dbname={database}"),
            format!("--command={sql}"),
        ];
        let output = Program::new("psql", self.connection().into_iter().chain(query))
            .as_user(self.user)
            .env("PGCONNECT_TIMEOUT", "15")
            .env(session::VARIABLE, session::LIVE)
            .run(&mut |_, _| ())
            .map_err(|error| match error.kind() {
                Kind::NotFound => {
                    Error::new("psql is not installed").kind_of(Kind::Permanent).hint("apt install postgresql-client")
                }
                _ => error,
            })?;
        if output.status.success() {
            return Ok(output.stdout.trim_end().to_owned());
        }
        let said = output.stderr.trim().to_owned();
        // psql's exit code 2: there is no connection.
        Err(if output.status.code() != Some(2) {
            Error::new(format!("ask PostgreSQL {place}: {said}"))
        } else if said.contains("starting up") {
            Error::transient(format!("PostgreSQL {place} is starting up"))
        } else {
            let error = Error::new(format!("PostgreSQL does not answer {place}: {said}")).kind_of(Kind::NotFound);
            if said.contains("authentication failed") || said.contains("role ") {
                error.hint(format!("pg_hba.conf must let the system user {} in as role {role}", self.user.name))
            } else if let Some(container) = &postgres.container {
                error.hint(format!("docker logs --tail 50 {container}"))
            } else {
                error.hint("start it (pg_lsclusters shows what there is), or correct socket-directory and port")
            }
        })
    }
}
