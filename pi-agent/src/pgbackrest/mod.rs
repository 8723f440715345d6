//! The only place that knows pgBackRest's arguments ([`PgBackRest`]), its configuration ([`files`]), its JSON ([`info`])
//! and its exit codes ([`failure`]). Another engine would replace this folder.
//!
//! It is started in one place ([`program`]), and never as root. Every call names a generated configuration, which holds the
//! secrets, so that argv shows none and `/etc` is never read.

mod contents;
mod detour;
mod failure;
mod files;
mod info;
mod program;
mod timelines;
mod version;
mod zone;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::detour::Detour;
use crate::config::{Postgres, Settings, Step};
use crate::error::Kind;
use crate::process::{Output, Program, Stream, User};
use crate::{Error, Result};

pub use contents::Linked;
pub use failure::{Code, code_of};
pub use files::{end_left, let_through, server_user};
pub use info::{Backup, Cluster, Info};
pub use timelines::{Archived, Timelines, lsn};
pub use version::{Version, version};

/// How long a command may take that only looks at the repository.
const SHORT: Duration = Duration::from_secs(600);
/// How long pgBackRest waits for a WAL segment to reach the repository: one of 16 MiB takes five minutes at 50 KB/s.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(600);

/// How often a command is tried; pgBackRest itself tries each request again for a minute.
const TRIES: u32 = 3;

/// Which configuration a command gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Repository and server.
    Server,
    /// Only the repository: with `pg1-*` a push reads the server's control file, and a restore could aim at the live cluster.
    Repository,
}

/// pgBackRest for one step's stanza, its configuration written.
#[derive(Clone, Debug)]
pub struct PgBackRest {
    stanza: String,
    user: User,
    files: files::Files,
    /// Its way to the storage, when that is limited.
    detour: Option<Arc<Detour>>,
    /// What every deadline is longer by, when that is limited.
    slack: Duration,
    /// The directory of the server's socket. Not in the file: a container's is another path in each process.
    socket: PathBuf,
    /// The database that it connects to, where that is not its default `postgres`.
    database: Option<String>,
    /// What its sessions there set for themselves, as libpq's `PGOPTIONS`.
    session: String,
    /// The time zone that it is told.
    zone: String,
}

/// The kind of backup asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupType {
    /// Everything.
    Full,
    /// What changed since the last backup; pgBackRest makes the first one full by itself.
    Incremental,
}

impl BackupType {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Full => Self::Incremental,
            Self::Incremental => Self::Full,
        }
    }
}

/// How far a restored cluster is recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the end of the archive.
    Latest,
    /// To the moment the backup became consistent; needs only the WAL that every kept backup keeps.
    Immediate,
    /// To the last transaction committed at or before this moment.
    Time(Timestamp),
}

/// A restore, as pgBackRest is asked for it.
#[derive(Clone, Debug)]
pub struct RestoreOrder<'a> {
    /// Where to.
    pub to: &'a Path,
    /// The backup to begin with.
    pub label: &'a str,
    /// How far to recover.
    pub target: Target,
    /// Along which timeline, a number or `current` for that of the backup; `None`: to where the backup is consistent.
    pub timeline: Option<String>,
    /// Tablespaces are put below this directory (as `OID`'s names), never at the paths they had.
    pub tablespaces: &'a Path,
    /// But for these, by their OIDs.
    pub elsewhere: &'a [(String, PathBuf)],
    /// The clone must not archive into the repository of the original.
    pub archive_off: bool,
    /// Files already there are compared and replaced.
    pub delta: bool,
}

impl PgBackRest {
    /// Writes the configuration anew (keys may have been rotated), checks the repository's folder, and ends what a killed run left
    /// at work.
    ///
    /// # Errors
    /// A secret is missing, the endpoint is one pgBackRest cannot use, a file or folder cannot be made, or what was left does
    /// not end.
    pub fn prepare(settings: &Settings, step: &Step, postgres: &Postgres, user: &User) -> Result<Self> {
        end_left(&settings.local.runtime)?;
        let files = files::write(settings, step, postgres, user)?;
        let detour = Detour::prepare(&settings.storage, &files, user)?.map(Arc::new);
        let slack = files::slack(&settings.storage.limits);
        Ok(Self {
            stanza: postgres.stanza.clone(),
            user: user.clone(),
            files,
            detour,
            slack,
            socket: postgres.socket_directory.clone(),
            database: None,
            session: String::new(),
            zone: zone::UTC.into(),
        })
    }

