//! A PostgreSQL cluster, of this host or of a container, by pgBackRest: [`run`] reads as the procedure it is.

pub(crate) mod access;
mod archiving;
pub mod catalogue;
mod cluster;
pub mod container;
pub(crate) mod control;
pub mod dumps;
mod expire;
mod holes;
pub mod image;
pub(crate) mod links;
mod look;
pub(crate) mod losses;
pub(crate) mod pg_dump;
pub mod programs;
pub(crate) mod restored;
pub(crate) mod said;
mod server;
pub(crate) mod session;
mod switch;
mod told;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

pub use self::archiving::SetUp;
use self::archiving::{Style, Way};
use self::container::{Seat, Spool};
use self::dumps::Dumped;
use self::holes::Archive;
pub use self::look::{Look, look};
use self::losses::{Losses, hole};
use self::server::{Identity, Server};
pub use self::switch::switch;
use super::claim::{Claim, in_our_place};
use super::{Job, Maintenance, StepResult, Task, future, is_confirmed_by_storage};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Error, Kind, Result};
use crate::health::judge_by_others;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::pgbackrest::{self, Backup, BackupType, Code, Info, PgBackRest, code_of};
use crate::process::User;
use crate::restore::postgres::wal_begins;
use crate::retention::is_of_the_future;
use crate::secrets::Secrets;
use crate::storage::Store;
use crate::wal::{self, Hole, Reached, Record, Whose};

const SYSTEM_ID: &str = "system-id";
const VERSION: &str = "version";
/// Seconds after which the server hands over a segment that is not full; 0: never.
pub(crate) const ARCHIVE_TIMEOUT: &str = "archive-timeout";

/// How long a segment may take into the repository; it is counted anew from each one that gets there.
const ARRIVAL: Duration = Duration::from_secs(600);

/// The fact that says how large a segment of WAL is, for who does not ask the server.
const SEGMENT: &str = "wal-segment-size";

/// The facts about the server.
pub(super) const OF_SERVER: [&str; 4] = [SYSTEM_ID, VERSION, ARCHIVE_TIMEOUT, SEGMENT];

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
    store: &'a Store,
    claim: &'a Claim<'a>,
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
    let settings = &job.settings;
    let user = &user(settings, step, postgres)?;
    let store = &Store::open(&settings.storage, &settings.storage.location, &Secrets::new(&settings.secrets))?;
    let mut result = in_our_place(job, store, |claim| {
        let pgbackrest = PgBackRest::prepare(settings, step, postgres, user)?;
        let server = Server { postgres, user };
        let mut work = Work { job, step, postgres, spool, monitor, server, pgbackrest, store, claim };
        match &job.task {
            Task::Backup { full, keep_everything, .. } => {
                let identity = work.identify()?;
                work.pgbackrest =
                    work.pgbackrest.connecting_to(&identity.database, session::of_pgbackrest(identity.version()));
                work.backup(&identity, *full, keep_everything.as_deref())
            }
            Task::Prune { keep_everything } => work.only_expire(keep_everything.as_deref()),
            Task::Check(_) => work.verify(),
            Task::FetchState { .. } | Task::RestoreTest(_) => {
                Err(Error::new("a database step holds no state of the agent"))
            }
        }
    })?;
    result.requests = store.meter().requests();
    Ok(result)
}

/// Accepts the cluster that is there now as the one to back up from now on. What earlier ones left stays restorable. True: it went back
/// on its timeline, and has to begin a new one first.
///
/// # Errors
/// The place in storage is another machine's, the server does not answer, or pgBackRest refuses.
pub fn adopt(settings: &Settings, step: &Step, postgres: &Postgres, record: &Record) -> Result<bool> {
    Whose::Unknown(record).allows(settings, step)?;
    container::at(settings, postgres, |Seat { postgres, .. }| {
        let user = user(settings, step, postgres)?;
        let server = Server { postgres, user: &user };
        let identity = server.identity()?;
        let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?
            .connecting_to(&identity.database, session::of_pgbackrest(identity.version()));
        let info = pgbackrest.info()?;
        match info.cluster() {
            None => pgbackrest.create_stanza().map(|()| false),
            Some(cluster) if cluster.system_id == identity.system_id => {
                Ok(cluster::went_back(&step.name, &server, &pgbackrest, &info)?.is_some())
            }
            Some(_) => cluster::succeed(settings, step, postgres, &pgbackrest, Whose::Unknown(record)).map(|()| false),
        }
    })
}

