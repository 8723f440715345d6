//! A PostgreSQL cluster, of this host or of a container, by pgBackRest: [`run`] reads as the procedure it is.

mod archiving;
pub mod catalogue;
pub mod container;
pub mod dumps;
mod holes;
pub mod image;
mod look;
pub(crate) mod losses;
pub(crate) mod pg_dump;
pub mod programs;
mod server;
mod switch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use self::archiving::SetUp;
use self::archiving::{Style, Way};
use self::catalogue::{CATALOGUE, Catalogue, Psql};
use self::container::{Seat, Spool};
use self::dumps::Dumped;
pub use self::look::{Look, look};
use self::losses::{Losses, hole, hole_behind};
use self::programs::Programs;
use self::server::{Identity, Server};
pub use self::switch::switch;
use super::points::{self, POINTS};
use super::{Figures, Job, Maintenance, Outcome, StepResult, Task};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Kind, Result};
use crate::health::judge_by_others;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::pgbackrest::{self, Backup, BackupType, Cluster, Info, PgBackRest};
use crate::process::User;
use crate::restore::postgres::wal_begins;
use crate::retention;
use crate::secrets::Secrets;
use crate::storage::Store;
use crate::wal::{self, Hole, Reached};

const SYSTEM_ID: &str = "system-id";
const VERSION: &str = "version";
/// Seconds after which the server hands over a segment that is not full; 0: never.
pub(crate) const ARCHIVE_TIMEOUT: &str = "archive-timeout";

/// How long a segment may take into the repository; it is counted anew from each one that gets there.
const ARRIVAL: Duration = Duration::from_secs(600);

/// The fact that says how large a segment of WAL is, for who does not ask the server.
const SEGMENT: &str = "wal-segment-size";

/// How large a segment of WAL is, by what a step recorded; `None`: no backup of it was made yet.
pub(crate) fn segment_size(facts: &BTreeMap<String, String>) -> Option<u64> {
    facts.get(SEGMENT)?.parse().ok()
}

/// What every part of the procedure needs.
struct Work<'a> {
    job: &'a Job,
    step: &'a Step,
    postgres: &'a Postgres,
    spool: &'a Spool,
    monitor: &'a Monitor,
    server: Server<'a>,
    pgbackrest: PgBackRest,
    store: Store,
}

/// Does what the job asks.
///
/// # Errors
/// Everything that keeps a restore point from being made, with a hint; kind `OutOfTime` at the deadline.
pub fn run(job: &Job, step: &Step, postgres: &Postgres, monitor: &Monitor) -> Result<StepResult> {
    if matches!(job.task, Task::Backup { .. }) {
        return container::at(&job.settings, postgres, |seat| run_at(seat, job, step, monitor));
    }
    // The repository alone needs no server.
    let here = wal::spool_directory(&job.settings, postgres);
    let spool = Spool { there: here.clone(), here, missing: None };
    run_at(&Seat { postgres: postgres.clone(), spool }, job, step, monitor)
}

fn run_at(Seat { postgres, spool }: &Seat, job: &Job, step: &Step, monitor: &Monitor) -> Result<StepResult> {
    let user = user(&job.settings, step, postgres)?;
    let store = open_place(job)?;
    let pgbackrest = PgBackRest::prepare(&job.settings, step, postgres, &user)?;
    let server = Server { postgres, user: &user };
    let work = Work { job, step, postgres, spool, monitor, server, pgbackrest, store };
    let mut result = match &job.task {
        Task::Backup { full, keep_everything, .. } => work.backup(*full, keep_everything.as_deref())?,
        Task::Prune { keep_everything } => work.only_expire(keep_everything.as_deref())?,
        Task::Check(_) => work.verify()?,
        Task::FetchState { .. } | Task::RestoreTest(_) => {
            return Err(Error::new("a database step holds no state of the agent"));
        }
    };
    result.place_verified = true;
    result.requests = work.store.meter().requests();
    Ok(result)
}

