//! How the WAL of a cluster stands: what waits on this machine, how far the repository's goes, and what would be lost
//! with this disk. A few directories are looked at; nobody is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::reached::{Hole, Mark, Reached};
use super::segment::Name;
use super::{spool_directory, waiting};
use crate::config::{Postgres, Settings};
use crate::health::{Room, room};
use crate::steps::postgres::{ARCHIVE_TIMEOUT, container};

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalState {
    /// Since when the oldest file waits; `None`: nothing waits.
    pub oldest: Option<Timestamp>,
    /// How many files wait.
    pub files: usize,
    /// Where most of them are.
    pub place: PathBuf,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes free where most of them are; `None`: nobody can tell.
    pub free: Option<u64>,
    /// The newest segment that is in the repository with all before it, as far as that is known.
    pub safe: Option<Mark>,
    /// The newest that the server counts as archived, but that is neither in the spool nor in the repository.
    pub astray: Option<Mark>,
    /// Segments that are missing in the repository.
    pub hole: Option<Hole>,
    /// The server's `archive_timeout` as the last backup saw it; zero: never. `None`: no backup saw it yet.
    pub archive_timeout: Option<Duration>,
}

impl WalState {
    /// Looks; `facts` are those of the step's last usable backup. `None`: nobody can tell.
    pub fn look(settings: &Settings, postgres: &Postgres, facts: &BTreeMap<String, String>) -> Option<Self> {
        let spool = spool_directory(settings, postgres);
        let pg_wal = container::data_on_this_machine(postgres).map(|data| data.join("pg_wal"));
        let marks = pg_wal.as_ref().map(|folder| Marks::read(&folder.join("archive_status"))).unwrap_or_default();
        // After the server's marks: what they call archived is in the spool or in the note by now.
        let spooled: Vec<PathBuf> = waiting(&spool).ok()?.into_iter().map(|name| spool.join(name)).collect();
        let reached = Reached::read(&spool);

        let place = pg_wal.filter(|_| marks.ready.len() > spooled.len()).unwrap_or_else(|| spool.clone());
        let files = spooled.len() + marks.ready.len();
        // One that has gone since then waits no longer.
        let oldest = spooled.iter().chain(&marks.ready).filter_map(|path| changed(path)).min();
        // What the server keeps is marked by an empty file beside it.
        let segments = marks.ready.iter().filter_map(|mark| Some(mark.parent()?.parent()?.join(mark.file_stem()?)));
        let size = |path: PathBuf| path.metadata().map_or(0, |file| file.len());
        let bytes = spooled.iter().cloned().chain(segments).map(size).sum();
        let in_spool = |mark: &Mark| spooled.iter().any(|path| path.ends_with(&mark.segment));
        let beyond = |mark: &Mark| reached.as_ref().is_some_and(|reached| mark.segment > reached.newest.segment);
        Some(Self {
            oldest,
            files,
            bytes,
            free: room(&place).ok().filter(Room::is_told).map(|room| room.free),
            place,
            astray: marks.archived.clone().filter(|mark| beyond(mark) && !in_spool(mark)),
            // Without a note the server itself pushes: what it counts as archived is in the repository.
            safe: reached.map_or(marks.archived, |reached| Some(reached.whole)),
            hole: Hole::read(&spool),
            archive_timeout: facts
                .get(ARCHIVE_TIMEOUT)
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        })
    }

    /// The moment up to which every change is in the repository; `None`: nobody can tell.
    ///
    /// A server with an `archive_timeout` hands over every change within that time and does nothing while there is none,
    /// so what it has not handed over is younger. Without one, all since the last segment may wait in the server.
    pub fn safe_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.oldest.unwrap_or(now);
        let by_timeout = match self.archive_timeout {
            Some(Duration::ZERO) => None,
            Some(timeout) => SignedDuration::try_from(timeout).ok().and_then(|timeout| until.checked_sub(timeout).ok()),
            None => Some(until),
        };
        let by_mark = self.safe.as_ref().map(|mark| mark.finished.min(until));
        let lost = self.hole.as_ref().map(|hole| hole.since);
        let safe = by_timeout.max(by_mark)?;
        Some(lost.map_or(safe, |lost| lost.min(safe)))
    }
}

