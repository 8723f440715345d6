//! What `pi-agent wal push` does: empties the spools, and tries again for a while when the storage is away.

use std::time::{Duration, Instant};

use log::{error, info};

use super::{Record, Whose, push};
use crate::config::{Postgres, Settings, Step};
use crate::error::Result;
use crate::monitor::Problem;

/// The first pause before another try; each next one is twice as long.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Empties the spools of the steps named (none named: all); true when everything in them is in the repositories now.
/// What may pass is tried again for `retry_for`, counted anew from every file that got through.
///
/// # Errors
/// A name that no step has.
pub fn drain(settings: &Settings, names: &[String], record: &Record, retry_for: Duration) -> Result<bool> {
    let mut all_well = true;
    for (step, postgres) in settings.databases(names)? {
        all_well &= drain_one(settings, step, postgres, record, retry_for);
    }
    Ok(all_well)
}

fn drain_one(settings: &Settings, step: &Step, postgres: &Postgres, record: &Record, retry_for: Duration) -> bool {
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
