//! The recovery of restored files: PostgreSQL itself does it, here and now, in single-user mode.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::handover::{self, Handover};
use super::hidden::Hidden;
use super::postgres::hand_over;
use crate::config::Settings;
use crate::error::{Context, Error, Result};
use crate::health::room;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::mounts::{Bind, privately};
use crate::pgbackrest::{Info, PgBackRest, Target};
use crate::process::{Program, User};
use crate::shown::shown;
use crate::steps::postgres::catalogue::ALWAYS_THERE;
use crate::steps::postgres::control::Control;
use crate::steps::postgres::programs::Found;
use crate::steps::postgres::restored::{self, Configuration};
use crate::wal::{Header, minimal_in};

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

/// What PostgreSQL says of an archive that ends before the moment asked for; our settings make it say that in English.
const BEFORE_ITS_TARGET: &str = "recovery ended before configured recovery target was reached";

/// What is left to do where WAL lacks changes.
const AFTER_MINIMAL: &str =
    "a backup made after that restores what came later (pi-agent points); if there is none yet: pi-agent run";

/// How a recovery went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recovery {
    /// The last commit that came back.
    pub last_transaction: Option<Timestamp>,
    /// The WAL that it was given.
    given: Given,
    /// The archive ended before the moment asked for.
    pub ended_early: bool,
    /// What the control file says in the end.
    pub control: Control,
}

/// The WAL that a recovery asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Given {
    segments: u64,
    last: Option<String>,
    /// The archive does not have all of the last segment that it asked for.
    ended: bool,
    /// The segment that was written in part with `wal_level = minimal`: what comes then lacks changes.
    minimal: Option<String>,
}

/// What the archive has of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Has {
    Nothing,
    Beginning,
    All,
}

impl Given {
    /// Notes what became of a request for a segment. Histories of timelines are asked for by trial.
    fn note(&mut self, name: &str, has: Has) {
        if name.len() != 24 {
            return;
        }
        self.ended = has != Has::All;
        if has != Has::Nothing {
            self.segments += 1;
            self.last = Some(name.to_owned());
        }
    }
}

/// When the last commit was made, of PostgreSQL's line that says so: our settings make it say that, in English.
fn last_transaction(line: &str) -> Option<Timestamp> {
    line.split_once("last completed transaction was at log time ")?.1.trim().parse().ok()
}

impl Recovery {
    /// The last segment that it was given.
    pub fn last_segment(&self) -> Option<&str> {
        self.given.last.as_deref()
    }

    /// The newest segment of the archive was restored.
    pub fn reached(&self, info: &Info) -> bool {
        let newest = info.newest_wal.as_ref();
        // Where one timeline left another, both have the segment.
        let place = |name: &str| name.get(8..).map(str::to_owned);
        newest.is_none_or(|(_, newest)| self.given.last.as_ref().is_some_and(|last| place(last) >= place(newest)))
    }

    /// It ended where the WAL does not hold all changes.
    pub fn ended_at_minimal(&self) -> bool {
        self.given.minimal.is_some()
    }

    /// Says so when WAL that should have been there was not.
    pub fn missing(&self, target: &Target, info: &Info) -> Option<Problem> {
        let (_, newest) = info.newest_wal.as_ref()?;
        let to_the_end = *target == Target::Latest || self.ended_early;
        let reached = self.reached(info);
        if !to_the_end || (reached && !self.ended_early && !self.ended_at_minimal()) {
            return None;
        }
        let last =
            self.last_transaction.map_or_else(|| "the backup itself".into(), |time| format!("a transaction of {time}"));
        if let Some(segment) = &self.given.minimal {
            let message = format!(
                "the WAL from within {segment} on lacks changes, for the server was started with wal_level = minimal; the last that \
                 could be recovered is {last}; {AFTER_MINIMAL}"
            );
            return Some(Problem { message, hint: None });
        }
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
    /// What it leads to.
    pub elsewhere: &'a [&'a Path],
    /// Where further tablespaces come.
    pub tablespaces: &'a Path,
    /// The data directory of the original, if that is there.
    pub original: Option<&'a Path>,
    /// The timelines that it recovers along before the last one, each with the position at which it was left.
    pub left: &'a [(u32, u64)],
}

