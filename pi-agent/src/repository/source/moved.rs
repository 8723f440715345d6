//! What is moved while all is read, from where the walk has yet to come to where it has been: it would be in the snapshot under
//! neither name.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::tally::AGAIN;
use super::{Found, Source};

/// Kernels stamp with a clock that moves every 10 ms at most.
const STEP: SignedDuration = SignedDuration::from_millis(25);

impl Source {
    /// What was moved into directories whose lists had been read, with all that lies in it; and which of it is a directory.
    pub(super) fn moved(&self) -> (Vec<PathBuf>, HashSet<PathBuf>) {
        let (mut moved, mut directories) = (Vec::new(), HashSet::new());
        for (directory, changed) in self.shared.listed() {
            let is_as_listed =
                |found: Metadata| (found.ctime(), found.ctime_nsec()) == changed || self.holds(&directory);
            if self.ways.item(&directory).map_or(true, |item| is_as_listed(item.found)) {
                continue;
            }
            for path in self.moved_into(&directory) {
                for found in self.walk::<Metadata>(&path).flatten() {
                    if found.item.is_dir() {
                        directories.insert(found.path.clone());
                    }
                    moved.push(found.path);
                }
            }
            if moved.len() > AGAIN {
                self.shared.too_much_moved(&directory);
                moved.clear();
                directories.clear();
                break;
            }
        }
        (moved, directories)
    }

    /// What lies in a directory and was moved since all of it began. That changes the time of its last change of any kind, and no other.
    fn moved_into(&self, directory: &Path) -> Vec<PathBuf> {
        let begun = self.shared.begun() - STEP;
        let was_moved = |found: &Metadata| {
            let time = |seconds, nanoseconds: i64| {
                Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or_default()).unwrap_or(Timestamp::MIN)
            };
            let (changed, modified) =
                (time(found.ctime(), found.ctime_nsec()), time(found.mtime(), found.mtime_nsec()));
            changed >= begun && modified < begun
        };
        let mut moved = Vec::new();
        let mut walk = self.walk::<Metadata>(directory);
        while let Some(found) = walk.next() {
            let Ok(Found { path, first: false, item }) = found else { continue };
            walk.pass_by();
            if was_moved(&item) {
                moved.push(path);
            }
        }
        moved
    }

    /// It is read as it was at one moment.
    fn holds(&self, directory: &Path) -> bool {
        self.sources.held.as_ref().is_some_and(|held| directory.ancestors().any(|place| held.holds(place)))
    }
}