    /// The same, connecting to that database of the server's, in sessions with these options of libpq's.
    #[must_use]
    pub fn connecting_to(mut self, database: &str, session: String) -> Self {
        self.session = session;
        self.database = Some(database.to_owned()).filter(|database| database != "postgres");
        self
    }

    /// The same, labelling a backup that begins now later than all that there are.
    #[must_use]
    pub fn labelling_after(&self, info: &Info) -> Self {
        let labels = info.backups.iter().map(|backup| backup.label.as_str());
        Self { zone: zone::after(labels, Timestamp::now()), ..self.clone() }
    }

    /// The user it runs as.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// What the repository holds. A stanza that was never created is an empty [`Info`].
    ///
    /// # Errors
    /// The repository cannot be read (also: another passphrase).
    pub fn info(&self) -> Result<Info> {
        let output = self.run(View::Repository, "info", ["--output=json"], SHORT, &mut |_, _| ())?;
        info::parse(&output.stdout, &self.stanza)
    }

    /// Makes the stanza.
    ///
    /// # Errors
    /// pgBackRest's; or the folder for it cannot be made.
    pub fn create_stanza(&self) -> Result<()> {
        self.files.make_folder(&self.user)?;
        self.run(View::Server, "stanza-create", [], SHORT, &mut |_, _| ()).map(drop)
    }

    /// Accepts the server's present version and system id as the stanza's next.
    ///
    /// # Errors
    /// pgBackRest's.
    pub fn upgrade_stanza(&self) -> Result<()> {
        self.run(View::Server, "stanza-upgrade", [], SHORT, &mut |_, _| ()).map(drop)
    }

