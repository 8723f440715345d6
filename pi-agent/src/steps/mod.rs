//! Inside a step's process: what it is asked ([`Job`]), what it answers ([`StepResult`]), one file per kind of source.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{Settings, Source, StateDirectory};
use crate::error::{Error, Kind};
use crate::health::{Trouble, is_confirmed};
use crate::monitor::{Monitor, Problem};
use crate::repository::record_locks;
use crate::restore_test::{self, Earlier, Tested};

pub mod child;
mod claim;
pub mod directory;
pub(crate) mod future;
pub(crate) mod inside;
mod maintenance;
pub mod points;
pub mod postgres;
pub mod quiet;

/// Everything a step's process needs; it reads no configuration of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Identifies the run.
    pub run_id: String,
    /// The settings of the whole run.
    pub settings: Settings,
    /// The agent's own directory.
    pub state_directory: StateDirectory,
    /// Which step.
    pub step: String,
    /// What to do.
    pub task: Task,
    /// When to stop as `unfinished`.
    pub deadline: Option<Timestamp>,
    /// False until an earlier step of this run has seen that `URL/host.json` is ours, and has renewed it.
    pub place_verified: bool,
    /// A usable backup of any step was made to this storage before.
    pub place_known: bool,
    /// Facts this step recorded earlier (see [`StepResult::facts`]).
    pub facts: BTreeMap<String, String>,
    /// The task's `keep_everything` says no more than that a later run is on record: see [`crate::health::Doubt`].
    pub by_record: bool,
    /// The `agent` step: what goes to `URL/status.json`. Made as the step began, so it tells of this one's last time.
    pub status: Option<String>,
}

/// The fact that a usable backup was made to that storage.
pub(crate) const PLACE: &str = "place";

/// Begins a fact of what a path was when it was last backed up.
pub(crate) const SOURCE: &str = "source:";
/// Begins a fact of where a path led when it was last backed up.
pub(crate) const PLACE_OF: &str = "place-of:";

/// A fact of that key tells of the source, and not of what lies in storage.
pub(crate) fn is_of_source(key: &str) -> bool {
    key.starts_with(SOURCE)
        || key.starts_with(PLACE_OF)
        || [inside::INSIDE, inside::IDLE_EXCLUDES].contains(&key)
        || postgres::OF_SERVER.contains(&key)
}

impl Job {
    /// A usable backup of this step was made to this storage before.
    pub fn was_here(&self) -> bool {
        self.facts.get(PLACE) == Some(&self.settings.storage.location.to_string())
    }

    /// `keep_everything`, unless it is a record's word against that of the storage's server. `ahead`: by how much the clock is before
    /// the server's.
    fn doubt<'a>(&self, keep_everything: Option<&'a str>, ahead: Option<SignedDuration>) -> Option<&'a str> {
        keep_everything.filter(|_| !(self.by_record && is_confirmed_by_storage(ahead)))
    }
}

/// The storage's server itself says that the clock is right.
fn is_confirmed_by_storage(ahead: Option<SignedDuration>) -> bool {
    ahead.is_some() && is_confirmed(ahead)
}

/// What a step may be asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Make a restore point, forget what retention no longer keeps, then the maintenance that is due.
    Backup {
        /// PostgreSQL: a full backup is due.
        full: bool,
        /// Directories: prune is due (done only after a `succeeded` backup and with a trusted clock).
        prune: bool,
        /// Directories: the check that is due.
        check: Option<Check>,
        /// Why the clock must not be trusted with deleting; then nothing is forgotten, expired or pruned.
        keep_everything: Option<String>,
    },
    /// Only prune (or, for PostgreSQL, expire).
    Prune {
        /// Why the clock must not be trusted with deleting; then it fails.
        keep_everything: Option<String>,
    },
    /// Only check.
    Check(Check),
    /// Restore for real into a temporary place, and look at what came back.
    RestoreTest(Earlier),
    /// The `agent` step: fetch the newest saved state database to this path.
    FetchState {
        /// Where to.
        to: PathBuf,
    },
}

impl Task {
    /// The same with a clock that was found wrong meanwhile.
    #[must_use]
    pub fn without_trust(&self, found: Option<&String>) -> Self {
        let mut task = self.clone();
        if let Self::Backup { keep_everything, .. } | Self::Prune { keep_everything } = &mut task
            && let Some(why) = found
        {
            keep_everything.get_or_insert_with(|| why.clone());
        }
        task
    }
}

