//! Logical dumps. A physical backup is restored by the major version of PostgreSQL that made it, and distributions drop
//! majors. So where points are kept for months, each month has one dump of everything, which any newer version reads.
//!
//! They lie in a file repository of ours at `URL/STEP/dumps`, beside pgBackRest's own `archive` and `backup`. A snapshot
//! holds the whole server: `globals.sql`, and `DATABASE.dump` for each database.

use std::time::Instant;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::Work;
use super::pg_dump::PgDump;
use super::server::Identity;
use crate::config::{Count, Keep, Postgres, Settings, Step};
use crate::error::Context;
use crate::monitor::Problem;
use crate::report::{short, words};
use crate::repository::{Purpose, Repository, Snapshot};
use crate::retention::{self, Point};
use crate::secrets::Secrets;
use crate::steps::maintenance::{self, Tidied};
use crate::steps::points;
use crate::steps::{Check, Figures, Maintenance, StepResult};
use crate::storage::Store;
use crate::{Error, Result};

/// Their place below the step's.
const PLACE: &str = "dumps";
/// The fact that a month has its dump: `2026-11 of SYSTEM-ID`.
const DUMPED: &str = "dumped";

/// What was done about dumps.
#[derive(Default)]
pub(super) struct Dumped {
    maintenance: Vec<Maintenance>,
    remarks: Vec<Problem>,
    fact: Option<String>,
}

impl Dumped {
    /// Adds it to the night's result: a dump that failed leaves a backup that did not.
    pub(super) fn tell(self, result: &mut StepResult) {
        result.facts.extend(self.fact.map(|fact| (DUMPED.to_owned(), fact)));
        result.problems.extend(self.remarks);
        self.maintenance.into_iter().for_each(|done| result.note(done));
    }
}

/// The name of the repository for its key, its cache and its snapshots' label. No step's name holds a dot.
pub fn name(step: &Step) -> String {
    format!("{}.{PLACE}", step.name)
}

/// Opens the repository with a step's dumps; `None`: none was ever made.
///
/// # Errors
/// It cannot be read.
pub fn open(settings: &Settings, step: &Step) -> Result<Option<Repository>> {
    let (store, secrets) = place(settings, step)?;
    Repository::open(settings, &name(step), store, &secrets)
}

/// The same for who only reads, also where something of it is lost.
///
/// # Errors
/// It cannot be read.
pub fn open_what_is_left(settings: &Settings, step: &Step) -> Result<Option<Repository>> {
    let (store, secrets) = place(settings, step)?;
    Repository::open_what_is_left(settings, &name(step), store, &secrets)
}

fn place(settings: &Settings, step: &Step) -> Result<(Store, Secrets)> {
    let secrets = Secrets::new(&settings.secrets);
    let root = Store::open(&settings.storage, &settings.storage.location, &secrets)?;
    Ok((root.join(&step.name).join(PLACE), secrets))
}

/// The major version of PostgreSQL that a dump is of.
pub fn version(snapshot: &Snapshot) -> Option<u32> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix("postgresql-")?.parse().ok())
}

/// Makes sure that dumps can be made of that version, where they are wanted.
pub(super) fn check_tools(step: &Step, postgres: &Postgres, version: u32) -> Result<()> {
    wanted(postgres, &step.keep).map_or(Ok(()), |_| PgDump::find(version).map(drop))
}

fn tags(identity: &Identity) -> [String; 2] {
    [format!("postgresql-{}", identity.version()), format!("system-id-{}", identity.system_id)]
}

