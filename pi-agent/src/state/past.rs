//! What past runs tell: to the plan, to charts and to people.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::{State, moment};
use crate::config::Location;
use crate::error::{Context, Result};
use crate::plan::StepHistory;
use crate::steps::{Outcome, PLACE, StepResult, is_of_source};

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

/// A check that found damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// When it ended.
    pub at: Timestamp,
    /// What it found.
    pub problem: String,
}

impl State {
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

    /// Forgets what a step recorded about its source, so that the next run takes that as it is. What it recorded about the storage stays:
    /// where backups were made, and which points there were.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn forget_source(&self, step: &str) -> Result<()> {
        let facts = self.facts(step)?;
        let forget = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            for key in facts.keys().filter(|key| is_of_source(key)) {
                transaction.execute("delete from fact where step = ? and key = ?", [step, key])?;
            }
            transaction.commit()
        };
        forget().context(|| format!("forget what is known of the source of step {step}"))
    }

    /// A usable backup of any step, also of one that is configured no more, was made to that storage before.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn knows_place(&self, location: &Location) -> Result<bool> {
        self.connection
            .query_row(
                "select exists (select 1 from fact where key = ? and value = ?)",
                [PLACE, &location.to_string()],
                |row| row.get(0),
            )
            .context(|| "read the state database".into())
    }

    /// The newest moment anything was recorded: a clock that shows less is wrong. Once the storage's server has confirmed the clock,
    /// what was recorded before that counts no more.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest_moment(&self) -> Result<Option<Timestamp>> {
        const SINCE_CONFIRMED: &str = "
            select max(max(started_at), coalesce(max(finished_at), 0)) from step_run
            where rowid >= coalesce((
                select rowid from step_run
                where json_valid(result) and json_extract(result, '$.clock_confirmed')
                order by rowid desc limit 1
            ), 0)";
        self.connection
            .query_row(SINCE_CONFIRMED, [], |row| row.get::<_, Option<i64>>(0))
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
                peak_memory: self.peak_memory(step)?,
                tests: self.earlier_tests(step)?,
                left_out: Vec::new(),
                // One that was made while the clock was wrong has no date that says anything, if there is another.
                first_success: moment(&format!(
                    "select coalesce(min(iif(json_extract(result, '$.clock') is null, started_at, null)), min(started_at)) {USABLE}"
                ))?,
                // By row, not by time, here and below: what was done once while the clock was ahead would never be done again.
                // pgBackRest's labels of full backups end with F.
                last_full: moment(&format!(
                    "select started_at {USABLE} and restore_point like '%F' order by rowid desc limit 1"
                ))?,
                last_prune: moment(
                    "select at from maintenance where step = ? and what = 'prune' and problem is null
                     order by rowid desc limit 1",
                )?,
                last_check: moment(
                    "select at from maintenance where step = ? and what like 'check%' and problem is null
                     order by rowid desc limit 1",
                )?,
                last_data_check: self
                    .connection
                    .query_row(
                        "select what from maintenance where step = ? and what like 'check-data:%' and problem is null
                         order by rowid desc limit 1",
                        [step],
                        |row| row.get::<_, String>(0),
                    )
                    .optional()?,
            })
        };
        read().context(|| format!("read the history of step {step}"))
    }

    /// The last check of a step's repository, if it found damage. One that could not be made has nothing to note.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn damaged(&self, step: &str) -> Result<Option<Damaged>> {
        let last = self.connection.query_row(
            "select at, problem from maintenance
             where step = ? and (what like 'check%' or what = 'verify') and (problem is null or note <> '')
             order by rowid desc limit 1",
            [step],
            |row| Ok((moment(row.get(0)?), row.get::<_, Option<String>>(1)?)),
        );
        let last = last.optional().context(|| format!("read the history of step {step}"))?;
        Ok(last.and_then(|(at, problem)| Some(Damaged { at, problem: problem? })))
    }

    /// A step's backups from that moment on, the last recorded first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn backups(&self, step: &str, since: Timestamp) -> Result<Vec<StepRecord>> {
        let read = || -> rusqlite::Result<_> {
            let mut query = self.connection.prepare(
                "select run_id, step, started_at, finished_at, outcome, result from step_run
                 where step = ? and task = 'backup' and started_at >= ? order by rowid desc",
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
                 order by rowid desc limit 1",
                [step],
                record,
            )
            .optional()
            .context(|| format!("read the history of step {step}"))
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::tests::{at, opened};
    use crate::steps::Maintenance;

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
    fn what_a_wrong_clock_recorded_counts_until_the_storage_has_confirmed_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = opened(&folder.path().join("state.db"));
        let mut night = |run: &str, time: &str, clock_confirmed| {
            state.begin_run(run, None, at(time)).unwrap();
            state.begin_step(run, 0, "files", "directory", "backup", at(time)).unwrap();
            let result = StepResult { clock_confirmed, ..StepResult::of(Outcome::Succeeded) };
            state.finish_step(run, 0, "files", &result, at(time)).unwrap();
            state.newest_moment().unwrap()
        };
        let wrong = Some(at("2038-01-19T03:00:00Z"));
        assert_eq!(night("r1", "2038-01-19T03:00:00Z", false), wrong);
        assert_eq!(night("r2", "2026-11-02T03:00:00Z", false), wrong);
        assert_eq!(night("r3", "2026-11-03T03:00:00Z", true), Some(at("2026-11-03T03:00:00Z")));
        assert_eq!(night("r4", "2026-11-04T03:00:00Z", false), Some(at("2026-11-04T03:00:00Z")));
    }

    #[test]
    fn adopting_a_source_forgets_nothing_of_the_storage() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = opened(&folder.path().join("state.db"));
        state.begin_run("r1", None, at("2026-11-01T03:00:00Z")).unwrap();
        state.begin_step("r1", 0, "files", "directory", "backup", at("2026-11-01T03:00:00Z")).unwrap();
        let facts = ["source:/srv", "inside", "system-id", "place", "points", "dumped", "certificate"];
        let facts = facts.map(|key| (key.to_owned(), "file:///mnt/pi".to_owned()));
        let result = StepResult { facts: facts.into(), ..StepResult::of(Outcome::Succeeded) };
        state.finish_step("r1", 0, "files", &result, at("2026-11-01T03:00:00Z")).unwrap();
        state.forget_source("files").unwrap();
        let left: Vec<_> = state.facts("files").unwrap().into_keys().collect();
        assert_eq!(left, ["certificate", "dumped", "place", "points"]);
        assert!(state.knows_place(&Location::File("/mnt/pi".into())).unwrap());
        assert!(!state.knows_place(&Location::File("/mnt/other".into())).unwrap());
    }

    #[test]
    fn the_last_data_check_is_the_one_recorded_last_whatever_the_clock_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = opened(&folder.path().join("state.db"));
        for (run, time, what) in
            [("r1", "2037-01-01T00:00:00Z", "check-data:1/13"), ("r2", "2026-11-02T03:00:00Z", "check-data:2/13")]
        {
            state.begin_run(run, None, at(time)).unwrap();
            state.begin_step(run, 0, "files", "directory", "check", at(time)).unwrap();
            let mut result = StepResult::of(Outcome::Succeeded);
            result.maintenance.push(Maintenance { what: what.into(), problem: None, note: String::new() });
            state.finish_step(run, 0, "files", &result, at(time)).unwrap();
        }
        assert_eq!(state.history("files").unwrap().last_data_check.as_deref(), Some("check-data:2/13"));
    }
}