/// How much of a repository is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Index, trees and packs present with the right sizes.
    Structure,
    /// And the data of part `part` (0-based) of `of`.
    Data {
        /// Which part.
        part: u32,
        /// Of how many.
        of: u32,
    },
}

/// What begins the record of a check that read data.
const CHECK_DATA: &str = "check-data:";

impl Check {
    /// The name under which it is recorded: `check`, or `check-data:PART/OF`, in which people count from one.
    pub fn recorded(self) -> String {
        match self {
            Self::Structure => "check".into(),
            Self::Data { part, of } => format!("{CHECK_DATA}{}/{of}", part + 1),
        }
    }

    /// The check of that name; `None`: it read no data, or the name is none of ours.
    fn of_record(what: &str) -> Option<Self> {
        let (number, of) = what.strip_prefix(CHECK_DATA)?.split_once('/')?;
        let (number, of) = (number.parse::<u32>().ok()?, of.parse().ok()?);
        (1..=of).contains(&number).then(|| Self::Data { part: number - 1, of })
    }

    /// The part of `of` that follows the one of that record; the first one if it was one of another number of parts.
    pub fn after(recorded: Option<&str>, of: u32) -> Self {
        let part = match recorded.and_then(Self::of_record) {
            Some(Self::Data { part, of: parts }) if parts == of => (part + 1) % of,
            _ => 0,
        };
        Self::Data { part, of }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All well.
    Succeeded,
    /// A usable restore point exists, but something needs a look.
    Degraded,
    /// Stopped at `max-duration`; what is uploaded is kept.
    Unfinished,
    /// No usable restore point was made (or the repository is damaged).
    Failed,
    /// Not run.
    Skipped,
    /// A signal, a crash or a power cut ended it.
    Interrupted,
}

impl Outcome {
    /// The word used in JSON, in the state database and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Degraded => "degraded",
            Self::Unfinished => "unfinished",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
        }
    }

    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Succeeded, Self::Degraded, Self::Unfinished, Self::Failed, Self::Skipped, Self::Interrupted]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
    }

    /// A restore point exists that one would want to restore.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Succeeded | Self::Degraded)
    }
}

/// What a step's process answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepResult {
    /// How it ended.
    pub outcome: Outcome,
    /// The error of a failure; for `degraded` and `unfinished` the reason.
    pub error: Option<Problem>,
    /// Further problems, each worth a line in the report.
    pub problems: Vec<Problem>,
    /// Id of the restore point made: snapshot id or pgBackRest label.
    pub restore_point: Option<String>,
    /// Figures.
    pub figures: Figures,
    /// Requests and bytes to and from storage (ours; pgBackRest's own are not counted).
    pub requests: Requests,
    /// `URL/host.json` was seen to be ours, and says that this run writes.
    pub place_verified: bool,
    /// Kept in the state database for this step's next [`Job::facts`]; written only with `succeeded` and `degraded`.
    pub facts: BTreeMap<String, String>,
    /// Maintenance that was done, and how it ended.
    pub maintenance: Vec<Maintenance>,
    /// Why the clock is not trusted, if storage contradicts it: the date of its answers, or a newer restore point.
    #[serde(default)]
    pub clock: Option<String>,
    /// The storage's server says that the clock is right: what is on record of later than now, a wrong one made.
    #[serde(default)]
    pub clock_confirmed: bool,
    /// What was wrong with the machine meanwhile. The supervisor sees that.
    #[serde(default)]
    pub machine: Vec<Trouble>,
    /// What a restore test saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<Tested>,
}

/// Sizes and counts of one step. `None`: not known or not meaningful for this kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Bytes of the source that the restore point covers.
    pub bytes_processed: Option<u64>,
    /// Bytes new in the repository, before compression.
    pub bytes_added: Option<u64>,
    /// Bytes written to the repository, compressed and encrypted.
    pub bytes_added_stored: Option<u64>,
    /// Bytes of the whole repository of this step.
    pub bytes_stored: Option<u64>,
    /// Files covered.
    pub files: Option<u64>,
    /// Files new or changed.
    pub files_changed: Option<u64>,
    /// Files that could not be read.
    pub files_skipped: Option<u64>,
    /// Files that vanished while being read.
    pub files_vanished: Option<u64>,
    /// Restore points of this host that there are now.
    pub restore_points: Option<u64>,
    /// And those of other hosts, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub points_of_others: BTreeMap<String, u64>,
    /// Bytes of all of them, each as it would be restored; over `bytes_stored` it says what deduplication and compression save.
    pub bytes_restorable: Option<u64>,
    /// Bytes that the step wrote to this machine's disks, as the kernel counts pages that become dirty; without what went into the storage.
    pub bytes_written_here: Option<u64>,
    /// How long the writer of the live part was kept quiet.
    pub quiet_milliseconds: Option<u64>,
    /// Bytes of memory that the largest process of the step had at its peak.
    pub peak_memory: Option<u64>,
}

