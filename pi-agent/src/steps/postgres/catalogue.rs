//! What a cluster holds, noted down with each backup: databases, tables, and about how many rows they have. It is what a
//! restore test compares with, and goes into the storage with the history.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pg_dump::connection_to;
use super::programs::Programs;
use super::said::errors;
use super::session;
use crate::error::{Context, Error, Kind, Result};
use crate::process::{Program, User};

/// The fact that holds the [`Catalogue`] of the last backup, as JSON.
pub const CATALOGUE: &str = "catalogue";

/// A count reads a whole table.
const COUNTING: Duration = Duration::from_mins(10);

/// A server that can be asked.
pub struct Psql<'a> {
    /// The arguments with which PostgreSQL's programs find it.
    pub connection: [String; 4],
    /// As whom they run.
    pub user: &'a User,
    /// Which they are.
    pub programs: &'a Programs,
    /// What each session sets for itself.
    pub options: &'static str,
}

/// What a cluster held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// The backup that was made then.
    #[serde(default)]
    pub label: String,
    /// A role that may log in and do everything: the one that the cluster was made with, if that may.
    pub superuser: String,
    /// By database.
    pub databases: BTreeMap<String, BTreeMap<String, i64>>,
    /// Databases that could not be opened, and why.
    #[serde(skip)]
    pub unopened: BTreeMap<String, String>,
    /// Exact numbers of rows, by `DATABASE.SCHEMA.TABLE`, of the tables named in the configuration.
    #[serde(default)]
    pub counts: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
struct Cluster {
    superuser: String,
    databases: Vec<String>,
}

/// The database for short questions about the whole cluster: unlike `postgres`, nobody drops it by mistake.
pub(crate) const ALWAYS_THERE: &str = "template1";

impl Psql<'_> {
    /// One of PostgreSQL's programs that asks the server, not yet started.
    pub fn program(&self, name: &str, arguments: impl IntoIterator<Item = String>) -> Program {
        let program = self.programs.program(name, self.connection.iter().cloned().chain(arguments));
        program.as_user(self.user).env("PGCONNECT_TIMEOUT", "15").env(session::VARIABLE, self.options)
    }

    /// What a query answers, as text without alignment.
    ///
    /// # Errors
    /// psql's, with what it said.
    pub fn ask(&self, database: &str, sql: &str, within: Duration) -> Result<String> {
        let query = [
            "--no-psqlrc".to_owned(),
            "--no-align".into(),
            "--tuples-only".into(),
            "--quiet".into(),
            "--set=ON_ERROR_STOP=1".into(),
            connection_to(database),
            format!("--command={sql}"),
        ];
        let output = self.program("psql", query).within(within).run(&mut |_, _| ())?;
        if output.status.success() {
            return Ok(output.stdout.trim_end().to_owned());
        }
        let kind = if output.status.code() == Some(2) { Kind::Transient } else { Kind::Permanent };
        Err(Error::new(format!("ask database {database}: {}", errors(&output.stderr))).kind_of(kind))
    }

    /// The same of a query about the system catalogues, whatever search path the database has.
    ///
    /// # Errors
    /// psql's, with what it said.
    pub fn system(&self, database: &str, sql: &str, within: Duration) -> Result<String> {
        self.ask(database, &format!("set search_path = pg_catalog; {sql}"), within)
    }

    /// Every database that lets anybody in, and all their tables that survive a crash.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn catalogue(&self, counted: &[String]) -> Result<Catalogue> {
        let minute = Duration::from_mins(1);
        let text = self.system(
            ALWAYS_THERE,
            // The role that the cluster was made with may be kept from logging in. -2 is what is left of a DROP DATABASE that was
            // interrupted.
            "select json_build_object('superuser', \
               (select rolname from pg_roles where rolsuper order by not rolcanlogin, oid <> 10, oid limit 1), 'databases', \
               (select json_agg(datname) from pg_database where datallowconn and datconnlimit <> -2))",
            minute,
        )?;
        let cluster: Cluster =
            serde_json::from_str(&text).context(|| "understand PostgreSQL's list of databases".into())?;
        let (mut databases, mut unopened) = (BTreeMap::new(), BTreeMap::new());
        for database in cluster.databases {
            let tables = self.system(
                &database,
                "select coalesce(json_object_agg(format('%I.%I', n.nspname, c.relname), c.reltuples::bigint), '{}') \
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                 where c.relkind in ('r', 'p', 'm') and c.relpersistence = 'p' \
                   and n.nspname !~ '^(pg_|information_schema$)'",
                minute,
            );
            let understood = |text: String| {
                serde_json::from_str(&text).context(|| format!("understand the list of tables of {database}"))
            };
            match tables.and_then(understood) {
                Ok(tables) => drop(databases.insert(database, tables)),
                Err(error) => drop(unopened.insert(database, error.chain())),
            }
        }
        let counts = counted.iter().filter_map(|name| Some((name.clone(), self.count(name).ok()?))).collect();
        Ok(Catalogue { label: String::new(), superuser: cluster.superuser, databases, unopened, counts })
    }

    /// Why no restore has the rows of `DATABASE.SCHEMA.TABLE`, if that is so: of the table or of what inherits from it, as partitions do.
    ///
    /// # Errors
    /// There is no such table.
    pub fn is_not_backed_up(&self, name: &str) -> Result<Option<&'static str>> {
        let (database, table) = named(name);
        let sql = format!(
            "with recursive part (id) as (select '{}'::regclass::oid union select i.inhrelid from pg_inherits i \
               join part on i.inhparent = id) \
             select case when bool_or(relpersistence = 'u') then 'u' when bool_or(relkind = 'f') then 'f' end \
             from part join pg_class c on c.oid = id",
            table.replace('\'', "''")
        );
        Ok(match &*self.system(database, &sql, Duration::from_mins(1))? {
            "u" => Some("it is unlogged: PostgreSQL empties it in each recovery"),
            "f" => Some("it is a foreign table: its rows are on another server"),
            _ => None,
        })
    }

    /// The rows of `DATABASE.SCHEMA.TABLE`.
    ///
    /// # Errors
    /// There is no such table, or counting takes too long.
    pub fn count(&self, name: &str) -> Result<i64> {
        let (database, table) = named(name);
        let text = self.system(database, &format!("select count(*) from {table}"), COUNTING)?;
        text.parse().context(|| format!("count the rows of {name}"))
    }
}

/// The database of `DATABASE.SCHEMA.TABLE`, and the rest as SQL has it.
fn named(name: &str) -> (&str, String) {
    let mut parts = name.splitn(3, '.');
    let [database, schema, table] = [(); 3].map(|()| parts.next().unwrap_or_default());
    (database, [schema, table].map(|part| format!("\"{}\"", part.replace('"', "\"\""))).join("."))
}

impl Catalogue {
    /// As the fact.
    pub fn told(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
