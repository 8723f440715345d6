//! Restore tests, remembered apart from runs: years of them are few, and say how restores fare.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::{State, moment};
use crate::error::{Context, Result};
use crate::restore_test::{Earlier, Pace, Tested};
use crate::steps::{Outcome, StepResult};

/// Tests of a year, one a month.
const A_YEAR: u16 = 12;

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

impl PastTest {
    /// How fast it was, if it restored anything.
    fn pace(&self) -> Option<Pace> {
        let bytes = self.tested.as_ref().map(|tested| tested.bytes).filter(|bytes| *bytes > 0)?;
        let took = self.finished_at.duration_since(self.started_at).as_millis();
        Some(Pace { bytes, took: took.try_into().ok()? })
    }

    /// It was a share's turn. Of a test that was ended by force nothing is known: it may have been the share that took too long.
    fn took_a_turn(&self) -> bool {
        self.tested.as_ref().is_none_or(|tested| tested.share.is_some())
    }
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
        self.past_tests(step, limit).context(|| format!("read the restore tests of step {step}"))
    }

    fn past_tests(&self, step: &str, limit: u32) -> rusqlite::Result<Vec<PastTest>> {
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
    }

    pub(super) fn earlier_tests(&self, step: &str) -> rusqlite::Result<Earlier> {
        if !self.knows_restore_tests()? {
            return Ok(Earlier::default());
        }
        let tests = self.past_tests(step, u32::MAX)?;
        let paces = tests.iter().take(A_YEAR.into()).filter_map(PastTest::pace).collect();
        let turns = tests.iter().filter(|test| test.took_a_turn()).count();
        Ok(Earlier {
            turns: turns.try_into().unwrap_or(u32::MAX),
            last: tests.first().map(|test| test.started_at),
            paces,
            least_memory: self.least_memory_of_tests(step)?,
        })
    }

    fn least_memory_of_tests(&self, step: &str) -> rusqlite::Result<Option<u64>> {
        let sql = "select min(peak) from (
                select result ->> '$.figures.peak_memory' as peak from (select * from step_run where json_valid(result))
                where step = ? and task = 'restore-test' and outcome in ('succeeded', 'degraded')
                order by started_at desc limit ?)";
        let least: Option<i64> = self.connection.query_row(sql, params![step, A_YEAR], |row| row.get(0))?;
        Ok(least.map(i64::cast_unsigned))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::Opened;

    #[test]
    fn tests_that_ended_are_remembered_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let Opened::Fresh(mut state, _) = State::open(&path).unwrap() else { panic!("new") };
        // The last but one restored nothing of its share: the next one has its turn all the same. The last had come to none.
        let ends = [
            (Outcome::Succeeded, 7, Some((0, 3))),
            (Outcome::Interrupted, 7, Some((1, 3))),
            (Outcome::Failed, 0, Some((1, 3))),
            (Outcome::Failed, 0, None),
        ];
        for (day, (outcome, bytes, share)) in (1..).zip(ends) {
            let (run, at) = (format!("r{day}"), Timestamp::from_second(day * 86_400).unwrap());
            state.begin_run(&run, None, at).unwrap();
            for (position, task) in (0..).zip(["backup", "restore-test"]) {
                state.begin_step(&run, position, "files", "directory", task, at).unwrap();
                let tested = Some(Tested { bytes, share, ..Tested::default() });
                state
                    .finish_step(&run, position, "files", &StepResult { tested, ..StepResult::of(outcome) }, at)
                    .unwrap();
            }
        }
        let found = state.restore_tests("files", 9).unwrap();
        let outcomes: Vec<_> = found.iter().map(|test| test.outcome).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Failed, Outcome::Succeeded]);
        assert_eq!(found[2].tested.as_ref().map(|tested| tested.bytes), Some(7));
        assert_eq!(state.restore_tests("files", 1).unwrap().len(), 1);
        let paces = vec![Pace { bytes: 7, took: 0 }];
        let earlier = Earlier { turns: 2, last: Timestamp::from_second(4 * 86_400).ok(), paces, least_memory: None };
        assert_eq!(state.history("files").unwrap().tests, earlier);
        assert_eq!(state.history("others").unwrap().tests, Earlier::default());
    }

    #[test]
    fn one_that_was_not_written_to_since_an_upgrade_has_none() {
        let state = State { connection: rusqlite::Connection::open_in_memory().unwrap() };
        assert_eq!(state.restore_tests("files", 9).unwrap(), []);
        assert_eq!(state.earlier_tests("files").unwrap(), Earlier::default());
    }
}
