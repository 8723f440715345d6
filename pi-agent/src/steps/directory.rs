//! A step that backs up directories and files into a restic-compatible repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::claim::{Claim, in_our_place};
use super::inside::{self, IDLE_EXCLUDES, INSIDE, Inside, idle_excludes};
use super::points::{self, POINTS};
use super::quiet;
use super::{
    Check, Job, Maintenance, Outcome, PLACE, PLACE_OF, SOURCE, StepResult, Task, future, is_confirmed_by_storage,
    maintenance, nothing_removed,
};
use crate::config::{Directory, Source, Step};
use crate::error::{Context, Kind};
use crate::health::judge_by_others;
use crate::monitor::{Monitor, Problem};
use crate::repository::{Anchors, Backup, Purpose, Repository, Selection, Snapshot, Sources, cache, mounted_meanwhile};
use crate::restore::beside::half_way;
use crate::retention::{self, Family, Point, is_of_the_future};
use crate::secrets::Secrets;
use crate::storage::Store;
use crate::{Error, Result, path_text, shown};

/// The fact until when the storage server's certificate is good, as the last step of a run saw it.
pub(crate) const CERTIFICATE: &str = "certificate";

/// Does what the job asks of a directory step.
///
/// # Errors
/// Only what happens before storage is opened; later failures are results, with the requests that were made.
pub fn run(job: &Job, step: &Step, directory: &Directory, monitor: &Monitor) -> Result<StepResult> {
    let secrets = Secrets::new(&job.settings.secrets);
    let root = Store::open(&job.settings.storage, &job.settings.storage.location, &secrets)?;
    let work = Work { job, step, directory, monitor, secrets, root };
    let mut result = work.perform().unwrap_or_else(|error| StepResult::failed(&error));
    // Nothing is written to a place that this step has not seen to be ours.
    if let Some(status) = job.status.as_ref().filter(|_| result.place_verified)
        && let Err(error) = work.root.put("status.json", &[Bytes::from(status.clone())])
    {
        result.problems.push((&error).into());
    }
    if let Err(error) = cache::trim(&job.settings) {
        result.problems.push((&error).into());
    }
    result.requests = work.root.meter().requests();
    if let (Source::Agent(_), Some(end)) = (&step.source, work.root.certificate_end()) {
        result.facts.insert(CERTIFICATE.into(), end.to_string());
    }
    Ok(result)
}

/// The fact which key file `restic.key` opens.
const KEY: &str = "key";

/// What the last run saw of ours and what is there no more: only runs forget, and they note what is left. One that was cut off may have
/// noted nothing, so what it would have forgotten is not missed.
pub(crate) fn lost_points(job: &Job, step: &Step, there: &[Snapshot], store: &Store) -> Option<Problem> {
    let known = points::understood(job.facts.get(POINTS).filter(|_| job.was_here())?, Family::Snapshots);
    // A repair or another tool may have rewritten one.
    let is_there = |point: &Point| there.iter().any(|snapshot| snapshot.was(&point.id));
    // One of the future counts for nothing, and a person is told to remove it.
    let (now, is_gone) = (Timestamp::now(), |point: &Point| !is_there(point));
    let mut lost: Vec<_> =
        known.into_iter().filter(|point| is_gone(point) && !is_of_the_future(point.time, now)).collect();
    let all: Vec<_> = points_of(there, step, &job.settings.host).chain(lost.iter().cloned()).collect();
    let forgotten = retention::victims(&all, &step.keep, now, &TimeZone::system());
    lost.retain(|point| !forgotten.contains(&point.id));
    let newest = lost.last()?;
    Some(Problem {
        message: match lost.len() {
            1 => format!("the restore point {} of {} is gone from {store}", newest.id, newest.time),
            count => {
                format!("{count} restore points are gone from {store}, the newest {} of {}", newest.id, newest.time)
            }
        },
        hint: Some("find out who removed them; if it was you, the next run takes it as it is".into()),
    })
}