impl Cluster<'_> {
    /// Lets PostgreSQL recover in single-user mode: it asks for WAL as long as there is some, promotes itself, finds its
    /// standard input empty and shuts down. What pgBackRest wrote for it is taken away with the original's settings.
    ///
    /// # Errors
    /// What PostgreSQL says, or why WAL that is there could not be fetched.
    pub fn recover(&self, monitor: &Monitor) -> Result<Recovery> {
        let user = self.pgbackrest.user();
        let aim = restored::set_aside(self.data, user)?;
        let hidden = Hidden::of(self.original, self.data, self.tablespaces, user)?;
        let recovery = self.recover_to(monitor, &aim, &hidden)?;
        hidden.lead_back(self.data, user)?;
        Ok(recovery)
    }

    fn recover_to(&self, monitor: &Monitor, aim: &str, hidden: &Hidden) -> Result<Recovery> {
        let first = self.recover_once(monitor, aim, hidden)?;
        if !first.ended_early {
            return Ok(first);
        }
        // PostgreSQL refuses to end recovery without having seen a transaction later than the moment asked for. When the
        // archive simply ends before, its end is that moment as far as anybody knows.
        let second = self.recover_once(monitor, &without_a_moment(aim), hidden)?;
        Ok(Recovery {
            ended_early: true,
            last_transaction: second.last_transaction.or(first.last_transaction),
            given: Given { last: second.given.last.max(first.given.last), ..second.given },
            control: second.control,
        })
    }

    /// What is left of a segment that was fetched, without what its timeline wrote after it had been left: PostgreSQL asks for that
    /// where it does not find the next timeline's, and would take it for the same history. And without what was written with
    /// `wal_level = minimal`, at which PostgreSQL gives up. Whether it was for that.
    fn cut(&self, name: &str, segment: &Path) -> Result<(Has, bool)> {
        if name.len() != 24 {
            return Ok((Has::All, false));
        }
        let timeline = name.get(..8).and_then(|number| u32::from_str_radix(number, 16).ok());
        let left = self.left.iter().find(|(number, _)| Some(*number) == timeline).map_or(u64::MAX, |(_, left)| *left);
        let doing = || format!("read {}", segment.display());
        let minimal = minimal_in(segment).context(doing)?.filter(|minimal| *minimal < left);
        let end = minimal.unwrap_or(left);
        if end == u64::MAX {
            return Ok((Has::All, false));
        }
        let Header { begins, segment_size, .. } = Header::check(segment)?;
        if end <= begins {
            return Ok((Has::Nothing, false));
        }
        if end >= begins + segment_size {
            return Ok((Has::All, false));
        }
        // To that length, and filled up with zeros again.
        for length in [end - begins, segment_size] {
            let arguments = [format!("--size={length}").as_ref(), segment.as_os_str()].map(OsStr::to_owned);
            let cut = Program::new("truncate", arguments).as_user(self.pgbackrest.user()).run(&mut |_, _| ())?;
            if !cut.status.success() {
                return Err(Error::new(format!("cut {}: {}", segment.display(), cut.stderr.trim())));
            }
        }
        Ok((Has::Beginning, minimal.is_some()))
    }

    /// What is said where a segment has no room beside those that are there: neither pgBackRest nor PostgreSQL tells it plainly.
    fn full_disk(&self, segment: u64) -> Option<String> {
        let wal = self.data.join("pg_wal");
        let wal = wal.canonicalize().unwrap_or(wal);
        let room = room(&wal).ok().filter(|room| room.free < segment)?;
        Some(format!(
            "the disk of {} is full ({}), and all WAL since the backup comes there until the recovery has ended: make room on it",
            shown(&wal),
            room.in_words()
        ))
    }

    fn recover_once(&self, monitor: &Monitor, aim: &str, hidden: &Hidden) -> Result<Recovery> {
        let Self { data, pgbackrest, .. } = self;
        let (user, runtime) = (pgbackrest.user(), &self.settings.local.runtime);
        let desk = handover::desk(runtime)?;
        // While nobody else can exchange a name in there.
        let handover = Handover::make(desk.path(), user)?;
        hand_over(desk.path(), user)?;
        let programs =
            self.programs.open(self.version, runtime, user, &[&[*data, desk.path()], self.elsewhere].concat())?;
        let control = || with_a_name(self.settings, user, || Control::read(&programs, user, data));
        let configuration = Configuration { directory: desk.path(), user };
        let own = [
            restored::line("restore_command", &handover.command),
            // Without it, limits such as max_connections must be at least the original's.
            restored::line("hot_standby", "off"),
            // In single-user mode nothing is archived. But the new timeline's history is marked for it: it must be archived when this
            // goes on as the original, be it that a person puts it there, or no moment of that timeline comes back.
            restored::line("archive_mode", "on"),
        ];
        let before = control()?;
        configuration.ours(&before, &(own.concat() + aim), "")?;

        let (mut last, given) = (None, Mutex::new(Given::default()));
        monitor.phase("recovering");
        let mut program = configuration.program(&programs, data, Some(ALWAYS_THERE)).within(A_WEEK);
        program.reach.instead = hidden.instead();
        let fetch = |name: &str, to: &str| {
            monitor.alive();
            let to = data.join("pg_wal").join(to);
            let (has, minimal) = if pgbackrest.fetch(name, data, &to)? {
                self.cut(name, &to)?
            } else if name.len() == 24 && pgbackrest.fetch(&format!("{name}.partial"), data, &to)? {
                // The last one of a server that died, or of a timeline that was left.
                let (has, minimal) = self.cut(name, &to)?;
                (has.min(Has::Beginning), minimal)
            } else {
                (Has::Nothing, false)
            };
            let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
            given.note(name, has);
            given.minimal = Some(name.to_owned()).filter(|_| minimal).or(given.minimal.take());
            let done = given.segments;
            monitor.progress(Progress { phase: "recovering".into(), done, total: None, unit: Unit::Items });
            Ok(has != Has::Nothing)
        };
        let (output, fetched) = handover.serving(fetch, || {
            with_a_name(self.settings, user, || program.run(&mut |_, line| last = last_transaction(line).or(last)))
        });
        let output = output?;
        let again = "the files are restored; the same restore with --overwrite goes on from there";
        fetched.map_err(|error| {
            let advice = self.full_disk(before.segment << 20).or(error.advice().map(str::to_owned));
            let hint = advice.map_or_else(|| again.to_owned(), |advice| format!("{advice}; {again}"));
            Error::new(format!("recover the database in {}", data.display()))
                .kind_of(error.kind())
                .hint(hint)
                .caused_by(error)
        })?;
        let given = given.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Only one that came to its end shuts down. What fails behind that concerns the session that nobody wants.
        let control = control()?;
        let complete = control.is_shut_down;
        // The last segment may be there in full length, and filled in part.
        let ended = given.ended || output.stderr.contains(BEFORE_ITS_TARGET);
        let ended_early = !complete && ended && without_a_moment(aim) != aim;
        if complete || ended_early {
            return Ok(Recovery { last_transaction: last, given, ended_early, control });
        }
        let said = output.stderr.lines().rev().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        let said = said.or(output.stderr.lines().last()).unwrap_or("no message").trim();
        let hint = match self.full_disk(before.segment << 20) {
            _ if said.contains("wal_level=minimal") => AFTER_MINIMAL.to_owned(),
            Some(full) => format!("{full}; {again}"),
            None => again.to_owned(),
        };
        Err(Error::new(format!("recover the database in {}: {said}", data.display())).hint(hint))
    }
}

