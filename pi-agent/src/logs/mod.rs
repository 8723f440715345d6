//! `pi-agent logs audit`: who writes logs, how large they are, and whether anything keeps them from growing for ever.
//! It only looks; what should be set is printed as text to paste.

mod containers;
mod families;
mod rotation;
mod text;
mod writers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use self::containers::ContainerLog;
use self::families::Family;
use self::rotation::{LogRotate, Rotation};
use self::writers::Writers;
use crate::config::{Settings, Source};
use crate::docker::Docker;
use crate::error::{Error, Kind, Result};
use crate::report::{SCHEMA, words};
use crate::state::State;

/// Everything that was found.
#[derive(Debug)]
pub struct Audit {
    places: Vec<Place>,
    containers: Vec<ContainerLog>,
    /// What could not be looked at.
    problems: Vec<String>,
}

/// A configured directory of logs.
#[derive(Debug, Serialize)]
struct Place {
    path: PathBuf,
    step: String,
    /// Bytes a day by which the whole step grew, from the sizes of its backups.
    step_growth: Option<i64>,
    logs: Vec<Log>,
}

/// One log with what rotation left of it.
#[derive(Debug, Serialize)]
struct Log {
    #[serde(flatten)]
    family: Family,
    /// Bytes a day, by its size and age.
    growth: Option<u64>,
    rotation: Rotation,
    /// Programs that have it open, `CONTAINER/PROGRAM` when they run in one.
    writers: BTreeSet<String>,
}

impl Log {
    /// Nothing bounds it, and it is no longer small.
    fn grows_for_ever(&self) -> bool {
        self.rotation == Rotation::None && self.family.bytes >= SMALL
    }
}

/// Logs below this are not worth a person's time.
const SMALL: u64 = 1 << 20;
/// Growth needs some time to be told from chance.
const ENOUGH_SECONDS: u64 = 3600;
const DAY: u64 = 86_400;

/// Looks at every log place of the configuration and at every container.
pub fn audit(settings: &Settings, history: Option<&State>) -> Audit {
    let mut problems = Vec::new();
    let containers = match containers_of_this_machine() {
        Ok(containers) => containers,
        Err(error) => {
            problems.push(error.chain());
            Vec::new()
        }
    };
    let writers = Writers::now(&containers);
    let rules = LogRotate::read(Path::new("/"), &mut problems);
    let mut places = Vec::new();
    for (step, path) in log_places(settings) {
        let step_growth = history.and_then(|state| growth_of_step(state, &step));
        let mut logs: Vec<Log> = families::below(&path, &mut problems)
            .into_iter()
            .map(|family| Log {
                growth: a_day(family.bytes, family.born),
                rotation: rules.of(&family),
                writers: writers.of(&family.path),
                family,
            })
            .collect();
        logs.sort_by_key(|log| std::cmp::Reverse(log.family.all_bytes));
        places.push(Place { path, step, step_growth, logs });
    }
    let containers = containers.into_iter().map(ContainerLog::of).collect();
    Audit { places, containers, problems }
}

impl Audit {
    /// For people.
    pub fn text(&self) -> String {
        text::text(self)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA, "places": self.places, "containers": self.containers, "problems": self.problems,
            "to_paste": text::to_paste(self),
        })
    }
}

/// No Docker is no problem; one that does not answer is.
fn containers_of_this_machine() -> Result<Vec<crate::docker::Container>> {
    match Docker::open() {
        Err(error) if error.kind() == Kind::NotFound => Ok(Vec::new()),
        docker => docker?.containers().map_err(|error| Error::new("look at containers' logs").caused_by(error)),
    }
}

/// The paths of steps that are named for logs, and whatever else lies in a directory of that name.
fn log_places(settings: &Settings) -> Vec<(String, PathBuf)> {
    let of_logs = |path: &Path| {
        path.starts_with("/var/log") || path.file_name().is_some_and(|name| name == "log" || name == "logs")
    };
    let mut places = Vec::new();
    for step in &settings.steps {
        let Source::Directory(directory) = &step.source else { continue };
        let paths = directory.paths.iter().filter(|path| step.name.contains("log") || of_logs(path));
        places.extend(paths.map(|path| (step.name.clone(), path.clone())));
    }
    places
}

/// Bytes a day; `None` when it is too young.
fn a_day(bytes: u64, born: Option<SystemTime>) -> Option<u64> {
    let age = SystemTime::now().duration_since(born?).ok()?.as_secs();
    (age >= ENOUGH_SECONDS).then(|| bytes.saturating_mul(DAY) / age)
}

/// By the sizes of the oldest and the newest of a month's backups.
fn growth_of_step(state: &State, step: &str) -> Option<i64> {
    let now = Timestamp::now();
    let month = now.checked_sub(jiff::SignedDuration::from_hours(30 * 24)).unwrap_or(now);
    let sized = state.backups(step, month).ok()?;
    let mut sized = sized.iter().filter_map(|backup| {
        let bytes = backup.result.as_ref()?.figures.bytes_processed?;
        Some((backup.started_at, i64::try_from(bytes).ok()?))
    });
    let (newest, now_bytes) = sized.next()?;
    let (oldest, then_bytes) = sized.next_back()?;
    let seconds = i64::try_from(words::between(oldest, newest).as_secs()).ok()?;
    (seconds >= 86_400).then(|| (now_bytes - then_bytes).saturating_mul(86_400) / seconds)
}
