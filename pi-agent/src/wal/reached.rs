//! How far the WAL in the repository goes, noted in the spool: the RPO is measured by it, and a hole is seen by it.
//!
//! The note is written when a file is in the repository and before it leaves the spool, so that whatever is killed
//! in between, a file that comes next to the one noted is never taken for one behind a hole.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::segment::{Header, place};
use crate::error::{Context, Result};
use crate::pgbackrest::Cluster;
use crate::secrets::write_shared;
use crate::theirs::read_plain;

/// Who pushes may be root in a run, and the server's user between the nights; the spool itself keeps others out.
const MODE: u32 = 0o644;

/// A segment in the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub segment: String,
    /// When the server handed it over.
    pub finished: Timestamp,
}

/// What the repository has of one cluster's WAL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    system_id: u64,
    /// Up to here nothing is missing.
    pub whole: Mark,
    /// The newest; beyond `whole` only while something between them waits that cannot be pushed.
    pub newest: Mark,
}

/// Segments that are in the repository no more than in the spool, or that do not hold all changes: no moment in them can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The last segment before it.
    pub after: String,
    /// The first one behind it.
    pub before: String,
    /// Since when moments are lost.
    pub since: Timestamp,
    /// When that was seen. A backup that began later is beyond it.
    pub found: Timestamp,
    /// No segment is missing, but the server wrote what does not hold all changes.
    #[serde(default)]
    pub minimal: bool,
}

impl Reached {
    /// What is noted; nothing when there is no note, or none that can be read: the next file begins a new one.
    pub fn read(spool: &Path) -> Option<Self> {
        read(&note(spool))
    }

    /// Removes the note: a server that pushes by itself does not keep it.
    pub fn forget(spool: &Path) {
        // One that stays is only too old.
        let _ = fs::remove_file(note(spool));
    }

    /// The newest segment, where it is that cluster's.
    pub fn newest_of(&self, cluster: Cluster) -> Option<&str> {
        self.newest_of_id(cluster.system_id).map(|newest| &*newest.segment)
    }

    /// The same of the cluster with that system identifier.
    pub(super) fn newest_of_id(&self, system_id: u64) -> Option<&Mark> {
        (self.system_id == system_id).then_some(&self.newest)
    }
}

impl Hole {
    /// The one that no backup has closed yet.
    pub fn read(spool: &Path) -> Option<Self> {
        read(&hole(spool))
    }

    /// A usable backup began then: a hole that was known is behind it.
    ///
    /// # Errors
    /// The note cannot be removed.
    pub fn close(spool: &Path, began: Timestamp) -> Result<()> {
        if Self::read(spool).is_none_or(|hole| hole.found >= began) {
            return Ok(());
        }
        let path = hole(spool);
        fs::remove_file(&path).context(|| format!("remove {}", path.display()))
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, before, minimal, .. } = self;
        if *minimal {
            return write!(
                f,
                "WAL between {after} and {before} was written with wal_level = minimal, and lacks changes"
            );
        }
        write!(f, "the archived WAL has a hole between {after} and {before}")
    }
}

fn note(spool: &Path) -> PathBuf {
    spool.join(".reached.json")
}

fn hole(spool: &Path) -> PathBuf {
    spool.join(".hole.json")
}

/// The spool is its server's: whatever it puts there, it is read in an end of time and room.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    const MOST: u64 = 4096;
    serde_json::from_slice(&read_plain(path, MOST).ok()?).ok()
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).context(|| format!("write {}", path.display()))?;
    write_shared(path, &text, MODE)
}

/// Keeps the note while files are pushed, oldest first.
pub(super) struct Ledger<'a> {
    spool: &'a Path,
    reached: Option<Reached>,
    /// One that is not noted yet.
    hole: Option<Hole>,
    /// Those that could not be pushed and stay in the spool.
    left: Vec<String>,
}

impl<'a> Ledger<'a> {
    pub fn open(spool: &'a Path) -> Self {
        Self { spool, reached: Reached::read(spool), hole: None, left: Vec::new() }
    }

    /// A file was not pushed, and the next ones go on. One of another cluster has left the spool as well.
    pub fn left(&mut self, name: &str) {
        if self.spool.join(name).exists() {
            self.left.push(name.to_owned());
        }
    }

    /// A segment is in the repository, and still in the spool. Returns the hole before it, or in it: what lacks changes.
    pub fn arrived(&mut self, name: &str, header: &Header, finished: Timestamp, lacks_changes: bool) -> Option<Hole> {
        // The last, partly filled one of a timeline comes again, whole, on the next.
        let here = place(name, header.segment_size)?;
        let mark = Mark { segment: name.to_owned(), finished };
        let known = self.reached.take().filter(|reached| reached.system_id == header.system_id);
        let mut found = None;
        let mut reached =
            known.unwrap_or(Reached { system_id: header.system_id, whole: mark.clone(), newest: mark.clone() });
        if mark.segment > reached.newest.segment {
            let next = place(&reached.newest.segment, header.segment_size).map_or(here, |newest| newest + 1);
            let left = self.left.iter().filter_map(|name| place(name, header.segment_size));
            let is_missing = here.saturating_sub(next) > left.filter(|left| (next..here).contains(left)).count() as u64;
            if is_missing || lacks_changes {
                found = Some(self.found(&reached.newest, &mark, lacks_changes));
                reached.whole = mark.clone();
            }
            reached.newest = mark;
        }
        if self.left.is_empty() {
            reached.whole = reached.newest.clone();
        }
        self.reached = Some(reached);
        found
    }

