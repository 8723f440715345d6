//! The machine itself: can its clock be trusted, is there room on its disks.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;

use crate::Result;
use crate::error::Context;
use crate::systemd::{TimeService, time_service};

/// This version did not exist before; a Pi has no clock that runs while it is off, and starts in the past.
const EARLIEST: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z
/// What the network's time may take back between two runs without anything being wrong.
const TAKEN_BACK: Duration = Duration::from_mins(10);
/// A machine may well rest for a year; beyond that a wrong clock is likelier.
const LONGEST_REST: Duration = Duration::from_hours(400 * 24);

/// Why the clock must not be trusted with deleting, if there is a reason. `last_known`: the newest moment on record.
pub fn clock_problem(last_known: Option<Timestamp>) -> Option<String> {
    judge_clock(Timestamp::now(), last_known).or_else(|| {
        (time_service() == TimeService::Trying)
            .then(|| "the network has not set the clock since the machine started".to_owned())
    })
}

/// What the clock shows, held against the newest moment on record.
pub(crate) fn judge_clock(now: Timestamp, last_known: Option<Timestamp>) -> Option<String> {
    if now < EARLIEST {
        return Some(format!("the clock shows {now:.0}, before this version was made"));
    }
    let last = last_known?;
    if now + TAKEN_BACK < last {
        return Some(format!("the clock shows {now:.0}, but the last run was at {last:.0}"));
    }
    if SignedDuration::try_from(LONGEST_REST).is_ok_and(|longest| now.duration_since(last) > longest) {
        return Some(format!("the clock shows {now:.0}, more than 400 days after the last run at {last:.0}"));
    }
    None
}

/// Room on the file system of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that we may still write.
    pub free: u64,
    /// Bytes in use, and those that may still be written. What is kept back for root counts for neither, as `df` has it.
    pub total: u64,
    /// Files that can still be made; `None`: the file system does not count them.
    pub free_files: Option<u64>,
    /// Files there can be in all.
    pub total_files: u64,
    /// The disk is mounted read-only (also what ext4 does after errors).
    pub read_only: bool,
}

/// The room where `path` lies, or where it would lie: its nearest ancestor that exists.
///
/// # Errors
/// The file system cannot be asked.
pub fn room(path: &Path) -> Result<Room> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let found = statvfs(existing).context(|| format!("ask for the room at {}", existing.display()))?;
    let block = found.fragment_size();
    Ok(Room {
        free: found.blocks_available() * block,
        total: (found.blocks() - found.blocks_free() + found.blocks_available()) * block,
        total_files: found.files(),
        free_files: (found.files() > 0).then(|| found.files_available()),
        read_only: found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_ordinary_clock_is_trusted() {
        let now = at("2026-11-21T03:00:00Z");
        assert_eq!(judge_clock(now, None), None);
        assert_eq!(judge_clock(now, Some(at("2026-11-20T03:10:00Z"))), None);
        assert_eq!(
            judge_clock(now, Some(at("2026-11-21T03:05:00Z"))),
            None,
            "the network's time took five minutes back"
        );
        assert_eq!(judge_clock(now, Some(at("2025-12-01T00:00:00Z"))), None, "a year of rest");
    }

    #[test]
    fn a_clock_that_lost_or_gained_time_is_not() {
        let told = |now, last: Option<&str>| judge_clock(at(now), last.map(at)).unwrap();
        assert!(told("1970-01-01T00:02:00Z", None).contains("before this version"));
        assert!(told("2026-11-20T03:00:00Z", Some("2026-11-21T03:10:00Z")).contains("the last run was at 2026-11-21"));
        assert!(told("2038-01-19T00:00:00Z", Some("2026-11-21T03:10:00Z")).contains("400 days"));
    }

    #[test]
    fn room_is_asked_of_the_nearest_ancestor() {
        let directory = tempfile::tempdir().unwrap();
        let room = room(&directory.path().join("not/there/yet")).unwrap();
        assert!(room.total > 0 && room.free <= room.total && !room.read_only);
    }
}
