//! What was left out, and why.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::crossing::Crossing;
use super::ways::Unseen;

/// At most so many unreadable files are named; all are counted.
const NAMED: usize = 50;
/// At most so many are looked at again at the end: a Pi has no memory for the names of a million.
pub(super) const AGAIN: usize = 50_000;

/// At most so many files of the last minute are written to their disks first, which can take a card a tenth of a second each.
const WAITS: u32 = 1000;

/// What was left out, and why.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The first unreadable files with their errors.
    pub unreadable: Vec<(PathBuf, String)>,
    /// How many could not be read.
    pub unreadable_count: u64,
    /// How many were gone when they were to be read.
    pub vanished: u64,
    /// A directory could not be listed: nobody knows what is missing.
    pub listing_incomplete: bool,
    /// The deadline stopped the reading.
    pub stopped: bool,
    /// The first files whose attributes could not be read, with their errors; their contents are stored.
    pub without_attributes: Vec<(PathBuf, String)>,
    /// How many these are.
    pub without_attributes_count: u64,
    /// The first files with a modification time that the format cannot hold.
    pub without_time: Vec<PathBuf>,
    /// btrfs subvolumes that were entered though they are mounted nowhere.
    pub subvolumes: BTreeSet<PathBuf>,
    /// Read-only ones, which were not.
    pub snapshots: BTreeSet<PathBuf>,
    /// Our own storage and cache, met at paths that are not theirs.
    pub ours: BTreeSet<PathBuf>,
    /// Directories on which something was mounted while they were read, and which were not entered.
    pub mounted_meanwhile: BTreeSet<PathBuf>,
    /// Of `exclude`, the patterns that left something out.
    pub(in crate::repository) excluded_by: BTreeSet<String>,
    /// Files that changed while they were read, to be read again.
    pub(in crate::repository) changed: Vec<PathBuf>,
    /// What seemed to be gone when it was to be read. Whether its name is shows at the end.
    pub(in crate::repository) missed: Vec<PathBuf>,
    /// Files handed to rustic.
    pub(in crate::repository) handed_over: u64,
    /// Of those, how many then failed.
    pub(in crate::repository) failed: u64,
}

impl Tally {
    /// Whether a pattern of `exclude` left something out, or took it back.
    pub fn left_out_by(&self, pattern: &str) -> bool {
        self.excluded_by.contains(pattern)
    }
}

#[derive(Debug)]
pub(in crate::repository) struct Shared {
    tally: Mutex<Tally>,
    begun: Timestamp,
    /// Directories, as they were when their lists were read.
    listed: Mutex<Vec<(PathBuf, Changed)>>,
    /// So many files the disk may still be waited for.
    waits: AtomicU32,
}

/// When an entry of a file system was changed last in any way: seconds since 1970, and nanoseconds.
pub(super) type Changed = (i64, i64);

impl Default for Shared {
    fn default() -> Self {
        Self {
            tally: Mutex::default(),
            begun: Timestamp::now(),
            listed: Mutex::default(),
            waits: AtomicU32::new(WAITS),
        }
    }
}

impl Shared {
    /// When the reading began.
    pub(super) fn begun(&self) -> Timestamp {
        self.begun
    }

    /// One more file is written to its disk before it is read.
    pub(super) fn may_wait_for_a_disk(&self) -> bool {
        self.waits.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// The list of a directory is about to be read.
    pub(super) fn lists(&self, directory: &Path, found: &Metadata) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() < AGAIN {
            listed.push((directory.into(), (found.ctime(), found.ctime_nsec())));
        }
    }