    /// A hole; together with one that is open still, all between them counts as lost.
    fn found(&mut self, last: &Mark, next: &Mark, minimal: bool) -> Hole {
        let new = Hole {
            after: last.segment.clone(),
            before: next.segment.clone(),
            since: last.finished,
            found: Timestamp::now(),
            minimal,
        };
        let found = match self.hole.take().or_else(|| Hole::read(self.spool)) {
            Some(open) => Hole { after: open.after, since: open.since, minimal: open.minimal || minimal, ..new },
            None => new,
        };
        self.hole = Some(found.clone());
        found
    }

    /// Notes what has arrived.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self) -> Result<()> {
        // First: behind the note it would not be found again.
        if let Some(found) = &self.hole {
            write(&hole(self.spool), found)?;
            self.hole = None;
        }
        self.reached.as_ref().map_or(Ok(()), |reached| write(&note(self.spool), reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;
    const OURS: Header = Header { system_id: 7, segment_size: SIZE, begins: 0 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn segment(number: u64) -> String {
        format!("0000000100000000{number:08X}")
    }

    /// One pass of a push: what arrives, and (negative) what has to stay.
    fn pass(spool: &Path, numbers: &[i64]) -> Vec<Hole> {
        let mut ledger = Ledger::open(spool);
        let mut holes = Vec::new();
        for number in numbers {
            let name = segment(number.unsigned_abs());
            if *number < 0 {
                fs::write(spool.join(&name), "damaged").expect("written");
                ledger.left(&name);
            } else {
                holes.extend(ledger.arrived(&name, &OURS, at(*number), false));
                ledger.write().expect("noted");
            }
        }
        holes
    }

    fn whole(spool: &Path) -> String {
        Reached::read(spool).expect("noted").whole.segment
    }

    #[test]
    fn what_follows_is_no_hole_and_what_is_missing_is_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path();
        assert_eq!(pass(spool, &[5, 6]), []);
        assert_eq!(pass(spool, &[6, 7]), [], "the same again, as after a power cut");
        assert_eq!((whole(spool), Hole::read(spool)), (segment(7), None));
        let [hole] = &pass(spool, &[10])[..] else { panic!("8 and 9 are missing") };
        assert_eq!((&hole.after, &hole.before, hole.since), (&segment(7), &segment(10), at(7)));
        let [second] = &pass(spool, &[11, 20])[..] else { panic!("12 to 19 are missing") };
        assert_eq!((&second.after, &second.before, second.since), (&segment(7), &segment(20), at(7)), "both in one");
        assert_eq!(whole(spool), segment(20));
        Hole::close(spool, at(30)).expect("left alone");
        assert!(Hole::read(spool).is_some(), "a backup that began before it was found");
        Hole::close(spool, Timestamp::now()).expect("closed");
        assert_eq!(Hole::read(spool), None);
    }

    #[test]
    fn what_stays_behind_is_not_missing_but_holds_the_mark() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path();
        assert_eq!(pass(spool, &[5, -6, 7]), []);
        assert_eq!(whole(spool), segment(5), "6 still waits");
        assert_eq!(pass(spool, &[-6, 8]), []);
        assert_eq!(pass(spool, &[6, 9]), [], "it was put right");
        assert_eq!(whole(spool), segment(9));
    }

    #[test]
    fn what_lacks_changes_is_a_hole_in_an_unbroken_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path();
        assert_eq!(pass(spool, &[5]), []);
        let mut ledger = Ledger::open(spool);
        let hole = ledger.arrived(&segment(6), &OURS, at(6), true).expect("it lacks some");
        ledger.write().expect("noted");
        assert_eq!((&hole.after, &hole.before, hole.since, hole.minimal), (&segment(5), &segment(6), at(5), true));
        assert!(hole.to_string().contains("wal_level = minimal"));
        assert_eq!(pass(spool, &[6, 7]), [], "told once");
    }

    #[test]
    fn another_timeline_or_cluster_begins_where_it_likes() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path();
        assert_eq!(pass(spool, &[0xFE]), []);
        let mut ledger = Ledger::open(spool);
        for name in ["000000010000000000000050", "000000020000000000000051", "000000020000000000000052"] {
            assert_eq!(ledger.arrived(name, &OURS, at(1), false), None, "{name}: restored to an earlier moment");
        }
        let other = Header { system_id: 8, segment_size: SIZE, begins: 0 };
        assert_eq!(ledger.arrived(&segment(0x99), &other, at(1), false), None);
        ledger.write().expect("noted");
        assert_eq!(whole(spool), segment(0x99));
    }
}
