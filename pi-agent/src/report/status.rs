//! "Am I safe?": what the state database knows, put together.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::alarms::{self, Alarm};
use crate::config::{Settings, StateDirectory};
use crate::error::Result;
use crate::health::Trouble;
use crate::notify::{self, Tone};
use crate::report::run::machine_json;
use crate::report::screen::short_time;
use crate::report::{SCHEMA, restores, words};
use crate::state::{PastTest, State, StepRecord};
use crate::steps::points::kept;
use crate::steps::{Figures, Outcome};
use crate::systemd::NextRun;
use crate::wal::WalState;

/// The state of the whole host.
#[derive(Clone, Debug)]
pub struct Status {
    /// `[host] name`.
    pub host: String,
    /// When this was put together.
    pub generated_at: Timestamp,
    /// In run order.
    pub steps: Vec<StepStatus>,
    /// What needs attention, the worst first.
    pub alarms: Vec<Alarm>,
    /// When the timer starts the next run.
    pub next_run: NextRun,
    /// Notices that were not delivered yet; `None`: nobody counted.
    pub waiting_notices: Option<usize>,
}

/// The state of one step.
#[derive(Clone, Debug)]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// It is at work.
    pub running: bool,
    /// How the last one ended; `None`: none ever did.
    pub last_outcome: Option<Outcome>,
    /// End of the last usable backup.
    pub last_success: Option<Timestamp>,
    /// Its duration.
    pub duration: Option<Duration>,
    /// Its figures.
    pub figures: Figures,
    /// Of the backups of the last 30 days that ended, the part that is usable; `None`: there was none.
    pub success_rate_30d: Option<f64>,
    /// What was wrong with the machine during its last backup.
    pub machine: Vec<Trouble>,
    /// How its WAL stands; `None`: it has none, or nobody can tell.
    pub wal: Option<WalState>,
    /// Its restore tests of the last year or so, newest first.
    pub tests: Vec<PastTest>,
}

const RATE_DAYS: Duration = Duration::from_hours(24 * 30);

impl Status {
    /// As it stands on this machine; without a database, nothing has ever run.
    ///
    /// # Errors
    /// The database, or the alarms' memory, cannot be read.
    pub fn now(settings: &Settings, directory: &StateDirectory, state: Option<&State>) -> Result<Self> {
        let now = Timestamp::now();
        let alarms = alarms::current(settings, directory, state, now)?;
        Ok(Self {
            waiting_notices: Some(notify::waiting(settings, directory)),
            ..Self::gather(settings, state, alarms, now)?
        })
    }

    fn gather(settings: &Settings, state: Option<&State>, mut alarms: Vec<Alarm>, now: Timestamp) -> Result<Self> {
        alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.tone));
        let mut steps = Vec::new();
        for step in &settings.steps {
            let (recent, last) = match state {
                Some(state) => {
                    let since = now.checked_sub(RATE_DAYS).unwrap_or(Timestamp::UNIX_EPOCH);
                    (state.backups(&step.name, since)?, state.last_success(&step.name)?)
                }
                None => (Vec::new(), None),
            };
            let facts = state.map_or(Ok(BTreeMap::new()), |state| state.facts(&step.name))?;
            let wal = step.postgres().and_then(|postgres| WalState::look(settings, postgres, &facts));
            let tests = state.map_or(Ok(Vec::new()), |state| state.restore_tests(&step.name, restores::TREND))?;
            steps.push(StepStatus { wal, tests, ..StepStatus::of(&step.name, step.source.kind(), &recent, last) });
        }
        let host = settings.host.clone();
        Ok(Self { host, generated_at: now, steps, alarms, next_run: NextRun::Unknown, waiting_notices: None })
    }

    /// The answer, and how bad it is.
    pub fn verdict(&self) -> (Tone, String) {
        let (steps, alarms) = (self.steps.len(), self.alarms.len());
        let never = self.steps.iter().filter(|step| step.last_success.is_none()).count();
        let failing = self.steps.iter().find(|step| step.last_outcome.is_some_and(|outcome| !outcome.is_usable()));
        match (self.alarms.iter().map(|alarm| alarm.tone).max(), failing) {
            _ if never > 0 => (Tone::Critical, format!("not safe: {never} of {steps} steps have no backup yet")),
            (Some(Tone::Critical), _) if alarms == 1 => (Tone::Critical, "not safe: 1 alarm".into()),
            (Some(Tone::Critical), _) => (Tone::Critical, format!("not safe: {alarms} alarms")),
            (Some(_), _) if alarms == 1 => (Tone::Warning, "safe, but 1 thing needs a look".into()),
            (Some(_), _) => (Tone::Warning, format!("safe, but {alarms} things need a look")),
            (None, Some(step)) => {
                (Tone::Warning, format!("safe, but the last backup of {} is {}", step.name, step.word()))
            }
            (None, None) => (Tone::Good, format!("safe: all {steps} steps have a recent backup")),
        }
    }

    /// How a step stands: by its alarms and by how it last ended.
    pub fn tone_of(&self, step: &StepStatus) -> Tone {
        let alarms = self.alarms.iter().filter(|alarm| alarm.step.as_ref() == Some(&step.name));
        let last = match step.last_outcome {
            _ if step.last_success.is_none() => Tone::Critical,
            Some(Outcome::Succeeded) => Tone::Good,
            _ => Tone::Warning,
        };
        alarms.map(|alarm| alarm.tone).max().unwrap_or(last).max(last)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "generated_at": words::stamp(self.generated_at),
            "healthy": self.alarms.is_empty(),
            "next_run": self.next_run.time().map(words::stamp),
            "waiting_notices": self.waiting_notices,
            "rto_seconds": restores::everything(&self.steps).map(|took| took.as_secs_f64()),
            "steps": self.steps.iter().map(|step| step.json(self.generated_at)).collect::<Vec<_>>(),
            "alarms": self.alarms.iter().map(Alarm::json).collect::<Vec<_>>(),
        })
    }
}