struct Work<'a> {
    job: &'a Job,
    step: &'a Step,
    directory: &'a Directory,
    monitor: &'a Monitor,
    secrets: Secrets,
    root: Store,
}

impl Work<'_> {
    fn perform(&self) -> Result<StepResult> {
        match &self.job.task {
            Task::Backup { prune, check, keep_everything, .. } => {
                self.in_our_place(|claim| self.backup(claim, *prune, *check, keep_everything.as_deref()))
            }
            Task::Prune { keep_everything } => {
                self.in_our_place(|claim| self.only_prune(claim, keep_everything.as_deref()))
            }
            Task::Check(check) => self.alone(Purpose::Read, |repository| {
                let (checked, _) = maintenance::check(repository, *check, self.monitor);
                let key = || {
                    let known = self.job.facts.get(KEY).map(String::as_str);
                    repository.key_in_use(known, &self.secrets).map_or_else(|error| Some((&error).into()), Result::err)
                };
                let problem = checked.problem.or_else(key).or_else(|| {
                    let snapshots = repository.snapshots().ok()?;
                    lost_points(self.job, self.step, &snapshots, repository.store())
                });
                Maintenance { problem, ..checked }
            }),
            Task::FetchState { to } => self.fetch_state(to),
            Task::RestoreTest(_) => Err(Error::new("a restore test is no backup")),
        }
    }

    fn in_our_place(&self, work: impl FnOnce(&Claim<'_>) -> Result<StepResult>) -> Result<StepResult> {
        self.monitor.phase("looking whose place it is");
        in_our_place(self.job, &self.root, work)
    }

    /// One night.
    fn backup(
        &self,
        claim: &Claim<'_>,
        prune: bool,
        check: Option<Check>,
        keep_everything: Option<&str>,
    ) -> Result<StepResult> {
        // 1. The place is ours, and the sources are what they were: else nothing is touched.
        let mut sources = self.sources();
        let (mut facts, inside) = self.facts(&sources, &self.job.facts)?;
        sources.put_aside = inside.as_ref().map(Inside::put_aside).transpose()?.unwrap_or_default();

        // 2. The repository, made on first use.
        self.monitor.phase("opening the repository");
        let store = self.root.join(&self.step.name);
        let repository = Repository::open_or_init(&self.job.settings, &self.step.name, store, &self.secrets)?;
        let key = repository.key_in_use(self.job.facts.get(KEY).map(String::as_str), &self.secrets)?;
        // The keys have opened what is there. Whoever adopts the place from now on is not overwritten by what was read before.
        claim.write_down()?;
        let keep_everything = self.job.doubt(keep_everything, self.root.clock_ahead()).is_some();
        let clock_is_trusted = !keep_everything && self.contradicted(&[]).is_none();
        let until = self.job.deadline.map(until);
        let lock = repository.lock_for_writing(clock_is_trusted, until, self.monitor)?;
        let mut snapshots = repository.readable_snapshots()?;
        let contradicted = self.contradicted(&snapshots);
        let of_the_future =
            if contradicted.is_none() { self.of_the_future(&repository, &snapshots) } else { Vec::new() };

        // 3. The snapshot; what is written to day and night is read at one moment.
        let live = self.directory.live.as_ref();
        let quieted =
            live.map(|live| quiet::hold(self.job, self.step, live, &mut sources, self.monitor)).transpose()?;
        let anchors = anchors(&sources, inside.as_ref());
        let backup = repository.backup(sources, &snapshots, self.monitor)?;
        let mut result = result_of(&backup);
        if let Some(inside) = &inside {
            result.problems.extend(inside.news(&backup.tally));
            inside.unseen(&backup.left_out).for_each(|place| result.degrade(mounted_meanwhile(place)));
            self.note_covered(&mut result, inside, &repository, &snapshots);
            facts.insert(INSIDE.into(), inside.fact(&backup.tally));
            facts.insert(IDLE_EXCLUDES.into(), idle_excludes(&self.directory.exclude, &backup.tally));
        }
        let excluded = self.directory.exclude.iter().any(|pattern| backup.tally.left_out_by(pattern));
        if excluded && backup.figures.files == Some(0) && result.outcome == Outcome::Succeeded {
            result.degrade(Problem {
                message: "not one file is backed up: `exclude` leaves out all that there is".into(),
                hint: Some("correct the patterns; pi-agent doctor says what each of them does".into()),
            });
        }
        if backup.figures.files == Some(0) && result.outcome == Outcome::Succeeded {
            result.degrade(Problem {
                message: "not one file is backed up: there is none in its paths".into(),
                hint: Some(
                    "mount the disk that belongs there; a step of which nothing is to come can be removed".into(),
                ),
            });
        }
        for path in &self.directory.paths {
            half_way(path).into_iter().for_each(|problem| result.degrade(problem));
        }
        // What was unmounted while it was read is in the snapshot as an empty directory.
        if let Err(error) = self.facts(&self.sources(), &facts) {
            let changed = Problem::from(&error);
            result.degrade(Problem { message: format!("while it was read: {}", changed.message), ..changed });
        }
        anchors.moved().for_each(|place| result.degrade(mounted_again(place)));
        // From here on a disk that was read may be unmounted.
        drop(anchors);
        if let Some(quieted) = quieted {
            quieted.note(&mut result);
        }
        match key {
            Ok(fact) => drop(facts.insert(KEY.into(), fact)),
            Err(trouble) => result.degrade(trouble),
        }
        result.facts = facts;
        result.problems.extend(backup.remarks());
        result.problems.extend(repository.remarks().iter().cloned());
        // Told and not refused: a backup beside what is damaged, and a new beginning, are better than no backup.
        let damage = repository.damage();
        let is_damaged = !damage.is_empty();
        for problem in damage {
            result.degrade(problem);
        }
        let is_new = snapshots.is_empty() && !self.job.was_here() && !matches!(self.step.source, Source::Agent(_));
        if let Some(before) = self.job.facts.get(PLACE).filter(|_| is_new) {
            result.degrade(Problem {
                message: format!("{} is a new place, and the restore points until now are in {before}", self.root),
                hint: Some("if [storage] url is right so: nothing, they stay there; else correct it".into()),
            });
        }
        if snapshots.is_empty() && self.job.was_here() && !is_damaged {
            let place = self.root.join(&self.step.name);
            result.degrade(Problem {
                message: format!("{place} held restore points before and holds none now"),
                hint: Some("find out who removed them; this backup is a new beginning".into()),
            });
        }
        if !snapshots.is_empty() && !is_damaged {
            let lost = lost_points(self.job, self.step, &snapshots, repository.store());
            lost.into_iter().for_each(|lost| result.degrade(lost));
        }
        let is_complete = !backup.snapshot.unfinished;
        // What could not be listed may be all that an older snapshot still holds.
        let all_listed = is_complete && !backup.tally.listing_incomplete && backup.lost == 0;
        let succeeded = result.outcome == Outcome::Succeeded;
        snapshots.push(backup.snapshot);
        // It stays until a person removes it, and must not keep all others that long.
        of_the_future.into_iter().for_each(|problem| result.degrade(problem));

        // 4. Forget, prune, check; each failure is told, and none undoes the snapshot.
        result.clock = contradicted.or_else(|| self.contradicted(&[]));
        result.clock_confirmed = result.clock.is_none() && is_confirmed_by_storage(self.root.clock_ahead());
        // What was left out may be what an older point is kept for.
        let keep_everything = keep_everything || result.clock.is_some() || is_damaged;
        let victims = if all_listed && !keep_everything {
            victims(&snapshots, self.step, &self.job.settings.host)
        } else {
            Vec::new()
        };
        // Past its time the step does no more than it must; what is due is due again next night.
        let in_time = || self.job.deadline.is_none_or(|deadline| Timestamp::now() < deadline);
        let prune = prune && succeeded && !keep_everything && in_time();
        let tidied = maintenance::tidy(&repository, &victims, prune, self.monitor);
        if tidied.forgotten {
            snapshots.retain(|snapshot| !victims.contains(&snapshot.id));
        }
        tidied.done.into_iter().for_each(|done| result.note(done));
        result.problems.extend(tidied.remarks);
        if let Some(check) = check.filter(|_| is_complete && in_time()) {
            let (checked, damaged) = maintenance::check(&repository, check, self.monitor);
            if damaged {
                // What was just backed up may not be restorable.
                result.problems.extend(result.error.take());
                result.outcome = Outcome::Failed;
                result.error = checked.problem.clone();
            }
            result.note(checked);
        }

        // 5. Figures.
        let (label, host) = (&self.step.name, &self.job.settings.host);
        let ours = || points::ours(&snapshots, label, host).filter(|snapshot| !snapshot.unfinished);
        result.figures.points_of_others = points::of_others(&snapshots, label, host);
        result.figures.restore_points = Some(ours().count() as u64);
        result.figures.bytes_restorable = ours().map(|snapshot| snapshot.bytes).sum();
        result.facts.insert(
            POINTS.into(),
            points::told(ours().map(|snapshot| (snapshot.time, snapshot.id.as_str(), snapshot.lacks_files))),
        );
        match repository.stored_bytes() {
            Ok(bytes) => result.figures.bytes_stored = Some(bytes),
            Err(error) => result.problems.push((&error).into()),
        }
        result.problems.extend(lock.release());
        Ok(result)
    }

    /// Why the clock is not trusted, if storage contradicts it just now.
    fn contradicted(&self, snapshots: &[Snapshot]) -> Option<String> {
        let newest = self.ours(snapshots).map(|snapshot| (snapshot.time, snapshot.id.as_str())).max();
        judge_by_others(Timestamp::now(), self.root.clock_ahead(), newest)
    }

    /// Those that this step of this host made: what others do with their clocks is their affair.
    fn ours<'s>(&'s self, snapshots: &'s [Snapshot]) -> impl Iterator<Item = &'s Snapshot> {
        points::ours(snapshots, &self.step.name, &self.job.settings.host)
    }

    /// What is said of restore points of the future, by a clock that nothing contradicts.
    fn of_the_future(&self, repository: &Repository, snapshots: &[Snapshot]) -> Vec<Problem> {
        let now = Timestamp::now();
        let points = self.ours(snapshots).filter(|snapshot| is_of_the_future(snapshot.time, now));
        future::told(points, |point| (point.time, &point.id, repository.forgets(&point.id)))
    }

    fn only_prune(&self, claim: &Claim<'_>, keep_everything: Option<&str>) -> Result<StepResult> {
        let repository = self.existing()?;
        let snapshots = repository.snapshots()?;
        let contradicted = self.contradicted(&snapshots);
        match self.job.doubt(keep_everything, self.root.clock_ahead()).or(contradicted.as_deref()) {
            Some(why) => Ok(StepResult { clock: contradicted.clone(), ..StepResult::failed(&nothing_removed(why)) }),
            None => {
                claim.write_down()?;
                let mut result =
                    self.alone(Purpose::Delete, |repository| maintenance::prune(repository, self.monitor))?;
                let of_the_future = self.of_the_future(&repository, &snapshots);
                of_the_future.into_iter().for_each(|problem| result.degrade(problem));
                Ok(result)
            }
        }
    }

    fn sources(&self) -> Sources {
        let mut sources = Sources::of(&self.job.settings, self.directory);
        sources.deadline = self.job.deadline.map(until);
        if matches!(self.step.source, Source::Agent(_)) {
            // The configuration file may well be a link; it is followed, since it is ours and not a person's choice.
            for path in &mut sources.paths {
                *path = fs::canonicalize(&*path).unwrap_or_else(|_| path.clone());
            }
        }
        sources
    }

    /// Facts to remember for next time, and what lies inside the paths on mounts of its own; an error when what was filled by
    /// `known` is empty, or lies on another file system: an unmounted disk must not become an empty snapshot.
    fn facts(
        &self,
        sources: &Sources,
        known: &BTreeMap<String, String>,
    ) -> Result<(BTreeMap<String, String>, Option<Inside>)> {
        let changed = |change: String| {
            Error::new(change).hint(format!(
                "put back what belongs there (a mount, a link); if the change is intended: pi-agent adopt {}",
                self.step.name
            ))
        };
        let mut facts = BTreeMap::new();
        for path in &sources.paths {
            let look = Sources::look(path)?;
            if let Source::Agent(_) = self.step.source {
                // Ours; and what is in memory lies on another file system after each start.
                continue;
            }
            let key = format!("{SOURCE}{}", path.display());
            if let Some(change) = known.get(&key).and_then(|fact| look.change_since(fact)) {
                return Err(changed(format!("{} {change}", path.display())));
            }
            facts.insert(key, look.fact());
            let key = format!("{PLACE_OF}{}", path.display());
            if let Some(change) = known.get(&key).and_then(|place| look.moved_since(place)) {
                return Err(changed(format!("{} {change}", path.display())));
            }
            facts.insert(key, path_text::of(&look.place));
        }
        if let Source::Agent(_) = self.step.source {
            return Ok((facts, None));
        }
        let inside = inside::look(sources, known)?;
        match inside.changes.first() {
            Some(change) => Err(changed(change.clone())),
            None => Ok((facts, Some(inside))),
        }
    }

    /// What is left out from now on, and was in the backup until now, is worth more than a line.
    fn note_covered(&self, result: &mut StepResult, inside: &Inside, repository: &Repository, snapshots: &[Snapshot]) {
        let Some((last, _)) = newest(snapshots, self.step, self.root.clock_ahead()) else { return };
        for place in inside.untold() {
            // A snapshot that cannot be read is told elsewhere.
            if repository.holds_below(last, &place.at).unwrap_or(false) {
                let message = format!(
                    "{} is in no restore point from now on: something is mounted over what was there",
                    shown(&place.at)
                );
                let hint =
                    "add it to `paths`, or one-file-system = false; the last restore point still holds what was there";
                result.degrade(Problem { message, hint: Some(hint.into()) });
            }
        }
    }

    /// Maintenance without a backup.
    fn alone(&self, purpose: Purpose, maintain: impl FnOnce(&Repository) -> Maintenance) -> Result<StepResult> {
        let repository = self.existing()?;
        let lock = repository.lock(purpose, self.contradicted(&[]).is_none(), None, self.monitor)?;
        let maintenance = maintain(&repository);
        let outcome = if maintenance.problem.is_some() { Outcome::Failed } else { Outcome::Succeeded };
        Ok(StepResult {
            error: maintenance.problem.clone(),
            problems: repository.remarks().iter().cloned().chain(lock.release()).collect(),
            maintenance: vec![maintenance],
            ..StepResult::of(outcome)
        })
    }

    fn existing(&self) -> Result<Repository> {
        let store = self.root.join(&self.step.name);
        let place = store.to_string();
        let repository = Repository::open(&self.job.settings, &self.step.name, store.clone(), &self.secrets)?;
        if repository.is_none() && !store.list("snapshots/")?.is_empty() {
            return Err(Error::new(format!("{place} has lost its config"))
                .hint("pi-agent restore gives back what is there all the same; put a copy of that object back"));
        }
        repository.ok_or_else(|| Error::new(format!("{place} holds no repository yet")).kind_of(Kind::NotFound))
    }

    /// Brings the newest saved state database back to `to`, whole or not at all.
    fn fetch_state(&self, to: &Path) -> Result<StepResult> {
        let repository = self.existing()?;
        let snapshots = repository.readable_snapshots()?;
        let (snapshot, _) = newest(&snapshots, self.step, self.root.clock_ahead())
            .ok_or_else(|| Error::new(format!("{} holds no snapshot", repository.store())).kind_of(Kind::NotFound))?;
        // By its name: the directory it was copied to may have been another then.
        let saved = repository.find(snapshot, "state.db")?.ok_or_else(|| {
            Error::new(format!("{} holds no state database", repository.store())).kind_of(Kind::NotFound)
        })?;
        let directory = to.parent().unwrap_or(Path::new("/"));
        let failed = || format!("cannot write {}", to.display());
        let aside = tempfile::tempdir_in(directory).context(failed)?;
        let selection = Selection {
            snapshot: snapshot.clone(),
            to: aside.path().into(),
            paths: vec![saved],
            fresh: true,
            privileges: false,
        };
        repository.restore(&selection, self.monitor)?;
        fs::rename(below(aside.path(), &selection.paths[0]), to).context(failed)?;
        Ok(StepResult { restore_point: Some(snapshot.id.clone()), ..StepResult::of(Outcome::Succeeded) })
    }
}

