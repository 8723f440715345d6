//! A database back: pgBackRest restores the files, PostgreSQL itself recovers them here and now ([`Cluster::recover`]).
//! What the user gets is a whole cluster that needs neither the repository, nor its keys, nor this program any more.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::course::{self, Course};
use super::outside::{Original, Outside};
use super::recovery::{Cluster, Recovery};
use super::{At, Point, Request, Restored, Unfinished, Window, beside, idle, is_empty, users};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::health::room;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::mounts::within_reach;
use crate::pgbackrest::{self, Backup, Info, PgBackRest, RestoreOrder, Target};
use crate::process::{Program, User};
use crate::report::words;
use crate::retention;
use crate::shown::{shown, typed};
use crate::steps::future;
use crate::steps::postgres::programs::Found;
use crate::steps::postgres::restored::{self, Configuration};
use crate::steps::postgres::{container, image};
use crate::theirs::{self, Theirs};
use crate::wal::place;

/// The backups there are, and the stretch of time to any moment of which one can restore.
///
/// # Errors
/// The repository cannot be read.
pub fn points(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<(Vec<Point>, Option<Window>)> {
    let user = pgbackrest::server_user(settings, step, postgres)?;
    let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
    let info = pgbackrest.info()?;
    let newest_wal = pgbackrest.newest_wal_time(&info)?;
    let timelines = course::since(&pgbackrest, &info)?;
    let window = wal_begins(&info, step).map(|from| {
        let newest_backup = info.newest(Timestamp::now()).map_or(from, |backup| backup.stopped);
        let to = newest_wal.map_or(newest_backup, |wal| wal.max(newest_backup));
        Window { step: step.name.clone(), from, to, timelines, gaps: info.gaps(from) }
    });
    let points = info.backups.into_iter().map(|backup| Point {
        step: step.name.clone(),
        id: backup.label,
        time: backup.stopped,
        kind: backup.kind,
        bytes: Some(backup.size),
        new_bytes: Some(backup.copied),
        same: false,
        postgresql: Some(backup.version),
        other_host: None,
    });
    Ok((points.collect(), window))
}

/// Restores into `request.to` and recovers there.
///
/// # Errors
/// No such point, no WAL for that moment, PostgreSQL's programs of that version are missing, or the restore or the recovery failed.
pub fn restore(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    request: &Request,
    monitor: &Monitor,
) -> Result<Restored> {
    let original = container::data_on_this_machine(postgres);
    let in_place = original.as_ref().is_some_and(|original| same(&request.to, original));
    let user = container::user(settings, step, postgres)?;
    restore_as(settings, step, postgres, request, monitor, (user, original, in_place, None))
}

/// The same for what will take the place of `there`, and go on archiving.
///
/// # Errors
/// As of [`restore`].
pub(crate) fn restore_original(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    (user, there): (User, Original<'_>),
    request: &Request,
    monitor: &Monitor,
) -> Result<Restored> {
    restore_as(settings, step, postgres, request, monitor, (user, None, true, Some(there)))
}

fn restore_as(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    request: &Request,
    monitor: &Monitor,
    (user, original, in_place, there): (User, Option<PathBuf>, bool, Option<Original<'_>>),
) -> Result<Restored> {
    // 1. What, with which programs, as whom.
    monitor.phase("looking for the backup");
    let runtime = &settings.local.runtime;
    let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
    let info = pgbackrest.info()?;
    // Whichever backups lead to the moment, WAL is kept since the same one.
    let begins = wal_begins(&info, step);
    let course = Course::to(&pgbackrest, info, &step.name, &request.at)?;
    let info = &course.info;
    let (backup, target) = choose(info, begins, step, &request.at, Timestamp::now())?;
    // What Docker refuses now, the next run removes.
    let _ = image::remove_left(runtime);
    let programs = Found::of(backup.version, postgres, runtime, &user)?;

    // 2. The files.
    let to = std::path::absolute(&request.to).context(|| format!("find {}", request.to.display()))?;
    let outside = match there {
        Some(there) => there.takes_outside(pgbackrest.linked(&backup.label)?, &user)?,
        None => Vec::new(),
    };
    let place = Place { in_place, original, tablespaces: beside(&to, ".tablespaces"), outside, to };
    place.forget_a_mere_beginning(request)?;
    place.leaves_tablespaces_alone(request)?;
    let delta = place.prepare(&user)?;
    if delta {
        place.forget_a_dead_server(&user)?;
    }
    Unfinished::begin(&step.name, request, None)?;
    place.has_room(backup, wal_needed(backup, &target, info))?;
    if let Some(there) = there {
        place.outside.iter().try_for_each(|outside| outside.prepare(&user, delta, there.data))?;
    }
    let elsewhere = place.outside.iter().filter_map(|outside| Some((outside.oid()?.to_owned(), outside.stage.clone())));
    let elsewhere: Vec<_> = elsewhere.collect();
    let stages = place.outside.iter().map(|outside| &outside.stage);
    let places: Vec<&Path> = stages.chain([&place.tablespaces]).map(PathBuf::as_path).collect();
    let order = RestoreOrder {
        to: &place.to,
        label: &backup.label,
        target: target.clone(),
        timeline: course.target(backup),
        tablespaces: &place.tablespaces,
        elsewhere: &elsewhere,
        archive_off: !place.in_place,
        delta,
    };
    let cluster = Cluster {
        settings,
        pgbackrest: &pgbackrest,
        programs: &programs,
        version: backup.version,
        data: &place.to,
        elsewhere: &places,
        tablespaces: &place.tablespaces,
        original: there.map(|there| there.data).or(place.original.as_deref()),
        left: &course.left,
    };
    let recovery = within_reach(runtime, &[&[&*place.to], &places[..]].concat(), user.uid, || {
        pgbackrest.restore(&order, &mut |done, total| {
            monitor.progress(Progress { phase: "restoring files".into(), done, total, unit: Unit::Bytes });
        })?;

        // 3. The recovery.
        if let Some(wal) = place.outside.iter().find(|outside| outside.oid().is_none()) {
            wal.take_wal(&place.to, &user)?;
        }
        let mut recovery = cluster.recover(monitor)?;
        if let (Target::Time(time), true) = (&target, recovery.ended_early && !recovery.ended_at_minimal()) {
            // Where that cannot be found out, the archive ends where its transactions do.
            recovery.ended_early =
                !idle::came_behind(*time, &recovery, &pgbackrest, info, &course.left).unwrap_or_default();
        }
        place.settle(&recovery, postgres, &user)?;
        Ok(recovery)
    })?;

    // 4. A cluster that stands alone.
    place.provide_configuration(&user)?;
    let kept_tablespaces = fs::remove_dir(&place.tablespaces).is_err() && place.tablespaces.exists();

    let time = match (&target, recovery.last_transaction) {
        (Target::Time(time), _) if !recovery.ended_early => *time,
        (Target::Time(_), Some(last)) => last,
        (Target::Latest, Some(time)) => time,
        _ => backup.stopped,
    };
    let missing = recovery.missing(&target, info);
    Ok(Restored {
        restore_point: backup.label.clone(),
        time,
        bytes: Some(backup.size),
        last_commit: recovery.last_transaction,
        hole: missing.is_some() && (!recovery.reached(info) || recovery.ended_at_minimal()),
        problems: missing.into_iter().chain(damaged(backup)).collect(),
        remarks: Vec::new(),
        passed_over: course.passed_over,
        unfinished: false,
        next: place.next(&programs, postgres, step, &user, &recovery, kept_tablespaces),
    })
}

/// Bytes of WAL that are kept until the recovery has ended, as far as is known before it: to where the backup is consistent, or to the
/// end, and the segment with which the new timeline begins.
fn wal_needed(backup: &Backup, target: &Target, info: &Info) -> u64 {
    let size = info.segment_size().unwrap_or(16 << 20);
    let newest = || place(&info.newest_wal.as_ref()?.1, size);
    let last = match target {
        Target::Latest => newest(),
        Target::Immediate | Target::Time(_) => backup.stop_lsn.map(|stop| stop / size),
    };
    let first = backup.start_lsn.map(|start| start / size);
    let between = last.zip(first).map_or(0, |(last, first)| last.saturating_sub(first));
    (between + 2) * size
}

/// What is wrong with what comes from a backup that holds damaged pages.
fn damaged(backup: &Backup) -> Option<Problem> {
    backup.damaged_pages.then(|| Problem {
        message: format!("backup {} holds pages with wrong checksums, which were restored as they are", backup.label),
        hint: Some("pg_amcheck shows what cannot be read; an older restore point may hold it: pi-agent points".into()),
    })
}

/// The stop of the oldest backup since which the WAL is whole.
pub(crate) fn wal_begins(info: &Info, step: &Step) -> Option<Timestamp> {
    let fulls: Vec<_> = info.backups.iter().rev().filter(|backup| backup.is_full()).collect();
    let points: Vec<_> = info
        .backups
        .iter()
        .map(|backup| retention::Point {
            id: backup.label.clone(),
            time: backup.stopped,
            full: backup.is_full(),
            needs: vec![],
            lacks: backup.damaged_pages,
        })
        .collect();
    let whole = retention::retention_archive(&points, &step.keep, Timestamp::now()).unwrap_or(usize::MAX);
    fulls.get(whole.min(fulls.len()).checked_sub(1)?).map(|full| full.stopped)
}

/// The backup that leads to that point. `begins`: since when the WAL is whole.
fn choose<'a>(
    info: &'a Info,
    begins: Option<Timestamp>,
    step: &Step,
    at: &At,
    now: Timestamp,
) -> Result<(&'a Backup, Target)> {
    let listed = format!("see: pi-agent points {}", step.name);
    let missing = |what: String| Error::new(what).kind_of(Kind::NotFound).hint(listed.clone());
    // Whichever is taken, all WAL behind it is read.
    let newest = future::newest(&info.backups, |backup| (backup.stopped, backup.label.as_str()), None);
    let (newest, _) = newest.ok_or_else(|| missing(format!("there is no backup of {}", step.name)))?;
    match at {
        At::Latest | At::Timeline { time: None, .. } => Ok((newest, Target::Latest)),
        At::Id(id) => {
            let found = info.backups.iter().find(|backup| backup.label == *id);
            found
                .map(|backup| (backup, Target::Immediate))
                .ok_or_else(|| missing(format!("there is no backup {id} of {}", step.name)))
        }
        At::Time(time) | At::Timeline { time: Some(time), .. } if *time > now => {
            Err(Error::usage(format!("{time} is in the future")).hint("give a moment with its offset, such as +10:00"))
        }
        At::Time(time) | At::Timeline { time: Some(time), .. } => {
            // pgBackRest tells its time in whole seconds: one that ended within the second of that moment may have ended after it.
            let before = |margin| info.backups.iter().rev().find(|backup| backup.stopped + margin <= *time);
            let base = before(SignedDuration::from_secs(1)).or_else(|| before(SignedDuration::ZERO));
            match base {
                Some(base) if begins.is_some_and(|begins| begins <= *time) => Ok((base, Target::Time(*time))),
                Some(base) => Err(missing(format!("there is no WAL for {time} any more"))
                    .hint(format!("the backup before it restores by its label: --at {}", base.label))),
                None => Err(missing(format!("{time} is before the first backup of {}", step.name))),
            }
        }
    }
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Bytes of all files there.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = path.read_dir() else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Gives a path to the server's user when we are root; otherwise we are that user.
pub(super) fn hand_over(path: &Path, user: &User) -> Result<()> {
    if nix::unistd::Uid::effective().is_root() {
        chown(path, Some(user.uid), Some(user.gid)).context(|| format!("give {} to {}", path.display(), user.name))?;
    }
    Ok(())
}

/// Where a person reaches a copy.
const SOCKET: &str = "/tmp";

/// One that the original does not use.
fn port(postgres: &Postgres) -> u16 {
    postgres.port.checked_add(1).unwrap_or(5433)
}

/// Where the cluster is restored to.
struct Place {
    to: PathBuf,
    tablespaces: PathBuf,
    /// What comes back elsewhere.
    outside: Vec<Outside>,
    /// It is the configured data directory: the original comes back, and goes on archiving.
    in_place: bool,
    /// Where the original is or was; `None`: its container is not there to tell.
    original: Option<PathBuf>,
}

impl Place {
    /// Makes the directories; true when the target holds something already (which the caller has allowed).
    fn prepare(&self, user: &User) -> Result<bool> {
        let holds_something = match self.to.read_dir() {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::new(format!("look into {}", self.to.display())).caused_by(error)),
        };
        if self.to.exists() && !holds_something {
            // An empty one that root made a moment ago, or a fresh disk.
            theirs::give_if_empty(&self.to, user)?;
        }
        theirs::make(&self.to, user, 0o700)?;
        theirs::make(&self.tablespaces, user, 0o700)?;
        Ok(holds_something)
    }

    /// A directory beside the target that has the name of its tablespaces is ours only beside a note.
    fn leaves_tablespaces_alone(&self, request: &Request) -> Result<()> {
        let theirs = !request.overwrite && Unfinished::of(&self.to).is_none() && !is_empty(&self.tablespaces)?;
        let in_the_way = || {
            Error::usage(format!(
                "restore into {}: its tablespaces would come into {}, and something is in there",
                shown(&self.to),
                shown(&self.tablespaces)
            ))
            .hint("move it away, or choose another directory")
        };
        if theirs { Err(in_the_way()) } else { Ok(()) }
    }

    /// Killed before it said what it restores, it has restored nothing; pgBackRest would not go on with that.
    fn forget_a_mere_beginning(&self, request: &Request) -> Result<()> {
        let said = ["backup.manifest", "PG_VERSION"].iter().any(|name| self.to.join(name).exists());
        if request.overwrite || said || Unfinished::of(&self.to).is_none() || !self.to.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&self.to).context(|| format!("remove the unfinished {}", self.to.display()))
    }

    /// A recovery that was killed leaves its lock, and pgBackRest refuses where there is one.
    fn forget_a_dead_server(&self, user: &User) -> Result<()> {
        const LOCK: &str = "postmaster.pid";
        if users::server(&self.to).is_some() || !self.to.join(LOCK).exists() {
            return Ok(());
        }
        let there = Theirs::open(&self.to, user)?;
        let doing = || format!("remove {}", self.to.join(LOCK).display());
        there.act(|| fs::remove_file(there.inside(LOCK)).context(doing))
    }

    /// Said before hours are spent. `wal`: bytes of WAL that the recovery needs.
    fn has_room(&self, backup: &Backup, wal: u64) -> Result<()> {
        let elsewhere: u64 = self.outside.iter().map(|outside| outside.bytes).sum();
        let there = bytes_below(&self.to) + bytes_below(&self.tablespaces);
        let wal_outside = self.outside.iter().any(|outside| outside.oid().is_none());
        let wal_of = |is_there: bool| if is_there { wal } else { 0 };
        let here = (backup.size.saturating_sub(elsewhere) + wal_of(!wal_outside)).saturating_sub(there);
        let missing = |outside: &Outside| {
            (outside.bytes + wal_of(outside.oid().is_none())).saturating_sub(bytes_below(&outside.stage))
        };
        let others = self.outside.iter().map(|outside| (&outside.place, missing(outside)));
        // On one disk they share the room.
        let mut disks: BTreeMap<u64, (&PathBuf, u64)> = BTreeMap::new();
        for (place, missing) in [(&self.to, here)].into_iter().chain(others) {
            let disk = place.metadata().context(|| format!("look at {}", shown(place)))?.dev();
            disks.entry(disk).or_insert((place, 0)).1 += missing;
        }
        disks.into_values().try_for_each(|(place, needed)| {
            let free = room(place)?.free;
            if needed <= free {
                return Ok(());
            }
            Err(super::no_room(place, needed, free).hint(format!(
                "make room on its disk, or restore to a larger one; {} of that are for WAL since the backup: after a newer one it is less",
                words::size(wal)
            )))
        })
    }

    /// The original gets its settings back. A copy stays without them, and has a configuration to be started with.
    fn settle(&self, recovery: &Recovery, postgres: &Postgres, user: &User) -> Result<()> {
        if self.in_place {
            return restored::put_back(&self.to, user);
        }
        restored::leave_aside(&self.to, user)?;
        let directory = self.to.join(restored::OWN);
        theirs::make(&directory, user, 0o700)?;
        let port = restored::line("port", &port(postgres).to_string());
        let more = port + &restored::line("unix_socket_directories", SOCKET);
        let configuration = Configuration { directory: &directory, user };
        let role = container::role(postgres).unwrap_or_else(|| user.name.clone());
        configuration.of_a_copy(&recovery.control, &more, &role)
    }

    /// Debian keeps `postgresql.conf` in /etc, outside of the backup; a directory without one cannot be started.
    fn provide_configuration(&self, user: &User) -> Result<()> {
        const NOTE: &str =
            "# Written by pi-agent restore: the original's configuration was not in its data directory.\n";
        let files = [
            ("postgresql.conf", "# If an extension wants it: shared_preload_libraries = '...'\n"),
            ("pg_hba.conf", "local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\n"),
            ("pg_ident.conf", ""),
        ];
        let there = Theirs::open(&self.to, user)?;
        there.act(|| {
            files.into_iter().try_for_each(|(name, text)| {
                let path = there.inside(name);
                match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                    file => file.and_then(|mut file| file.write_all(format!("{NOTE}{text}").as_bytes())),
                }
                .context(|| format!("write {}", self.to.join(name).display()))
            })
        })
    }

    fn next(
        &self,
        programs: &Found,
        postgres: &Postgres,
        step: &Step,
        user: &User,
        recovery: &Recovery,
        tablespaces: bool,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(time) = recovery.last_transaction {
            lines.push(format!("The last transaction in it was committed at {time}."));
        }
        if tablespaces {
            lines.push(format!("Its tablespaces are in {}.", self.tablespaces.display()));
        }
        if self.in_place {
            lines.push("It is the original again, on a new timeline, and goes on archiving.".into());
            lines.push(match &postgres.container {
                Some(container) => format!("Start it as always: docker start {container}"),
                None => "Start it as always, for example: systemctl start postgresql".into(),
            });
            lines.push(format!("Then make a backup of it: pi-agent run {}", step.name));
            return lines;
        }
        if let Some(container) = &postgres.container {
            lines.extend(self.put_into_container(container, user, tablespaces));
            return lines;
        }
        let Found::Here(programs) = programs else { return lines };
        lines.extend(self.start(programs, postgres, user));
        lines
    }

    /// How a person starts the copy, asks it, ends it, and lets it take the place of the original.
    fn start(&self, programs: &Path, postgres: &Postgres, user: &User) -> Vec<String> {
        let [to, pg_ctl, log] = [&*self.to, &programs.join("pg_ctl"), &self.to.join("server.log")].map(typed);
        let as_user = format!("runuser -u {} --", typed(Path::new(&user.name)));
        let role = postgres.user.iter().map(|role| format!(" -U {}", typed(Path::new(role)))).collect::<String>();
        // pg_ctl hands these options to a shell.
        let config = self.to.join(restored::OWN).join("postgresql.conf");
        let options = typed(Path::new(&format!("-c config_file={}", typed(&config))));
        let [originals, auto] = [restored::ORIGINALS, restored::AUTO].map(|name| typed(&self.to.join(name)));
        // A container may not.
        let may =
            Program::new("unshare", ["--net", "true"]).run(&mut |_, _| ()).is_ok_and(|done| done.status.success());
        let alone = if may { "unshare --net " } else { "" };
        vec![
            format!(
                "It belongs to {} and does not archive. Start it beside the original, on its own port and with nothing of the original's settings:",
                user.name
            ),
            format!("  {alone}{as_user} {pg_ctl} -D {to} -l {log} -w -o {options} start"),
            format!("  {as_user} psql -h {SOCKET} -p {}{role} postgres", port(postgres)),
            format!("  {as_user} env PGDATA={to} {pg_ctl} -w stop"),
            "Before it takes the place of the original it gets that one's settings back:".into(),
            format!("  mv {originals} {auto}"),
        ]
    }
}

