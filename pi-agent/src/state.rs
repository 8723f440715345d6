//! What is remembered: runs, steps, maintenance, facts. SQLite, versioned schema.
//!
//! It is a cache of history, not the truth about restore points (the repositories are): a backup never fails because
//! it is damaged, gone or cannot be written. The `agent` step keeps a copy in storage, from which it is rebuilt.
//!
//! Writes a night, for an SD card's sake: one transaction when the run starts and one when it ends, and two a step:
//! twelve for a household with four steps, each a few 4 KiB pages.

mod recent;
mod restore_tests;
mod stored;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use crate::error::{Context, Error, Result};
use crate::monitor::Problem;
use crate::plan::StepHistory;
use crate::steps::{Outcome, StepResult};

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

/// The open database.
pub struct State {
    connection: Connection,
}

/// A step of a past run.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The run.
    pub run_id: String,
    /// The step.
    pub step: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How; `None`: still running.
    pub outcome: Option<Outcome>,
    /// What it answered.
    pub result: Option<StepResult>,
}

pub use recent::{Backup, RunEnd};
pub use restore_tests::PastTest;

/// A backup as charts and timelines want it: without the whole of its result, so that months of them are small.
#[derive(Clone, Debug)]
pub struct Night {
    /// The run.
    pub run_id: String,
    /// The step.
    pub step: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How; `None`: still running.
    pub outcome: Option<Outcome>,
    /// Why it was no success.
    pub error: Option<String>,
    /// Bytes of the source.
    pub processed: Option<u64>,
    /// Bytes new in the repository, before compression.
    pub added: Option<u64>,
    /// Bytes of the whole repository.
    pub stored: Option<u64>,
}

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

    /// Marks what was started and never ended as interrupted: only a crash or a power cut leaves that behind.
    /// Call with the run lock held. Returns the interrupted steps.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn reconcile(&mut self) -> Result<Vec<String>> {
        let work = || -> rusqlite::Result<Vec<String>> {
            let mut query = self.connection.prepare("select step from step_run where outcome is null")?;
            let steps = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            self.connection.execute_batch(
                "update step_run set outcome = 'interrupted',
                    error = 'the process ended without saying how: a crash, a power cut, or kill -9' where outcome is null;
                 update run set outcome = 'interrupted' where outcome is null;",
            )?;
            Ok(steps)
        };
        work().context(|| "mark interrupted runs in the state database".into())
    }

    /// How many of the newest backups were interrupted without one between that ended by itself; at most `enough`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn interrupted_in_a_row(&self, enough: u32) -> Result<u32> {
        let work = || -> rusqlite::Result<u32> {
            // A run without steps was cut off while it waited. By row, not by time: the clock may have been wrong.
            let mut query = self.connection.prepare(
                "select outcome from run where not exists
                    (select 1 from step_run where run_id = run.id and task <> 'backup') order by rowid desc limit ?",
            )?;
            let outcomes = query.query_map([enough], |row| row.get::<_, Option<String>>(0))?;
            let mut count = 0;
            for outcome in outcomes {
                if outcome?.as_deref() != Some(Outcome::Interrupted.as_str()) {
                    break;
                }
                count += 1;
            }
            Ok(count)
        };
        work().context(|| "read the last runs from the state database".into())
    }

    /// In a copy that came from storage, ends what was under way when it was made: the `agent` step, which did save it.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn settle_copy(&self) -> Result<()> {
        self.connection
            .execute_batch(
                "update step_run set outcome = 'succeeded', finished_at = started_at where outcome is null;
                 update run set finished_at = started_at, outcome = case
                    when exists (select 1 from step_run where run_id = run.id and outcome not in ('succeeded', 'skipped'))
                    then 'degraded' else 'succeeded' end
                 where outcome is null;",
            )
            .context(|| "settle the saved history".into())
    }

    /// Records that a run starts.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn begin_run(&self, id: &str, reason: Option<&str>, now: Timestamp) -> Result<()> {
        self.connection
            .execute(
                "insert into run (id, reason, started_at) values (?, ?, ?)",
                params![id, reason, now.as_millisecond()],
            )
            .map(drop)
            .context(|| "record the start of the run".into())
    }

    /// Records that a run ended, and what went wrong outside its steps.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn finish_run(&self, id: &str, outcome: Outcome, problems: &[Problem], now: Timestamp) -> Result<()> {
        self.connection
            .execute(
                "update run set finished_at = ?, outcome = ?, problems = ? where id = ?",
                params![now.as_millisecond(), outcome.as_str(), serde_json::to_string(problems).ok(), id],
            )
            .map(drop)
            .context(|| "record the end of the run".into())
    }

    /// Records that a step starts; durable when it returns.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn begin_step(
        &self,
        run: &str,
        position: u32,
        step: &str,
        kind: &str,
        task: &str,
        now: Timestamp,
    ) -> Result<()> {
        self.connection
            .execute(
                "insert into step_run (run_id, position, step, kind, task, started_at) values (?, ?, ?, ?, ?, ?)",
                params![run, position, step, kind, task, now.as_millisecond()],
            )
            .map(drop)
            .context(|| format!("record the start of step {step}"))
    }

    /// Records how a step ended, its maintenance and, after a usable backup, its facts.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn finish_step(
        &mut self,
        run: &str,
        position: u32,
        step: &str,
        result: &StepResult,
        now: Timestamp,
    ) -> Result<()> {
        let mut work = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            let error = result.error.as_ref();
            // Facts have a table of their own; in each night's row they would be most of it.
            let row = StepResult { facts: BTreeMap::new(), ..result.clone() };
            transaction.execute(
                "update step_run set finished_at = ?, outcome = ?, error = ?, hint = ?, restore_point = ?, result = ?
                 where run_id = ? and position = ?",
                params![
                    now.as_millisecond(),
                    result.outcome.as_str(),
                    error.map(|error| &error.message),
                    error.and_then(|error| error.hint.as_ref()),
                    result.restore_point,
                    serde_json::to_string(&row).ok(),
                    run,
                    position
                ],
            )?;
            for entry in &result.maintenance {
                transaction.execute(
                    "insert into maintenance (step, what, at, problem, note) values (?, ?, ?, ?, ?)",
                    params![
                        step,
                        entry.what,
                        now.as_millisecond(),
                        entry.problem.as_ref().map(|problem| &problem.message),
                        entry.note
                    ],
                )?;
            }
            restore_tests::record(&transaction, run, position, result, now)?;
            if result.outcome.is_usable() {
                for (key, value) in &result.facts {
                    transaction.execute(
                        "insert into fact (step, key, value) values (?1, ?2, ?3)
                         on conflict do update set value = ?3",
                        params![step, key, value],
                    )?;
                }
            }
            transaction.commit()
        };
        work().context(|| format!("record the end of step {step}"))
    }

    /// What a step recorded about itself.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn facts(&self, step: &str) -> Result<BTreeMap<String, String>> {
        let read = || -> rusqlite::Result<_> {
            let mut query = self.connection.prepare("select key, value from fact where step = ?")?;
            query.query_map([step], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().context(|| format!("read the facts of step {step}"))
    }

    /// Forgets what a step recorded about itself, so that the next run takes things as they are.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_facts(&self, step: &str) -> Result<()> {
        self.connection
            .execute("delete from fact where step = ?", [step])
            .map(drop)
            .context(|| format!("forget the facts of step {step}"))
    }

    /// The newest moment anything was recorded: a clock that shows less is wrong.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest_moment(&self) -> Result<Option<Timestamp>> {
        self.connection
            .query_row("select max(max(started_at), coalesce(max(finished_at), 0)) from step_run", [], |row| {
                row.get::<_, Option<i64>>(0)
            })
            .context(|| "read the state database".into())
            .map(|moment| moment.and_then(|moment| Timestamp::from_millisecond(moment).ok()))
    }

    /// What the plan needs to know of a step's past.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn history(&self, step: &str) -> Result<StepHistory> {
        let moment = |sql: &str| -> rusqlite::Result<Option<Timestamp>> {
            let found: Option<i64> = self.connection.query_row(sql, [step], |row| row.get(0)).optional()?.flatten();
            Ok(found.and_then(|moment| Timestamp::from_millisecond(moment).ok()))
        };
        const USABLE: &str =
            "from step_run where step = ? and task = 'backup' and outcome in ('succeeded', 'degraded')";
        let read = || -> rusqlite::Result<_> {
            Ok(StepHistory {
                usual_bytes: self.usual_bytes(step)?,
                full_bytes: self.full_bytes(step)?,
                peak_memory: self.peak_memory(step, "backup")?,
                tests: self.earlier_tests(step)?,
                // One that was made while the clock was wrong has no date that says anything, if there is another.
                first_success: moment(&format!(
                    "select coalesce(min(iif(json_extract(result, '$.clock') is null, started_at, null)), min(started_at)) {USABLE}"
                ))?,
                // pgBackRest's labels of full backups end with F.
                last_full: moment(&format!("select max(started_at) {USABLE} and restore_point like '%F'"))?,
                last_prune: moment(
                    "select max(at) from maintenance where step = ? and what = 'prune' and problem is null",
                )?,
                last_check: moment(
                    "select max(at) from maintenance where step = ? and what like 'check%' and problem is null",
                )?,
                last_data_check: self
                    .connection
                    .query_row(
                        "select what from maintenance where step = ? and what like 'check-data:%' and problem is null
                         order by at desc limit 1",
                        [step],
                        |row| row.get::<_, String>(0),
                    )
                    .optional()?,
            })
        };
        read().context(|| format!("read the history of step {step}"))
    }

    /// A step's backups from that moment on, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn backups(&self, step: &str, since: Timestamp) -> Result<Vec<StepRecord>> {
        let read = || -> rusqlite::Result<_> {
            let mut query = self.connection.prepare(
                "select run_id, step, started_at, finished_at, outcome, result from step_run
                 where step = ? and task = 'backup' and started_at >= ? order by started_at desc",
            )?;
            query.query_map(params![step, since.as_millisecond()], record)?.collect()
        };
        read().context(|| format!("read the history of step {step}"))
    }

    /// Every step's backups from that moment on, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn nights(&self, since: Timestamp) -> Result<Vec<Night>> {
        let read = || -> rusqlite::Result<_> {
            let mut query = self.connection.prepare(
                "select run_id, step, started_at, finished_at, outcome, error,
                    figures ->> 'bytes_processed', figures ->> 'bytes_added', figures ->> 'bytes_stored'
                 from (select *, case when json_valid(result) then result -> 'figures' end as figures from step_run)
                 where task = 'backup' and started_at >= ? order by started_at, position",
            )?;
            let night = |row: &rusqlite::Row<'_>| {
                let bytes =
                    |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned));
                Ok(Night {
                    run_id: row.get(0)?,
                    step: row.get(1)?,
                    started_at: moment(row.get(2)?),
                    finished_at: row.get::<_, Option<i64>>(3)?.map(moment),
                    outcome: row.get::<_, Option<String>>(4)?.and_then(|word| Outcome::parse(&word)),
                    error: row.get(5)?,
                    processed: bytes(6)?,
                    added: bytes(7)?,
                    stored: bytes(8)?,
                })
            };
            query.query_map([since.as_millisecond()], night)?.collect()
        };
        read().context(|| "read the history of all steps".into())
    }

    /// A step's newest usable backup.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last_success(&self, step: &str) -> Result<Option<StepRecord>> {
        self.connection
            .query_row(
                "select run_id, step, started_at, finished_at, outcome, result from step_run
                 where step = ? and task = 'backup' and outcome in ('succeeded', 'degraded')
                 order by started_at desc limit 1",
                [step],
                record,
            )
            .optional()
            .context(|| format!("read the history of step {step}"))
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

