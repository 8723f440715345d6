//! A place in storage that a step may write to: first it is looked at, and only when the keys open what lies there is it written down
//! that this machine writes.

use std::path::Path;

use log::warn;

use super::Job;
use crate::error::Result;
use crate::monitor::Problem;
use crate::storage::disk::{self, Disk};
use crate::storage::place::{self, Machine, Owner};
use crate::storage::{Store, token};

/// What was seen there.
pub struct Claim<'a> {
    job: &'a Job,
    root: Store,
    /// `None`: an earlier step of this run has looked, and has written it down.
    seen: Option<Seen>,
}

struct Seen {
    owner: Owner,
    machine: Machine,
    disk: Option<Disk>,
}

impl<'a> Claim<'a> {
    /// Makes sure that storage is this machine's, and where its backups were before: each step that it is on the same disk,
    /// once a run that it is ours.
    ///
    /// # Errors
    /// See [`disk::check`] and [`place::verify`].
    pub fn verify(job: &'a Job, root: &Store) -> Result<Self> {
        let (system, location) = (Path::new("/"), &job.settings.storage.location);
        // A disk may go between two steps; to look costs no request.
        let disk = disk::check(system, &job.state_directory, location)?;
        let mut this = Self { job, root: root.clone(), seen: None };
        if job.place_verified {
            return Ok(this);
        }
        let machine = Machine::of(system, &job.settings.host)?;
        let tokens = token::known(&job.state_directory, location)?;
        let owner = place::verify(root, &machine, job.was_here(), disk.as_ref(), &tokens)?;
        let is_new = owner.written.is_none();
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
        let Some(Seen { owner, machine, disk }) = &self.seen else { return Ok(()) };
        let (directory, location) = (&self.job.state_directory, &self.job.settings.storage.location);
        // A full state disk costs no backup, and is told elsewhere; the marker on the disk says the same.
        let token = token::next(directory, location).ok();
        place::renew(&self.root, owner, machine, disk.as_ref(), token)?;
        let _ = disk::remember(directory, location, disk.as_ref());
        Ok(())
    }

    /// What there is to tell of it, with what was done there.
    pub fn told(&self) -> Option<Problem> {
        let Seen { owner, machine, .. } = self.seen.as_ref()?;
        let before = owner.renamed(machine)?;
        let (root, now) = (&self.root, &machine.host);
        let message = format!("{root} was written by the machine {before} until now, and this one is {now}");
        warn!("{message}");
        let hint = format!(
            "nothing of {before} is ever forgotten, for there may be two: if this card is a clone, give it a place of its own in [storage] url and run \
             pi-agent adopt on {before}; if it has a new name, there is nothing to do"
        );
        Some(Problem { message, hint: Some(hint) })
    }
}
