//! Getting it back: what there is to restore to ([`points`]) and restoring it.

pub mod ask;
pub mod at;
pub mod beside;
mod course;
pub mod directory;
pub mod dumps;
mod handover;
mod hidden;
mod idle;
mod in_place;
mod lives;
pub mod new_timeline;
pub mod outside;
pub mod points;
pub mod postgres;
mod recovery;
mod rename;
mod spared;
pub mod tablespaces;
mod unfinished;
pub mod users;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Settings, Source, Step};
use crate::error::{Context, Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::report::{short, words};
use crate::retention::is_of_the_future;
use crate::shown;

pub use in_place::InPlace;
pub(crate) use recovery::with_a_name;
use unfinished::Unfinished;

/// One point one can restore to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The step.
    pub step: String,
    /// Snapshot id (of a dump, too) or pgBackRest label.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// `snapshot`, `unfinished`, `full`, `diff`, `incr`, `dump`.
    pub kind: String,
    /// Bytes of the source it covers.
    pub bytes: Option<u64>,
    /// Bytes that the one before does not hold.
    pub new_bytes: Option<u64>,
    /// Versions of a path: it is what it was in the one before.
    pub same: bool,
    /// Databases: PostgreSQL's major version. A backup needs that one to be restored, a dump that one or a newer.
    pub postgresql: Option<u32>,
    /// The host that made it, where that is another one.
    pub other_host: Option<String>,
}

/// A stretch of time to any moment of which a database can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The step.
    pub step: String,
    /// From.
    pub from: Timestamp,
    /// To: the newest moment known to be archived.
    pub to: Timestamp,
    /// The timelines that were begun, lowest first: each moment is taken from the last that had begun then.
    #[serde(default)]
    pub timelines: Vec<Since>,
    /// Within it, what backups found to be lost: from, to.
    #[serde(default)]
    pub gaps: Vec<(Timestamp, Timestamp)>,
}

/// A timeline that a database went on with after it had gone back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Its number.
    pub number: u32,
    /// When it began, or soon after.
    pub since: Timestamp,
}

/// Which point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// The newest there is.
    Latest,
    /// Directories: the newest snapshot at or before; PostgreSQL: exactly that moment.
    Time(Timestamp),
    /// PostgreSQL: that moment on that timeline, or its end.
    Timeline {
        /// The timeline's number.
        number: u32,
        /// The moment.
        time: Option<Timestamp>,
    },
    /// By id (a unique beginning is enough for snapshots) or label.
    Id(String),
}

impl At {
    /// The same on that timeline.
    ///
    /// # Errors
    /// It is no moment: a backup is on one timeline only.
    pub fn along(self, number: u32) -> Result<Self> {
        match self {
            Self::Latest => Ok(Self::Timeline { number, time: None }),
            Self::Time(time) | Self::Timeline { time: Some(time), .. } => {
                Ok(Self::Timeline { number, time: Some(time) })
            }
            Self::Timeline { time: None, .. } => Ok(Self::Timeline { number, time: None }),
            Self::Id(id) => Err(Error::usage(format!("--timeline goes with a moment, not with the backup {id}"))),
        }
    }

    /// The one of these, oldest first, that it means. A dump only by its id.
    pub fn of<'a>(&self, points: &'a [Point]) -> Option<&'a Point> {
        let now = Timestamp::now();
        let mut backups = points.iter().rev().filter(|point| point.kind != "dump");
        match self {
            Self::Latest | Self::Timeline { time: None, .. } => {
                backups.clone().find(|point| !is_of_the_future(point.time, now)).or_else(|| backups.next())
            }
            Self::Time(time) | Self::Timeline { time: Some(time), .. } => backups.find(|point| point.time <= *time),
            Self::Id(id) => points.iter().rev().find(|point| point.id.starts_with(id)),
        }
    }
}

/// What is to be restored where.
#[derive(Clone, Debug)]
pub struct Request {
    /// Target directory; made when it does not exist.
    pub to: PathBuf,
    /// Which point.
    pub at: At,
    /// Directories: only these paths, as they were on the source (absolute). Empty: everything.
    pub paths: Vec<PathBuf>,
    /// The target may hold something already.
    pub overwrite: bool,
    /// Directories: with set-id bits, capabilities and device files, as in their own places.
    pub privileges: bool,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The point used.
    pub restore_point: String,
    /// The moment that it is of (for PITR: the one asked for, or the last commit when the archive ended before).
    pub time: Timestamp,
    /// Bytes written, when known.
    pub bytes: Option<u64>,
    /// Databases: the last commit that came back, if WAL had one.
    pub last_commit: Option<Timestamp>,
    /// Databases: WAL that should have been there was not.
    pub hole: bool,
    /// Files that could not be restored as they were.
    pub problems: Vec<Problem>,
    /// What is wrong with the repository, and made no difference to what was restored.
    #[serde(default)]
    pub remarks: Vec<Problem>,
    /// Another point may be meant: there is one of the future.
    #[serde(default)]
    pub passed_over: Option<String>,
    /// A full disk kept some of it back: with more room the same command goes on.
    #[serde(default)]
    pub unfinished: bool,
    /// What to do next, line by line, commands included.
    pub next: Vec<String>,
}