/// Accepts the cluster that is there now as the one to back up from now on. What earlier ones left stays restorable.
///
/// # Errors
/// The server does not answer, or pgBackRest refuses.
pub fn adopt(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<()> {
    container::at(settings, postgres, |Seat { postgres, .. }| {
        let user = user(settings, step, postgres)?;
        let identity = Server { postgres, user: &user }.identity()?;
        let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
        match pgbackrest.info()?.cluster() {
            None => pgbackrest.create_stanza(),
            Some(cluster) if cluster.system_id == identity.system_id => Ok(()),
            Some(_) => pgbackrest.upgrade_stanza(),
        }
    })
}

/// The server's user, whom we must be or be able to become.
fn user(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<User> {
    let user = pgbackrest::server_user(settings, step, postgres)?;
    let us = nix::unistd::Uid::effective();
    if us.is_root() || us.as_raw() == user.uid {
        return Ok(user);
    }
    Err(Error::usage(format!("the cluster belongs to {}, and we cannot become that user", user.name))
        .hint(format!("run pi-agent as root, or as {}", user.name)))
}

/// Opens the storage and makes sure that it is this machine's.
fn open_place(job: &Job) -> Result<Store> {
    let settings = &job.settings;
    let store = Store::open(&settings.storage, &settings.storage.location, &Secrets::new(&settings.secrets))?;
    job.verify_place(&store)?;
    Ok(store)
}

fn check_versions(identity: &Identity) -> Result<()> {
    let installed = pgbackrest::version()?;
    if identity.version() > installed.newest_postgres() {
        return Err(Error::new(format!("pgbackrest {installed} does not know PostgreSQL {}", identity.version()))
            .hint("install a newer pgbackrest, for example from apt.postgresql.org"));
    }
    Ok(())
}

fn check_server(postgres: &Postgres, identity: &Identity) -> Result<()> {
    let ours = &postgres.data_directory;
    let same = |path: &Path| path.canonicalize().ok();
    if same(ours).is_none() || same(ours) != same(&identity.data_directory) {
        return Err(Error::usage(format!(
            "the server on port {} has its data in {}, not in {}",
            postgres.port,
            identity.data_directory.display(),
            ours.display()
        ))
        .hint("correct data-directory, or socket-directory and port, of this step"));
    }
    if identity.in_recovery {
        return Err(Error::new(format!("the server on port {} is in recovery", postgres.port))
            .hint("wait until it is promoted; a standby cannot be backed up here"));
    }
    Ok(())
}

impl Work<'_> {
    fn backup(&self, full: bool, keep_everything: Option<&str>) -> Result<StepResult> {
        // 1. The tools, and a server that answers and is the one we mean.
        self.monitor.phase("asking the server");
        let identity = self.server.identity()?;
        check_versions(&identity)?;
        check_server(self.postgres, &identity)?;

        // 2. The cluster is the one the repository knows; a first or an upgraded one is made known.
        let info = self.pgbackrest.info()?;
        let upgraded = self.know_cluster(&identity, &info)?;

        // 3. A WAL segment gets all the way into the repository.
        container::provide_spool(&self.job.settings, self.postgres, self.pgbackrest.user())?;
        let style = archiving::style(&identity, self.spool, self.job.settings.alarms.rpo)?;
        self.monitor.phase("waiting for WAL");
        self.prove(&identity, style)?;

        // 4. The backup itself, with WAL flowing beside it.
        let kind = if full || upgraded { BackupType::Full } else { BackupType::Incremental };
        let before = info.newest().cloned();
        let began = Timestamp::now();
        let (warnings, mut problems) = self.back_up(kind, style)?;

        // 5. What retention no longer keeps goes.
        let info = self.pgbackrest.info()?;
        let made = info.newest().filter(|made| before.as_ref().is_none_or(|before| before.label != made.label));
        let made =
            made.ok_or_else(|| Error::new("pgBackRest succeeded, but its new backup is not in the repository"))?;
        let contradicted = self.contradicted(before.as_ref(), began);
        let keep_everything = keep_everything.or(contradicted.as_deref());
        let expired = self.expire(&info, keep_everything);

        // 6. The month's dump, unless nobody knows which month it is; then the books.
        let dumped = if keep_everything.is_none() { self.dump_if_due(&identity) } else { Dumped::default() };
        let objects = self.objects();
        problems.extend(before.and_then(|before| self.hole_since(&before, made, &identity, &objects)));
        problems.extend(Hole::close(&self.spool.here, began).err().map(|error| Problem::from(&error)));
        let mut result = self.result(&identity, made, warnings, problems, expired, &objects);
        dumped.tell(&mut result);
        result.clock = contradicted;
        Ok(result)
    }

    fn prove(&self, identity: &Identity, style: Style) -> Result<()> {
        let Work { step, postgres, spool, server, pgbackrest, .. } = self;
        let way = Way { settings: &self.job.settings, step, postgres, spool, server, pgbackrest };
        way.prove(identity, style, ARRIVAL, &mut || {
            self.monitor.phase("waiting for WAL");
            self.remaining().map(drop)
        })
    }

    /// WAL that went missing since the last backup. Told once: the backup just made is beyond the hole.
    fn hole_since(
        &self,
        before: &Backup,
        made: &Backup,
        identity: &Identity,
        objects: &[(String, u64)],
    ) -> Option<Problem> {
        let before = Some(before).filter(|before| before.archive == made.archive)?;
        let (last, next) = hole_behind(&self.postgres.stanza, before, identity.wal_segment_size, objects)?;
        Some(Problem {
            message: hole(&last, &next),
            hint: Some(format!(
                "moments between {} and {} may be lost, later ones are safe again; look for what removed WAL: \
                 archive-push-queue-max, a changed archive_command, an emptied spool",
                before.stopped, made.stopped
            )),
        })
    }

    /// True when the stanza went on to a higher major version: then the next backup is full.
    fn know_cluster(&self, identity: &Identity, info: &Info) -> Result<bool> {
        let now = Cluster { system_id: identity.system_id, version: identity.version() };
        let known = info.cluster();
        match decide(known.or(self.recorded_cluster()), now, known.is_some()) {
            Decision::Go => Ok(false),
            Decision::Create => self.pgbackrest.create_stanza().map(|()| false),
            Decision::Upgrade => self.pgbackrest.upgrade_stanza().map(|()| true),
            Decision::Refuse(before) => Err(Error::new(format!(
                "this is another cluster than before: system id {} (PostgreSQL {}), but the backups are of {} \
                 (PostgreSQL {}); nothing was expired",
                now.system_id, now.version, before.system_id, before.version
            ))
            .hint(format!(
                "an empty or foreign cluster? then restore: pi-agent points {0}; if it is meant: pi-agent adopt {0}",
                self.step.name
            ))),
        }
    }

    /// The cluster of the last good run.
    fn recorded_cluster(&self) -> Option<Cluster> {
        let fact = |key: &str| self.job.facts.get(key);
        Some(Cluster { system_id: fact(SYSTEM_ID)?.parse().ok()?, version: fact(VERSION)?.parse().ok()? })
    }

    /// Runs the backup while a thread keeps the WAL flowing that pgBackRest waits for at its end.
    fn back_up(&self, kind: BackupType, style: Style) -> Result<(Vec<String>, Vec<Problem>)> {
        let phase = match kind {
            BackupType::Full => "full backup",
            BackupType::Incremental => "incremental backup",
        };
        self.monitor.phase(phase);
        let remaining = self.remaining()?;
        let finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pusher = (style == Style::Spool).then(|| scope.spawn(|| self.push_until(&finished)));
            let backup = self.pgbackrest.backup(kind, remaining, &mut |done, total| {
                self.monitor.progress(Progress { phase: phase.into(), done, total, unit: Unit::Bytes });
            });
            finished.store(true, Ordering::Relaxed);
            let problems = pusher.and_then(|pusher| pusher.join().ok()).unwrap_or_default();
            match backup {
                Ok(warnings) => Ok((warnings, problems)),
                Err(error) => {
                    // Out of time is another outcome than a failure.
                    self.remaining()?;
                    Err(match problems.first() {
                        Some(problem) => Error::new(format!("{error} (WAL: {})", problem.message))
                            .kind_of(error.kind())
                            .hint(problem.hint.clone().or(error.advice().map(str::to_owned)).unwrap_or_default()),
                        None => error,
                    })
                }
            }
        })
    }

    /// Pushes WAL every second; returns what was wrong in the last pass that did anything.
    fn push_until(&self, finished: &AtomicBool) -> Vec<Problem> {
        let mut problems = Vec::new();
        while !finished.load(Ordering::Relaxed) {
            match wal::push(&self.job.settings, self.step, self.postgres) {
                Ok(report) if report.pushed > 0 || !report.problems.is_empty() => problems = report.problems,
                Ok(_) => {}
                Err(error) => problems = vec![(&error).into()],
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        problems
    }

    /// Why the clock is not trusted, if storage contradicts it. `newest`: the newest backup at that moment.
    fn contradicted(&self, newest: Option<&Backup>, then: Timestamp) -> Option<String> {
        judge_by_others(then, self.store.clock_ahead(), newest.map(|newest| newest.stopped))
    }

    fn only_expire(&self, keep_everything: Option<&str>) -> Result<StepResult> {
        let info = self.pgbackrest.info()?;
        let contradicted = self.contradicted(info.newest(), Timestamp::now());
        if let Some(why) = keep_everything.or(contradicted.as_deref()) {
            return Ok(StepResult { clock: contradicted.clone(), ..StepResult::failed(&super::nothing_removed(why)) });
        }
        let mut done = vec![self.expire(&info, None)];
        done.extend(self.prune_dumps()?);
        Ok(self.maintained(done))
    }

    fn verify(&self) -> Result<StepResult> {
        self.monitor.phase("verifying every backup and WAL segment");
        let note = self.pgbackrest.verify(self.remaining()?)?;
        // Before the storage is looked at: what is pushed meanwhile is there, too.
        let pushed = Reached::read(&self.spool.here);
        let info = self.pgbackrest.info()?;
        let losses = Losses { store: &self.store.join(&self.step.name), stanza: &self.postgres.stanza, info: &info };
        let mut problem = losses.of_two(&info.backups)?;
        if let (None, Some(since), Some(segment)) =
            (&problem, wal_begins(&info, self.step), segment_size(&self.job.facts))
        {
            problem = losses.of_wal(since, segment, pushed.as_ref())?;
        }
        let mut done = vec![Maintenance { what: "verify".into(), problem, note }];
        done.extend(self.check_dumps()?);
        Ok(self.maintained(done))
    }

    /// The result of maintenance alone.
    fn maintained(&self, done: Vec<Maintenance>) -> StepResult {
        let error = done.iter().find_map(|done| done.problem.clone());
        let outcome = if error.is_some() { Outcome::Failed } else { Outcome::Succeeded };
        let figures = figures(&self.objects(), self.pgbackrest.info().ok().as_ref());
        StepResult { error, maintenance: done, figures, ..StepResult::of(outcome) }
    }

    /// Removes what retention no longer keeps. The backup that was just made is not endangered by a failure here.
    fn expire(&self, info: &Info, keep_everything: Option<&str>) -> Maintenance {
        let what = "expire".to_owned();
        if let Some(why) = keep_everything {
            return Maintenance { what, problem: None, note: format!("nothing expired: {why}") };
        }
        self.monitor.phase("expiring");
        match self.expire_victims(info) {
            Ok(count) => Maintenance { what, problem: None, note: format!("removed {count} backups") },
            Err(error) => Maintenance { what, problem: Some((&error).into()), note: String::new() },
        }
    }

    fn expire_victims(&self, info: &Info) -> Result<usize> {
        let (now, zone) = (Timestamp::now(), TimeZone::system());
        let points = retention_points(info);
        let victims = retention::pg_victims(&points, &self.step.keep, now, &zone);
        for label in roots(&points, &victims) {
            self.pgbackrest.expire(label)?;
        }
        let left: Vec<_> = points.into_iter().filter(|point| !victims.contains(&point.id)).collect();
        if let Some(fulls) = retention::retention_archive(&left, &self.step.keep, now) {
            self.pgbackrest.expire_wal(fulls)?;
        }
        Ok(victims.len())
    }

    fn result(
        &self,
        identity: &Identity,
        made: &Backup,
        warnings: Vec<String>,
        mut problems: Vec<Problem>,
        expired: Maintenance,
        objects: &[(String, u64)],
    ) -> StepResult {
        if made.damaged_pages {
            problems.push(Problem {
                message: format!("backup {} holds pages with wrong checksums", made.label),
                hint: Some("the database's disk is failing: see pg_amcheck, and keep the older backups".into()),
            });
        }
        let outcome =
            if problems.is_empty() && expired.problem.is_none() { Outcome::Succeeded } else { Outcome::Degraded };
        let error = problems.first().or(expired.problem.as_ref()).cloned();
        // A first backup is full whatever was asked, and says so.
        let left = self.pgbackrest.info().ok();
        let mut facts = BTreeMap::from([
            (SYSTEM_ID.to_owned(), identity.system_id.to_string()),
            (VERSION.to_owned(), identity.version().to_string()),
            (ARCHIVE_TIMEOUT.to_owned(), identity.archive_timeout.to_string()),
            (SEGMENT.to_owned(), identity.wal_segment_size.to_string()),
        ]);
        facts.extend(left.iter().map(|info| {
            let points = info.backups.iter().map(|backup| (backup.stopped, backup.label.as_str()));
            (POINTS.to_owned(), points::told(points))
        }));
        facts.extend(self.catalogue(&made.label).map(|catalogue| (CATALOGUE.to_owned(), catalogue.told())));
        let telling = warnings.into_iter().filter(|warning| !warning.starts_with("no prior backup exists"));
        problems.extend(telling.map(|message| Problem { message, hint: None }));
        StepResult {
            error,
            problems,
            restore_point: Some(made.label.clone()),
            figures: Figures {
                bytes_processed: Some(made.size),
                bytes_added: Some(made.copied),
                bytes_added_stored: made.stored,
                ..figures(objects, left.as_ref())
            },
            facts,
            maintenance: vec![expired],
            ..StepResult::of(outcome)
        }
    }

    /// What the cluster holds, for restore tests to compare with. A server that does not tell costs no backup: the test says
    /// then what it could not compare.
    fn catalogue(&self, label: &str) -> Option<Catalogue> {
        let programs = Programs::default();
        let psql = Psql { connection: self.server.connection(), user: self.server.user, programs: &programs };
        let catalogue = psql.catalogue(&self.step.test.count).ok()?;
        Some(Catalogue { label: label.to_owned(), ..catalogue })
    }

    /// Every object of this step. Only figures and notes are made of it, so a list that cannot be had is empty.
    fn objects(&self) -> Vec<(String, u64)> {
        self.store.join(&self.step.name).list("").unwrap_or_default()
    }

    /// The time left.
    ///
    /// # Errors
    /// Kind `OutOfTime`: none.
    fn remaining(&self) -> Result<Duration> {
        const NO_LIMIT: Duration = Duration::from_hours(7 * 24);
        let Some(deadline) = self.job.deadline else { return Ok(NO_LIMIT) };
        let left = deadline.duration_since(Timestamp::now());
        Duration::try_from(left).ok().filter(|left| *left > Duration::ZERO).ok_or_else(|| {
            Error::new("stopped at max-duration; what pgBackRest has copied is used by the next try")
                .kind_of(Kind::OutOfTime)
        })
    }
}

/// What the repository holds now. Figures are for the report: one that cannot be had is left out.
fn figures(objects: &[(String, u64)], info: Option<&Info>) -> Figures {
    let stored = objects.iter().map(|(_, size)| size).sum();
    Figures {
        bytes_stored: Some(stored).filter(|stored| *stored > 0),
        restore_points: info.map(|info| info.backups.len() as u64),
        bytes_restorable: info.map(|info| info.backups.iter().map(|backup| backup.size).sum()),
        ..Figures::default()
    }
}

/// What becomes of a cluster, given the one known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Go,
    Create,
    Upgrade,
    Refuse(Cluster),
}