impl StepStatus {
    fn of(name: &str, kind: &'static str, recent: &[StepRecord], last: Option<StepRecord>) -> Self {
        let ended: Vec<Outcome> =
            recent.iter().filter_map(|record| record.outcome).filter(|outcome| *outcome != Outcome::Skipped).collect();
        let usable = ended.iter().filter(|outcome| outcome.is_usable()).count();
        #[allow(clippy::cast_precision_loss)] // a month has few backups
        let success_rate_30d = (!ended.is_empty()).then(|| usable as f64 / ended.len() as f64);
        let last_ended = recent.iter().find(|record| record.outcome.is_some()).or(last.as_ref());
        let machine = last_ended.and_then(|record| record.result.as_ref()).map(|result| result.machine.clone());
        let machine = machine.unwrap_or_default();
        Self {
            name: name.into(),
            kind,
            running: recent.first().is_some_and(|record| record.outcome.is_none()),
            last_outcome: last_ended.and_then(|record| record.outcome),
            last_success: last.as_ref().and_then(|record| record.finished_at),
            duration: last.as_ref().and_then(|record| Some(words::between(record.started_at, record.finished_at?))),
            figures: last.and_then(|record| record.result).map(|result| result.figures).unwrap_or_default(),
            success_rate_30d,
            machine,
            wal: None,
            tests: Vec::new(),
        }
    }

    /// Until when every change is in the repository, and for how long none was: "Nov 21 16:20 (4 min ago)".
    pub fn safe_in_words(&self, now: Timestamp) -> Option<String> {
        let wal = self.wal.as_ref()?;
        let safe = wal.safe_until(now)?;
        let waiting = match wal.files {
            _ if wal.is_kept_back(now) => "; the server does not hand over what it writes: pi-agent doctor".into(),
            0 => String::new(),
            1 => "; 1 file of WAL waits".into(),
            files => format!("; {files} files of WAL wait"),
        };
        Some(format!("{} ({} ago){waiting}", short_time(safe, now), words::rough(words::between(safe, now))))
    }

    /// The points of other hosts, which nothing removes, a line for each host.
    pub fn others_in_words(&self) -> impl Iterator<Item = String> {
        self.figures.points_of_others.iter().map(|(host, count)| kept(*count, host))
    }

    /// The word for how it stands: `running`, how the last one ended, or `never`.
    pub fn word(&self) -> &'static str {
        if self.running { "running" } else { self.last_outcome.map_or("never", Outcome::as_str) }
    }

    /// How many times over the repository gives back what it holds: what deduplication and compression save.
    #[allow(clippy::cast_precision_loss)] // two digits of it are shown
    pub fn deduplication_ratio(&self) -> Option<f64> {
        let stored = self.figures.bytes_stored.filter(|stored| *stored > 0)?;
        Some(self.figures.bytes_restorable? as f64 / stored as f64)
    }

    fn json(&self, now: Timestamp) -> Value {
        json!({
            "name": self.name,
            "kind": self.kind,
            "running": self.running,
            "last_outcome": self.last_outcome,
            "last_success": self.last_success.map(words::stamp),
            "age_seconds": self.last_success.map(|then| words::between(then, now).as_secs()),
            "duration_seconds": self.duration.map(|duration| duration.as_secs_f64()),
            "bytes_processed": self.figures.bytes_processed,
            "bytes_added": self.figures.bytes_added,
            "bytes_stored": self.figures.bytes_stored,
            "bytes_restorable": self.figures.bytes_restorable,
            "deduplication_ratio": self.deduplication_ratio(),
            "bytes_written_here": self.figures.bytes_written_here,
            "files_skipped": self.figures.files_skipped,
            "restore_points": self.figures.restore_points,
            "points_of_others": self.figures.points_of_others,
            "success_rate_30d": self.success_rate_30d,
            "last_restore_test": restores::json(&self.tests),
            "machine": machine_json(&self.machine),
            "wal": self.wal.as_ref().map(|wal| wal_json(wal, now)),
        })
    }
}

fn wal_json(wal: &WalState, now: Timestamp) -> Value {
    let safe = wal.safe_until(now);
    json!({
        "safe_until": safe.map(words::stamp),
        "age_seconds": safe.map(|safe| words::between(safe, now).as_secs()),
        "newest_segment": wal.safe.as_ref().map(|mark| &mark.segment),
        "archive_timeout_seconds": wal.archive_timeout.map(|timeout| timeout.as_secs()),
        "waiting_files": wal.files,
        "waiting_bytes": wal.bytes,
        "hole": wal.hole.as_ref().map(|hole| json!({
            "after": hole.after, "before": hole.before, "since": words::stamp(hole.since),
        })),
    })
}
