//! What is wrong with a repository, as far as [`super::mend`] can do something about it. Nothing is written.

use std::collections::{HashMap, HashSet};

use rustic_core::repofile::{IndexFile, IndexPack, NodeType, SnapshotFile};
use rustic_core::{FileType, Id, IndexedFullStatus, Repository as Rustic, TreeId};
use serde_json::json;

use super::Repository;
use super::backend::key;
use super::cipher::{self, Cipher};
use super::damage::Damaged;
use super::pack::{Entry, Opener};
use super::restore::short;
use crate::Result;
use crate::error::{Context, Kind};
use crate::monitor::{Monitor, Unit};

/// What is wrong, and what is to be done about it.
#[derive(Default)]
pub struct Diagnosis {
    /// In words, a line each.
    pub lines: Vec<String>,
    /// What nothing here can be done about.
    pub beyond: Vec<String>,
    /// Index files to be replaced.
    pub(super) index_files: Vec<String>,
    /// What the new ones say, but for [`Self::doubtful`].
    pub(super) index: IndexFile,
    /// Packs that are not what they were, with their pieces that are.
    pub(super) doubtful: Vec<IndexPack>,
    /// Snapshots of which nothing can be read.
    pub(super) unreadable: Vec<String>,
    /// Snapshots that lost something.
    pub(super) incomplete: Vec<SnapshotFile>,
}

impl Diagnosis {
    /// There is nothing to be done.
    pub fn is_well(&self) -> bool {
        self.lines.is_empty()
    }
}

impl Repository {
    /// Looks at all of the index, the snapshots and their directories, as they lie in storage; with `read_data`, also at all contents.
    ///
    /// # Errors
    /// Storage fails.
    pub fn diagnose(&self, read_data: bool, monitor: &Monitor) -> Result<Diagnosis> {
        self.clear_cache();
        self.backend.look_again();
        self.gauge.phase("looking at the repository", Unit::Items);
        self.watched(monitor, || self.look(read_data))
    }

    fn look(&self, read_data: bool) -> Result<Diagnosis> {
        let mut bad = HashSet::new();
        if read_data {
            let found = self.without_damaged("index", || self.read_packs(0, 1))?;
            if let Some(stopped) = found.stopped {
                return Err(stopped);
            }
            bad.extend(found.bad);
        }
        loop {
            self.backend.show_as_it_is();
            let mut diagnosis = Diagnosis::default();
            self.look_at_index(&mut diagnosis, &bad)?;
            // A directory that cannot be read tells that its pack is not what it was.
            let more = self.look_at_snapshots(&mut diagnosis)?;
            if more.is_subset(&bad) {
                diagnosis.beyond.extend(self.key_trouble()?.map(|trouble| trouble.chain()));
                return Ok(diagnosis);
            }
            bad.extend(more);
        }
    }