impl Work<'_> {
    /// Makes this month's dump, unless there is one.
    pub(super) fn dump_if_due(&self, identity: &Identity) -> Dumped {
        let Some(keep) = wanted(self.postgres, &self.step.keep) else { return Dumped::default() };
        let (now, zone) = (Timestamp::now(), TimeZone::system());
        let fact = format!("{} of {}", month(now, &zone).strftime("%Y-%m"), identity.system_id);
        // Past its time the step does no more than it must: the dump is due again next night.
        if self.job.facts.get(DUMPED) == Some(&fact) || self.remaining().is_err() {
            return Dumped::default();
        }
        let mut dumped = Dumped::default();
        match self.dump(identity, &keep, now, &zone, &mut dumped) {
            Ok(()) => dumped.fact = Some(fact),
            Err(error) => {
                let hint = error.advice().map_or_else(
                    || {
                        "the backup itself is good, and the next run tries again; monthly-dump = false does without"
                            .into()
                    },
                    str::to_owned,
                );
                let error = Error::new("make this month's logical dump").caused_by(error).hint(hint);
                dumped.maintenance.push(maintenance::failed("dump", &error));
            }
        }
        dumped
    }

    fn dump(
        &self,
        identity: &Identity,
        keep: &Keep,
        now: Timestamp,
        zone: &TimeZone,
        dumped: &mut Dumped,
    ) -> Result<()> {
        // 1. The repository, made on first use; it knows better than our history.
        self.monitor.phase("looking for this month's dump");
        let settings = &self.job.settings;
        let store = self.store.join(&self.step.name).join(PLACE);
        let repository = Repository::open_or_init(settings, &name(self.step), store, &Secrets::new(&settings.secrets))?;
        let mut snapshots = repository.readable_snapshots()?;
        let tags = tags(identity);
        if !is_due(&snapshots, &tags, now, zone) {
            return Ok(());
        }
        // No dump is made by a clock that is not trusted.
        let until = Instant::now() + self.remaining()?;
        let lock = repository.lock_for_writing(true, Some(until), self.monitor)?;

        // 2. The dump: all of it, or none.
        let databases = self.server.databases()?;
        let streams = PgDump::find(identity.version())?.streams(&self.server, &databases, self.remaining()?);
        self.monitor.phase("dumping");
        let (made, figures) = repository.back_up_streams(streams, &tags, self.monitor)?;
        dumped.maintenance.push(maintenance::done("dump", in_words(&made, &figures, databases.len())));
        snapshots.push(made);

        // 3. Once a month is often enough for the rest.
        match repository.damage().into_iter().next() {
            None => {
                let tidied = self.tidy(&repository, &snapshots, keep, now, zone);
                dumped.maintenance.extend(tidied.done);
                dumped.remarks.extend(tidied.remarks);
            }
            // What was left out may be what an older dump is kept for.
            Some(damage) => {
                let kept =
                    Maintenance { what: "forget".into(), problem: Some(damage), note: "nothing was removed".into() };
                dumped.maintenance.push(of_dumps(kept));
            }
        }
        dumped.maintenance.push(of_dumps(maintenance::check(&repository, Check::Structure, self.monitor).0));
        dumped.remarks.extend(lock.release());
        Ok(())
    }

    /// Forgets the dumps that are no longer kept, and frees what they held.
    fn tidy(
        &self,
        repository: &Repository,
        snapshots: &[Snapshot],
        keep: &Keep,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Tidied {
        let label = name(self.step);
        let of_us: Vec<_> = points::ours(snapshots, &label, &self.job.settings.host).cloned().collect();
        let tidied = maintenance::tidy(repository, &victims(&of_us, keep, now, zone), true, self.monitor);
        Tidied { done: tidied.done.into_iter().map(of_dumps).collect(), ..tidied }
    }

    /// [`Self::tidy`] without a dump, where there are dumps.
    pub(super) fn prune_dumps(&self) -> Result<Vec<Maintenance>> {
        let Some(repository) = open(&self.job.settings, self.step).context(open_them)? else { return Ok(Vec::new()) };
        let keep = wanted(self.postgres, &self.step.keep).unwrap_or(Keep::Forever);
        let snapshots = repository.snapshots()?;
        let Tidied { mut done, remarks, .. } =
            self.tidy(&repository, &snapshots, &keep, Timestamp::now(), &TimeZone::system());
        if done.is_empty() {
            // It was asked for, and another is at work there.
            let failed = |problem| Maintenance { what: "prune".into(), problem: Some(problem), note: String::new() };
            done.extend(remarks.into_iter().map(|problem| of_dumps(failed(problem))));
        }
        Ok(done)
    }

    /// Reads every byte of the dumps there are.
    pub(super) fn check_dumps(&self) -> Result<Option<Maintenance>> {
        let Some(repository) = open(&self.job.settings, self.step).context(open_them)? else { return Ok(None) };
        let lock = repository.lock(Purpose::Read, true, Some(Instant::now() + self.remaining()?), self.monitor)?;
        let (checked, _) = maintenance::check(&repository, Check::Data { part: 0, of: 1 }, self.monitor);
        drop(lock);
        Ok(Some(of_dumps(checked)))
    }
}

fn open_them() -> String {
    "open the logical dumps".into()
}

fn of_dumps(maintenance: Maintenance) -> Maintenance {
    Maintenance { what: format!("dump-{}", maintenance.what), ..maintenance }
}