/// Where `path` comes to lie when it is restored to `target`.
fn below(target: &Path, path: &Path) -> PathBuf {
    target.join(path.strip_prefix("/").unwrap_or(path))
}

/// The complete snapshots of the step, oldest first; where the step has made none, another tool's.
pub(crate) fn complete<'a>(snapshots: &'a [Snapshot], step: &Step) -> Vec<&'a Snapshot> {
    let any_of_ours = snapshots.iter().any(|snapshot| snapshot.is_of(&step.name));
    let ours = |snapshot: &&Snapshot| snapshot.is_of(&step.name) || !any_of_ours;
    let mut complete: Vec<_> = snapshots.iter().filter(|snapshot| !snapshot.unfinished).filter(ours).collect();
    complete.sort_by_key(|snapshot| snapshot.time);
    complete
}

/// The newest of them, and what is to be said of one of the future: see [`future::newest`].
pub(crate) fn newest<'a>(
    snapshots: &'a [Snapshot],
    step: &Step,
    ahead: Option<SignedDuration>,
) -> Option<(&'a Snapshot, Option<String>)> {
    let complete = complete(snapshots, step);
    let (newest, said) = future::newest(&complete, |snapshot| (snapshot.time, snapshot.id.as_str()), ahead)?;
    Some((*newest, said))
}

