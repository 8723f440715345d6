//! The one type of source that rustic_core reads, whatever is behind it.
//!
//! rustic_core's archiver is generic. Erasing the type of the source here compiles it once, and not once for files and once for
//! the output of programs.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use rustic_core::repofile::SnapshotFile;
use rustic_core::{
    BackupOptions, IndexedIdsStatus, ReadSource, ReadSourceEntry, ReadSourceOpen, Repository, RusticResult,
};

/// The content of one file.
pub type Reader = Box<dyn Read + Send>;

/// A file, directory or other node, and how its content is opened.
pub type Entry = ReadSourceEntry<Open>;

/// The entries of a source, in the order of a tree.
pub type Entries = Box<dyn Iterator<Item = RusticResult<Entry>> + Send>;

/// Opens the content of a file.
pub struct Open(Box<dyn FnOnce() -> RusticResult<Reader> + Send>);

impl Open {
    /// Opens the content with this function, which is called at most once.
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

/// Data that a snapshot is made of.
pub trait Source: Send + Sync {
    /// The sum of all sizes in bytes, if it is known.
    ///
    /// # Errors
    /// The source cannot be read.
    fn size(&self) -> RusticResult<Option<u64>>;

    /// All entries.
    fn entries(&self) -> Entries;
}

struct AnySource(Arc<dyn Source>);

impl ReadSource for AnySource {
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
    repository.archive(options, &AnySource(source), snapshot, paths)
}
