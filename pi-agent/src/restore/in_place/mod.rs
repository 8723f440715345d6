//! Putting it back where it was. It is restored beside first, while everything runs; then who uses it is stopped, the old
//! and the new change places in one moment, and who was stopped is started. The old stays beside it until a person removes it.
//!
//! A database is stopped before it is restored: what it took in meanwhile would be lost in silence.

mod swap;
mod users;

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Zoned;

use super::unfinished::Unfinished;
use super::{Request, Restored, beside, directory, postgres};
use crate::config::{Postgres, Settings, Source, StateDirectory, Step, Writer};
use crate::error::{Context, Error, Result};
use crate::lock::RunLock;
use crate::monitor::Monitor;
use crate::run::make_private;
use crate::steps::postgres::container;
use crate::wal;

use swap::Swapped;
use users::Stopped;

/// What would be done.
#[derive(Debug)]
pub struct InPlace<'a> {
    settings: &'a Settings,
    step: &'a Step,
    /// What is put back.
    pub places: Vec<PathBuf>,
    users: Vec<Writer>,
}

impl<'a> InPlace<'a> {
    /// Looks at what is there; nothing is changed.
    ///
    /// # Errors
    /// A path is none of the step's, a disk is mounted there, or who uses it cannot be stopped.
    pub fn plan(settings: &'a Settings, step: &str, paths: &[PathBuf]) -> Result<Self> {
        let step = settings.step(step)?;
        let (places, users) = match &step.source {
            Source::Directory(directory) => {
                let places = if paths.is_empty() { directory.paths.clone() } else { paths.to_vec() };
                let known = |place: &PathBuf| directory.paths.iter().any(|path| place.starts_with(path));
                if let Some(strange) = places.iter().find(|place| !known(place)) {
                    return Err(Error::usage(format!("{} is in no path of {}", strange.display(), step.name)));
                }
                let users = users::of_directory(directory, &places)?;
                (places, users)
            }
            Source::Postgres(database) => {
                super::refuse_paths(step, paths)?;
                let data = data(database)?;
                let users = users::of_database(database, &data)?;
                (vec![data], users)
            }
            Source::Agent(_) => {
                return Err(Error::usage("the agent's own step is not restored in place")
                    .hint("restore it with --to and look at it"));
            }
        };
        for place in &places {
            swap::check(place)?;
        }
        Ok(Self { settings, step, places, users })
    }

    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let replaced = self.places.iter().map(|place| match fs::symlink_metadata(place) {
            Ok(_) => format!("{0} is replaced; what is there now stays as {0}.before-restore-…", place.display()),
            Err(_) => format!("{} is made", place.display()),
        });
        let stopped = self.users.iter().map(|user| format!("{} is stopped, and started again", users::name(user)));
        replaced.chain(stopped).collect()
    }

    /// Does it. `request.to` is not used.
    ///
    /// # Errors
    /// As of a restore into a directory; then the old is where it was, and who was stopped is started.
    pub fn restore(&self, directory: &StateDirectory, request: &Request, monitor: &Monitor) -> Result<Restored> {
        make_private(directory.path())?;
        let _lock = RunLock::take(&directory.run_lock(), "restore")?;
        match &self.step.source {
            Source::Postgres(database) => self.database(directory, database, request, monitor),
            _ => self.directories(directory, request, monitor),
        }
    }

    fn directories(&self, directory: &StateDirectory, request: &Request, monitor: &Monitor) -> Result<Restored> {
        // 1. Everything beside its place.
        let mut restored: Option<Restored> = None;
        let mut swaps = Vec::new();
        for place in &self.places {
            let staging = staging(place)?;
            // One snapshot for all of them.
            let at = restored
                .as_ref()
                .map_or_else(|| request.at.clone(), |first| super::At::Id(first.restore_point.clone()));
            let one = Request { to: staging.clone(), at, paths: vec![place.clone()], overwrite: false };
            let one = prepare(&self.step.name, one)?;
            let mut found = directory::restore(self.settings, self.step, &one, monitor)?;
            if let Some(problem) = found.problems.first() {
                let count = found.problems.len();
                return Err(Error::new(format!(
                    "nothing was replaced, for not all came back as it was ({count} problems): {}",
                    problem.message
                ))
                .hint(format!("what there is, is in {}; restore with --to for the whole list", staging.display())));
            }
            if let Some(first) = restored.take() {
                found.bytes = Some(found.bytes.unwrap_or(0) + first.bytes.unwrap_or(0));
            }
            restored = Some(found);
            swaps.push((staging.join(place.strip_prefix("/").unwrap_or(place)), staging));
        }
        let mut restored = restored.ok_or_else(|| Error::usage(format!("{} has no paths", self.step.name)))?;

        // 2. In one moment.
        monitor.phase("putting it into its place");
        let stopped = Stopped::begin(directory, &self.step.name, &self.users)?;
        let remarks = stopped.remarks();
        let swapped = self.swap(&swaps)?;
        let started = stopped.end();
        for (_, staging) in &swaps {
            // Nothing but the directories above it is left in there.
            fs::remove_dir_all(staging).context(|| format!("remove {}", staging.display()))?;
            Unfinished::end(staging)?;
        }
        restored.problems.extend(started.err().map(|error| (&error).into()));
        restored.next = remarks;
        if matches!(&self.step.source, Source::Directory(source) if !source.exclude.is_empty()) {
            restored.next.push("What the step excludes is in the old alone.".into());
        }
        restored.next.extend(kept(&swapped));
        Ok(restored)
    }

    fn database(
        &self,
        directory: &StateDirectory,
        database: &Postgres,
        request: &Request,
        monitor: &Monitor,
    ) -> Result<Restored> {
        let place = &self.places[0];
        if fs::read_dir(place.join("pg_tblspc")).is_ok_and(|mut spaces| spaces.next().is_some()) {
            return Err(Error::usage(format!("the database in {} has tablespaces", place.display()))
                .hint("restore with --to DIR: it says how to bring them into their places"));
        }
        let staging = staging(place)?;
        let one = Request { to: staging.clone(), paths: Vec::new(), overwrite: false, ..request.clone() };
        let one = prepare(&self.step.name, one)?;

        // 1. Nobody writes, and all that was written is in the repository: it may be wanted.
        monitor.phase("stopping the server");
        let stopped = Stopped::begin(directory, &self.step.name, &self.users)?;
        if users::server(place).is_some() {
            return Err(Error::transient(format!("the server in {} still runs", place.display())));
        }
        monitor.phase("pushing WAL");
        let pushed = wal::drain(self.settings, std::slice::from_ref(&self.step.name), std::time::Duration::ZERO);
        if !pushed? && one.at == super::At::Latest {
            return Err(Error::new("some WAL is not in the repository: the newest moment would be lost")
                .hint("`pi-agent wal push` says why; an older moment is restored with --at TIME"));
        }

        // 2. Beside it, then in its place.
        let user = container::user(self.settings, self.step, database)?;
        let mut restored = postgres::restore_original(self.settings, self.step, database, user, &one, monitor)?;
        monitor.phase("putting it into its place");
        let remarks = stopped.remarks();
        let swapped = swap::swap(&staging, place, &stamp())?;
        Unfinished::end(&staging)?;
        let started = stopped.end();
        restored.problems.extend(started.err().map(|error| (&error).into()));
        restored.next = remarks;
        if self.users.is_empty() {
            restored
                .next
                .push("It did not run before. Start it as always, for example: systemctl start postgresql".into());
        }
        restored.next.push(format!("Then make a backup of it: pi-agent run {}", self.step.name));
        restored.next.extend(kept(&[swapped]));
        Ok(restored)
    }

    /// All or none.
    fn swap(&self, swaps: &[(PathBuf, PathBuf)]) -> Result<Vec<Swapped>> {
        let stamp = stamp();
        let mut done: Vec<Swapped> = Vec::new();
        for ((new, staging), place) in swaps.iter().zip(&self.places) {
            match put(new, staging, place, &stamp) {
                Ok(swapped) => done.push(swapped),
                Err(error) => {
                    for (swapped, (new, _)) in done.iter().zip(swaps).rev() {
                        swapped.undo(new)?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(done)
    }
}

/// What is above it may be gone, too: then that comes from the snapshot, with its owners and modes.
fn put(new: &Path, staging: &Path, place: &Path, stamp: &str) -> Result<Swapped> {
    let missing = |path: &&Path| !path.parent().is_some_and(Path::exists);
    let above = place.ancestors().take_while(missing).count();
    let (new, place) = (new.ancestors().nth(above), place.ancestors().nth(above));
    match (new, place) {
        (Some(new), Some(place)) if new.starts_with(staging) => swap::swap(new, place, stamp),
        _ => Err(Error::new("there is no directory to put it into")),
    }
}

fn data(database: &Postgres) -> Result<PathBuf> {
    container::data_on_this_machine(database).ok_or_else(|| {
        Error::new("the place of the data is known to the container alone, and it is not there")
            .hint("create the container (docker compose up --no-start), then restore again")
    })
}

/// On the same file system: beside it, or beside the first directory above it that is missing.
fn staging(place: &Path) -> Result<PathBuf> {
    let child = place.ancestors().find(|path| path.parent().is_some_and(Path::exists));
    let child = child.ok_or_else(|| Error::usage(format!("{} cannot be replaced", place.display())))?;
    // Two paths of a step may lie below the same missing one.
    let name = place.file_name().unwrap_or_default();
    Ok(beside(&child.with_file_name(name), ".restoring"))
}

/// What a killed restore left is gone on with, or removed: it was ours.
fn prepare(step: &str, request: Request) -> Result<Request> {
    let to = &request.to;
    if super::is_empty(to)? {
        return Ok(request);
    }
    let Some(begun) = Unfinished::of(to) else {
        return Err(Error::usage(format!("{} is in the way", to.display())).hint("move it away"));
    };
    if let Some(request) = begun.continues(step, &request) {
        return Ok(request);
    }
    fs::remove_dir_all(to).context(|| format!("remove the unfinished {}", to.display()))?;
    Unfinished::end(to)?;
    Ok(request)
}

/// A server works on that data directory.
pub(super) fn runs(data: &Path) -> bool {
    users::server(data).is_some()
}

fn stamp() -> String {
    Zoned::now().strftime("%Y%m%d-%H%M%S").to_string()
}

fn kept(swapped: &[Swapped]) -> Vec<String> {
    let kept: Vec<_> = swapped.iter().filter_map(|swapped| swapped.kept.as_deref()).map(directory::quoted).collect();
    if kept.is_empty() {
        return Vec::new();
    }
    vec![
        "What was there before is kept, and takes room until you are sure and type:".into(),
        format!("  rm -rf {}", kept.join(" ")),
    ]
}
