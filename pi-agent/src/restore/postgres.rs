//! A database back: pgBackRest restores the files, PostgreSQL itself recovers them here and now, in single-user mode.
//! What the user gets is a whole cluster that needs neither the repository, nor its keys, nor this program any more.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{At, Point, Request, Restored, Unfinished, Window, beside, users};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::health::room;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::mounts::{Bind, privately, within_reach};
use crate::pgbackrest::{self, Backup, Info, PgBackRest, RestoreOrder, Target};
use crate::process::{Program, User};
use crate::retention;
use crate::steps::postgres::{container, programs};

/// Longer than any recovery of a household.
const A_WEEK: Duration = Duration::from_hours(7 * 24);

/// The backups there are, and the stretch of time to any moment of which one can restore.
///
/// # Errors
/// The repository cannot be read.
pub fn points(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<(Vec<Point>, Option<Window>)> {
    let user = pgbackrest::server_user(settings, step, postgres)?;
    let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
    let info = pgbackrest.info()?;
    let newest_wal = pgbackrest.newest_wal_time(&info)?;
    let window = wal_begins(&info, step).map(|from| {
        let newest_backup = info.newest().map_or(from, |backup| backup.stopped);
        Window { step: step.name.clone(), from, to: newest_wal.map_or(newest_backup, |wal| wal.max(newest_backup)) }
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
    restore_as(settings, step, postgres, request, monitor, (user, original, in_place))
}

/// The same for what will take the place of the original, and go on archiving.
///
/// # Errors
/// As of [`restore`].
pub(crate) fn restore_original(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    user: User,
    request: &Request,
    monitor: &Monitor,
) -> Result<Restored> {
    restore_as(settings, step, postgres, request, monitor, (user, None, true))
}

fn restore_as(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    request: &Request,
    monitor: &Monitor,
    (user, original, in_place): (User, Option<PathBuf>, bool),
) -> Result<Restored> {
    // 1. What, with which programs, as whom.
    monitor.phase("looking for the backup");
    let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
    let info = pgbackrest.info()?;
    let (backup, target) = choose(&info, step, &request.at, Timestamp::now())?;
    let programs = programs(backup.version)?;

    // 2. The files.
    let to = std::path::absolute(&request.to).context(|| format!("find {}", request.to.display()))?;
    let place = Place { in_place, original, tablespaces: beside(&to, ".tablespaces"), to };
    place.forget_a_mere_beginning(request)?;
    let delta = place.prepare(&user)?;
    if delta {
        place.forget_a_dead_server()?;
    } else {
        Unfinished::begin(&step.name, request, None)?;
    }
    place.has_room(backup)?;
    let order = RestoreOrder {
        to: &place.to,
        label: &backup.label,
        target: target.clone(),
        tablespaces: &place.tablespaces,
        archive_off: !place.in_place,
        delta,
    };
    let recovery = within_reach(&settings.local.runtime, &[&place.to, &place.tablespaces], user.uid, || {
        pgbackrest.restore(&order, &mut |done, total| {
            monitor.progress(Progress { phase: "restoring files".into(), done, total, unit: Unit::Bytes });
        })?;

        // 3. The recovery.
        with_a_name(settings, &user, || recover(&programs, &place, &pgbackrest, monitor))
    })?;

    // 4. A cluster that stands alone.
    place.forget_recovery()?;
    place.provide_configuration(&user)?;
    let kept_tablespaces = fs::remove_dir(&place.tablespaces).is_err() && place.tablespaces.exists();

    let time = match (&target, recovery.last_transaction) {
        (Target::Time(time), _) => *time,
        (Target::Latest, Some(time)) => time,
        _ => backup.stopped,
    };
    let missing = recovery.missing(&target, &info);
    Ok(Restored {
        restore_point: backup.label.clone(),
        time,
        bytes: Some(backup.size),
        last_commit: recovery.last_transaction,
        hole: missing.is_some() && !recovery.reached(&info),
        problems: missing.into_iter().collect(),
        next: place.next(&programs, postgres, step, &user, &recovery, kept_tablespaces),
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
        })
        .collect();
    let whole = retention::retention_archive(&points, &step.keep, Timestamp::now()).unwrap_or(usize::MAX);
    fulls.get(whole.min(fulls.len()).checked_sub(1)?).map(|full| full.stopped)
}

fn choose<'a>(info: &'a Info, step: &Step, at: &At, now: Timestamp) -> Result<(&'a Backup, Target)> {
    let listed = format!("see: pi-agent points {}", step.name);
    let missing = |what: String| Error::new(what).kind_of(Kind::NotFound).hint(listed.clone());
    let newest = info.newest().ok_or_else(|| missing(format!("there is no backup of {}", step.name)))?;
    match at {
        At::Latest => Ok((newest, Target::Latest)),
        At::Id(id) => {
            let found = info.backups.iter().find(|backup| backup.label == *id);
            found
                .map(|backup| (backup, Target::Immediate))
                .ok_or_else(|| missing(format!("there is no backup {id} of {}", step.name)))
        }
        At::Time(time) if *time > now => {
            Err(Error::usage(format!("{time} is in the future")).hint("give a moment with its offset, such as +10:00"))
        }
        At::Time(time) => {
            let begins = wal_begins(info, step);
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

/// The directory with `postgres`, `pg_ctl` and the others of that major version.
fn programs(version: u32) -> Result<PathBuf> {
    programs::folder(version, "postgres").ok_or_else(|| {
        Error::new(format!("the backup is of PostgreSQL {version}, which is not installed here")).hint(format!(
            "apt install postgresql-{version}; where there is none any more: a dump in pi-agent points goes into any newer one"
        ))
    })
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
fn hand_over(path: &Path, user: &User) -> Result<()> {
    if nix::unistd::Uid::effective().is_root() {
        chown(path, Some(user.uid), Some(user.gid)).context(|| format!("give {} to {}", path.display(), user.name))?;
    }
    Ok(())
}

/// Where the cluster is restored to.
struct Place {
    to: PathBuf,
    tablespaces: PathBuf,
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
            hand_over(&self.to, user)?;
        }
        pgbackrest::directory(&self.to, user, 0o700)?;
        pgbackrest::directory(&self.tablespaces, user, 0o700)?;
        Ok(holds_something)
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
    fn forget_a_dead_server(&self) -> Result<()> {
        let lock = self.to.join("postmaster.pid");
        if users::server(&self.to).is_some() || !lock.exists() {
            return Ok(());
        }
        fs::remove_file(&lock).context(|| format!("remove {}", lock.display()))
    }

    /// Said before hours are spent.
    fn has_room(&self, backup: &Backup) -> Result<()> {
        let (needed, there) = (backup.size, bytes_below(&self.to));
        let free = room(&self.to)?.free;
        if needed.saturating_sub(there) <= free {
            return Ok(());
        }
        Err(super::no_room(&self.to, needed.saturating_sub(there), free))
    }

    /// Removes the settings of the recovery that is over: they name this machine's generated configuration.
    fn forget_recovery(&self) -> Result<()> {
        let file = self.to.join("postgresql.auto.conf");
        let doing = || format!("rewrite {}", file.display());
        let text = fs::read_to_string(&file).context(doing)?;
        let recovery = |line: &str| {
            line.starts_with("restore_command")
                || line.starts_with("recovery_target")
                || line.starts_with("# Recovery settings generated by pgBackRest")
        };
        let kept: String = text.lines().filter(|line| !recovery(line)).flat_map(|line| [line, "\n"]).collect();
        fs::write(&file, kept).context(doing)
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
        for (name, text) in files {
            let path = self.to.join(name);
            let doing = || format!("write {}", path.display());
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match file {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                file => {
                    file.and_then(|mut file| file.write_all(format!("{NOTE}{text}").as_bytes())).context(doing)?;
                    hand_over(&path, user)?;
                }
            }
        }
        Ok(())
    }

    fn next(
        &self,
        programs: &Path,
        postgres: &Postgres,
        step: &Step,
        user: &User,
        recovery: &Recovery,
        tablespaces: bool,
    ) -> Vec<String> {
        let (to, as_user) = (self.to.display(), format!("runuser -u {} --", user.name));
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
        let port = postgres.port.checked_add(1).unwrap_or(5433);
        lines.push(format!(
            "It belongs to {} and does not archive. Start it beside the original, on its own port:",
            user.name
        ));
        lines.push(format!(
            "  {as_user} {}/pg_ctl -D {to} -l {to}/server.log -w -o \"-p {port} -k /tmp -c listen_addresses=\" start",
            programs.display()
        ));
        lines.push(format!("  {as_user} psql -h /tmp -p {port} postgres"));
        lines.push(format!("  {as_user} {}/pg_ctl -D {to} -w stop", programs.display()));
        lines.push(format!(
            "Before it takes the place of the original, remove archive_mode = 'off' from {to}/postgresql.auto.conf."
        ));
        lines
    }
}

impl Place {
    /// How a container gets it in the place of what it has.
    fn put_into_container(&self, container: &str, user: &User, tablespaces: bool) -> Vec<String> {
        let to = self.to.display();
        let (original, find) = match &self.original {
            Some(original) => (original.display().to_string(), String::new()),
            None => ("VOLUME".into(), format!(" (where VOLUME is, docker inspect {container} says)")),
        };
        let mut lines = vec![
            format!("It belongs to user {} and does not archive. Into the place of the original{find}:", user.uid),
            format!("  docker stop {container}"),
            format!("  mv {original} {original}.before"),
            format!("  mv {to} {original}"),
            format!("  sed -i \"/^archive_mode = 'off'/d\" {original}/postgresql.auto.conf"),
        ];
        if tablespaces {
            lines.push(format!(
                "  # ls -l {original}.before/pg_tblspc shows the path of each tablespace in the container:"
            ));
            lines.push(format!("  # move {}/OID there, then", self.tablespaces.display()));
            lines.push(format!("  # ln -sfn PATH {original}/pg_tblspc/OID"));
        }
        lines.push(format!("  docker start {container}"));
        lines
    }
}

/// PostgreSQL works only for a user that has a name. A container's may have none here: then it has one in the recovery.
pub(crate) fn with_a_name<T: Send>(
    settings: &Settings,
    user: &User,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    if !user.is_nameless() {
        return work();
    }
    let doing = || format!("give user {} a name for the recovery", user.uid);
    let mut names = fs::read_to_string("/etc/passwd").context(doing)?;
    names.push_str(&format!("pi-agent-{0}:x:{0}:{1}::/:/usr/sbin/nologin\n", user.uid, user.gid));
    let file = tempfile::Builder::new().permissions(Permissions::from_mode(0o644)).tempfile().context(doing)?;
    fs::write(file.path(), names).context(doing)?;
    // A umask (the unit's, or that of a restore before) took from what it was made with.
    fs::set_permissions(file.path(), Permissions::from_mode(0o644)).context(doing)?;
    let bind = Bind { from: file.path().into(), at: "/etc/passwd".into() };
    privately(&settings.local.runtime, &[bind], work)
}

/// What PostgreSQL told while it recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Recovery {
    last_transaction: Option<Timestamp>,
    last_segment: Option<String>,
    segments: u64,
    /// The archive ended before the moment asked for.
    ended_early: bool,
    /// It came to its end; what failed then concerns only the session that nobody wants.
    complete: bool,
    /// The databases' locale is one that only the container has.
    foreign_locale: bool,
}

impl Recovery {
    fn hear(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once("restored log file \"") {
            let name = rest.split('"').next().unwrap_or_default();
            if name.len() == 24 {
                self.segments += 1;
                self.last_segment = Some(name.to_owned());
            }
        } else if let Some((_, time)) = line.split_once("last completed transaction was at log time ") {
            self.last_transaction = time.trim().parse().ok();
        } else if line.contains("recovery ended before configured recovery target was reached") {
            self.ended_early = true;
        } else if line.contains("archive recovery complete") {
            self.complete = true;
        } else if line.contains("database locale is incompatible with operating system") {
            self.foreign_locale = true;
        }
    }

    /// The newest segment of the archive was restored.
    fn reached(&self, info: &Info) -> bool {
        let newest = info.newest_wal.as_ref();
        newest.is_none_or(|(_, newest)| self.last_segment.as_ref().is_some_and(|last| last >= newest))
    }

    /// Says so when WAL that should have been there was not.
    fn missing(&self, target: &Target, info: &Info) -> Option<Problem> {
        let (_, newest) = info.newest_wal.as_ref()?;
        let to_the_end = *target == Target::Latest || self.ended_early;
        let reached = self.reached(info);
        if !to_the_end || (reached && !self.ended_early) {
            return None;
        }
        let last =
            self.last_transaction.map_or_else(|| "the backup itself".into(), |time| format!("a transaction of {time}"));
        let message = if reached {
            format!("the archive holds no transaction after the moment asked for; the last it holds is {last}")
        } else {
            format!("the WAL has a hole before {newest}; the last that could be recovered is {last}")
        };
        let hint = if reached {
            "if the original still has newer WAL: pi-agent wal push, then restore again"
        } else {
            "a backup made after the hole restores what came later: see pi-agent points"
        };
        Some(Problem { message, hint: Some(hint.into()) })
    }
}

/// Lets PostgreSQL recover in single-user mode: it fetches WAL through the restore_command that pgBackRest wrote,
/// promotes itself, finds its standard input empty and shuts down.
fn recover(programs: &Path, place: &Place, pgbackrest: &PgBackRest, monitor: &Monitor) -> Result<Recovery> {
    let first = recover_once(programs, place, pgbackrest, monitor, None)?;
    if !first.ended_early {
        return Ok(first);
    }
    // PostgreSQL refuses to end recovery without having seen a transaction later than the moment asked for. When the archive
    // simply ends before, its end is that moment as far as anybody knows.
    let second = recover_once(programs, place, pgbackrest, monitor, Some("recovery_target_time="))?;
    Ok(Recovery {
        ended_early: true,
        last_transaction: second.last_transaction.or(first.last_transaction),
        last_segment: second.last_segment.max(first.last_segment),
        ..second
    })
}

fn recover_once(
    programs: &Path,
    place: &Place,
    pgbackrest: &PgBackRest,
    monitor: &Monitor,
    setting: Option<&str>,
) -> Result<Recovery> {
    let user = pgbackrest.user();
    // An empty one: the restored one may name files, libraries and limits of another machine.
    let config = tempfile::Builder::new().prefix("pi-agent-recovery-").suffix(".conf").tempfile();
    let config = config.context(|| "make a configuration for the recovery".into())?;
    hand_over(config.path(), user)?;
    let config_file = format!("config_file={}", config.path().display());
    let mut settings = vec![
        config_file.as_str(),
        // Without it, limits such as max_connections must be at least the original's.
        "hot_standby=off",
        "shared_preload_libraries=",
        "session_preload_libraries=",
        "local_preload_libraries=",
        "max_prepared_transactions=100",
        "logging_collector=off",
        "log_destination=stderr",
        "lc_messages=C",
        "timezone=UTC",
        "log_timezone=UTC",
    ];
    if place.in_place {
        // The new timeline's history must be archived when the server starts again.
        settings.push("archive_mode=on");
    }
    settings.extend(setting);
    let mut arguments = vec![OsString::from("--single"), "-D".into(), place.to.clone().into()];
    arguments.extend(settings.into_iter().flat_map(|setting| [OsString::from("-c"), setting.into()]));
    arguments.push("postgres".into());

    let mut recovery = Recovery::default();
    monitor.phase("recovering");
    let program = Program::new(programs.join("postgres"), arguments).within(A_WEEK).as_user(user);
    let output = pgbackrest.on_its_way(program).run(&mut |_, line| {
        recovery.hear(line);
        let done = recovery.segments;
        monitor.progress(Progress { phase: "recovering".into(), done, total: None, unit: Unit::Items });
    })?;
    if output.status.success() || recovery.ended_early || (recovery.complete && recovery.foreign_locale) {
        return Ok(recovery);
    }
    let said = output.stderr.lines().rev().find(|line| line.contains("FATAL") || line.contains("PANIC"));
    let said = said.or(output.stderr.lines().last()).unwrap_or("no message").trim();
    Err(Error::new(format!("recover the database in {}: {said}", place.to.display()))
        .hint("the files are restored; the same restore with --overwrite goes on from there"))
}

#[cfg(test)]
mod tests {
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
        let of = |at: At| choose(&info, &step, &at, now).map(|(backup, target)| (backup.label.clone(), target));
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
        assert_eq!(of(At::Id("X".into())).expect_err("unknown").kind(), Kind::NotFound);
    }

    #[test]
    fn the_recovery_tells_how_far_it_came() {
        let mut recovery = Recovery::default();
        for line in [
            "2026-11-21 02:51:27.463 UTC [1] LOG:  restored log file \"000000010000000000000009\" from archive",
            "2026-11-21 02:51:27.463 UTC [1] LOG:  restored log file \"00000002.history\" from archive",
            "2026-11-21 02:51:27.618 UTC [1] LOG:  last completed transaction was at log time 2026-11-21 02:51:18.206012+00",
        ] {
            recovery.hear(line);
        }
        assert_eq!(recovery.last_transaction, Some(at("2026-11-21T02:51:18.206012Z")));
        assert_eq!(recovery.last_segment.as_deref(), Some("000000010000000000000009"));
        let hole = recovery.missing(&Target::Latest, &household()).expect("0A was not there");
        assert!(hole.message.contains("hole before 00000001000000000000000A"));
        assert_eq!(recovery.missing(&Target::Time(at("2026-11-21T02:51:19Z")), &household()), None);
        recovery.last_segment = Some("00000001000000000000000A".into());
        assert_eq!(recovery.missing(&Target::Latest, &household()), None);
    }
}
