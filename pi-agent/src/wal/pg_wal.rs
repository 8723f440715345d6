//! What lies in a server's `pg_wal`, whether or not it runs. Its marks say only what `archive_command` said.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::reached::Mark;
use super::segment::{Header, Name, open_plain};
use super::times::commits;
use crate::pgbackrest::lsn;
use crate::theirs::read_plain;

/// Where the marks are.
const STATUS: &str = "pg_wal/archive_status";

/// A segment that holds what its name says; others wait to be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Its name.
    pub name: String,
    /// Its number in the stream of WAL.
    pub place: u64,
    /// What it says of itself.
    pub header: Header,
    /// No gap is between it and the first one of its timeline. Behind one, nothing was written: a segment that waits to be used again may
    /// have come by its own number, from another timeline.
    pub follows: bool,
}

impl Held {
    /// The timeline, as in its name.
    pub fn timeline(&self) -> &str {
        &self.name[..8]
    }
}

/// The segments that the cluster with the system identifier `id` has written there or fetched, in the order of their names.
pub(super) fn held(data: &Path, id: u64) -> Vec<Held> {
    let names = names_in(&data.join("pg_wal")).into_iter();
    let names: BTreeSet<_> = names.filter(|name| name.len() == 24 && Name::of(name) == Some(Name::Segment)).collect();
    let mut held: Vec<Held> = Vec::new();
    for name in names {
        let Ok(header) = Header::check(&file(data, &name)) else { continue };
        if header.system_id != id || !header.is_of(&name) {
            continue;
        }
        let place = header.begins / header.segment_size;
        let before = held.last().filter(|before| before.timeline() == &name[..8]);
        let follows = before.is_none_or(|before| before.follows && before.place + 1 == place);
        held.push(Held { name, place, header, follows });
    }
    held
}

/// When the first transaction ended there that belongs to the timeline of the segment; `None`: none did.
pub(super) fn first_commit(data: &Path, segment: &Held) -> Option<Timestamp> {
    // The first segment of a timeline begins with a copy of what was before.
    let own = began(data, segment.timeline()).unwrap_or(0);
    let mut first = None;
    let wal = open_plain(&file(data, &segment.name)).ok()?;
    let tell = &mut |position, time| first = first.or(Some(time).filter(|_| position >= own));
    commits(wal, tell).ok()?;
    first
}

/// The position at which a timeline left the one before; `None`: the first one.
pub(super) fn began(data: &Path, timeline: &str) -> Option<u64> {
    const MOST: u64 = 1 << 20;
    let history = read_plain(&data.join(format!("pg_wal/{timeline}.history")), MOST).ok()?;
    let history = String::from_utf8_lossy(&history);
    let last = history.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'))?;
    lsn(last.split_whitespace().nth(1)?)
}

/// What PostgreSQL marks in `archive_status`. A server that archives nothing marks nothing.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Finished, and not archived.
    pub ready: BTreeSet<String>,
    /// Counted as archived, and not used again.
    pub done: BTreeSet<String>,
}

impl Marks {
    /// Reads their names.
    pub fn read(data: &Path) -> Self {
        let marks = names_in(&data.join(STATUS));
        let of = |kind: &str| {
            let names = marks.iter().filter_map(|mark| Some(mark.strip_suffix(kind)?.to_owned()));
            names.filter(|name| Name::of(name).is_some()).collect()
        };
        Self { ready: of(".ready"), done: of(".done") }
    }

    /// Since when a file waits to be archived.
    pub fn waits_since(data: &Path, name: &str) -> Option<Timestamp> {
        changed(&data.join(STATUS).join(format!("{name}.ready")))
    }

    /// The newest segment that counts as archived.
    pub fn newest_archived(&self, data: &Path) -> Option<Mark> {
        let segment = self.done.iter().rfind(|name| name.len() == 24)?;
        let finished = changed(&data.join(STATUS).join(format!("{segment}.done")))?;
        Some(Mark { segment: segment.clone(), finished })
    }
}

/// Where a file of that name is.
pub(super) fn file(data: &Path, name: &str) -> PathBuf {
    data.join("pg_wal").join(name)
}

/// When a file was written last.
pub(super) fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_marks_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let status = folder.path().join("pg_wal/archive_status");
        fs::create_dir_all(&status).expect("made");
        for name in ["000000010000000000000001.done", "000000010000000000000003.done", "000000010000000000000004.ready"]
        {
            fs::write(status.join(name), "").expect("written");
        }
        for name in ["00000002.history.done", "000000010000000000000009.00000028.backup.done"] {
            fs::write(status.join(name), "").expect("written");
        }
        let marks = Marks::read(folder.path());
        assert_eq!((marks.ready.len(), marks.done.len()), (1, 4));
        let newest = marks.newest_archived(folder.path()).expect("the newest segment");
        assert_eq!(newest.segment, "000000010000000000000003");
        let none = Marks::read(&folder.path().join("missing"));
        assert!(none.ready.is_empty() && none.newest_archived(folder.path()).is_none());
    }
}
