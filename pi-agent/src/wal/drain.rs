//! What `pi-agent wal push` does: empties the spools, and, for the timer, tries again for a while when the storage is away. For a
//! person it also looks at what never came into a spool.

use std::time::{Duration, Instant};

use log::{error, info};

use super::left_behind::{Behind, Scope, hand_over};
use super::{Record, Whose, push, spool_directory, waiting};
use crate::config::{Postgres, Settings, Step};
use crate::error::Result;
use crate::monitor::Problem;

/// The first pause before another try; each next one is twice as long.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How that went.
#[derive(Debug)]
pub struct Drained {
    /// Everything in the spools is in the repositories now.
    pub spools: bool,
    /// What servers have not handed over, and could not be taken from them.
    pub left: Vec<Problem>,
    /// Clusters that are there, and are others than those of the backups.
    pub others: Vec<Problem>,
    /// WAL of other clusters was in the spools.
    foreign: bool,
}

impl Drained {
    /// Nothing waits anywhere.
    pub fn all(&self) -> bool {
        self.spools && self.left.is_empty() && self.others.is_empty() && !self.foreign
    }
}

/// Empties the spools of the steps named (none named: all), and takes what servers that do not run have not handed over.
///
/// # Errors
/// A name that no step has.
pub fn drain(settings: &Settings, names: &[String], record: &Record) -> Result<Drained> {
    drain_of(settings, names, record, Scope::All)
}

/// The same for a database that was restored just now: of what lies in its `pg_wal`, only the history of its new timeline is its own.
///
/// # Errors
/// A name that no step has.
pub fn drain_restored(settings: &Settings, names: &[String], record: &Record) -> Result<Drained> {
    drain_of(settings, names, record, Scope::Marked)
}

fn drain_of(settings: &Settings, names: &[String], record: &Record, scope: Scope) -> Result<Drained> {
    let mut drained = Drained { spools: true, left: Vec::new(), others: Vec::new(), foreign: false };
    for (step, postgres) in settings.databases(names)? {
        let empty = || empty(settings, step, postgres, record, Duration::ZERO);
        let first = empty();
        drained.spools &= first.all;
        drained.foreign |= first.foreign;
        let behind = hand_over(settings, step, postgres, scope, &mut || {
            let again = empty();
            drained.spools &=
                again.all || waiting(&spool_directory(settings, postgres)).is_ok_and(|files| files.is_empty());
            again.all
        });
        match behind {
            Some(Behind::Lost(problem)) => {
                tell(step, &problem);
                drained.left.push(problem);
            }
            Some(Behind::Foreign(problem)) => {
                tell(step, &problem);
                drained.others.push(problem);
            }
            None => {}
        }
    }
    Ok(drained)
}

/// Empties the spools alone, as the timer does; true when everything in them is in the repositories now.
/// What may pass is tried again for `retry_for`, counted anew from every file that got through.
///
/// # Errors
/// A name that no step has.
pub fn empty_spools(settings: &Settings, names: &[String], record: &Record, retry_for: Duration) -> Result<bool> {
    let mut all_well = true;
    for (step, postgres) in settings.databases(names)? {
        let emptied = empty(settings, step, postgres, record, retry_for);
        all_well &= emptied.all && !emptied.foreign;
    }
    Ok(all_well)
}

/// How one spool was emptied.
struct Emptied {
    /// All of the stanza's cluster is in the repository.
    all: bool,
    /// There was WAL of other clusters.
    foreign: bool,
}

fn empty(settings: &Settings, step: &Step, postgres: &Postgres, record: &Record, retry_for: Duration) -> Emptied {
    let mut pause = PAUSE;
    let mut moved = Instant::now();
    let mut pushed = 0;
    let mut foreign = Vec::new();
    let problems = loop {
        let (problems, try_again) = match push(settings, step, postgres, Whose::Unknown(record)) {
            Ok(report) => {
                pushed += report.pushed;
                foreign = report.foreign;
                if let Some(hole) = &report.hole {
                    // The alarms tell it until a backup has closed it.
                    error!(STEP = step.name.as_str(); "{}: {hole}", step.name);
                }
                if report.pushed > 0 {
                    moved = Instant::now();
                    pause = PAUSE;
                    if report.problems.is_empty() && report.waiting > 0 {
                        continue; // More came while these went.
                    }
                }
                (report.problems, report.try_again)
            }
            Err(error) => (vec![Problem::from(&error)], error.is_transient()),
        };
        if !try_again || moved.elapsed() + pause > retry_for {
            break problems;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    if pushed > 0 {
        info!(STEP = step.name.as_str(); "{}: {pushed} WAL files pushed", step.name);
    }
    problems.iter().chain(&foreign).for_each(|problem| tell(step, problem));
    Emptied { all: problems.is_empty(), foreign: !foreign.is_empty() }
}

/// Says what is wrong with a step's WAL.
pub fn tell(step: &Step, problem: &Problem) {
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    error!(STEP = step.name.as_str(); "{}: {}{hint}", step.name, problem.message);
}
