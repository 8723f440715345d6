//! "Am I safe?": what the state database knows, on one screen or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::alarms::Alarm;
use crate::config::Settings;
use crate::error::Result;
use crate::report::{SCHEMA, words};
use crate::state::{State, StepRecord};
use crate::steps::{Figures, Outcome};

/// The state of the whole host.
#[derive(Clone, Debug)]
pub struct Status {
    /// `[host] name`.
    pub host: String,
    /// When this was put together.
    pub generated_at: Timestamp,
    /// In run order.
    pub steps: Vec<StepStatus>,
    /// What needs attention.
    pub alarms: Vec<Alarm>,
}

/// The state of one step.
#[derive(Clone, Debug)]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// How the last one ended; `None`: never ran.
    pub last_outcome: Option<Outcome>,
    /// End of the last usable backup.
    pub last_success: Option<Timestamp>,
    /// Its duration.
    pub duration: Option<Duration>,
    /// Its figures.
    pub figures: Figures,
    /// Of the backups of the last 30 days that ended, the part that is usable; `None`: there was none.
    pub success_rate_30d: Option<f64>,
}

const RATE_DAYS: Duration = Duration::from_hours(24 * 30);

impl Status {
    /// Puts it together; without a database, nothing has ever run.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn gather(settings: &Settings, state: Option<&State>, alarms: Vec<Alarm>, now: Timestamp) -> Result<Self> {
        let mut steps = Vec::new();
        for step in &settings.steps {
            let (recent, last) = match state {
                Some(state) => {
                    let since = now.checked_sub(RATE_DAYS).unwrap_or(Timestamp::UNIX_EPOCH);
                    (state.backups(&step.name, since)?, state.last_success(&step.name)?)
                }
                None => (Vec::new(), None),
            };
            steps.push(StepStatus::of(&step.name, step.source.kind(), &recent, last));
        }
        Ok(Self { host: settings.host.clone(), generated_at: now, steps, alarms })
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "generated_at": words::stamp(self.generated_at),
            "healthy": self.alarms.is_empty(),
            "steps": self.steps.iter().map(|step| step.json(self.generated_at)).collect::<Vec<_>>(),
            "alarms": self.alarms.iter().map(Alarm::json).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = match self.alarms.len() {
            0 => format!("{}: all well\n", self.host),
            1 => format!("{}: one alarm\n", self.host),
            count => format!("{}: {count} alarms\n", self.host),
        };
        let header = ["step", "last run", "last good backup", "age", "took", "size", "new", "points", "30 days"];
        let mut rows = vec![header.map(String::from)];
        rows.extend(self.steps.iter().map(|step| step.row(self.generated_at)));
        text.push('\n');
        text.push_str(&table(&rows));
        if !self.alarms.is_empty() {
            text.push('\n');
        }
        for alarm in &self.alarms {
            let _ = writeln!(text, "! {}", alarm.text());
        }
        text
    }
}

impl StepStatus {
    fn of(name: &str, kind: &'static str, recent: &[StepRecord], last: Option<StepRecord>) -> Self {
        let ended: Vec<Outcome> =
            recent.iter().filter_map(|record| record.outcome).filter(|outcome| *outcome != Outcome::Skipped).collect();
        let usable = ended.iter().filter(|outcome| outcome.is_usable()).count();
        #[allow(clippy::cast_precision_loss)] // a month has few backups
        let success_rate_30d = (!ended.is_empty()).then(|| usable as f64 / ended.len() as f64);
        Self {
            name: name.into(),
            kind,
            last_outcome: recent.first().or(last.as_ref()).and_then(|record| record.outcome),
            last_success: last.as_ref().and_then(|record| record.finished_at),
            duration: last.as_ref().and_then(|record| Some(words::between(record.started_at, record.finished_at?))),
            figures: last.and_then(|record| record.result).map(|result| result.figures).unwrap_or_default(),
            success_rate_30d,
        }
    }

    fn json(&self, now: Timestamp) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "last_outcome": self.last_outcome,
            "last_success": self.last_success.map(words::stamp),
            "age_seconds": self.last_success.map(|then| words::between(then, now).as_secs()),
            "duration_seconds": self.duration.map(|duration| duration.as_secs_f64()),
            "bytes_processed": self.figures.bytes_processed,
            "bytes_added": self.figures.bytes_added,
            "bytes_stored": self.figures.bytes_stored,
            "files_skipped": self.figures.files_skipped,
            "restore_points": self.figures.restore_points,
            "success_rate_30d": self.success_rate_30d,
            "last_restore_test": null,
        })
    }

    fn row(&self, now: Timestamp) -> [String; 9] {
        let dash = || "-".to_owned();
        [
            self.name.clone(),
            self.last_outcome.map_or_else(|| "never".into(), |outcome| outcome.as_str().into()),
            self.last_success.map_or_else(dash, words::time),
            self.last_success.map_or_else(dash, |then| words::duration(words::between(then, now))),
            self.duration.map_or_else(dash, words::duration),
            self.figures.bytes_processed.map_or_else(dash, words::size),
            self.figures.bytes_added.map_or_else(dash, words::size),
            self.figures.restore_points.map_or_else(dash, |points| points.to_string()),
            self.success_rate_30d.map_or_else(dash, |rate| format!("{:.0} %", rate * 100.0)),
        ]
    }
}

/// Columns as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
