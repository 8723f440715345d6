//! Bounded walks: setup looks at a machine for seconds, whatever lies on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much lies below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes of its files.
    pub bytes: u64,
    /// It was counted to the end.
    pub whole: bool,
}

/// Adds up the files below `path` until `end`, on its file system only. What cannot be read counts nothing.
pub fn size(path: &Path, end: Instant) -> Size {
    let mut total = Size { bytes: 0, whole: true };
    let Ok(top) = path.symlink_metadata() else { return total };
    let mut stack = vec![path.to_owned()];
    if !top.is_dir() {
        return Size { bytes: top.len(), ..total };
    }
    while let Some(directory) = stack.pop() {
        if Instant::now() > end {
            total.whole = false;
            break;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() && found.dev() == top.dev() {
                stack.push(entry.path());
            } else if found.is_file() {
                total.bytes += found.len();
            }
        }
    }
    total
}

/// How deep below a start, and how many directories in all, a search goes.
const DEPTH: usize = 6;
const DIRECTORIES: usize = 20_000;
/// Large, and never what is looked for.
const SKIPPED: [&str; 6] = [".git", ".cache", "node_modules", ".cargo", ".rustup", "overlay2"];

/// Calls `look` for the directories below `starts`, nearest first and in order of name; `false` ends the search below one.
pub(super) fn search(starts: &[PathBuf], look: &mut dyn FnMut(&Path) -> bool) {
    let mut level: Vec<PathBuf> = starts.iter().filter(|path| is_real_directory(path)).cloned().collect();
    let mut seen = 0;
    for _ in 0..=DEPTH {
        let mut next = Vec::new();
        for directory in level {
            seen += 1;
            if seen > DIRECTORIES {
                return;
            }
            if look(&directory) {
                next.extend(children(&directory));
            }
        }
        level = next;
    }
}

/// The directories in a directory, by name; no symbolic links.
pub(super) fn children(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !entry.file_name().to_str().is_none_or(|name| SKIPPED.contains(&name)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn is_real_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}
