//! Putting it back where it was. It is restored beside first, while everything runs; then who uses it is stopped, the old
//! and the new change places in one moment, and who was stopped is started. The old stays beside it until a person removes it.
//!
//! A database is stopped before it is restored: what it took in meanwhile would be lost in silence.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::beside::Beside;
use super::outside::{Original, Outside};
use super::users::{self, Stopped};
use super::{Request, Restored, directory, outside, postgres, tablespaces};
use crate::config::{Location, Postgres, Settings, Source, StateDirectory, Step, Writer};
use crate::error::{Error, Result};
use crate::lock::RunLock;
use crate::monitor::{Monitor, Problem};
use crate::run::make_private;
use crate::shown::{shown, typed};
use crate::steps::postgres::container;
use crate::wal::{self, Record};

/// What would be done.
#[derive(Debug)]
pub struct InPlace<'a> {
    settings: &'a Settings,
    step: &'a Step,
    /// What is put back.
    places: Vec<Beside>,
    /// What the links of a database lead to, as far as they lead to it afterwards.
    outside: Vec<Outside>,
    users: Vec<Writer>,
}

impl<'a> InPlace<'a> {
    /// Looks at what is there; nothing is changed.
    ///
    /// # Errors
    /// A path is none of the step's, a disk is mounted there, or who uses it cannot be stopped.
    pub fn plan(settings: &'a Settings, step: &str, paths: &[PathBuf]) -> Result<Self> {
        let step = settings.step(step)?;
        let mut outside = Vec::new();
        let (places, users) = match &step.source {
            Source::Directory(directory) => {
                let places = if paths.is_empty() { directory.paths.clone() } else { paths.to_vec() };
                let known = |place: &PathBuf| directory.paths.iter().any(|path| place.starts_with(path));
                if let Some(strange) = places.iter().find(|place| !known(place)) {
                    return Err(Error::usage(format!("{} is in no path of {}", strange.display(), step.name)));
                }
                let places = outermost(&places);
                let users = users::of_directory(directory, &places)?;
                // A restore changes nothing in storage.
                let storage = match &settings.storage.location {
                    Location::File(storage) => std::slice::from_ref(storage),
                    Location::S3(_) => &[],
                };
                let places = places.iter().map(|place| Ok(Beside::of_path(place, place)?.around(storage)));
                let places = places.collect::<Result<_>>()?;
                (places, users)
            }
            Source::Postgres(database) => {
                super::refuse_paths(step, paths)?;
                let data = data(database)?;
                let users = users::of_database(database, &data)?;
                let place = Beside::of_database(&data)?;
                place.may_take_a_database()?;
                let settled = tablespaces::place(&place);
                let (found, others) = original(&place, &settled, database).outside()?;
                if others > 0 {
                    tablespaces::seen(database.container.as_ref(), &settled)?;
                }
                outside = found;
                (vec![place], users)
            }
            Source::Agent(_) => {
                return Err(Error::usage("the agent's own step is not restored in place")
                    .hint("restore it with --to and look at it"));
            }
        };
        Ok(Self { settings, step, places, outside, users })
    }

