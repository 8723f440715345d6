//! What `pi-agent wal push` does: empties the spools, and, for the timer, tries again for a while when the storage is away. For a
//! person it also looks at what never came into a spool.

use std::time::{Duration, Instant};

use log::{error, info};

use super::{Record, Whose, left_behind, push, spool_directory, waiting};
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
}

impl Drained {
    /// Nothing waits anywhere.
    pub fn all(&self) -> bool {
        self.spools && self.left.is_empty()
    }
}

/// Empties the spools of the steps named (none named: all), and takes what servers that do not run have not handed over.
///
/// # Errors
/// A name that no step has.
pub fn drain(settings: &Settings, names: &[String], record: &Record) -> Result<Drained> {
    let mut drained = Drained { spools: true, left: Vec::new() };
    for (step, postgres) in settings.databases(names)? {
        let empty = || empty(settings, step, postgres, record, Duration::ZERO);
        drained.spools &= empty();
        let left = left_behind::hand_over(settings, step, postgres, &mut || {
            let well = empty();
            drained.spools &= well || waiting(&spool_directory(settings, postgres)).is_ok_and(|files| files.is_empty());
            well
        });
        left.iter().for_each(|problem| tell(step, problem));
        drained.left.extend(left);
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
        all_well &= empty(settings, step, postgres, record, retry_for);
    }
    Ok(all_well)
}

fn empty(settings: &Settings, step: &Step, postgres: &Postgres, record: &Record, retry_for: Duration) -> bool {
    let mut pause = PAUSE;
    let mut moved = Instant::now();
    let mut pushed = 0;
    let problems = loop {
        let (problems, try_again) = match push(settings, step, postgres, Whose::Unknown(record)) {
            Ok(report) => {
                pushed += report.pushed;
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
    problems.iter().for_each(|problem| tell(step, problem));
    problems.is_empty()
}

/// Says what is wrong with a step's WAL.
pub fn tell(step: &Step, problem: &Problem) {
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    error!(STEP = step.name.as_str(); "{}: {}{hint}", step.name, problem.message);
}