    /// The index as it will be is shown from then on.
    fn look_at_index(&self, diagnosis: &mut Diagnosis, bad: &HashSet<Id>) -> Result<()> {
        let damaged = self.damaged_files("index")?;
        for Damaged { name, why } in &damaged {
            let line = format!("index/{name} is damaged{why}: it is set aside, and written anew from the packs");
            diagnosis.lines.push(line);
            self.leave_out(name);
        }
        let packs: HashMap<Id, u64> =
            self.store().list("data/")?.into_iter().filter_map(|(key, size)| Some((id(&key)?, size))).collect();
        let files = self.cached("read the index of", |rustic| rustic.stream_files::<IndexFile>()?.collect())?;

        let (mut known, mut gone) = (HashSet::new(), HashSet::new());
        let files: Vec<(_, IndexFile)> = files;
        for (name, file) in files {
            let is_good = |pack: &IndexPack| {
                packs.get(&*pack.id) == Some(&u64::from(pack.pack_size())) && !bad.contains(&*pack.id)
            };
            known.extend(file.packs.iter().chain(&file.packs_to_delete).map(|pack| *pack.id));
            if file.packs.iter().all(is_good) {
                continue;
            }
            diagnosis.index_files.push(name.to_hex().as_str().to_owned());
            self.backend.leave_out(*name);
            for pack in file.packs {
                match () {
                    () if is_good(&pack) => diagnosis.index.packs.push(pack),
                    () if packs.contains_key(&*pack.id) => diagnosis.doubtful.push(pack),
                    () => drop(gone.insert(*pack.id)),
                }
            }
            diagnosis.index.packs_to_delete.extend(file.packs_to_delete);
        }
        diagnosis.lines.extend(
            gone.iter().map(|pack| format!("{} is gone: it is taken out of the index", key(FileType::Pack, pack))),
        );
        diagnosis.doubtful.sort_by_key(|pack| pack.id);
        diagnosis.doubtful.dedup_by_key(|pack| pack.id);
        for pack in &mut diagnosis.doubtful {
            let all = pack.blobs.len();
            self.keep_whole_pieces(pack)?;
            diagnosis.lines.push(format!(
                "{} is damaged: {} of the {all} pieces in it are whole and are stored again, and it is taken out of the index",
                key(FileType::Pack, &pack.id),
                pack.blobs.len()
            ));
        }
        for pack in packs.keys().filter(|pack| !known.contains(*pack)) {
            match self.unnamed(pack)? {
                Some(found) => {
                    diagnosis.lines.push(format!("{} is in no index: it is put into it", key(FileType::Pack, pack)));
                    diagnosis.index.packs.push(found);
                }
                // What was taken out of the index, or is a beginning: no harm is done by it, and the next prune takes it.
                None => log::info!("{} is in no index, and not whole: it stays as it is", key(FileType::Pack, pack)),
            }
        }
        diagnosis.index_files.extend(damaged.into_iter().map(|damaged| damaged.name));

        let mut shown = IndexFile::default();
        shown.packs.extend(diagnosis.index.packs.iter().chain(&diagnosis.doubtful).cloned());
        let (name, content) = self.sealed(&shown)?;
        self.backend.stand_in(name.parse().expect("64 hexadecimal digits"), content.into());
        Ok(())
    }

    /// Those that cannot be read, and those that lost something; also packs in which a directory cannot be read.
    fn look_at_snapshots(&self, diagnosis: &mut Diagnosis) -> Result<HashSet<Id>> {
        for Damaged { name, why } in self.damaged_files("snapshots")? {
            diagnosis.lines.push(format!("snapshots/{name} is damaged{why}: it is set aside"));
            self.leave_out(&name);
            diagnosis.unreadable.push(name);
        }
        let snapshots: Vec<SnapshotFile> = self.cached("list the snapshots of", |rustic| rustic.get_all_snapshots())?;
        let rustic = self.cached("read the index of", Rustic::to_indexed)?;
        let mut trees = Whole { repository: self, rustic: &rustic, known: HashMap::new(), suspects: HashSet::new() };
        for snapshot in snapshots {
            if trees.is_whole(snapshot.tree)? {
                continue;
            }
            let name = snapshot.id.to_hex().as_str().to_owned();
            let of = format!("the restore point {} of {:.0}", short(&name), snapshot.time.timestamp());
            if self.attempt("read a directory of", || rustic.get_tree(&snapshot.tree)).is_ok() {
                diagnosis.lines.push(format!(
                    "{of} has lost some of its files: it is written anew without them, and is set aside"
                ));
                diagnosis.incomplete.push(snapshot);
            } else {
                diagnosis.lines.push(format!("{of} has lost its first directory, and so everything: it is set aside"));
                diagnosis.unreadable.push(name);
            }
        }
        Ok(trees.suspects)
    }

    fn leave_out(&self, name: &str) {
        if let Ok(id) = name.parse() {
            self.backend.leave_out(id);
        }
    }

