//! A place in storage that a step works in: first it is looked at, and only when the keys open what lies there is it written down
//! that this machine writes.

use std::path::Path;
use std::sync::OnceLock;

use log::warn;

use super::{Job, StepResult, Task};
use crate::error::Result;
use crate::monitor::Problem;
use crate::storage::disk::{self, Disk};
use crate::storage::place::{self, Machine, Owner, Unowned};
use crate::storage::{Store, token};

/// What was seen there.
pub struct Claim<'a> {
    job: &'a Job,
    root: Store,
    /// `None`: an earlier step of this run has looked, and has written it down.
    seen: Option<Seen>,
    /// What this step has written down.
    written: OnceLock<Owner>,
}

struct Seen {
    /// `None`: it was nobody's.
    owner: Option<Owner>,
    machine: Machine,
    disk: Option<Disk>,
}

/// Does a step's work in the place that belongs to this machine. Whatever comes of the work, its result says what there is to tell of the
/// place.
///
/// # Errors
/// The place is not this machine's: see [`disk::check`] and [`place::verify`]. Later failures are results.
pub fn in_our_place(
    job: &Job,
    root: &Store,
    work: impl FnOnce(&Claim<'_>) -> Result<StepResult>,
) -> Result<StepResult> {
    let claim = Claim::verify(job, root)?;
    let mut result = work(&claim).unwrap_or_else(|error| StepResult::ended_by(&error));
    result.place_verified = claim.seen.is_none() || claim.written.get().is_some();
    if let Some(problem) = claim.rename() {
        result.degrade(problem);
    }
    Ok(result)
}

impl<'a> Claim<'a> {
    /// Makes sure that storage is this machine's, and where its backups were before: each step that it is on the same disk,
    /// once a run that it is ours.
    fn verify(job: &'a Job, root: &Store) -> Result<Self> {
        let (system, location) = (Path::new("/"), &job.settings.storage.location);
        // A disk may go between two steps; to look costs no request.
        let disk = disk::check(system, &job.state_directory, location)?;
        let mut this = Self { job, root: root.clone(), seen: None, written: OnceLock::new() };
        if job.place_verified {
            return Ok(this);
        }
        let machine = Machine::of(system, &job.settings.host)?;
        let tokens = token::known(&job.state_directory, location);
        let unowned = match job.task {
            _ if job.place_known => Unowned::Lost,
            Task::Backup { .. } => Unowned::New,
            _ => Unowned::Unused,
        };
        let owner = place::verify(root, &machine, unowned, disk.as_ref(), &tokens)?;
        let is_new = owner.is_none();
        this.seen = Some(Seen { owner, machine, disk });
        if is_new {
            // Cut off with something in it and nobody's name, it would be taken for another's.
            this.write_down()?;
        }
        Ok(this)
    }

    /// Writes down in storage that this machine writes now: before it does, and when the keys have opened what is there.
    ///
    /// # Errors
    /// Storage fails.
    pub fn write_down(&self) -> Result<()> {
        let Some(Seen { owner, machine, disk }) = self.seen.as_ref().filter(|_| self.written.get().is_none()) else {
            return Ok(());
        };
        let (directory, location) = (&self.job.state_directory, &self.job.settings.storage.location);
        // A full state disk costs no backup, and is told elsewhere; the marker on the disk says the same.
        let token = token::next(directory, location).ok();
        // Under the name it has there: it gets a new one when that is told. See [`Self::rename`].
        let host = owner.as_ref().map_or(&machine.host, |owner| &owner.host);
        let as_before = Machine { host: host.clone(), ..machine.clone() };
        let written = place::renew(&self.root, owner.as_ref(), &as_before, disk.as_ref(), token)?;
        let _ = disk::remember(directory, location, disk.as_ref());
        self.written.get_or_init(|| written);
        Ok(())
    }

    /// Writes down a new name of this machine; what there is to tell of that. A step that is killed before leaves the old name there, so
    /// that the next one tells it.
    fn rename(&self) -> Option<Problem> {
        let (Some(Seen { machine, disk, .. }), Some(written)) = (&self.seen, self.written.get()) else { return None };
        let before = written.renamed(machine)?;
        let (root, now) = (&self.root, &machine.host);
        let message = format!("{root} was written by the machine {before} until now, and this one is {now}");
        warn!("{message}");
        if let Err(error) = place::renew(root, Some(written), machine, disk.as_ref(), None) {
            warn!("{}: the next run tells it again", error.chain());
        }
        let hint = format!(
            "nothing of {before} is ever forgotten, for there may be two: if this card is a clone, give it a place of its own in [storage] url and run \
             pi-agent adopt on {before}; if it has a new name, there is nothing to do"
        );
        Some(Problem { message, hint: Some(hint) })
    }
}
