//! Mending a repository, as [`super::diagnose`] says. Nothing is deleted that is not kept below `set-aside/` first, and no pack at
//! all; what replaces something is written and read back before.

use std::collections::HashMap;

use rustic_core::repofile::{IndexFile, IndexPack, SnapshotFile};
use rustic_core::{FileType, IndexedFullStatus, Repository as Rustic, TreeId};

use super::backend::key;
use super::cipher::{self, Cipher};
use super::diagnose::{Diagnosis, has_content, index_pack};
use super::graft::Trees;
use super::index_parts::PIECES;
use super::pack::{self, Entry, Opener};
use super::{Findings, Repository};
use crate::monitor::{Monitor, Unit};
use crate::steps::Check;
use crate::{Error, Result};

/// The tag of a snapshot that was written anew without what it lost.
pub const REPAIRED: &str = "repaired";

/// Where is kept what was replaced. No other program looks there.
const ASIDE: &str = "set-aside";

impl Repository {
    /// Mends what was found, and checks what there is then.
    ///
    /// # Errors
    /// Storage fails; what is done by then is good, and the same again goes on.
    pub fn mend(&self, diagnosis: Diagnosis, monitor: &Monitor) -> Result<Findings> {
        self.gauge.phase("mending the repository", Unit::Items);
        self.watched(monitor, || self.mend_all(diagnosis))?;
        self.check(Check::Structure, monitor)
    }

    fn mend_all(&self, diagnosis: Diagnosis) -> Result<()> {
        let Diagnosis { mut index, index_files, doubtful, unreadable, incomplete, .. } = diagnosis;
        for pack in &doubtful {
            index.packs.extend(self.store_again(pack)?);
        }
        self.write_new_index(index)?;
        for name in &index_files {
            self.set_aside(FileType::Index, name)?;
        }
        self.backend.show_as_it_is();
        self.clear_cache();
        self.backend.look_again();
        for name in &unreadable {
            self.set_aside(FileType::Snapshot, name)?;
        }
        for snapshot in incomplete {
            let name = snapshot.id.to_hex().as_str().to_owned();
            self.write_without_lost(snapshot)?;
            self.set_aside(FileType::Snapshot, &name)?;
        }
        Ok(())
    }

    /// The pieces of a damaged pack that are whole, in a pack of their own; `None`: there are none.
    fn store_again(&self, damaged: &IndexPack) -> Result<Option<IndexPack>> {
        let content = self.content_of_pack(damaged)?;
        let cipher = Cipher::of(&self.key);
        let (mut whole, mut header) = (Vec::new(), Vec::new());
        for entry in damaged.blobs.iter().map(Entry::from) {
            if let Some(piece) = entry.of(&content) {
                whole.extend_from_slice(piece);
                header.extend(entry.in_header());
            }
        }
        if header.is_empty() {
            return Ok(None);
        }
        let header = cipher.seal(&header)?;
        whole.extend(&header);
        whole.extend(pack::length(header.len()));
        let name = cipher::name(&whole);
        let entries = Opener::new(&cipher, 0)?.header(&whole).ok_or_else(|| Error::new("write a pack: it is none"))?;
        self.put_and_read_back(FileType::Pack, &name, whole)?;
        index_pack(&name, &entries).map(Some)
    }

    /// In files that take little memory.
    fn write_new_index(&self, index: IndexFile) -> Result<()> {
        let mut part = IndexFile { packs_to_delete: index.packs_to_delete, ..IndexFile::default() };
        let mut packs = index.packs.into_iter().peekable();
        while packs.peek().is_some() || !part.packs_to_delete.is_empty() {
            let mut pieces = 0;
            while pieces < PIECES
                && let Some(pack) = packs.next()
            {
                pieces += pack.blobs.len();
                part.packs.push(pack);
            }
            let (name, content) = self.sealed(&part)?;
            self.put_and_read_back(FileType::Index, &name, content)?;
            part = IndexFile::default();
        }
        Ok(())
    }

    fn put_and_read_back(&self, kind: FileType, name: &str, content: Vec<u8>) -> Result<()> {
        let id = name.parse().expect("64 hexadecimal digits");
        self.backend.put(kind, &id, &bytes::Bytes::from(content).into())?;
        let key = key(kind, &id);
        match cipher::name(&self.store().get(&key)?) == name {
            true => Ok(()),
            false => {
                Err(Error::new(format!("write {key} in {}: it cannot be read back as it was written", self.store()))
                    .hint("what was there before is still there"))
            }
        }
    }

    fn set_aside(&self, kind: FileType, name: &str) -> Result<()> {
        let key = format!("{}/{name}", kind.dirname());
        let aside = format!("{ASIDE}/{key}");
        match self.content(&key)? {
            Ok(content) => {
                self.store().put(&aside, std::slice::from_ref(&content))?;
                if self.store().get(&aside)? != content {
                    return Err(Error::new(format!(
                        "write {aside} in {}: it cannot be read back as it was written",
                        self.store()
                    )));
                }
                self.store().delete(&key)?;
            }
            // It keeps its bad place on the disk, which nothing else is written to then.
            Err(unreadable) => {
                if !self.store().rename(&key, &aside)? {
                    return Err(unreadable);
                }
            }
        }
        self.backend.look_again();
        Ok(())
    }

    /// The same restore point without the files that lost something.
    fn write_without_lost(&self, mut snapshot: SnapshotFile) -> Result<()> {
        let rustic = self.cached("read the index of", Rustic::to_indexed)?;
        let trees = Trees::new(self, rustic.config().version);
        let mut without = Without { repository: self, rustic: &rustic, trees, known: HashMap::new() };
        let Some(tree) = without.lost(snapshot.tree)? else {
            return Err(Error::new(format!("read a snapshot of {}: it cannot be read any more", self.store())));
        };
        without.trees.finish()?;
        snapshot.original.get_or_insert(snapshot.id);
        snapshot.tree = tree;
        snapshot.tags.add(REPAIRED.into());
        self.attempt("write a snapshot to", || rustic.save_snapshots(vec![snapshot])).map_err(|failed| failed.error)
    }
}

/// Directories as they are without what is lost.
struct Without<'a> {
    repository: &'a Repository,
    rustic: &'a Rustic<IndexedFullStatus>,
    trees: Trees<'a>,
    known: HashMap<TreeId, Option<TreeId>>,
}

impl Without<'_> {
    /// What becomes of a directory; `None`: it is lost.
    fn lost(&mut self, tree: TreeId) -> Result<Option<TreeId>> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(*known);
        }
        let read = self.repository.attempt("read a directory of", || self.rustic.get_tree(&tree));
        let becomes = match read {
            Ok(mut read) => {
                let mut changed = false;
                let mut kept = Vec::with_capacity(read.nodes.len());
                for mut node in read.nodes {
                    let below = node.subtree.map(|below| self.lost(below)).transpose()?;
                    if below == Some(None) || !has_content(self.rustic, &node) {
                        changed = true;
                        continue;
                    }
                    changed |= below.flatten() != node.subtree;
                    node.subtree = below.flatten();
                    kept.push(node);
                }
                read.nodes = kept;
                Some(if changed { self.trees.store(&read)? } else { tree })
            }
            Err(failed) if failed.error.is_unread() => return Err(failed.error),
            Err(_) => None,
        };
        self.known.insert(tree, becomes);
        Ok(becomes)
    }
}
