//! What the alarms look at every ten minutes: the newest records, in the order they were written, whatever the clock showed.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{State, moment};
use crate::error::{Context, Result};
use crate::health::Trouble;
use crate::monitor::Problem;
use crate::steps::Outcome;

/// A backup of one step, without the bulk of its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How; `None`: it is at work, or was cut off and nobody has looked since.
    pub outcome: Option<Outcome>,
    /// What ended it, or what is to be looked at.
    pub error: Option<Problem>,
    /// How many further problems there were.
    pub more_problems: u64,
    /// Bytes of the source.
    pub bytes: Option<u64>,
    /// What was wrong with the machine meanwhile.
    pub machine: Vec<Trouble>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// When.
    pub finished_at: Timestamp,
    /// What went wrong outside its steps.
    pub problems: Vec<Problem>,
}

impl State {
    /// The newest backups of a step, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest_backups(&self, step: &str, at_most: u32) -> Result<Vec<Backup>> {
        let read = || -> rusqlite::Result<_> {
            // The inner select needs only the index; the bulky rows are read once they are few.
            let mut query = self.connection.prepare(
                "select started_at, finished_at, outcome, error, hint,
                        coalesce(json_array_length(result, '$.problems'), 0),
                        json_extract(result, '$.figures.bytes_processed'), json_extract(result, '$.machine')
                 from step_run where rowid in
                    (select rowid from step_run where step = ? and task = 'backup' order by rowid desc limit ?)
                 order by rowid desc",
            )?;
            query.query_map(params![step, at_most], backup)?.collect()
        };
        read().context(|| format!("read the newest backups of step {step}"))
    }

    /// The step that was started last, when its end is not recorded.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open_step(&self) -> Result<Option<String>> {
        self.connection
            .query_row("select step, outcome from step_run order by rowid desc limit 1", [], |row| {
                row.get::<_, Option<String>>(1)?.is_none().then(|| row.get(0)).transpose()
            })
            .optional()
            .context(|| "read the newest step from the state database".into())
            .map(Option::flatten)
    }

    /// Why the step that ended last did not trust the clock, if others contradicted it; and when that was.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn clock_contradicted(&self) -> Result<Option<(String, Timestamp)>> {
        self.connection
            .query_row(
                "select json_extract(result, '$.clock'), finished_at from step_run
                 where finished_at is not null and outcome <> 'skipped' order by rowid desc limit 1",
                [],
                |row| Ok(row.get::<_, Option<String>>(0)?.zip(row.get::<_, Option<i64>>(1)?.map(moment))),
            )
            .optional()
            .context(|| "read the newest step from the state database".into())
            .map(Option::flatten)
    }

    /// The last run that came to an end.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last_run_end(&self) -> Result<Option<RunEnd>> {
        self.connection
            .query_row(
                "select finished_at, problems from run where finished_at is not null order by rowid desc limit 1",
                [],
                |row| {
                    let problems: Option<String> = row.get(1)?;
                    Ok(RunEnd {
                        finished_at: moment(row.get(0)?),
                        problems: problems.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
                    })
                },
            )
            .optional()
            .context(|| "read the last run from the state database".into())
    }
}

fn backup(row: &rusqlite::Row<'_>) -> rusqlite::Result<Backup> {
    let message: Option<String> = row.get(3)?;
    let hint = row.get(4)?;
    Ok(Backup {
        started_at: moment(row.get(0)?),
        finished_at: row.get::<_, Option<i64>>(1)?.map(moment),
        outcome: row.get::<_, Option<String>>(2)?.and_then(|word| Outcome::parse(&word)),
        error: message.map(|message| Problem { message, hint }),
        more_problems: row.get::<_, i64>(5)?.unsigned_abs(),
        bytes: row.get::<_, Option<i64>>(6)?.and_then(|bytes| bytes.try_into().ok()),
        machine: row.get::<_, Option<String>>(7)?.and_then(|it| serde_json::from_str(&it).ok()).unwrap_or_default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::health::What;
    use crate::state::StepRecord;
    use crate::steps::{Figures, StepResult};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn records_come_in_the_order_they_were_written() {
        let mut state = State::in_memory().unwrap();
        // The clock was a year ahead in the first of these nights.
        for (run, time, outcome) in [
            ("r1", "2027-11-01T03:00:00Z", Outcome::Succeeded),
            ("r2", "2026-11-02T03:00:00Z", Outcome::Degraded),
            ("r3", "2026-11-03T03:00:00Z", Outcome::Failed),
        ] {
            state.begin_run(run, None, at(time)).unwrap();
            state.begin_step(run, 0, "foundry", "directory", "backup", at(time)).unwrap();
            assert_eq!(state.open_step().unwrap().as_deref(), Some("foundry"));
            let problem = |message: &str| Problem { message: message.into(), hint: Some("look".into()) };
            let mut result = StepResult { error: Some(problem("one")), ..StepResult::of(outcome) };
            result.problems = vec![problem("two"), problem("three")];
            result.figures = Figures { bytes_processed: Some(5), ..Figures::default() };
            result.machine = vec![Trouble { what: What::UnderVoltage, from: at(time), to: at(time) }];
            result.clock = (run == "r3").then(|| "an hour ahead".to_owned());
            state.finish_step(run, 0, "foundry", &result, at(time)).unwrap();
            state.finish_run(run, outcome, &[problem("outside")], at(time)).unwrap();
        }
        assert_eq!(state.open_step().unwrap(), None);
        let backups = state.newest_backups("foundry", 2).unwrap();
        let outcomes: Vec<_> = backups.iter().map(|backup| backup.outcome.unwrap()).collect();
        assert_eq!(outcomes, [Outcome::Failed, Outcome::Degraded]);
        assert_eq!((backups[0].more_problems, backups[0].bytes), (2, Some(5)));
        assert_eq!(backups[0].machine[0].what, What::UnderVoltage);
        let contradicted = state.clock_contradicted().unwrap();
        assert_eq!(contradicted, Some(("an hour ahead".to_owned(), at("2026-11-03T03:00:00Z"))));
        assert_eq!(backups[0].error.as_ref().unwrap().hint.as_deref(), Some("look"));
        let end = state.last_run_end().unwrap().unwrap();
        assert_eq!((end.finished_at, end.problems.len()), (at("2026-11-03T03:00:00Z"), 1));
        let last: Option<StepRecord> = state.last_success("foundry").unwrap();
        assert_eq!(last.unwrap().started_at, at("2026-11-02T03:00:00Z"));
    }
}
