//! The alarms: each a small pure function of the evidence and the thresholds.

pub mod backups;
pub mod history;
pub mod keys;
pub mod machine;
pub mod restores;
pub mod wal;

use super::evidence::{Evidence, StepEvidence};
use super::registry::{Found, Verdict};

/// One verdict for each step; unknown while the history cannot be read.
fn by_step(evidence: &Evidence, judge: impl Fn(&StepEvidence) -> Verdict) -> Vec<Found> {
    let verdict = |step| if evidence.unreadable.is_some() { Verdict::Unknown } else { judge(step) };
    evidence.steps.iter().map(|step| (Some(step.name.clone()), verdict(step))).collect()
}

/// One verdict about the whole host; unknown while the history cannot be read.
fn by_history(evidence: &Evidence, judge: impl FnOnce() -> Verdict) -> Vec<Found> {
    vec![(None, if evidence.unreadable.is_some() { Verdict::Unknown } else { judge() })]
}

#[cfg(test)]
mod tests;