impl Place {
    /// How a container gets it in the place of what it has.
    fn put_into_container(&self, container: &str, user: &User, tablespaces: bool) -> Vec<String> {
        let to = typed(&self.to);
        let (original, find) = match &self.original {
            Some(original) => (original.clone(), String::new()),
            None => (PathBuf::from("VOLUME"), format!(" (where VOLUME is, docker inspect {container} says)")),
        };
        let [before, links] = [beside(&original, ".before"), original.join("pg_tblspc/OID")].map(|path| typed(&path));
        let [originals, auto] = [restored::ORIGINALS, restored::AUTO].map(|name| typed(&original.join(name)));
        let original = typed(&original);
        let mut lines = vec![
            format!("It belongs to user {} and does not archive. Into the place of the original{find}:", user.uid),
            format!("  docker stop {container}"),
            format!("  mv {original} {before}"),
            format!("  mv {to} {original}"),
            format!("  mv {originals} {auto}"),
        ];
        if tablespaces {
            lines.push(format!("  # ls -l {before}/pg_tblspc shows the path of each tablespace in the container:"));
            lines.push(format!("  # move {} there, then", typed(&self.tablespaces.join("OID"))));
            lines.push(format!("  # ln -sfn PATH {links}"));
        }
        lines.push(format!("  docker start {container}"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Count, Keep, Source};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn step() -> Step {
        Step {
            name: "database".into(),
            source: Source::Postgres(Postgres {
                stanza: "main".into(),
                container: None,
                data_directory: "/d".into(),
                socket_directory: "/s".into(),
                port: 5432,
                user: None,
                full_every: Duration::from_hours(168),
                monthly_dump: true,
            }),
            keep: Keep::Rules {
                last: Count::Of(0),
                daily: Count::Of(30),
                weekly: Count::Of(0),
                monthly: Count::Forever,
                yearly: Count::Of(0),
            },
            max_duration: None,
            stall: Duration::from_secs(900),
            test: crate::config::StepTest::default(),
        }
    }

    fn backup(label: &str, kind: &str, stopped: &str) -> Backup {
        Backup {
            label: label.into(),
            kind: kind.into(),
            stopped: at(stopped),
            size: 1,
            copied: 1,
            stored: None,
            needs: vec![],
            damaged_pages: false,
            version: 15,
            archive: "15-1".into(),
            wal_start: None,
            start_lsn: None,
            stop_lsn: None,
            lost_since: None,
        }
    }

    fn household() -> Info {
        Info {
            backups: vec![
                backup("M", "full", "2026-01-31T03:00:00Z"),
                backup("F", "full", "2026-05-01T03:00:00Z"),
                backup("I", "incr", "2026-05-20T03:00:00Z"),
                backup("G", "full", "2026-06-20T03:00:00Z"),
            ],
            clusters: vec![],
            newest_wal: Some(("15-1".into(), "00000001000000000000000A".into())),
        }
    }

    #[test]
    fn a_moment_needs_a_backup_before_it_and_wal_since() {
        let (info, step, now) = (household(), step(), at("2026-06-21T00:00:00Z"));
        let begins = wal_begins(&info, &step);
        let of = |at: At| choose(&info, begins, &step, &at, now).map(|(backup, target)| (backup.label.clone(), target));
        let moment = at("2026-06-01T00:00:00Z");
        assert_eq!(of(At::Time(moment)).expect("in the window"), ("I".into(), Target::Time(moment)));
        let same_second = at("2026-06-20T03:00:00.7Z");
        assert_eq!(of(At::Time(same_second)).expect("in the window"), ("I".into(), Target::Time(same_second)));
        assert_eq!(of(At::Latest).expect("newest"), ("G".into(), Target::Latest));
        assert_eq!(of(At::Id("M".into())).expect("by label"), ("M".into(), Target::Immediate));
        let gone = of(At::Time(at("2026-03-01T00:00:00Z"))).expect_err("only the monthly is left of it");
        assert!(gone.advice().is_some_and(|hint| hint.contains("--at M")));
        assert_eq!(of(At::Time(at("2025-03-01T00:00:00Z"))).expect_err("too early").kind(), Kind::NotFound);
        assert_eq!(of(At::Time(at("2027-03-01T00:00:00Z"))).expect_err("future").kind(), Kind::Usage);
        // On a timeline that no full backup leads to, an incremental one does.
        let alone = Info { backups: vec![backup("I", "incr", "2026-05-20T03:00:00Z")], ..household() };
        let found = choose(&alone, begins, &step, &At::Time(moment), now).expect("its WAL is there");
        assert_eq!(found.0.label, "I");
        assert_eq!(of(At::Id("X".into())).expect_err("unknown").kind(), Kind::NotFound);
    }
}