    /// The directories whose lists were read, once.
    pub(super) fn listed(&self) -> Vec<(PathBuf, Changed)> {
        std::mem::take(&mut self.listed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Too much was moved to be read again.
    pub(super) fn too_much_moved(&self, directory: &Path) {
        self.unreadable(directory, &io::Error::other("too much was moved there while it was read"));
        self.lock().listing_incomplete = true;
    }

    pub(in crate::repository) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::repository) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    /// A file (or directory) that could not be read for the first time. One that seems to be gone is looked up again at the end, but
    /// for a configured path.
    pub(in crate::repository) fn left_out(&self, path: &Path, error: &io::Error, configured: bool) {
        if !seems_gone(error) || configured {
            return self.unreadable(path, error);
        }
        let mut tally = self.lock();
        if tally.missed.len() < AGAIN {
            tally.missed.push(path.into());
        } else {
            drop(tally);
            self.is_back(path, fs::symlink_metadata(path), true);
        }
    }

    /// The same for the last time. Only what has no name any more has vanished, which no backup can help; that is so if it `is_gone`.
    pub(super) fn settle(&self, path: &Path, error: &io::Error, is_gone: bool) {
        if seems_gone(error) && is_gone {
            self.lock().vanished += 1;
        } else {
            self.unreadable(path, error);
        }
    }

    /// What [changed](Tally::changed) and what was [missed](Tally::missed), once; and whether no time is left.
    pub(super) fn to_be_read_again(&self) -> (Vec<PathBuf>, Vec<PathBuf>, bool) {
        let mut tally = self.lock();
        let (changed, mut missed) = (std::mem::take(&mut tally.changed), std::mem::take(&mut tally.missed));
        // Of a directory both its own entry and its list.
        missed.sort();
        missed.dedup();
        (changed, missed, tally.stopped)
    }

    /// Whether something that was missed can be read now. A directory, of which nobody knows what was read of it, and what is held
    /// as it was at one moment cannot, and are named.
    pub(super) fn is_back(&self, path: &Path, found: io::Result<Metadata>, held: bool) -> bool {
        match found {
            Ok(found) if !found.is_dir() && !held => return true,
            Ok(_) => {
                let back = io::Error::other("it was not there for a while when it was read, and is again");
                self.unreadable(path, &back);
            }
            Err(error) if has_no_name(&error) => {
                self.lock().vanished += 1;
                return false;
            }
            Err(error) => self.unreadable(path, &error),
        }
        self.lock().listing_incomplete = true;
        false
    }

    fn unreadable(&self, path: &Path, error: &io::Error) {
        let mut tally = self.lock();
        tally.unreadable_count += 1;
        if tally.unreadable.len() < NAMED {
            tally.unreadable.push((path.into(), error.to_string()));
        }
    }

    /// A file that was not the same from the walk to its last byte, for the first time.
    pub(in crate::repository) fn read_again(&self, path: &Path) {
        let mut tally = self.lock();
        if tally.changed.len() < AGAIN {
            tally.changed.push(path.into());
        } else {
            drop(tally);
            self.unreadable(path, &io::Error::other("it changed while it was read, as did too many to read all again"));
        }
    }

    /// The same for the last time.
    pub(in crate::repository) fn never_the_same(&self, path: &Path) {
        self.unreadable(path, &io::Error::other("it changed while it was read, also when it was read again"));
    }

    /// Its content is stored, but not its attributes.
    pub(in crate::repository) fn without_attributes(&self, path: &Path, error: &io::Error) {
        let mut tally = self.lock();
        if tally.without_attributes.iter().any(|(known, _)| known == path) {
            return;
        }
        tally.without_attributes_count += 1;
        if tally.without_attributes.len() < NAMED {
            tally.without_attributes.push((path.into(), error.to_string()));
        }
    }

    /// It is stored, but not its modification time.
    pub(in crate::repository) fn without_time(&self, path: &Path) {
        let mut tally = self.lock();
        if tally.without_time.len() < NAMED && !tally.without_time.iter().any(|known| known == path) {
            tally.without_time.push(path.into());
        }
    }

    /// A pattern of `exclude` did something.
    pub(super) fn excluded_by(&self, pattern: &str) {
        let mut tally = self.lock();
        if !tally.excluded_by.contains(pattern) {
            tally.excluded_by.insert(pattern.into());
        }
    }

    /// A directory that is kept empty.
    pub(super) fn not_entered(&self, directory: &Path, crossing: Crossing) {
        let mut tally = self.lock();
        match crossing {
            Crossing::Mount => tally.mounted_meanwhile.insert(directory.into()),
            Crossing::Snapshot | Crossing::Subvolume => tally.snapshots.insert(directory.into()),
        };
    }

    /// The walk could not read a directory, or one of its entries.
    pub(in crate::repository) fn unseen(&self, Unseen { path, first, error, is_directory }: &Unseen) {
        if *is_directory && error.kind() != io::ErrorKind::NotFound {
            self.lock().listing_incomplete = true;
        }
        self.left_out(path, error, *first);
    }
}

/// Whether it may be that what could not be read is not there any more.
pub(super) fn seems_gone(error: &io::Error) -> bool {
    has_no_name(error) || error.kind() == io::ErrorKind::StaleNetworkFileHandle
}

/// Whether nothing of that name is there.
pub(super) fn has_no_name(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_to_be_looked_at_again_is_settled_at_once() {
        let folder = tempfile::tempdir().expect("a directory");
        let gone = io::Error::from(io::ErrorKind::NotFound);
        let shared = Shared::default();
        for number in 0..=AGAIN {
            shared.left_out(&folder.path().join(number.to_string()), &gone, false);
            shared.read_again(Path::new("/srv/busy"));
        }
        shared.left_out(folder.path(), &gone, false);
        let tally = shared.tally();
        assert_eq!((tally.missed.len(), tally.changed.len(), tally.vanished), (AGAIN, AGAIN, 1));
        let said: Vec<_> = tally.unreadable.iter().map(|(path, why)| (path.as_path(), why.as_str())).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].0 == Path::new("/srv/busy") && said[0].1.contains("too many"), "{said:?}");
        assert!(said[1].0 == folder.path() && said[1].1.contains("was not there for a while"), "{said:?}");
        assert!(tally.listing_incomplete, "nobody knows what was in the directory");
    }
}