/// The snapshots of ours to forget: those retention no longer keeps, and unfinished ones that a newer complete one makes
/// useless.
fn victims(snapshots: &[Snapshot], step: &Step, host: &str) -> Vec<String> {
    let ours = || points::ours(snapshots, &step.name, host);
    let points: Vec<_> = points_of(snapshots, step, host).collect();
    let now = Timestamp::now();
    let newest = points.iter().map(|point| point.time).filter(|time| !is_of_the_future(*time, now)).max();
    let superseded = ours().filter(|snapshot| snapshot.unfinished && Some(snapshot.time) < newest);
    let mut victims = retention::victims(&points, &step.keep, now, &TimeZone::system());
    victims.extend(superseded.map(|snapshot| snapshot.id.clone()));
    victims
}

/// The whole ones of this step and host.
fn points_of<'a>(snapshots: &'a [Snapshot], step: &'a Step, host: &'a str) -> impl Iterator<Item = Point> + use<'a> {
    points::ours(snapshots, &step.name, host).filter(|snapshot| !snapshot.unfinished).map(|snapshot| Point {
        id: snapshot.id.clone(),
        time: snapshot.time,
        full: true,
        needs: Vec::new(),
        lacks: snapshot.lacks_files,
    })
}

/// The mounts that are read.
fn anchors(sources: &Sources, inside: Option<&Inside>) -> Anchors {
    let paths = sources.paths.iter().map(PathBuf::as_path);
    Anchors::hold(paths.chain(inside.into_iter().flat_map(Inside::entered)))
}