/// What PostgreSQL marks in `archive_status`. A server that archives nothing marks nothing.
#[derive(Debug, Default)]
struct Marks {
    /// Finished, and not archived.
    ready: Vec<PathBuf>,
    /// The newest segment that it counts as archived and has not used again.
    archived: Option<Mark>,
}

impl Marks {
    fn read(status: &Path) -> Self {
        let mut marks = Self::default();
        let mut newest: Option<(String, PathBuf)> = None;
        for path in std::fs::read_dir(status).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match name.rsplit_once('.') {
                Some((_, "ready")) => marks.ready.push(path),
                Some((segment, "done")) if segment.len() == 24 && Name::of(segment) == Some(Name::Segment) => {
                    newest = newest.max(Some((segment.to_owned(), path)));
                }
                _ => {}
            }
        }
        marks.archived = newest.and_then(|(segment, path)| Some(Mark { segment, finished: changed(&path)? }));
        marks
    }
}

fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_230_000;

    fn at(seconds_ago: i64) -> Timestamp {
        Timestamp::from_second(NOW - seconds_ago).expect("in range")
    }

    /// Seconds of changes that a dead disk would take, by what waits, what is safe, and archive_timeout.
    fn exposed(oldest: Option<i64>, safe: Option<i64>, timeout: Option<u64>) -> Option<i64> {
        let mark = |ago| Mark { segment: "000000010000000000000007".into(), finished: at(ago) };
        let standing = WalState {
            oldest: oldest.map(at),
            files: 0,
            place: "/spool".into(),
            bytes: 0,
            free: None,
            safe: safe.map(mark),
            astray: None,
            hole: None,
            archive_timeout: timeout.map(Duration::from_secs),
        };
        standing.safe_until(at(0)).map(|safe| NOW - safe.as_second())
    }

    #[test]
    fn exposed_is_what_is_newer_than_the_last_segment_that_is_safe() {
        assert_eq!(exposed(None, Some(120), Some(600)), Some(120), "busy: the last segment left two minutes ago");
        assert_eq!(
            exposed(None, Some(36_000), Some(600)),
            Some(600),
            "idle for hours: what came since would have left"
        );
        assert_eq!(exposed(Some(50), Some(36_000), Some(600)), Some(650), "the first change after hours waits");
        assert_eq!(exposed(Some(3000), Some(3300), Some(600)), Some(3300), "the storage is away");
        assert_eq!(exposed(None, Some(36_000), Some(0)), Some(36_000), "it may hold anything since then");
        assert_eq!(exposed(Some(3000), None, Some(0)), None, "and nobody knows since when");
        assert_eq!(exposed(None, Some(60), None), Some(0), "no backup has seen archive_timeout yet");
        assert_eq!(exposed(Some(300), Some(100), Some(600)), Some(300), "a damaged file stayed behind");
    }

    #[test]
    fn nothing_behind_a_hole_is_safe() {
        let hole = Hole { after: "a".into(), before: "b".into(), since: at(7200), found: at(60), minimal: false };
        let standing = WalState {
            oldest: None,
            files: 0,
            place: "/spool".into(),
            bytes: 0,
            free: None,
            safe: Some(Mark { segment: "b".into(), finished: at(50) }),
            astray: None,
            hole: Some(hole),
            archive_timeout: Some(Duration::from_secs(600)),
        };
        assert_eq!(standing.safe_until(at(0)), Some(at(7200)));
    }

    #[test]
    fn the_servers_marks_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["000000010000000000000001.done", "000000010000000000000003.done", "000000010000000000000004.ready"]
        {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        for name in ["00000002.history.done", "000000010000000000000009.00000028.backup.done"] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        let marks = Marks::read(folder.path());
        assert_eq!(marks.ready.len(), 1);
        assert_eq!(marks.archived.expect("the newest segment").segment, "000000010000000000000003");
        let none = Marks::read(&folder.path().join("missing"));
        assert!(none.ready.is_empty() && none.archived.is_none());
    }
}