/// A higher major version with a new system id is what pg_upgrade leaves. Any other new id is an empty or foreign cluster,
/// whose backups would push out the good ones.
fn decide(known: Option<Cluster>, now: Cluster, stanza: bool) -> Decision {
    match known {
        Some(known) if known.system_id == now.system_id && known.version == now.version => {
            if stanza {
                Decision::Go
            } else {
                Decision::Create
            }
        }
        Some(known) if now.version > known.version && now.system_id != known.system_id => {
            if stanza {
                Decision::Upgrade
            } else {
                Decision::Create
            }
        }
        Some(known) => Decision::Refuse(known),
        None => Decision::Create,
    }
}

fn retention_points(info: &Info) -> Vec<retention::Point> {
    let point = |backup: &Backup| retention::Point {
        id: backup.label.clone(),
        time: backup.stopped,
        full: backup.is_full(),
        needs: backup.needs.clone(),
    };
    info.backups.iter().map(point).collect()
}

/// The victims that need no other victim: expiring one takes its dependents along, which are victims too.
fn roots<'a>(points: &[retention::Point], victims: &'a [String]) -> Vec<&'a str> {
    let needs_a_victim = |id: &String| {
        points.iter().any(|point| point.id == *id && point.needs.iter().any(|needed| victims.contains(needed)))
    };
    victims.iter().filter(|id| !needs_a_victim(id)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_upgrade_passes_as_another_cluster() {
        let cluster = |system_id, version| Cluster { system_id, version };
        let known = Some(cluster(1, 15));
        assert_eq!(decide(None, cluster(1, 15), false), Decision::Create);
        assert_eq!(decide(known, cluster(1, 15), true), Decision::Go);
        assert_eq!(decide(known, cluster(1, 15), false), Decision::Create, "a new place for the same cluster");
        assert_eq!(decide(known, cluster(2, 17), true), Decision::Upgrade);
        assert_eq!(decide(known, cluster(2, 15), true), Decision::Refuse(cluster(1, 15)));
        assert_eq!(decide(known, cluster(2, 15), false), Decision::Refuse(cluster(1, 15)));
        assert_eq!(decide(known, cluster(2, 14), true), Decision::Refuse(cluster(1, 15)));
    }

    #[test]
    fn only_the_roots_of_victim_chains_are_expired() {
        let point = |id: &str, needs: &[&str]| retention::Point {
            id: id.into(),
            time: Timestamp::UNIX_EPOCH,
            full: needs.is_empty(),
            needs: needs.iter().map(|id| (*id).into()).collect(),
        };
        let points =
            [point("A", &[]), point("A1", &["A"]), point("A2", &["A", "A1"]), point("B", &[]), point("B1", &["B"])];
        let victims = ["A", "A1", "A2", "B1"].map(String::from);
        assert_eq!(roots(&points, &victims), ["A", "B1"]);
    }
}
