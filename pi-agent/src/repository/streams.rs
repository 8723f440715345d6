//! What programs write, as files of a snapshot: it passes through memory only and never lies on this machine's disk.
//!
//! All or nothing: when one of the streams fails, even in its last moment, no snapshot is made. What was uploaded of it
//! stays in the index, and the next try sends only the rest.
//!
//! rustic_core 0.13 notes a file's size before it reads the file, and a stream has none yet. Files of size 0 are what
//! restic restores as empty, whatever their content. So everything is read back from the repository, with its size now
//! known, into the snapshot that counts: that costs one download, and proves that what was uploaded can be read.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::any_source::{Entries, Entry, Open, Source};
use bytes::Bytes;
use jiff::Timestamp;
use rustic_core::repofile::{BlobType, Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{BlobId, DataId, IndexedFullStatus, IndexedIdsStatus, Repository as Rustic};
use rustic_core::{ErrorKind, RusticError, RusticResult};

use super::permits::{Permit, Permits};
use super::{Repository, Snapshot};
use crate::monitor::Monitor;
use crate::steps::Figures;
use crate::{Error, Result};

/// A file whose content comes as a stream.
pub struct Stream {
    /// Its name, at the root of the snapshot.
    pub name: String,
    /// Begins it. The reader is read to its end on the thread that calls this; an [`Error`] in its [`io::Error`] is told.
    pub begin: Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>,
}

impl Repository {
    /// Reads `streams`, one after another, into a new snapshot with these tags.
    ///
    /// # Errors
    /// A stream or the storage fails: then there is no snapshot.
    pub fn back_up_streams(
        &self,
        streams: Vec<Stream>,
        tags: &[String],
        monitor: &Monitor,
    ) -> Result<(Snapshot, Figures)> {
        self.watched(monitor, || {
            // A stream that is silent for long has a limit of its own, which knows more than that of the step.
            let _patience = self.gauge.patience();
            let streams = streams.into_iter().map(|stream| (stream, 0)).collect();
            let (_, uploaded, sizes) = self.read(streams, tags)?;
            self.backend.drop_snapshot();
            let (rustic, archived, _) = self.read(self.back(&uploaded, &sizes)?, tags)?;
            let id = self.release(&rustic, &archived, &[])?;
            Ok((Snapshot { id, ..Snapshot::from(&archived) }, super::backup::figures(&uploaded)))
        })
    }

    /// Reads streams of these sizes into a snapshot that is kept back; also the sizes they had.
    fn read(
        &self,
        streams: Vec<(Stream, u64)>,
        tags: &[String],
    ) -> Result<(Rustic<IndexedIdsStatus>, SnapshotFile, BTreeMap<String, u64>)> {
        let names: Vec<_> = streams.iter().map(|(stream, _)| Path::new("/").join(&stream.name)).collect();
        let source = Arc::new(Streams { streams: Mutex::new(streams), shared: Arc::default() });
        let (rustic, archived) = self.archive(source.clone(), &names, Vec::new(), tags)?;
        let Progress { sizes, failure } = std::mem::take(&mut *source.shared.lock());
        if failure.is_none() && sizes.len() == names.len() {
            return Ok((rustic, archived, sizes));
        }
        self.backend.drop_snapshot();
        Err(failure.unwrap_or_else(|| {
            Error::new(format!("back up to {}: {} of {} streams were read", self.store(), sizes.len(), names.len()))
        }))
    }

    /// The files of a snapshot as streams.
    fn back(&self, archived: &SnapshotFile, sizes: &BTreeMap<String, u64>) -> Result<Vec<(Stream, u64)>> {
        let rustic = Arc::new(self.cached("read the index of", Rustic::to_indexed)?);
        let tree = self.attempt("read back from", || rustic.get_tree(&archived.tree)).map_err(|failed| failed.error)?;
        let stream = |node: Node| {
            let name = node.name().to_string_lossy().into_owned();
            let size = sizes.get(&name).copied().unwrap_or_default();
            let (rustic, what) = (rustic.clone(), format!("read {name} back from {}", self.store()));
            let content = node.content.unwrap_or_default().into_iter();
            let begin = move || -> Result<Box<dyn Read + Send>> {
                Ok(Box::new(Back { rustic, content, blob: Bytes::new(), what }))
            };
            (Stream { name, begin: Box::new(begin) }, size)
        };
        Ok(tree.nodes.into_iter().map(stream).collect())
    }
}

/// A file in the repository, one blob in memory at a time. (rustic's own reading fetches a blob for each small read: its
/// cache does not take in large ones.)
struct Back {
    rustic: Arc<Rustic<IndexedFullStatus>>,
    content: std::vec::IntoIter<DataId>,
    blob: Bytes,
    what: String,
}

impl Read for Back {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.blob.is_empty() {
            let Some(id) = self.content.next() else { return Ok(0) };
            self.blob = self
                .rustic
                .get_blob_cached(&BlobId::from(id), BlobType::Data)
                .map_err(|error| io::Error::other(Error::new(&self.what).caused_by(error)))?;
        }
        let length = buffer.len().min(self.blob.len());
        buffer[..length].copy_from_slice(&self.blob.split_to(length));
        Ok(length)
    }
}

