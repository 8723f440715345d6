//! The recovery of restored files: PostgreSQL itself does it, here and now, in single-user mode.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::handover::{self, Handover};
use super::postgres::hand_over;
use crate::config::Settings;
use crate::error::{Context, Error, Result};
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::mounts::{Bind, privately};
use crate::pgbackrest::{Info, PgBackRest, Target};
use crate::process::User;
use crate::steps::postgres::catalogue::ALWAYS_THERE;
use crate::steps::postgres::programs::Found;
use crate::wal::is_shut_down;

/// Longer than any recovery of a household.
const A_WEEK: Duration = Duration::from_hours(7 * 24);

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
pub(super) struct Recovery {
    /// The last commit that came back.
    pub last_transaction: Option<Timestamp>,
    last_segment: Option<String>,
    segments: u64,
    /// The archive ended before the moment asked for.
    pub ended_early: bool,
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
        }
    }

    /// The newest segment of the archive was restored.
    pub fn reached(&self, info: &Info) -> bool {
        let newest = info.newest_wal.as_ref();
        // Where one timeline left another, both have the segment.
        let place = |name: &str| name.get(8..).map(str::to_owned);
        newest.is_none_or(|(_, newest)| self.last_segment.as_ref().is_some_and(|last| place(last) >= place(newest)))
    }

    /// Says so when WAL that should have been there was not.
    pub fn missing(&self, target: &Target, info: &Info) -> Option<Problem> {
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

/// A cluster whose files are restored.
pub(super) struct Cluster<'a> {
    pub settings: &'a Settings,
    pub pgbackrest: &'a PgBackRest,
    pub programs: &'a Found,
    pub version: u32,
    pub data: &'a Path,
    pub tablespaces: &'a Path,
    /// It goes on as the original.
    pub archives: bool,
}

impl Cluster<'_> {
    /// Lets PostgreSQL recover in single-user mode: it asks for WAL as long as there is some, promotes itself, finds its
    /// standard input empty and shuts down.
    ///
    /// # Errors
    /// What PostgreSQL says, or why WAL that is there could not be fetched.
    pub fn recover(&self, monitor: &Monitor) -> Result<Recovery> {
        let first = self.recover_once(monitor, None)?;
        if !first.ended_early {
            return Ok(first);
        }
        // PostgreSQL refuses to end recovery without having seen a transaction later than the moment asked for. When the
        // archive simply ends before, its end is that moment as far as anybody knows.
        let second = self.recover_once(monitor, Some("recovery_target_time="))?;
        Ok(Recovery {
            ended_early: true,
            last_transaction: second.last_transaction.or(first.last_transaction),
            last_segment: second.last_segment.max(first.last_segment),
            ..second
        })
    }

    fn recover_once(&self, monitor: &Monitor, setting: Option<&str>) -> Result<Recovery> {
        let Self { data, pgbackrest, .. } = self;
        let (user, runtime) = (pgbackrest.user(), &self.settings.local.runtime);
        let doing = || format!("prepare the recovery of {}", data.display());
        let desk = handover::desk(runtime)?;
        hand_over(desk.path(), user)?;
        // An empty one: the restored one may name files, libraries and limits of another machine.
        let config = desk.path().join("postgresql.conf");
        fs::write(&config, "").context(doing)?;
        hand_over(&config, user)?;
        let handover = Handover::make(desk.path(), user)?;
        let own = [format!("config_file={}", config.display()), format!("restore_command={}", handover.command)];
        let mut settings: Vec<_> = own.iter().map(String::as_str).collect();
        settings.extend([
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
        ]);
        if self.archives {
            // The new timeline's history must be archived when the server starts again.
            settings.push("archive_mode=on");
        }
        settings.extend(setting);
        let mut arguments = vec![OsString::from("--single"), "-D".into(), data.into()];
        arguments.extend(settings.into_iter().flat_map(|setting| [OsString::from("-c"), setting.into()]));
        arguments.push(ALWAYS_THERE.into());

        let mut recovery = Recovery::default();
        monitor.phase("recovering");
        let programs = self.programs.open(self.version, runtime, user, &[data, self.tablespaces, desk.path()])?;
        let program = programs.program("postgres", arguments).within(A_WEEK).as_user(user);
        let fetch = |name: &str, to: &str| {
            monitor.alive();
            let to = data.join("pg_wal").join(to);
            // The last one of a server that died, or of a timeline that was left.
            Ok(pgbackrest.fetch(name, data, &to)?
                || (name.len() == 24 && pgbackrest.fetch(&format!("{name}.partial"), data, &to)?))
        };
        let (output, fetched) = handover.serving(fetch, || {
            with_a_name(self.settings, user, || {
                program.run(&mut |_, line| {
                    recovery.hear(line);
                    let done = recovery.segments;
                    monitor.progress(Progress { phase: "recovering".into(), done, total: None, unit: Unit::Items });
                })
            })
        });
        let output = output?;
        let again = "the files are restored; the same restore with --overwrite goes on from there";
        fetched.map_err(|error| {
            let hint = error.advice().map_or_else(|| again.to_owned(), |advice| format!("{advice}; {again}"));
            Error::new(format!("recover the database in {}", data.display()))
                .kind_of(error.kind())
                .hint(hint)
                .caused_by(error)
        })?;
        // What failed behind the recovery concerns only the session that nobody wants: its locale, its database.
        if output.status.success() || recovery.ended_early || is_shut_down(data) {
            return Ok(recovery);
        }
        let said = output.stderr.lines().rev().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        let said = said.or(output.stderr.lines().last()).unwrap_or("no message").trim();
        Err(Error::new(format!("recover the database in {}: {said}", data.display())).hint(again))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn info() -> Info {
        let newest_wal = Some(("15-1".into(), "00000001000000000000000A".into()));
        Info { backups: vec![], clusters: vec![], newest_wal }
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
        let hole = recovery.missing(&Target::Latest, &info()).expect("0A was not there");
        assert!(hole.message.contains("hole before 00000001000000000000000A"));
        assert_eq!(recovery.missing(&Target::Time(at("2026-11-21T02:51:19Z")), &info()), None);
        recovery.last_segment = Some("00000001000000000000000A".into());
        assert_eq!(recovery.missing(&Target::Latest, &info()), None);
    }
}
