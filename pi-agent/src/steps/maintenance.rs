//! Keeping a file repository in order: forget, prune, check; how each went, in words.

use super::{Check, Maintenance};
use crate::error::{Error, Kind};
use crate::monitor::{Monitor, Problem};
use crate::report::words;
use crate::repository::{Purpose, Repository};

/// Findings that are remembered one by one; there may be one for each pack.
const TOLD: usize = 100;

/// What became of old restore points.
#[derive(Default)]
pub(super) struct Tidied {
    /// What was done.
    pub(super) done: Vec<Maintenance>,
    /// The snapshots are forgotten.
    pub(super) forgotten: bool,
    /// Worth a line, though nothing is wrong.
    pub(super) remarks: Vec<Problem>,
}

/// Forgets these snapshots, if there are any, and then prunes, if that is due: as the only one at work on the repository. While another
/// is, both wait for another night.
pub(super) fn tidy(repository: &Repository, victims: &[String], prune_is_due: bool, monitor: &Monitor) -> Tidied {
    let mut tidied = Tidied::default();
    if victims.is_empty() && !prune_is_due {
        return tidied;
    }
    // Nothing is to be deleted by a clock that is not trusted, so this one is.
    let lock = match repository.lock(Purpose::Delete, true, None, monitor) {
        Ok(lock) => lock,
        Err(error) if error.kind() == Kind::Locked => {
            let message = format!("nothing is forgotten or pruned this time, but the next: {}", error.chain());
            tidied.remarks.push(Problem { message, hint: error.advice().map(str::to_owned) });
            return tidied;
        }
        Err(error) => {
            tidied.done.push(failed(if prune_is_due { "prune" } else { "forget" }, &error));
            return tidied;
        }
    };
    if !victims.is_empty() {
        let forgotten = forget(repository, victims, monitor);
        tidied.forgotten = forgotten.problem.is_none();
        tidied.done.push(forgotten);
    }
    if prune_is_due {
        tidied.done.push(prune(repository, monitor));
    }
    tidied.remarks.extend(lock.release());
    tidied
}

/// Forgets these snapshots.
fn forget(repository: &Repository, victims: &[String], monitor: &Monitor) -> Maintenance {
    monitor.phase("forgetting snapshots");
    match repository.forget(victims) {
        Ok(()) => done("forget", format!("removed {} snapshots", victims.len())),
        Err(error) => failed("forget", &error),
    }
}

/// Frees what nothing needs any more.
pub(super) fn prune(repository: &Repository, monitor: &Monitor) -> Maintenance {
    match repository.prune(monitor) {
        Ok(pruned) => done(
            "prune",
            format!(
                "freed {}, marked {} to be freed by the next",
                words::size(pruned.freed),
                words::size(pruned.marked)
            ),
        ),
        Err(error) => failed("prune", &error),
    }
}

/// Checks; also whether damage was found.
pub(super) fn check(repository: &Repository, check: Check, monitor: &Monitor) -> (Maintenance, bool) {
    let what = check.recorded();
    match repository.check(check, monitor) {
        Ok(findings) if findings.errors.is_empty() => {
            let note = format!("no damage, {} leftovers of interrupted backups", findings.leftovers);
            (done(&what, note), false)
        }
        Ok(findings) => {
            let (count, first) = (findings.errors.len(), &findings.errors[0]);
            let message = format!("repository damaged: {count} findings, the first: {first}");
            let hint = format!(
                "do not prune; pi-agent run stores again what is still there, then pi-agent repair says what can be mended; to look: \
                 restic -r {} check --read-data",
                repository.restic_name()
            );
            let problem = Some(Problem { message, hint: Some(hint) });
            let told = &findings.errors[..count.min(TOLD)];
            (Maintenance { what, problem, note: told.join("; ") }, true)
        }
        Err(error) => (failed(&what, &error), false),
    }
}

/// It went well.
pub(super) fn done(what: &str, note: String) -> Maintenance {
    Maintenance { what: what.into(), problem: None, note }
}

/// It did not.
pub(super) fn failed(what: &str, error: &Error) -> Maintenance {
    Maintenance { what: what.into(), problem: Some(error.into()), note: String::new() }
}