/// Requests by kind and bytes both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// GET of objects.
    pub get: u64,
    /// PUT.
    pub put: u64,
    /// LIST pages.
    pub list: u64,
    /// HEAD.
    pub head: u64,
    /// DELETE.
    pub delete: u64,
    /// Tries again after a failure, all kinds (also counted in their kind).
    pub retried: u64,
    /// Body bytes sent.
    pub bytes_up: u64,
    /// Body bytes received.
    pub bytes_down: u64,
}

/// A check, forget or prune that was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Maintenance {
    /// `forget`, `prune`, `check`, `check-data:PART/OF`, `expire`, `verify`, `dump`; for the dumps `dump-forget`, ….
    pub what: String,
    /// None: it went well.
    pub problem: Option<Problem>,
    /// Figures a person may want: "removed 3 snapshots", "freed 120 MiB".
    pub note: String,
}

impl StepResult {
    /// An empty result of that outcome.
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            error: None,
            problems: Vec::new(),
            restore_point: None,
            figures: Figures::default(),
            requests: Requests::default(),
            place_verified: false,
            facts: BTreeMap::new(),
            maintenance: Vec::new(),
            clock: None,
            clock_confirmed: false,
            machine: Vec::new(),
            tested: None,
        }
    }

    /// What was done is there and can be used, and needs a look.
    pub(crate) fn degrade(&mut self, problem: Problem) {
        if self.outcome == Outcome::Succeeded {
            self.outcome = Outcome::Degraded;
        }
        self.error.get_or_insert(problem.clone());
        self.problems.push(problem);
    }

    /// Notes what maintenance was done; one that failed makes a success degraded.
    fn note(&mut self, maintenance: Maintenance) {
        if let Some(problem) = &maintenance.problem
            && self.outcome != Outcome::Failed
        {
            if self.outcome == Outcome::Succeeded {
                self.outcome = Outcome::Degraded;
                self.error = Some(problem.clone());
            } else {
                self.problems.push(problem.clone());
            }
        }
        self.maintenance.push(maintenance);
    }

    /// What an error makes of a step: out of time, it is unfinished.
    pub(crate) fn ended_by(error: &Error) -> Self {
        match error.kind() {
            Kind::OutOfTime => Self { error: Some(error.into()), ..Self::of(Outcome::Unfinished) },
            _ => Self::failed(error),
        }
    }

    /// A failure because of that error.
    pub fn failed(error: &Error) -> Self {
        Self { error: Some(error.into()), ..Self::of(Outcome::Failed) }
    }
}

/// Deleting was asked for, and the clock is not trusted.
fn nothing_removed(why: &str) -> Error {
    Error::new(format!("nothing is removed: {why}"))
        .hint(
            "look at `timedatectl`: `timedatectl set-ntp true`; once the network has set the clock, a restore point of the future says nothing \
             against it; what is kept too long does no harm",
        )
}

/// Does the job; a failure is a result too.
pub fn perform(job: &Job, monitor: &Monitor) -> StepResult {
    let Some(step) = job.settings.steps.iter().find(|step| step.name == job.step) else {
        return StepResult::failed(&Error::new(format!("there is no step \"{}\"", job.step)));
    };
    record_locks(&job.state_directory);
    if let Task::RestoreTest(earlier) = &job.task {
        // It is no backup: it leaves no facts.
        return restore_test::run(job, step, earlier.clone(), monitor)
            .unwrap_or_else(|error| StepResult::failed(&error));
    }
    let result = match &step.source {
        Source::Postgres(postgres) => postgres::run(job, step, postgres, monitor),
        Source::Directory(directory) | Source::Agent(directory) => directory::run(job, step, directory, monitor),
    };
    let mut result = result.unwrap_or_else(|error| StepResult::ended_by(&error));
    result.facts.insert(PLACE.into(), job.settings.storage.location.to_string());
    result
}