    /// Leaves of a pack those pieces that can be read.
    fn keep_whole_pieces(&self, pack: &mut IndexPack) -> Result<()> {
        let mut content = self.content_of_pack(pack)?;
        let cipher = Cipher::of(&self.key);
        let largest = pack.blobs.iter().filter_map(|blob| Entry::from(blob).uncompressed).max().unwrap_or_default();
        let mut opener = Opener::new(&cipher, largest as usize)?;
        pack.blobs.retain(|blob| opener.is_whole(&Entry::from(blob), &mut content));
        Ok(())
    }

    /// The bytes of a pack, with zeros for the pieces that cannot be read: a bad place on a disk spoils only what lies on it.
    ///
    /// # Errors
    /// Storage cannot be reached or refuses it.
    pub(super) fn content_of_pack(&self, pack: &IndexPack) -> Result<Vec<u8>> {
        let key = key(FileType::Pack, &pack.id);
        match self.content(&key)? {
            Ok(content) => return Ok(content.to_vec()),
            Err(error) if error.kind() == Kind::NotFound => return Err(error),
            Err(error) => log::info!("{}; its pieces are read one by one", error.chain()),
        }
        let mut content = Vec::new();
        for blob in &pack.blobs {
            let (from, length) = (blob.location.offset as usize, blob.location.length as usize);
            match self.store().get_range(&key, from as u64, length) {
                Ok(piece) => {
                    content.resize(content.len().max(from + length), 0);
                    content[from..from + length].copy_from_slice(&piece);
                }
                Err(error) if error.is_unread() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(content)
    }

    /// A pack that no index names, if it is whole.
    fn unnamed(&self, pack: &Id) -> Result<Option<IndexPack>> {
        let Ok(content) = self.content(&key(FileType::Pack, pack))? else { return Ok(None) };
        let name = pack.to_hex();
        if cipher::name(&content) != name.as_str() {
            return Ok(None);
        }
        let cipher = Cipher::of(&self.key);
        let Some(entries) = Opener::new(&cipher, 0)?.header(&content) else { return Ok(None) };
        index_pack(name.as_str(), &entries).map(Some)
    }
}

/// As the index says it.
pub(super) fn index_pack(name: &str, entries: &[Entry]) -> Result<IndexPack> {
    let blobs: Vec<_> = entries.iter().map(Entry::json).collect();
    serde_json::from_value(json!({ "id": name, "blobs": blobs })).context(|| "write an index".into())
}

fn id(key: &str) -> Option<Id> {
    key.rsplit('/').next()?.parse().ok()
}

/// Directories, and whether all that is below them is there.
struct Whole<'a> {
    repository: &'a Repository,
    rustic: &'a Rustic<IndexedFullStatus>,
    known: HashMap<TreeId, bool>,
    /// Packs of those that cannot be read.
    suspects: HashSet<Id>,
}

impl Whole<'_> {
    fn is_whole(&mut self, tree: TreeId) -> Result<bool> {
        if let Some(known) = self.known.get(&tree) {
            return Ok(*known);
        }
        let read = self.repository.attempt("read a directory of", || self.rustic.get_tree(&tree));
        let mut whole = true;
        match read {
            Ok(read) => {
                for node in read.nodes {
                    whole &= match node.node_type {
                        NodeType::File => has_content(self.rustic, &node),
                        _ => node.subtree.map_or(Ok(true), |tree| self.is_whole(tree))?,
                    };
                }
            }
            Err(failed) if failed.error.is_unread() => return Err(failed.error),
            Err(_) => {
                whole = false;
                self.suspects.extend(self.rustic.get_index_entry(&tree).map(|entry| *entry.pack));
            }
        }
        self.known.insert(tree, whole);
        Ok(whole)
    }
}

/// All pieces of a file are in the index.
pub(super) fn has_content(rustic: &Rustic<IndexedFullStatus>, node: &rustic_core::repofile::Node) -> bool {
    node.content.iter().flatten().all(|id| rustic.get_index_entry(id).is_ok())
}