fn moment(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<StepRecord> {
    Ok(StepRecord {
        run_id: row.get(0)?,
        step: row.get(1)?,
        started_at: moment(row.get(2)?),
        finished_at: row.get::<_, Option<i64>>(3)?.map(moment),
        outcome: row.get::<_, Option<String>>(4)?.and_then(|word| Outcome::parse(&word)),
        // A result written by another version may not parse; the columns beside it still tell the outcome.
        result: row.get::<_, Option<String>>(5)?.and_then(|text| serde_json::from_str(&text).ok()),
    })
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
    use crate::steps::Maintenance;

    fn opened(path: &Path) -> State {
        match State::open(path).unwrap() {
            Opened::Ready(state) | Opened::Fresh(state, _) => state,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_started_and_never_ended_is_interrupted_not_success() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let state = opened(&path);
        state.begin_run("r1", None, at("2026-11-21T03:00:00Z")).unwrap();
        state.begin_step("r1", 0, "foundry", "directory", "backup", at("2026-11-21T03:00:01Z")).unwrap();
        drop(state);

        let mut state = opened(&path);
        assert_eq!(state.reconcile().unwrap(), ["foundry"]);
        assert_eq!(state.reconcile().unwrap(), [""; 0]);
        let backups = state.backups("foundry", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(backups[0].outcome, Some(Outcome::Interrupted));
        assert!(state.last_success("foundry").unwrap().is_none());
    }

    #[test]
    fn history_tells_what_the_plan_needs() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = opened(&folder.path().join("state.db"));
        let night = |state: &mut State, run: &str, time: &str, outcome: Outcome, point: &str| {
            state.begin_run(run, None, at(time)).unwrap();
            state.begin_step(run, 0, "database", "postgres", "backup", at(time)).unwrap();
            let mut result = StepResult { restore_point: Some(point.into()), ..StepResult::of(outcome) };
            result.facts.insert("system".into(), run.into());
            result.maintenance.push(Maintenance { what: "check-data:3/13".into(), problem: None, note: String::new() });
            state.finish_step(run, 0, "database", &result, at(time)).unwrap();
        };
        night(&mut state, "r1", "2026-11-01T03:00:00Z", Outcome::Succeeded, "20261101-030000F");
        night(&mut state, "r2", "2026-11-02T03:00:00Z", Outcome::Degraded, "20261101-030000F_20261102-030000I");
        night(&mut state, "r3", "2026-11-03T03:00:00Z", Outcome::Failed, "20261103-030000F");

        let history = state.history("database").unwrap();
        assert_eq!(history.first_success, Some(at("2026-11-01T03:00:00Z")));
        assert_eq!(history.last_full, Some(at("2026-11-01T03:00:00Z")), "a failed full does not count");
        assert_eq!(history.last_data_check.as_deref(), Some("check-data:3/13"));
        assert_eq!(state.facts("database").unwrap()["system"], "r2", "a failed step teaches nothing");
        assert_eq!(state.newest_moment().unwrap(), Some(at("2026-11-03T03:00:00Z")));
    }

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