fn in_words(made: &Snapshot, figures: &Figures, databases: usize) -> String {
    let size = |bytes: Option<u64>| words::size(bytes.unwrap_or_default());
    format!(
        "dump {} of {databases} databases, {}, {} stored",
        short(&made.id),
        size(figures.bytes_processed),
        size(figures.bytes_added_stored)
    )
}

/// What is kept of dumps; `None`: none are made, because no backup is kept for months or none are wanted.
fn wanted(postgres: &Postgres, keep: &Keep) -> Option<Keep> {
    let none = Count::Of(0);
    match *keep {
        _ if !postgres.monthly_dump => None,
        Keep::Forever => Some(Keep::Forever),
        Keep::Rules { monthly, yearly, .. } if monthly > none || yearly > none => {
            // A month has one, so that rules for days would keep as many months.
            Some(Keep::Rules { last: none, daily: none, weekly: none, monthly, yearly })
        }
        Keep::Rules { .. } => None,
    }
}

/// The first of the local month.
fn month(time: Timestamp, zone: &TimeZone) -> Date {
    time.to_zoned(zone.clone()).date().first_of_month()
}

/// No dump of this cluster was made in this month. After an upgrade it is another cluster.
fn is_due(snapshots: &[Snapshot], tags: &[String], now: Timestamp, zone: &TimeZone) -> bool {
    let this = month(now, zone);
    !snapshots
        .iter()
        .any(|snapshot| tags.iter().all(|tag| snapshot.tags.contains(tag)) && month(snapshot.time, zone) == this)
}

fn victims(snapshots: &[Snapshot], keep: &Keep, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    let point = |snapshot: &Snapshot| Point {
        id: snapshot.id.clone(),
        time: snapshot.time,
        full: true,
        needs: vec![],
        lacks: false,
    };
    retention::victims(&snapshots.iter().map(point).collect::<Vec<_>>(), keep, now, zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn dump(time: &str, tags: &[&str]) -> Snapshot {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Snapshot {
            id: time.into(),
            time: at(time),
            label: String::new(),
            host: String::new(),
            unfinished: false,
            bytes: None,
            new_bytes: None,
            files: None,
            tags,
            original: None,
            lost_its_label: false,
            lacks_files: false,
            paths: Vec::new(),
        }
    }

    #[test]
    fn a_month_is_a_local_one_and_an_upgraded_cluster_another() {
        let zone = TimeZone::get("Australia/Sydney").expect("bundled or system zone");
        let (old, new) = (["postgresql-15", "system-id-1"], ["postgresql-17", "system-id-2"]);
        let tags = |tags: [&str; 2]| tags.map(str::to_owned);
        // The first of November in Sydney is the last of October in UTC.
        let made = [dump("2026-10-31T16:00:00Z", &old)];
        assert!(is_due(&[], &tags(old), at("2026-11-20T16:00:00Z"), &zone));
        assert!(!is_due(&made, &tags(old), at("2026-11-29T16:00:00Z"), &zone));
        assert!(is_due(&made, &tags(old), at("2026-11-30T16:00:00Z"), &zone), "the first of December");
        assert!(is_due(&made, &tags(new), at("2026-11-20T16:00:00Z"), &zone));
    }

    #[test]
    fn dumps_are_kept_for_months_and_years_whatever_is_kept_of_days() {
        let none = Count::Of(0);
        let rules =
            |daily, monthly, yearly| Keep::Rules { last: none, daily: Count::Of(daily), weekly: none, monthly, yearly };
        let postgres = |monthly_dump| Postgres {
            stanza: "main".into(),
            container: None,
            data_directory: "/d".into(),
            socket_directory: "/s".into(),
            port: 5432,
            user: None,
            full_every: std::time::Duration::ZERO,
            monthly_dump,
        };
        assert_eq!(wanted(&postgres(true), &rules(30, none, none)), None);
        assert_eq!(wanted(&postgres(false), &Keep::DEFAULT), None);
        assert_eq!(wanted(&postgres(true), &Keep::Forever), Some(Keep::Forever));
        let keep = wanted(&postgres(true), &rules(30, Count::Of(2), none)).expect("months are kept");
        let made = ["2026-08-01T03:00:00Z", "2026-09-01T03:00:00Z", "2026-10-01T03:00:00Z", "2026-11-01T03:00:00Z"];
        let made = made.map(|time| dump(time, &[]));
        let gone = victims(&made, &keep, at("2026-11-20T03:00:00Z"), &TimeZone::UTC);
        assert_eq!(gone, ["2026-08-01T03:00:00Z", "2026-09-01T03:00:00Z"]);
    }
}