    /// Where that is.
    pub fn places(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|place| place.place.as_path())
    }

    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let replaced = self.places.iter().map(|place| match fs::symlink_metadata(&place.place) {
            Ok(there) => {
                let others = if has_other_names(&there) { ", also under its other names (hard links)" } else { "" };
                format!("{} is replaced; what is there now stays as {}{others}", shown(&place.place), place.kept_as())
            }
            Err(_) => format!("{} is made", shown(&place.place)),
        });
        let outside = self.outside.iter().map(|outside| {
            format!("what is in {} is replaced, too, and stays in a directory in there", shown(&outside.place))
        });
        let stopped = self.users.iter().map(|user| format!("{} is stopped, and started again", users::name(user)));
        replaced.chain(outside).chain(stopped).collect()
    }

    /// Does it. `request.to` is not used.
    ///
    /// # Errors
    /// As of a restore into a directory, or something did not come back as it was; then the old is where it was, and who was
    /// stopped is started. Damage of the repository that made no difference is in the result.
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
        let (step, mut at) = (&self.step.name, request.at.clone());
        let mut whole: Option<Restored> = None;
        let mut before = Vec::new();
        for beside in &self.places {
            before.extend(self.end_cut_off(beside)?);
            let mut found = beside.restore(step, &at, std::slice::from_ref(&beside.place), &mut |request| {
                directory::restore(self.settings, self.step, request, monitor)
            })?;
            if let Some(problem) = found.problems.first() {
                let count = found.problems.len();
                return Err(Error::new(format!(
                    "nothing was replaced, for not all came back as it was ({count} problems): {}",
                    problem.message
                ))
                .hint(format!(
                    "what there is, is in {}; restore with --to for the whole list. It takes room, also in backups of what is around it: rm -rf {}",
                    shown(&beside.stage),
                    typed(&beside.stage)
                )));
            }
            // One snapshot for all of them.
            at = super::At::Id(found.restore_point.clone());
            if let Some(first) = whole.take() {
                found.bytes = Some(found.bytes.unwrap_or(0) + first.bytes.unwrap_or(0));
                found.remarks.retain(|remark| !first.remarks.contains(remark));
                found.remarks.extend(first.remarks);
                found.passed_over = first.passed_over;
            }
            whole = Some(found);
        }
        let restored = whole.ok_or_else(|| Error::usage(format!("{step} has no paths")))?;

        // 2. In one moment.
        monitor.phase("putting it into its place");
        let linked =
            self.places().filter(|place| fs::symlink_metadata(place).is_ok_and(|there| has_other_names(&there)));
        let linked: Vec<_> = linked.map(shown).collect();
        let stopped = Stopped::begin(directory, step, &self.users)?;
        let mut restored = self.exchange(directory, stopped, restored, (before, Vec::new(), false))?;
        for place in linked {
            let other_names = format!("{place} had other names (hard links): they keep what was there before.");
            restored.next.insert(0, other_names);
        }
        if matches!(&self.step.source, Source::Directory(source) if !source.exclude.is_empty()) {
            restored.next.insert(0, "What the step excludes is in the old alone.".into());
        }
        Ok(restored)
    }

    fn database(
        &self,
        directory: &StateDirectory,
        database: &Postgres,
        request: &Request,
        monitor: &Monitor,
    ) -> Result<Restored> {
        let beside = &self.places[0];
        // 1. Nobody writes, and all that was written is in the repository: it may be wanted.
        monitor.phase("stopping the server");
        let stopped = Stopped::begin(directory, &self.step.name, &self.users)?;
        if users::server(&beside.place).is_some() {
            return Err(Error::transient(format!("the server in {} still runs", beside.place.display())));
        }
        monitor.phase("pushing WAL");
        let names = std::slice::from_ref(&self.step.name);
        let drained = wal::drain(self.settings, names, &Record::at_hand(directory))?;
        if !drained.spools && request.at == super::At::Latest {
            return Err(Error::new("some WAL is not in the repository: the newest moment would be lost")
                .hint("`pi-agent wal push` says why; an older moment is restored with --at TIME"));
        }

        let waiting = wal::waiting(&wal::spool_directory(self.settings, database))?;
        if let Some(history) = waiting.iter().find(|name| wal::is_history(name)) {
            return Err(Error::new(format!(
                "{history} is not in the repository: what is restored would begin a timeline of a number that is taken"
            ))
            .hint("`pi-agent wal push` says why"));
        }

        // 2. Beside it, then in its place.
        let before = self.end_cut_off(beside)?;
        let restored = beside.restore(&self.step.name, &request.at, &[], &mut |request| {
            let user = container::user(self.settings, self.step, database)?;
            let settled = tablespaces::place(beside);
            let there = (user, original(beside, &settled, database));
            postgres::restore_original(self.settings, self.step, database, there, request, monitor)
        })?;
        monitor.phase("putting it into its place");
        let elsewhere = fs::read_link(beside.place.join("pg_wal")).ok();
        let other = !drained.others.is_empty();
        let mut restored = self.exchange(directory, stopped, restored, (before, drained.left, other))?;
        if let Some(elsewhere) = elsewhere.filter(|_| !beside.place.join("pg_wal").is_symlink()) {
            let (place, elsewhere) = (shown(&beside.place), shown(&elsewhere));
            restored
                .next
                .insert(0, format!("Its pg_wal was a link to {elsewhere}, and is a directory in {place} now."));
        }
        let other = drained.others.into_iter().map(|problem| format!("What was there before: {}.", problem.message));
        restored.next.splice(0..0, other);
        let settled = tablespaces::place(beside);
        if !super::is_empty(&settled)? {
            let place = shown(&settled);
            restored
                .next
                .insert(0, format!("Tablespaces that have no directory of their own any more are in {place} now."));
        }
        if self.users.is_empty() {
            let start = "It did not run before. Start it as always, for example: systemctl start postgresql";
            restored.next.insert(0, start.into());
        }
        Ok(restored)
    }

    /// All or none; then who was stopped goes on. `kept`: of a restore that was cut off. `lost`: what is in the old alone, which nobody is
    /// told to remove then, nor where the old is something `other` that is in no backup.
    fn exchange(
        &self,
        directory: &StateDirectory,
        stopped: Stopped,
        mut restored: Restored,
        (mut kept, lost, other): (Vec<PathBuf>, Vec<Problem>, bool),
    ) -> Result<Restored> {
        restored.next = stopped.remarks();
        restored.next.push(format!("Then make a backup of it: pi-agent run {}", self.step.name));
        for (number, beside) in self.places.iter().enumerate() {
            match self.put(beside) {
                Ok(old) => kept.extend(old),
                Err(error) => {
                    let mut failed = None;
                    for place in self.places[..=number].iter().rev() {
                        // All of them, whatever one says.
                        failed = self.undo(place).err().or(failed);
                    }
                    return Err(match failed {
                        Some(failed) => Error::new(error.chain()).caused_by(failed),
                        None if error.advice().is_some() => error,
                        None => error.hint(
                            "what was there is in its place again; mend the cause, and the same command goes on from here",
                        ),
                    });
                }
            }
        }
        if self.step.postgres().is_some() {
            // When its timeline began is known by when its history came. What fails here the server does itself.
            let record = Record::at_hand(directory);
            let _ = wal::drain_restored(self.settings, std::slice::from_ref(&self.step.name), &record);
        }
        let started = stopped.end();
        self.places.iter().try_for_each(Beside::end)?;
        restored.problems.extend(started.err().map(|error| (&error).into()));
        if !kept.is_empty() && lost.is_empty() && !other && !restored.hole {
            let backed_up = |kept: &PathBuf| match &self.step.source {
                Source::Directory(source) => source.paths.iter().any(|path| kept.starts_with(path)),
                _ => false,
            };
            let room = if kept.iter().any(backed_up) { "room, also in each backup," } else { "room" };
            let kept: Vec<_> = kept.iter().map(|kept| typed(kept)).collect();
            restored.next.push(format!("What was there before is kept, and takes {room} until you are sure and type:"));
            restored.next.push(format!("  rm -rf {}", kept.join(" ")));
        } else if let Some(kept) = kept.first() {
            restored.next.push(format!("What was there before holds changes that are nowhere else: {}", shown(kept)));
        }
        restored.problems.extend(lost);
        Ok(restored)
    }

    /// What is kept of the old.
    fn put(&self, beside: &Beside) -> Result<Vec<PathBuf>> {
        let mut kept: Vec<_> = beside.exchange()?.into_iter().collect();
        if let Source::Postgres(database) = &self.step.source {
            let (old, container) = (beside.kept(), database.container.as_ref());
            let spaces = tablespaces::settle(beside, old.as_deref(), container)?;
            kept.extend(outside::settle(&beside.place, old.as_deref(), container)?);
            kept.extend(spaces);
        }
        Ok(kept)
    }

    /// The old again, as if nothing had been.
    fn undo(&self, beside: &Beside) -> Result<()> {
        if let (Source::Postgres(database), Some(_)) = (&self.step.source, beside.cut_off()) {
            outside::unsettle(&beside.place, beside.kept().as_deref(), database.container.as_ref())?;
        }
        beside.undo()
    }

    /// Ends one that was cut off in the exchange. Others have worked with what it put there since, so nothing is taken for
    /// done: this restore keeps it in its turn. What is kept of what was there before.
    fn end_cut_off(&self, beside: &Beside) -> Result<Vec<PathBuf>> {
        if beside.cut_off().is_none() {
            return Ok(Vec::new());
        }
        let kept = self.put(beside)?;
        beside.end()?;
        Ok(kept)
    }
}

/// Those keep what is there, because the name alone is replaced.
fn has_other_names(there: &Metadata) -> bool {
    there.is_file() && there.nlink() > 1
}

/// Without those that lie in another one of them and come back with it.
fn outermost(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut outermost: Vec<PathBuf> = Vec::new();
    for place in places.iter().collect::<BTreeSet<_>>() {
        // In this order what lies in a directory comes right behind it.
        if outermost.last().is_none_or(|above| !place.starts_with(above)) {
            outermost.push(place.clone());
        }
    }
    outermost
}

/// What is there of a database. `settled` is where tablespaces come that have no directory of their own.
fn original<'a>(beside: &'a Beside, settled: &'a Path, database: &'a Postgres) -> Original<'a> {
    Original { data: &beside.place, tablespaces: settled, container: database.container.as_ref() }
}

fn data(database: &Postgres) -> Result<PathBuf> {
    container::data_on_this_machine(database).ok_or_else(|| {
        Error::new("the place of the data is known to the container alone, and it is not there")
            .hint("create the container (docker compose up --no-start), then restore again")
    })
}