/// How far the streams are.
#[derive(Debug, Default)]
struct Progress {
    /// Of those read to their good end, by name.
    sizes: BTreeMap<String, u64>,
    /// What went wrong first.
    failure: Option<Error>,
}

#[derive(Debug)]
struct Shared {
    progress: Mutex<Progress>,
    /// rustic opens as many files at once as there are processors, which would be as many programs.
    turn: Arc<Permits>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { progress: Mutex::default(), turn: Arc::new(Permits::new(1)) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // A number and an error, each set at once.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, error: Error) -> io::Error {
        let text = error.chain();
        self.lock().failure.get_or_insert(error);
        io::Error::other(text)
    }
}

/// Reads [`Stream`]s.
struct Streams {
    /// Each with its size, 0 when it is not known.
    streams: Mutex<Vec<(Stream, u64)>>,
    shared: Arc<Shared>,
}

impl Source for Streams {
    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    /// Each stream can be read once: a second call finds none.
    fn entries(&self) -> Entries {
        let mut streams = std::mem::take(&mut *self.streams.lock().unwrap_or_else(PoisonError::into_inner));
        // As everywhere in a tree.
        streams.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let entries = streams.into_iter().map(|(stream, size)| {
            let path = Path::new("/").join(&stream.name);
            let meta =
                Metadata { mode: Some(0o600), mtime: Some(Timestamp::now()), size, links: 1, ..Metadata::default() };
            let node = Node::new_node(stream.name.as_ref(), NodeType::File, meta);
            let opener = Opener { stream, shared: self.shared.clone() };
            Ok(Entry { path, node, open: Some(Open::new(|| Ok(Box::new(opener.open()?)))) })
        });
        Box::new(entries.collect::<Vec<_>>().into_iter())
    }
}

struct Opener {
    stream: Stream,
    shared: Arc<Shared>,
}

impl Opener {
    fn open(self) -> RusticResult<Reader> {
        let turn = Permits::take(&self.shared.turn);
        let failed =
            |error: io::Error| RusticError::with_source(ErrorKind::InputOutput, "cannot begin a stream", error);
        if self.shared.lock().failure.is_some() {
            return Err(failed(io::Error::other("another stream failed")));
        }
        match (self.stream.begin)() {
            Ok(stream) => {
                Ok(Reader { stream, shared: self.shared, name: self.stream.name, size: Some(0), _turn: turn })
            }
            Err(error) => Err(failed(self.shared.failed(error))),
        }
    }
}

struct Reader {
    stream: Box<dyn Read + Send>,
    shared: Arc<Shared>,
    name: String,
    /// So far; `None`: it is over.
    size: Option<u64>,
    _turn: Permit,
}

impl Read for Reader {
    /// Fills the whole buffer but at the end: after a short read, rustic's chunker never again asks for more than that
    /// one gave, and a pipe may have given a byte.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(before) = self.size else { return Ok(0) };
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => {
                    self.size = None;
                    self.shared.lock().sizes.insert(self.name.clone(), before + filled as u64);
                    return Ok(filled);
                }
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let error =
                        error.downcast::<Error>().unwrap_or_else(|error| Error::new("read a stream").caused_by(error));
                    return Err(self.shared.failed(error));
                }
            }
        }
        self.size = Some(before + filled as u64);
        Ok(filled)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Gives a byte at a time, as a pipe may.
    struct Drops(io::Cursor<Vec<u8>>);

    impl Read for Drops {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn reads_are_full_until_the_end_and_the_size_is_known_then() {
        let shared = Arc::<Shared>::default();
        let turn = Permits::take(&shared.turn);
        let stream = Box::new(Drops(io::Cursor::new(vec![7; 10])));
        let mut reader = Reader { stream, shared: shared.clone(), name: "x".into(), size: Some(0), _turn: turn };
        let mut buffer = [0; 4];
        let lengths = [4, 4, 2, 0, 0].map(|_| reader.read(&mut buffer).unwrap());
        assert_eq!(lengths, [4, 4, 2, 0, 0]);
        assert_eq!(shared.lock().sizes["x"], 10);
    }
}
