//! What of rustic_core works on every byte, compiled for less than the smallest size.
//!
//! rustic_core is generic, in what is read above all, and generic code is compiled where its types are known. That is here: in
//! the program's own crate, which is compiled for size alone, a first backup took more of a processor (700 MB: 15.4 s, with
//! this compiled for speed 14.6 s). How it is compiled is said in the workspace's `Cargo.toml`, with what that costs.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    BackupOptions, IndexedIdsStatus, ReadSource, ReadSourceEntry, ReadSourceOpen, Repository, RusticResult,
};

/// What a file is read from.
pub type Reader = Box<dyn Read + Send>;

/// A file, directory or anything else, and how its content is read.
pub type Entry = ReadSourceEntry<Open>;

/// The entries of a source, in the order of a tree.
pub type Entries = Box<dyn Iterator<Item = RusticResult<Entry>> + Send>;

/// Begins to read a file.
pub struct Open(Box<dyn FnOnce() -> RusticResult<Reader> + Send>);

impl Open {
    /// By that function; it is called once, or never.
    pub fn new(open: impl FnOnce() -> RusticResult<Reader> + Send + 'static) -> Self {
        Self(Box::new(open))
    }
}

impl ReadSourceOpen for Open {
    type Reader = Reader;

    fn open(self) -> RusticResult<Reader> {
        (self.0)()
    }
}

/// What is backed up.
pub trait Source: Send + Sync {
    /// Bytes in all, as far as that is known.
    ///
    /// # Errors
    /// It cannot be found out.
    fn size(&self) -> RusticResult<Option<u64>>;

    /// Everything in it.
    fn entries(&self) -> Entries;
}

/// Any source, as the one type that rustic meets.
struct Any(Arc<dyn Source>);

impl ReadSource for Any {
    type Open = Open;
    type Iter = Entries;

    fn size(&self) -> RusticResult<Option<u64>> {
        self.0.size()
    }

    fn entries(&self) -> Entries {
        self.0.entries()
    }
}

/// Reads a source to its end, into `snapshot`.
///
/// # Errors
/// Storage fails.
pub fn archive(
    repository: &Repository<IndexedIdsStatus>,
    options: &BackupOptions,
    source: Arc<dyn Source>,
    snapshot: SnapshotFile,
    paths: &[PathBuf],
) -> RusticResult<SnapshotFile> {
    repository.archive(options, &Any(source), snapshot, paths)
}
