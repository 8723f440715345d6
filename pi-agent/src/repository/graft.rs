//! Putting files into a tree that is stored already: those that were read again, into the snapshot of the others.
//!
//! rustic can merge trees, but compares names as the format escapes them, and trees are sorted as they are: a directory with a
//! line break in its name could then be there twice.

use jiff::Timestamp;
use rustic_core::repofile::Tree;
use rustic_core::{BytesList, FileType, Id, IndexedIdsStatus, Repository as Rustic, TreeId, WriteBackend};
use serde_json::{Value, json};

use super::cipher::{self, Cipher};
use super::{COMPRESSION, Repository, pack};
use crate::error::{Context, Result};

/// A pack that has as much is written.
const FULL: usize = 1 << 20;
/// The version of the format that compresses.
const COMPRESSES: u32 = 2;

impl Repository {
    /// Stores what `base` is with everything of `more` in it, and gives its name. Where both have a file, that of `more` stays.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn graft(&self, base: TreeId, more: TreeId) -> Result<TreeId> {
        let rustic = self.cached("read the index of", Rustic::to_indexed_ids)?;
        let mut trees = Trees::new(self, rustic.config().version);
        let root = trees.graft(&rustic, base, more)?;
        trees.finish()?;
        Ok(root)
    }
}

/// Trees on their way to storage.
pub(super) struct Trees<'a> {
    repository: &'a Repository,
    cipher: Cipher,
    compress: bool,
    open: Pack,
    /// Those written, as the index says it.
    packs: Vec<Value>,
}

/// A pack to be.
#[derive(Default)]
struct Pack {
    content: Vec<u8>,
    header: Vec<u8>,
}

impl<'a> Trees<'a> {
    /// For a repository whose format is of that version.
    pub(super) fn new(repository: &'a Repository, version: u32) -> Self {
        let cipher = Cipher::of(&repository.key);
        Self { repository, cipher, compress: version >= COMPRESSES, open: Pack::default(), packs: Vec::new() }
    }

    fn read(&self, rustic: &Rustic<IndexedIdsStatus>, tree: TreeId) -> Result<Tree> {
        let read = self.repository.attempt("read a directory of", || rustic.get_tree(&tree));
        read.map_err(|failed| failed.error)
    }

    fn graft(&mut self, rustic: &Rustic<IndexedIdsStatus>, base: TreeId, more: TreeId) -> Result<TreeId> {
        let mut tree = self.read(rustic, base)?;
        for node in self.read(rustic, more)?.nodes {
            match tree.nodes.binary_search_by(|known| known.name().cmp(&node.name())) {
                Ok(at) => match (tree.nodes[at].subtree, node.subtree) {
                    (Some(base), Some(more)) => tree.nodes[at].subtree = Some(self.graft(rustic, base, more)?),
                    _ => tree.nodes[at] = node,
                },
                Err(at) => tree.nodes.insert(at, node),
            }
        }
        self.store(&tree)
    }

    /// # Errors
    /// Storage fails.
    pub(super) fn store(&mut self, tree: &Tree) -> Result<TreeId> {
        let (content, id) = tree.serialize().context(doing)?;
        self.add(&content, &id)?;
        Ok(id)
    }

    fn add(&mut self, tree: &[u8], id: &TreeId) -> Result<()> {
        let sealed = match self.compress {
            true => self.cipher.seal(&zstd::encode_all(tree, COMPRESSION).context(doing)?)?,
            false => self.cipher.seal(tree)?,
        };
        let uncompressed = self.compress.then_some(tree.len());
        self.open.header.extend(pack::header_entry(sealed.len(), uncompressed, id.to_hex().as_str()));
        self.open.content.extend(sealed);
        if self.open.content.len() >= FULL { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        let Pack { mut content, header } = std::mem::take(&mut self.open);
        if header.is_empty() {
            return Ok(());
        }
        let entries = pack::entries(&header).expect("it was just made");
        let header = self.cipher.seal(&header)?;
        content.extend(&header);
        content.extend(pack::length(header.len()));
        let id = self.write(FileType::Pack, content)?;
        let blobs: Vec<_> = entries.iter().map(pack::Entry::json).collect();
        self.packs.push(json!({ "id": id, "blobs": blobs, "time": Timestamp::now() }));
        Ok(())
    }

    /// Writes what is left, and the index of all.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn finish(mut self) -> Result<()> {
        self.close()?;
        let mut index = serde_json::to_vec(&json!({ "packs": self.packs })).context(doing)?;
        if self.compress {
            index = [&[pack::COMPRESSED], &*zstd::encode_all(index.as_slice(), COMPRESSION).context(doing)?].concat();
        }
        let index = self.cipher.seal(&index)?;
        self.write(FileType::Index, index).map(drop)
    }

    fn write(&self, kind: FileType, content: Vec<u8>) -> Result<Id> {
        let id: Id = cipher::name(&content).parse().expect("64 hexadecimal digits");
        let content: BytesList = bytes::Bytes::from(content).into();
        let cacheable = true;
        let written = self
            .repository
            .attempt("back up to", || self.repository.backend.write_bytes(kind, &id, cacheable, content));
        written.map_err(|failed| failed.error)?;
        Ok(id)
    }
}

fn doing() -> String {
    "write directories".into()
}