/// The same aim, but for the moment.
fn without_a_moment(aim: &str) -> String {
    aim.lines().filter(|line| !line.starts_with("recovery_target_time ")).flat_map(|line| [line, "\n"]).collect()
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
        for (name, has) in [
            ("00000002.history", Has::Nothing),
            ("000000010000000000000008", Has::Nothing),
            ("000000010000000000000009", Has::All),
            ("00000002.history", Has::All),
        ] {
            recovery.given.note(name, has);
        }
        let ended = Given { segments: 1, last: Some("000000010000000000000009".into()), ended: false, minimal: None };
        assert_eq!(recovery.given, ended);
        let line = "2026-11-21 02:51:27.618 UTC [1] LOG:  last completed transaction was at log time 2026-11-21 02:51:18.206012+00";
        recovery.last_transaction = last_transaction(line);
        assert_eq!(recovery.last_transaction, Some(at("2026-11-21T02:51:18.206012Z")));
        let hole = recovery.missing(&Target::Latest, &info()).expect("0A was not there");
        assert!(hole.message.contains("hole before 00000001000000000000000A"));
        assert_eq!(recovery.missing(&Target::Time(at("2026-11-21T02:51:19Z")), &info()), None);
        recovery.given.note("00000001000000000000000A", Has::Beginning);
        assert_eq!(recovery.missing(&Target::Latest, &info()), None);
        assert!(recovery.given.ended, "what comes behind its beginning is nowhere");
        recovery.given.minimal = Some("00000001000000000000000A".into());
        let minimal = recovery.missing(&Target::Latest, &info()).expect("it lacks changes");
        assert!(minimal.message.contains("wal_level = minimal"));
        assert_eq!(recovery.missing(&Target::Time(at("2026-11-21T02:51:19Z")), &info()), None, "a moment before");
    }

    #[test]
    fn an_aim_loses_its_moment_and_nothing_else() {
        let aim = "recovery_target_time = '2026-11-21 02:51:19+00'\nrecovery_target_action = 'promote'\n";
        assert_eq!(without_a_moment(aim), "recovery_target_action = 'promote'\n");
        assert_eq!(without_a_moment("recovery_target = 'immediate'\n"), "recovery_target = 'immediate'\n");
    }
}