impl Restored {
    /// All that a person must know: with any of it, not all is well.
    pub fn told(&self) -> impl Iterator<Item = &Problem> {
        self.remarks.iter().chain(&self.problems)
    }

    /// For people; `place`: where it is now.
    pub fn text(&self, step: &str, place: &str) -> String {
        let size = self.bytes.map_or_else(String::new, |bytes| format!(", {}", words::size(bytes)));
        let point = short(&self.restore_point);
        let mut text = format!("{step} of {} (restore point {point}{size}) is in {place}\n", words::time(self.time));
        if let Some(passed_over) = &self.passed_over {
            text.push_str(&format!("! {passed_over}\n"));
        }
        for problem in self.told() {
            text.push_str(&format!("! {}\n", problem.message));
        }
        for line in &self.next {
            text.push_str(&format!("{line}\n"));
        }
        text
    }
}

/// Restores a step.
///
/// # Errors
/// The target holds something already and may not be overwritten; no such point; the repository cannot be read.
pub fn restore(settings: &Settings, step: &str, request: &Request, monitor: &Monitor) -> Result<Restored> {
    let step = settings.step(step)?;
    let mut request = request.clone();
    spared::check(settings, &request.to)?;
    // What another restore left unfinished there stays so, whatever is written over it.
    let others = Unfinished::of(&request.to).is_some_and(|begun| !begun.is_of(&step.name, &request));
    let was_empty = is_empty(&request.to)?;
    if !request.overwrite && !was_empty {
        request = match Unfinished::of(&request.to) {
            Some(begun) => {
                let in_the_way = begun.in_the_way(&request.to);
                begun.continues(&step.name, &request).ok_or(in_the_way)?.0
            }
            None => {
                return Err(Error::usage(format!("restore into {}: it is not empty", shown(&request.to)))
                    .hint("choose a new directory, or allow it with --overwrite"));
            }
        };
    }
    let mut restored = match &step.source {
        Source::Postgres(postgres) => {
            refuse_paths(step, &request.paths)?;
            match &request.at {
                At::Id(id) if dumps::is_id(id) => dumps::restore(settings, step, postgres, id, &request, monitor),
                _ => postgres::restore(settings, step, postgres, &request, monitor),
            }
        }
        Source::Directory(_) | Source::Agent(_) => directory::restore(settings, step, &request, monitor),
    }
    .inspect_err(|_| Unfinished::never_was(&request.to))?;
    if restored.unfinished {
        let again = "the disk is full: make room, and start the same command again; it goes on from here";
        restored.next.insert(0, again.into());
    } else if was_empty || !others {
        Unfinished::end(&request.to)?;
    }
    Ok(restored)
}

fn refuse_paths(step: &Step, paths: &[PathBuf]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("restore of {}: --path is for directories", step.name))
        .hint("a database is restored whole; take single tables from the restored copy with pg_dump"))
}

/// Before or while a disk fills up.
pub(crate) fn no_room(to: &Path, needed: u64, free: u64) -> Error {
    Error::new(format!(
        "restore into {}: {} are needed, and {} are free",
        to.display(),
        words::size(needed),
        words::size(free)
    ))
    .hint("make room or choose a directory on a larger disk; some of it alone: --path")
}

/// In the name of what was there before, between that of its place and a time.
pub(crate) const KEPT: &str = ".before-restore-";

/// `PATHsuffix`. A name that gets too long by it is cut, with a checksum of the whole of it: two names never become one.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    /// Linux refuses longer names (`NAME_MAX`).
    const LONGEST: usize = 255;
    // Without a slash at its end.
    let path = path.components().as_path();
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name.len() + suffix.len() <= LONGEST {
        let mut whole = OsString::from(path);
        whole.push(suffix);
        return whole.into();
    }
    let sum: String = Sha256::digest(name)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let most = LONGEST.saturating_sub(suffix.len() + sum.len() + 1);
    // Not within a character.
    let cut = (0..=most).rev().find(|at| name[*at] & 0xc0 != 0x80).unwrap_or(0);
    let mut short = OsStr::from_bytes(&name[..cut]).to_owned();
    short.push(format!("~{sum}{suffix}"));
    path.with_file_name(short)
}

/// Nothing is in that directory, or there is none.
pub(crate) fn is_empty(path: &Path) -> Result<bool> {
    match path.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).context(|| format!("look into {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_within_what_linux_allows_and_two_stay_two() {
        assert_eq!(beside(Path::new("/srv/a/"), ".unfinished"), Path::new("/srv/a.unfinished"));
        let long = |end: char| PathBuf::from(format!("/srv/{}{end}", "ü".repeat(127)));
        let [one, other] = ['a', 'b'].map(|end| beside(&beside(&long(end), ".restoring"), ".unfinished"));
        assert_ne!(one, other);
        let name = one.file_name().and_then(OsStr::to_str).expect("it is cut between two characters");
        assert!(name.len() <= 255 && name.starts_with('ü') && name.ends_with(".unfinished"), "{name}");
        assert_eq!(one.parent(), Some(Path::new("/srv")));
    }
}
