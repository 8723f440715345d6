//! The file: opened, brought to this version's schema, copied; a damaged one is set aside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::State;
use crate::error::{Context, Error, Result};

/// Each entry takes the schema one version further; never change one that was released.
const MIGRATIONS: [&str; 3] = ["
    create table run (
        id text primary key,
        reason text,
        started_at integer not null, -- all times: milliseconds since 1970, UTC
        finished_at integer,
        outcome text                 -- null: started, and not (yet) known how it ended
    );
    create table step_run (
        run_id text not null references run (id),
        position integer not null,
        step text not null,
        kind text not null,
        task text not null,          -- backup, prune, check
        started_at integer not null,
        finished_at integer,
        outcome text,
        error text,
        hint text,
        restore_point text,
        result text,                 -- the StepResult as JSON
        primary key (run_id, position)
    );
    create index step_run_by_step on step_run (step, task, started_at);
    create table maintenance (step text not null, what text not null, at integer not null, problem text, note text not null);
    create index maintenance_by_step on maintenance (step, what, at);
    create table fact (step text not null, key text not null, value text not null, primary key (step, key));
", "
    alter table run add column problems text; -- what went wrong outside its steps, as JSON; null: not (yet) known
", "
    create table restore_test (
        step text not null,
        started_at integer not null,
        finished_at integer not null,
        outcome text not null,
        error text,
        tested text                  -- what was seen, as JSON; null: it did not get that far
    );
    create index restore_test_by_step on restore_test (step, started_at);
"];

/// How opening went.
pub enum Opened {
    /// As it was left.
    Ready(State),
    /// There was none, or it was damaged and has been set aside there.
    Fresh(State, Option<PathBuf>),
}

impl State {
    /// Opens or makes the database; a damaged one is set aside as `state.db.damaged-TIME`.
    ///
    /// # Errors
    /// It is of a newer version, or neither it nor a new one can be opened (no space, no permission).
    pub fn open(path: &Path) -> Result<Opened> {
        let existed = path.exists();
        match Self::try_open(path) {
            Ok(state) if existed => Ok(Opened::Ready(state)),
            Ok(state) => Ok(Opened::Fresh(state, None)),
            Err(error) if existed && is_damage(&error) => {
                let aside = set_aside(path)?;
                let state = Self::try_open(path).map_err(|error| cannot_open(path, error))?;
                Ok(Opened::Fresh(state, Some(aside)))
            }
            Err(error) => Err(cannot_open(path, error)),
        }
    }

    /// Opens it for reading only; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let open = || -> rusqlite::Result<Self> {
            // With no log beside it nobody writes, and it can be read without leaving files of SQLite's own there.
            let log = PathBuf::from(format!("{}-wal", path.display()));
            let connection = if log.exists() {
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?
            } else {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(format!("file:{}?immutable=1", uri_path(path)), flags)?
            };
            connection.busy_timeout(Duration::from_secs(5))?;
            let _: i64 = connection.query_row("select count(*) from run", [], |row| row.get(0))?;
            Ok(Self { connection })
        };
        open().map(Some).map_err(|error| cannot_open(path, error))
    }

    /// A database that is forgotten at the end: for a run whose disk is full.
    ///
    /// # Errors
    /// No memory.
    pub fn in_memory() -> Result<Self> {
        let connection = Connection::open_in_memory().context(|| "open a state database in memory".into())?;
        let mut state = Self { connection };
        state.migrate().context(|| "make the state database".into())?;
        Ok(state)
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // One sync a transaction, and a power cut loses nothing that was committed.
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        let verdict: String = connection.query_row("pragma quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(verdict),
            ));
        }
        let mut state = Self { connection };
        state.migrate()?;
        Ok(state)
    }

    fn migrate(&mut self) -> rusqlite::Result<()> {
        let known = i64::try_from(MIGRATIONS.len()).expect("a handful");
        let version: i64 = self.connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > known {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
                Some(format!("its schema version {version} is of a newer pi-agent; this one knows {known}")),
            ));
        }
        for (next, migration) in (1_i64..).zip(MIGRATIONS).filter(|(next, _)| *next > version) {
            let transaction = self.connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", next)?;
            transaction.commit()?;
        }
        Ok(())
    }

    /// Writes a consistent copy of the whole database to a new file.
    ///
    /// # Errors
    /// The copy cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<()> {
        let copy = || -> rusqlite::Result<()> {
            let mut target = Connection::open(path)?;
            rusqlite::backup::Backup::new(&self.connection, &mut target)?.run_to_completion(
                1000,
                Duration::from_millis(1),
                None,
            )
        };
        copy().context(|| format!("copy the state database to {}", path.display()))
    }
}

/// A path as SQLite's URIs want it.
fn uri_path(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23")
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn cannot_open(path: &Path, error: rusqlite::Error) -> Error {
    Error::new(format!("open the state database {}", path.display())).caused_by(error)
}

fn set_aside(path: &Path) -> Result<PathBuf> {
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let aside = PathBuf::from(format!("{}.damaged-{stamp}", path.display()));
    for suffix in ["-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        if from.exists() {
            let to = PathBuf::from(format!("{}{suffix}", aside.display()));
            std::fs::rename(&from, &to).context(|| format!("set {} aside", from.display()))?;
        }
    }
    std::fs::rename(path, &aside).context(|| format!("set {} aside", path.display()))?;
    Ok(aside)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::tests::opened;

    #[test]
    fn a_damaged_database_is_set_aside_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, b"this is no database, and long enough to be told so ".repeat(100)).unwrap();
        let Opened::Fresh(state, Some(aside)) = State::open(&path).unwrap() else { panic!("set aside") };
        assert!(aside.exists());
        assert!(state.last_success("x").unwrap().is_none());
    }

    #[test]
    fn one_of_a_newer_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        opened(&path).connection.pragma_update(None, "user_version", 99).unwrap();
        let error = State::open(&path).err().expect("refused");
        assert!(error.chain().contains("newer pi-agent"), "{}", error.chain());
        assert!(path.exists());
    }

    #[test]
    fn the_copy_holds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let state = opened(&folder.path().join("state.db"));
        state.begin_run("r1", Some("before the upgrade"), Timestamp::now()).unwrap();
        let copy = folder.path().join("copy.db");
        state.copy_to(&copy).unwrap();
        let Opened::Ready(copy) = State::open(&copy).unwrap() else { panic!("it was there") };
        let reason: String = copy.connection.query_row("select reason from run", [], |row| row.get(0)).unwrap();
        assert_eq!(reason, "before the upgrade");
    }
}
