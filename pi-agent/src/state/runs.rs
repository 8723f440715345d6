//! What a run writes down: that it and its steps begin, how they end, and what was never ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::params;

use super::{State, restore_tests};
use crate::error::{Context, Result};
use crate::monitor::Problem;
use crate::steps::{Outcome, StepResult};

impl State {
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::tests::{at, opened};

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
}