fn mounted_again(place: &Path) -> Problem {
    Problem {
        message: format!("while it was read: {} was mounted again, so some of it may be missing", shown(place)),
        hint: Some("the next backup reads all of it: pi-agent run; the journal may say what mounts it".into()),
    }
}

fn result_of(backup: &Backup) -> StepResult {
    let problems = backup.problems();
    let (outcome, error) = if backup.snapshot.unfinished {
        let message = "stopped at max-duration; what was read is kept, and the next run goes on from there".into();
        (Outcome::Unfinished, Some(Problem { message, hint: None }))
    } else if problems.is_empty() {
        (Outcome::Succeeded, None)
    } else {
        let message = match backup.tally.unreadable_count {
            0 => problems[0].message.clone(),
            1 => "1 file could not be read".into(),
            count => format!("{count} files could not be read"),
        };
        let hint = "the others are safe; the files are named in the report".to_owned();
        (Outcome::Degraded, Some(Problem { message, hint: Some(hint) }))
    };
    StepResult {
        error,
        problems,
        restore_point: Some(backup.snapshot.id.clone()),
        figures: backup.figures.clone(),
        ..StepResult::of(outcome)
    }
}

/// The moment on the monotonic clock, which no correction of the time of day moves.
fn until(deadline: Timestamp) -> Instant {
    let left = deadline.duration_since(Timestamp::now()).max(SignedDuration::ZERO);
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Count, Keep};

    fn step() -> Step {
        let directory = Directory {
            paths: Vec::new(),
            exclude: Vec::new(),
            one_file_system: true,
            prune_every: Duration::ZERO,
            check_every: Duration::ZERO,
            read_all_months: 0,
            live: None,
        };
        let none = Count::Of(0);
        Step {
            name: "s".into(),
            source: Source::Directory(directory),
            keep: Keep::Rules { last: none, daily: Count::Of(2), weekly: none, monthly: none, yearly: none },
            max_duration: None,
            stall: Duration::from_secs(900),
            test: crate::config::StepTest::default(),
        }
    }

    fn snapshot(id: &str, label: &str, days_ago: i64, unfinished: bool) -> Snapshot {
        let time = Timestamp::now() - SignedDuration::from_hours(24 * days_ago);
        Snapshot {
            id: id.into(),
            time,
            label: label.into(),
            host: "pi".into(),
            unfinished,
            bytes: None,
            new_bytes: None,
            files: None,
            tags: Vec::new(),
            original: None,
            lost_its_label: false,
            lacks_files: false,
            paths: Vec::new(),
        }
    }

    #[test]
    fn unfinished_snapshots_go_once_a_newer_complete_one_exists_and_count_for_nothing_before() {
        let old = snapshot("old", "s", 10, false);
        let begun = snapshot("begun", "s", 5, true);
        assert!(victims(&[old.clone(), begun.clone()], &step(), "pi").is_empty());
        let complete = snapshot("complete", "s", 4, false);
        assert_eq!(victims(&[old.clone(), begun.clone(), complete.clone()], &step(), "pi"), ["begun"]);
        let later = snapshot("later", "s", 1, true);
        assert_eq!(victims(&[old, begun, complete, later], &step(), "pi"), ["begun"]);
    }

    #[test]
    fn another_machines_snapshots_are_never_forgotten_and_keep_none_of_ours_from_it() {
        let theirs = |id, days, unfinished| Snapshot { host: "other".into(), ..snapshot(id, "s", days, unfinished) };
        let all = [
            theirs("theirs", 40, false),
            theirs("begun", 39, true),
            snapshot("old", "s", 10, false),
            snapshot("a", "s", 2, false),
            snapshot("b", "s", 1, false),
            theirs("newest", 0, false),
        ];
        assert_eq!(victims(&all, &step(), "pi"), ["old"]);
    }

    #[test]
    fn another_tools_snapshots_are_never_forgotten() {
        let (foreign, ours) = (snapshot("foreign", "", 400, false), snapshot("ours", "s", 0, false));
        assert!(victims(&[foreign.clone(), ours.clone()], &step(), "pi").is_empty());
        let newest = |snapshots: &[Snapshot]| newest(snapshots, &step(), None).unwrap().0.id.clone();
        assert_eq!(newest(&[ours.clone(), foreign.clone()]), "ours");
        assert_eq!(newest(std::slice::from_ref(&foreign)), "foreign");
    }
}