/// The timeline that the server writes; `None`: it is in recovery.
///
/// # Errors
/// It does not answer.
pub fn timeline(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<Option<u32>> {
    container::at(settings, postgres, |Seat { postgres, .. }| {
        let user = user(settings, step, postgres)?;
        Ok(Server { postgres, user: &user }.identity()?.timeline())
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

fn check_versions(identity: &Identity) -> Result<()> {
    pgbackrest::version()?.check_postgres(identity.version())
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
    if let Some(name) = identity.broken_names.first() {
        let escaped = name.replace('\\', r"\\").replace('"', "\"\"").replace('\n', r"\000A");
        return Err(Error::new(format!(
            "the database {name:?} has a line break in its name: pgBackRest cannot restore a backup that names it"
        ))
        .hint(format!(
            "in psql as a superuser: ALTER DATABASE U&\"{escaped}\" RENAME TO \"{}\";",
            name.replace('\n', " ").replace('"', "\"\"")
        )));
    }
    if identity.in_recovery {
        return Err(Error::new(format!("the server on port {} is in recovery", postgres.port))
            .hint("wait until it is promoted; a standby cannot be backed up here"));
    }
    Ok(())
}

impl Work<'_> {
    /// The server, which answers and is the one we mean; the tools can work with it.
    fn identify(&self) -> Result<Identity> {
        self.monitor.phase("asking the server");
        let identity = self.server.identity()?;
        check_versions(&identity)?;
        check_server(self.postgres, &identity)?;
        Ok(identity)
    }

    fn backup(&self, identity: &Identity, full: bool, keep_everything: Option<&str>) -> Result<StepResult> {
        // 1. The cluster is the one the repository knows; a first or an upgraded one is made known.
        let info = self.pgbackrest.info()?;
        self.claim.write_down()?;
        let upgraded = self.know_cluster(identity, &info)?;

        // 2. A WAL segment gets all the way into the repository.
        container::provide_spool(&self.job.settings, self.postgres, self.pgbackrest.user())?;
        let style = archiving::style(identity, self.spool, self.job.settings.alarms.rpo)?;
        self.monitor.phase("waiting for WAL");
        let foreign = self.prove(identity, style)?;
        if style == Style::Push {
            Reached::forget(&self.spool.here);
        }

        // 3. The backup itself, with WAL flowing beside it.
        let full = full || upgraded || self.left_its_newest_backup(identity, &info);
        let kind = if full { BackupType::Full } else { BackupType::Incremental };
        let (known, began) = (info, Timestamp::now());
        let (warnings, mut problems) = self.back_up(kind, style, &known).or_else(|error| match code_of(&error) {
            // Beside a label of the future the other kind's may be later.
            Some(Code::CLOCK) => self.back_up(kind.other(), style, &known).map_err(|_| error),
            _ => Err(error),
        })?;

        // 4. What retention no longer keeps goes.
        let info = self.pgbackrest.info()?;
        // The newest by its time may be another.
        let is_new = |backup: &&Backup| !known.backups.iter().any(|known| known.label == backup.label);
        let made = info.backups.iter().rfind(is_new);
        let made =
            made.ok_or_else(|| Error::new("pgBackRest succeeded, but its new backup is not in the repository"))?;
        let contradicted = self.contradicted(&known, began);
        let keep_everything = self.job.doubt(keep_everything, self.store.clock_ahead()).or(contradicted.as_deref());
        let expired = self.expire(&info, keep_everything);

        // 5. The month's dump, unless nobody knows which month it is; then the books.
        let dumped = if keep_everything.is_none() { self.dump_if_due(identity) } else { Dumped::default() };
        let objects = self.objects();
        if let Some(before) = known.newest(began) {
            match self.hole_since(before, made, identity, &info, &objects) {
                Ok(hole) => problems.extend(self.losses_since(before, made, began, hole)),
                Err(error) => problems.push(Problem::from(&error)),
            }
        }
        problems.extend(foreign);
        problems.extend(Hole::close(&self.spool.here, began).err().map(|error| Problem::from(&error)));
        let mut result = self.result(identity, made, warnings, problems, expired, &objects);
        dumped.tell(&mut result);
        if contradicted.is_none() {
            self.of_the_future(&known).into_iter().for_each(|problem| result.degrade(problem));
        }
        result.clock = contradicted;
        result.clock_confirmed = result.clock.is_none() && is_confirmed_by_storage(self.store.clock_ahead());
        Ok(result)
    }

    fn prove(&self, identity: &Identity, style: Style) -> Result<Vec<Problem>> {
        let Work { step, postgres, spool, server, pgbackrest, .. } = self;
        let way = Way { settings: &self.job.settings, step, postgres, spool, server, pgbackrest, whose: Whose::Ours };
        way.prove(identity, style, ARRIVAL, &mut || {
            self.monitor.phase("waiting for WAL");
            self.remaining().map(drop)
        })
    }

    /// WAL that went missing or lacks changes since the last backup, which is noted at the new one.
    fn losses_since(&self, before: &Backup, made: &Backup, began: Timestamp, missing: Option<Problem>) -> Vec<Problem> {
        let noted = Hole::read(&self.spool.here).filter(|hole| hole.found < began);
        let lacking = || {
            let hole = noted.as_ref().filter(|hole| hole.minimal)?;
            Some(Problem {
                message: hole.to_string(),
                hint: Some(format!(
                    "moments between {} and {} may be lost, later ones are safe again; leave wal_level as it is, or make a backup \
                     right after it was minimal",
                    hole.since, made.stopped
                )),
            })
        };
        let Some(lost) = missing.or_else(lacking) else { return Vec::new() };
        let since = noted.as_ref().map_or(before.stopped, |hole| hole.since);
        let noted = self.pgbackrest.note_loss(&made.label, since);
        [lost].into_iter().chain(noted.err().map(|error| Problem::from(&error))).collect()
    }

    /// WAL that went missing since the last backup. Told once: the backup just made is beyond the hole.
    fn hole_since(
        &self,
        before: &Backup,
        made: &Backup,
        identity: &Identity,
        info: &Info,
        objects: &[(String, u64)],
    ) -> Result<Option<Problem>> {
        if before.archive != made.archive {
            return Ok(None);
        }
        let place = (&*self.postgres.stanza, &*made.archive);
        let archive = Archive::read(&self.pgbackrest, place, &info.backups, objects, identity.wal_segment_size)?;
        Ok(archive.hole_behind(before).map(|(last, next)| Problem {
            message: hole(&last, &next),
            hint: Some(format!(
                "moments between {} and {} may be lost, later ones are safe again; look for what removed WAL: \
                 archive-push-queue-max, a changed archive_command, an emptied spool",
                before.stopped, made.stopped
            )),
        }))
    }

    /// Runs the backup while a thread keeps the WAL flowing that pgBackRest waits for at its end.
    fn back_up(&self, kind: BackupType, style: Style, known: &Info) -> Result<(Vec<String>, Vec<Problem>)> {
        let phase = match kind {
            BackupType::Full => "full backup",
            BackupType::Incremental => "incremental backup",
        };
        self.monitor.phase(phase);
        let remaining = self.remaining()?;
        let finished = AtomicBool::new(false);
        let (data, user) = (&self.postgres.data_directory, self.pgbackrest.user());
        let unreadable = access::unreadable(data, user);
        let without = [&*unreadable, &links::strange_in_wal(data)].concat();
        std::thread::scope(|scope| {
            let pusher = (style == Style::Spool).then(|| scope.spawn(|| self.push_until(&finished)));
            let backup =
                self.pgbackrest.labelling_after(known).backup(kind, &without, remaining, &mut |done, total| {
                    self.monitor.progress(Progress { phase: phase.into(), done, total, unit: Unit::Bytes });
                });
            finished.store(true, Ordering::Relaxed);
            let mut problems = pusher.and_then(|pusher| pusher.join().ok()).unwrap_or_default();
            match backup {
                Ok(warnings) => {
                    problems.extend(unreadable.iter().map(|path| access::left_out(data, path, user)));
                    Ok((warnings, problems))
                }
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
            match wal::push(&self.job.settings, self.step, self.postgres, Whose::Ours) {
                Ok(report) if report.pushed > 0 || !report.problems.is_empty() => problems = report.problems,
                Ok(_) => {}
                Err(error) => problems = vec![(&error).into()],
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        problems
    }

    /// Why the clock is not trusted, if storage contradicts it. `info`: the backups at that moment.
    fn contradicted(&self, info: &Info, then: Timestamp) -> Option<String> {
        let newest = info.backups.last().map(|newest| (newest.stopped, newest.label.as_str()));
        judge_by_others(then, self.store.clock_ahead(), newest)
    }

    /// What is said of backups of the future, by a clock that nothing contradicts.
    fn of_the_future(&self, info: &Info) -> Vec<Problem> {
        let (now, stanza) = (Timestamp::now(), &self.postgres.stanza);
        let backups = info.backups.iter().filter(|backup| is_of_the_future(backup.stopped, now));
        let remove = |label: &str| {
            format!(
                "pgbackrest --stanza={stanza} expire --set={label}, which takes along what builds upon it; until it is gone from \
                 backup/{stanza}/backup.history too, pgBackRest may refuse full backups"
            )
        };
        future::told(backups, |backup| (backup.stopped, &backup.label, remove(&backup.label)))
    }

    fn verify(&self) -> Result<StepResult> {
        self.monitor.phase("verifying every backup and WAL segment");
        let verified = |problem, note| Maintenance { what: "verify".into(), problem, note };
        let note = match self.pgbackrest.verify(self.remaining()?) {
            Err(error) if error.kind() == Kind::Permanent => {
                return Ok(self.maintained(vec![verified(Some((&error).into()), "pgBackRest says so".into())]));
            }
            report => report?,
        };
        // Before the storage is looked at: what is pushed meanwhile is there, too.
        let pushed = Reached::read(&self.spool.here);
        let info = self.pgbackrest.info()?;
        let losses = Losses {
            store: &self.store.join(&self.step.name),
            stanza: &self.postgres.stanza,
            pgbackrest: &self.pgbackrest,
            info: &info,
        };
        let mut problem = losses.of_two(&info.backups)?;
        if let (None, Some(since), Some(segment)) =
            (&problem, wal_begins(&info, self.step), segment_size(&self.job.facts))
        {
            problem = losses.of_wal(since, segment, pushed.as_ref())?;
        }
        let mut done = vec![verified(problem, note)];
        done.extend(self.check_dumps()?);
        Ok(self.maintained(done))
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
