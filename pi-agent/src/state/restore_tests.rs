//! Restore tests, remembered apart from runs: years of them are few, and say how restores fare.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::State;
use crate::error::{Context, Result};
use crate::restore_test::{Earlier, Tested};
use crate::steps::{Outcome, StepResult};

/// A restore test of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastTest {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What was wrong.
    pub error: Option<String>,
    /// What was seen.
    pub tested: Option<Tested>,
}

/// Takes down what a step's result says of a test. One that was interrupted says nothing about restores.
pub(super) fn record(
    transaction: &Transaction<'_>,
    run: &str,
    position: u32,
    result: &StepResult,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if matches!(result.outcome, Outcome::Interrupted | Outcome::Skipped) {
        return Ok(());
    }
    transaction.execute(
        "insert into restore_test (step, started_at, finished_at, outcome, error, tested)
         select step, started_at, ?, ?, ?, ? from step_run where run_id = ? and position = ? and task = 'restore-test'",
        params![
            now.as_millisecond(),
            result.outcome.as_str(),
            result.error.as_ref().map(|error| &error.message),
            result.tested.as_ref().and_then(|tested| serde_json::to_string(tested).ok()),
            run,
            position
        ],
    )?;
    Ok(())
}

impl State {
    /// A step's tests, newest first, at most so many.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn restore_tests(&self, step: &str, limit: u32) -> Result<Vec<PastTest>> {
        let moment = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let read = || -> rusqlite::Result<_> {
            if !self.knows_restore_tests()? {
                return Ok(Vec::new());
            }
            let mut query = self.connection.prepare(
                "select started_at, finished_at, outcome, error, tested from restore_test
                 where step = ? order by rowid desc limit ?",
            )?;
            let test = |row: &rusqlite::Row<'_>| {
                Ok(PastTest {
                    started_at: moment(row.get(0)?),
                    finished_at: moment(row.get(1)?),
                    outcome: Outcome::parse(&row.get::<_, String>(2)?).unwrap_or(Outcome::Failed),
                    error: row.get(3)?,
                    tested: row.get::<_, Option<String>>(4)?.and_then(|text| serde_json::from_str(&text).ok()),
                })
            };
            query.query_map(params![step, limit], test)?.collect()
        };
        read().context(|| format!("read the restore tests of step {step}"))
    }

    pub(super) fn earlier_tests(&self, step: &str) -> rusqlite::Result<Earlier> {
        if !self.knows_restore_tests()? {
            return Ok(Earlier::default());
        }
        self.connection.query_row("select count(*), max(started_at) from restore_test where step = ?", [step], |row| {
            let last: Option<i64> = row.get(1)?;
            let last = last.and_then(|last| Timestamp::from_millisecond(last).ok());
            Ok(Earlier { count: row.get(0)?, last })
        })
    }

    /// One that is only read may not have been written to since an upgrade.
    fn knows_restore_tests(&self) -> rusqlite::Result<bool> {
        self.connection.query_row(
            "select exists (select 1 from sqlite_master where name = 'restore_test')",
            [],
            |row| row.get(0),
        )
    }
}
