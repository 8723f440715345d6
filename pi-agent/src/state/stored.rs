//! What the backups of a step stored, and the memory they took: what the next one will, as far as anybody can tell.

use super::State;

/// Backups that are looked at.
const LAST: usize = 7;

impl State {
    /// The median of the last backups but the very first, which stored everything. pgBackRest's full ones do not count.
    pub(super) fn usual_bytes(&self, step: &str) -> rusqlite::Result<Option<u64>> {
        let mut stored = self.stored(step, "not glob", LAST + 1)?;
        if stored.len() <= LAST {
            stored.pop();
        }
        stored.truncate(LAST);
        stored.sort_unstable();
        Ok(stored.get(stored.len() / 2).copied())
    }

    /// Of the last full PostgreSQL backup.
    pub(super) fn full_bytes(&self, step: &str) -> rusqlite::Result<Option<u64>> {
        Ok(self.stored(step, "glob", 1)?.pop())
    }

    /// The most memory that one of the last backups took.
    pub(super) fn peak_memory(&self, step: &str) -> rusqlite::Result<Option<u64>> {
        let sql = format!(
            "select max(peak) from (
                select result ->> '$.figures.peak_memory' as peak from (select * from step_run where json_valid(result))
                where step = ? and task = 'backup' and outcome in ('succeeded', 'degraded')
                order by started_at desc limit {LAST})"
        );
        let peak: Option<i64> = self.connection.query_row(&sql, [step], |row| row.get(0))?;
        Ok(peak.map(i64::cast_unsigned))
    }

    /// Newest first. pgBackRest's labels of full backups end with F.
    fn stored(&self, step: &str, full: &str, limit: usize) -> rusqlite::Result<Vec<u64>> {
        let sql = format!(
            "select coalesce(result ->> '$.figures.bytes_added_stored', result ->> '$.figures.bytes_added') as stored
             from (select * from step_run where json_valid(result))
             where step = ? and task = 'backup' and outcome in ('succeeded', 'degraded') and stored is not null
                and coalesce(restore_point, '') {full} '*F'
             order by started_at desc limit {limit}"
        );
        let mut query = self.connection.prepare(&sql)?;
        query.query_map([step], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::Opened;
    use crate::steps::{Figures, Outcome, StepResult};
    use jiff::Timestamp;

    #[test]
    fn the_first_and_the_full_ones_are_no_measure() {
        let folder = tempfile::tempdir().unwrap();
        let Opened::Fresh(mut state, _) = State::open(&folder.path().join("state.db")).unwrap() else { panic!("new") };
        let night = |state: &mut State, day: i64, point: &str, stored: u64| {
            let (run, at) = (format!("r{day}"), Timestamp::from_second(day * 86_400).unwrap());
            state.begin_run(&run, None, at).unwrap();
            state.begin_step(&run, 0, "files", "directory", "backup", at).unwrap();
            let figures =
                Figures { bytes_added_stored: Some(stored), peak_memory: Some(stored + 1), ..Figures::default() };
            let restore_point = Some(point.to_owned());
            let result = StepResult { restore_point, figures, ..StepResult::of(Outcome::Succeeded) };
            state.finish_step(&run, 0, "files", &result, at).unwrap();
        };
        assert_eq!((state.usual_bytes("files").unwrap(), state.full_bytes("files").unwrap()), (None, None));
        night(&mut state, 1, "a1", 5000);
        assert_eq!(state.usual_bytes("files").unwrap(), None, "only the first is known");
        for (day, stored) in [(2, 30), (3, 10), (4, 20)] {
            night(&mut state, day, "a2f", stored);
        }
        night(&mut state, 5, "20261101-030000F", 7000);
        assert_eq!((state.usual_bytes("files").unwrap(), state.full_bytes("files").unwrap()), (Some(20), Some(7000)));
        assert_eq!((state.peak_memory("files").unwrap(), state.peak_memory("others").unwrap()), (Some(7001), None));
    }
}
