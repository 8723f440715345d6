//! How the WAL of a cluster stands: what waits on this machine, how far the repository's goes, and what would be lost
//! with this disk. A few directories are looked at; nobody is asked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::alone::Alone;
use super::pg_wal::{Marks, changed, file};
use super::reached::{Hole, Mark, Reached};
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
    /// Changes that the server has not handed over.
    pub alone: Option<Alone>,
    /// The server's `archive_timeout` as the last backup saw it; zero: never. `None`: no backup saw it yet.
    pub archive_timeout: Option<Duration>,
}

impl WalState {
    /// Looks; `facts` are those of the step's last usable backup. `None`: nobody can tell.
    pub fn look(settings: &Settings, postgres: &Postgres, facts: &BTreeMap<String, String>) -> Option<Self> {
        let spool = spool_directory(settings, postgres);
        let data = container::data_on_this_machine(postgres);
        let marks = data.as_ref().map(|data| Marks::read(data)).unwrap_or_default();
        // After the server's marks: what they call archived is in the spool or in the note by now.
        let names = waiting(&spool).ok()?;
        let reached = Reached::read(&spool);
        let hole = Hole::read(&spool);
        let alone = data.as_ref().and_then(|data| Alone::of(data, &marks, &names, reached.as_ref()));
        let archived = data.as_ref().and_then(|data| marks.newest_archived(data));
        let spooled: Vec<PathBuf> = names.into_iter().map(|name| spool.join(name)).collect();

        let ready = || data.iter().flat_map(|data| marks.ready.iter().map(move |name| (data, name)));
        // One that has gone since then waits no longer.
        let waits = ready().filter_map(|(data, name)| Marks::waits_since(data, name));
        let oldest = spooled.iter().filter_map(|path| changed(path)).chain(waits).min();
        let files = spooled.len() + marks.ready.len();
        let segments = ready().map(|(data, name)| file(data, name));
        let size = |path: PathBuf| path.metadata().map_or(0, |file| file.len());
        let bytes = spooled.iter().cloned().chain(segments).map(size).sum();
        let place = match &data {
            Some(data) if marks.ready.len() > spooled.len() => data.join("pg_wal"),
            _ => spool,
        };
        let in_spool = |mark: &Mark| spooled.iter().any(|path| path.ends_with(&mark.segment));
        let beyond = |mark: &Mark| reached.as_ref().is_some_and(|reached| mark.segment > reached.newest.segment);
        Some(Self {
            oldest,
            files,
            bytes,
            free: room(&place).ok().filter(Room::is_told).map(|room| room.free),
            place,
            astray: archived.clone().filter(|mark| beyond(mark) && !in_spool(mark)),
            // Without a note the server itself pushes: what it counts as archived is in the repository.
            safe: reached.map_or(archived, |reached| Some(reached.whole)),
            hole,
            alone,
            archive_timeout: facts
                .get(ARCHIVE_TIMEOUT)
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        })
    }

    /// The moment up to which every change is in the repository; `None`: nobody can tell.
    ///
    /// A server with an `archive_timeout` hands over every change within that time and does nothing while there is none,
    /// so what it has not handed over is younger, unless its `pg_wal` shows that it does not. Without one, all since the last segment
    /// may wait in the server.
    pub fn safe_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.oldest.unwrap_or(now);
        let by_timeout = match self.archive_timeout {
            Some(Duration::ZERO) => None,
            Some(timeout) => SignedDuration::try_from(timeout).ok().and_then(|timeout| until.checked_sub(timeout).ok()),
            None => Some(until),
        };
        let by_mark = self.safe.as_ref().map(|mark| mark.finished.min(until));
        let lost = self.hole.as_ref().map(|hole| hole.since);
        let alone = self.alone.as_ref().map(|alone| alone.since);
        let safe = by_timeout.max(by_mark)?;
        Some([lost, alone].into_iter().flatten().fold(safe, Timestamp::min))
    }

    /// The server does not hand over what it writes: it archives nothing any more, or to somewhere else.
    pub fn is_kept_back(&self, now: Timestamp) -> bool {
        self.alone.as_ref().is_some_and(|alone| alone.is_late(self.archive_timeout.unwrap_or_default(), now))
    }
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
            alone: None,
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
            alone: None,
            archive_timeout: Some(Duration::from_secs(600)),
        };
        assert_eq!(standing.safe_until(at(0)), Some(at(7200)));
        let alone = Alone { since: at(1000), astray: Vec::new() };
        let standing = WalState { hole: None, alone: Some(alone), ..standing };
        assert_eq!(standing.safe_until(at(0)), Some(at(1000)), "nor what a server has alone");
        assert!(standing.is_kept_back(at(0)) && !standing.is_kept_back(at(390)), "the timeout is its due");
    }
}