    /// Makes a backup without these paths, which are relative to the data directory, and returns pgBackRest's warnings. Nothing is expired. WAL must be pushed meanwhile.
    /// `on_file` is told the bytes done and the percentage after each file.
    ///
    /// # Errors
    /// pgBackRest's; `Transient` also when `deadline` passed.
    pub fn backup(
        &self,
        kind: BackupType,
        without: &[PathBuf],
        deadline: Duration,
        on_file: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<Vec<String>> {
        let kind = match kind {
            BackupType::Full => "--type=full",
            BackupType::Incremental => "--type=incr",
        };
        let archive_timeout = format!("--archive-timeout={}", (ARCHIVE_TIMEOUT + self.slack).as_secs());
        let without: Vec<_> = without.iter().map(|path| format!("--exclude={}", path.display())).collect();
        let arguments =
            [kind, "--start-fast", "--no-expire-auto", "--log-level-console=detail", archive_timeout.as_str()];
        let arguments = arguments.into_iter().chain(without.iter().map(String::as_str));
        let mut done = 0;
        let mut warnings = Vec::new();
        self.run(View::Server, "backup", arguments, deadline, &mut |stream, line| match stream {
            Stream::Out => {
                if let Some((bytes, percent)) = info::file_done(line) {
                    done += bytes;
                    let total = (percent >= 1.0).then(|| (done as f64 * 100.0 / percent) as u64);
                    on_file(done, total.map(|total| total.max(done)));
                }
            }
            Stream::Err => warnings.extend(failure::warning(line)),
        })?;
        Ok(warnings)
    }

    /// Notes at a backup that moments between then and it are lost.
    ///
    /// # Errors
    /// pgBackRest's.
    pub fn note_loss(&self, label: &str, since: Timestamp) -> Result<()> {
        let (set, note) = (format!("--set={label}"), format!("--annotation={}={since}", info::LOST_SINCE));
        self.run(View::Repository, "annotate", [&*set, &*note], SHORT, &mut |_, _| ()).map(drop)
    }

    /// Removes a backup and all that depend on it.
    ///
    /// # Errors
    /// pgBackRest's.
    pub fn expire(&self, label: &str) -> Result<()> {
        let set = format!("--set={label}");
        self.run(View::Repository, "expire", [set.as_str()], SHORT, &mut |_, _| ()).map(drop)
    }

    /// Removes the WAL older than the `fulls` newest full backups, but never what makes a kept backup consistent.
    ///
    /// # Errors
    /// pgBackRest's.
    pub fn expire_wal(&self, fulls: usize) -> Result<()> {
        let fulls = format!("--repo1-retention-archive={fulls}");
        let arguments =
            [fulls.as_str(), "--repo1-retention-archive-type=full"].into_iter().chain(despite_damaged_pages()?);
        self.run(View::Repository, "expire", arguments, SHORT, &mut |_, _| ()).map(drop)
    }

    /// Puts one finished WAL file into the repository. What is there already with the same content is fine.
    ///
    /// # Errors
    /// pgBackRest's; [`code_of`] tells which.
    pub fn push(&self, file: &Path) -> Result<()> {
        let file = file.to_str().ok_or_else(|| Error::new(format!("odd WAL file name {}", file.display())))?;
        // Whoever empties a spool tries again by itself, and wants to know meanwhile.
        self.run_once(View::Repository, "archive-push", &[file], SHORT + self.slack, &mut |_, _| ()).map(drop)
    }

    /// Restores files; recovery comes after. `on_file` as in [`Self::backup`].
    ///
    /// # Errors
    /// pgBackRest's.
    pub fn restore(&self, order: &RestoreOrder<'_>, on_file: &mut dyn FnMut(u64, Option<u64>)) -> Result<()> {
        let mut arguments = vec![
            format!("--pg1-path={}", order.to.display()),
            format!("--set={}", order.label),
            format!("--tablespace-map-all={}", order.tablespaces.display()),
            "--log-level-console=detail".into(),
        ];
        let elsewhere = order.elsewhere.iter();
        arguments.extend(elsewhere.map(|(oid, to)| format!("--tablespace-map={oid}={}", to.display())));
        match order.target {
            Target::Latest => arguments.push("--type=default".into()),
            Target::Immediate => {
                arguments.extend(["--type=immediate".into(), "--target-action=promote".into()]);
            }
            Target::Time(time) => {
                // An offset it understands: "Z" and "UTC" are refused with [029].
                let time = time.strftime("%Y-%m-%d %H:%M:%S%.6f+00");
                let target = format!("--target={time}");
                arguments.extend(["--type=time".into(), target, "--target-action=promote".into()]);
            }
        }
        arguments.extend(order.timeline.iter().map(|timeline| format!("--target-timeline={timeline}")));
        if order.archive_off {
            arguments.push("--archive-mode=off".into());
        }
        if order.delta {
            arguments.push("--delta".into());
        }
        let arguments = arguments.iter().map(String::as_str).chain(despite_damaged_pages()?);
        let mut done = 0;
        self.run(View::Repository, "restore", arguments, failure::A_WEEK, &mut |_, line| {
            if let Some((bytes, percent)) = info::file_done(line) {
                done += bytes;
                let total = (percent >= 1.0).then(|| (done as f64 * 100.0 / percent) as u64);
                on_file(done, total.map(|total| total.max(done)));
            }
        })
        .map(drop)
    }

    /// When the newest WAL segment of the newest cluster reached the repository.
    ///
    /// # Errors
    /// pgBackRest's, or its list cannot be understood.
    pub fn newest_wal_time(&self, info: &Info) -> Result<Option<Timestamp>> {
        let Some((archive, segment)) = &info.newest_wal else { return Ok(None) };
        let folder = format!("archive/{}/{archive}/{}", self.stanza, &segment[..segment.len().min(16)]);
        let filter = format!("--filter=^{segment}-");
        let arguments = [folder.as_str(), filter.as_str(), "--output=json"];
        let output = self.run(View::Repository, "repo-ls", arguments, SHORT, &mut |_, _| ())?;
        info::newest_time(&output.stdout)
    }

    /// The names of the WAL in one folder of an archive: of whole segments, and (`.partial`) of beginnings.
    ///
    /// # Errors
    /// pgBackRest's, or its list cannot be understood.
    pub fn archived_names(&self, archive: &str, folder: &str) -> Result<BTreeSet<String>> {
        let folder = format!("archive/{}/{archive}/{folder}", self.stanza);
        let output = self.run(View::Repository, "repo-ls", [&*folder, "--output=json"], SHORT, &mut |_, _| ())?;
        info::wal_names(&output.stdout)
    }

    /// Reads every backup and WAL segment and compares checksums; the report in words.
    ///
    /// # Errors
    /// Something is damaged, or pgBackRest's.
    pub fn verify(&self, deadline: Duration) -> Result<String> {
        let output = self.run(View::Repository, "verify", ["--output=text", "--verbose"], deadline, &mut |_, _| ())?;
        info::verified(&output.stdout)
    }

    /// Fetches a WAL file for the cluster in `data`; false: the repository has none of that name, or a damaged one.
    ///
    /// # Errors
    /// pgBackRest's: whether there is one is not known, or it cannot be put there.
    pub fn fetch(&self, name: &str, data: &Path, to: &Path) -> Result<bool> {
        let cluster = format!("--pg1-path={}", data.display());
        let arguments = [&*cluster, name, &*to.to_string_lossy()];
        // It tries again by itself, and PostgreSQL waits.
        match self.run_once(View::Repository, "archive-get", &arguments, SHORT + self.slack, &mut |_, _| ()) {
            Err(error) if failure::has_no_such_wal(&error) => Ok(false),
            fetched => fetched.map(|_| true),
        }
    }

    fn run<'a>(
        &self,
        view: View,
        command: &str,
        arguments: impl IntoIterator<Item = &'a str>,
        deadline: Duration,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Result<Output> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let deadline = deadline.saturating_add(self.slack);
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let left = deadline.saturating_sub(started.elapsed());
            let result = self.run_once(view, command, &arguments, left, on_line);
            tries += 1;
            let pause = failure::pause(tries);
            match result {
                Err(error)
                    if error.kind() == Kind::Transient && tries < TRIES && started.elapsed() + pause < deadline =>
                {
                    std::thread::sleep(pause);
                }
                result => return result,
            }
        }
    }

    fn run_once(
        &self,
        view: View,
        command: &str,
        arguments: &[&str],
        deadline: Duration,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Result<Output> {
        let program = self.program(view, command, arguments, deadline)?;
        program.run(on_line).map_err(version::missing).and_then(|output| match output.status.success() {
            true => Ok(output),
            false => Err(self.explained(failure::error(command, &self.stanza, &output))),
        })
    }

    fn program(&self, view: View, command: &str, arguments: &[&str], deadline: Duration) -> Result<Program> {
        let mut all =
            vec![format!("--config={}", self.files.config(view).display()), format!("--stanza={}", self.stanza)];
        if view == View::Server {
            all.push(format!("--pg1-socket-path={}", self.socket.display()));
            all.extend(self.database.iter().map(|database| format!("--pg1-database={database}")));
        }
        // Positional arguments (a WAL file, a folder) are recognised wherever they stand.
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let program = program::command(command, &all, &self.user)?.env("TZ", &self.zone).within(deadline);
        let program = program.env("PGOPTIONS", &self.session);
        Ok(match &self.detour {
            Some(detour) => detour.lead(program),
            None => program,
        })
    }

    /// pgBackRest sees only that the connection ends when its relay cannot reach the server.
    fn explained(&self, error: Error) -> Error {
        match self.detour.as_ref().and_then(|detour| detour.trouble()) {
            Some(trouble) => Error::transient(format!("the storage cannot be reached: {trouble}")).caused_by(error),
            None => error,
        }
    }
}

/// The option with which pgBackRest works on backups that hold pages with wrong checksums, as all releases before 2.60 do. A
/// household gets back what is whole in them, and is told that they are damaged.
fn despite_damaged_pages() -> Result<Option<&'static str>> {
    let stops = version()? >= Version::STOPS_AT_DAMAGED_PAGES;
    Ok(stops.then_some("--no-checksum-page-error"))
}
