//! What the index promises, held against what lies there, before a backup relies on it: a listing, and no request for each pack.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use rustic_core::repofile::{IndexFile, IndexId, IndexPack};
use rustic_core::{FileType, Id};
use serde_json::json;

use super::backend::key;
use super::cipher::{self, Cipher};
use super::pack::COMPRESSED;
use super::{Lock, Purpose, Repository};
use crate::error::{Context, Result};
use crate::monitor::Monitor;

/// Packs that are named; there may be thousands.
const NAMED: usize = 3;

/// Sizes of packs by name.
type Packs = HashMap<Id, u64>;

/// A pack that an index file promises.
struct Promised {
    index: IndexId,
    pack: Id,
    size: u64,
}

impl Promised {
    fn is_kept(&self, packs: &Packs) -> bool {
        packs.get(&self.pack) == Some(&self.size)
    }
}

impl Repository {
    /// Takes the lock for writing, and makes sure that nothing is taken for stored that is not there: it is damage, and is
    /// stored anew.
    ///
    /// # Errors
    /// Another holds an exclusive lock; storage fails.
    pub fn lock_for_writing(&self, clock: bool, until: Option<std::time::Instant>, monitor: &Monitor) -> Result<Lock> {
        let lock = self.lock(Purpose::Write, clock, until, monitor)?;
        monitor.phase("comparing the index with what is stored");
        self.watched(monitor, || self.compare_with_stored())?;
        Ok(lock)
    }

    fn compare_with_stored(&self) -> Result<()> {
        let packs = match self.backend.take_packs() {
            Some(packs) => sizes(packs),
            None => sizes(self.store().list("data/")?),
        };
        // Before rustic looks: it lets go of what it does not find in storage.
        let cached = self.cached_index()?;
        self.put_back(cached, &packs)?;
        self.backend.forget_the_ways();

        let Some((missing, packs)) = self.missing(packs)? else { return Ok(()) };
        let consequence = ": earlier restore points may have lost content; what the sources still hold of it is stored again, and nothing is \
                           forgotten or pruned meanwhile";
        self.tell_missing(&missing, &packs, consequence);
        self.show_without(&missing, &|pack| drop(pack.blobs.drain(..)))
    }

    /// For who reads: what else holds a piece of what is lost is found, and so is what a pack that is cut still holds.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn leave_out_missing(&self, packs: &[(String, u64)]) -> Result<()> {
        let Some((missing, packs)) = self.missing(sizes(packs.iter().cloned()))? else { return Ok(()) };
        self.tell_missing(&missing, &packs, "");
        self.show_without(&missing, &|pack| {
            let size = packs.get(&*pack.id).copied().unwrap_or_default();
            pack.blobs.retain(|blob| u64::from(blob.location.offset) + u64::from(blob.location.length) <= size);
        })
    }

    /// What the index promises and storage has not, or not whole, with what it has; `None`: nothing.
    fn missing(&self, packs: Packs) -> Result<Option<(Vec<Promised>, Packs)>> {
        let mut missing = self.promised()?;
        missing.retain(|promised| !promised.is_kept(&packs));
        drop(packs);
        if missing.is_empty() {
            return Ok(None);
        }
        // What another backup has just stored may be in the index and not yet in the older listing.
        let packs = sizes(self.store().list("data/")?);
        missing.retain(|promised| !promised.is_kept(&packs));
        Ok((!missing.is_empty()).then_some((missing, packs)))
    }

    /// All packs that the index promises, as far as it can be read. What is marked to be deleted is promised to nobody.
    fn promised(&self) -> Result<Vec<Promised>> {
        let read = || {
            self.cached("read the index of", |rustic| {
                let mut promised = Vec::new();
                for file in rustic.stream_files::<IndexFile>()? {
                    let (index, file) = file?;
                    promised.extend(file.packs.iter().map(|pack| Promised {
                        index,
                        pack: *pack.id,
                        size: pack.pack_size().into(),
                    }));
                }
                Ok(promised)
            })
        };
        self.without_damaged("index", read)
    }

    fn tell_missing(&self, missing: &[Promised], packs: &Packs, consequence: &str) {
        let names: Vec<_> = missing
            .iter()
            .take(NAMED)
            .map(|Promised { pack, .. }| {
                let how = if packs.contains_key(pack) { "not whole" } else { "gone" };
                format!("{} is {how}", key(FileType::Pack, pack))
            })
            .collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let (count, store, step) = (missing.len(), self.store(), &self.step);
        self.damaged_with(
            format!(
                "{count} packs that the index of {store} names are gone or not whole ({}{more}){consequence}",
                names.join(", ")
            ),
            Some(format!(
                "put copies of those files back; else pi-agent repair {step} takes them out of the index, and says what is lost"
            )),
        );
    }

    /// Shows the index files that promise what is missing with as much of it as `keep` leaves.
    fn show_without(&self, missing: &[Promised], keep: &dyn Fn(&mut IndexPack)) -> Result<()> {
        let files: HashSet<_> = missing.iter().map(|promised| promised.index).collect();
        let packs: HashSet<_> = missing.iter().map(|promised| promised.pack).collect();
        let kept = self.cached("read the index of", |rustic| {
            let mut kept = IndexFile::default();
            for file in rustic.stream_files::<IndexFile>()? {
                let (id, mut file) = file?;
                if files.contains(&id) {
                    file.packs.iter_mut().filter(|pack| packs.contains(&pack.id)).for_each(keep);
                    kept.packs.extend(file.packs.into_iter().filter(|pack| !pack.blobs.is_empty()));
                    kept.packs_to_delete.extend(file.packs_to_delete);
                }
            }
            Ok(kept)
        })?;
        let (name, content) = self.sealed(&kept)?;
        files.iter().for_each(|id| self.backend.leave_out(**id));
        self.backend.stand_in(name.parse().expect("64 hexadecimal digits"), content.into());
        Ok(())
    }

    /// An index file as it is stored, with its name.
    pub(super) fn sealed(&self, index: &IndexFile) -> Result<(String, Vec<u8>)> {
        let plain = serde_json::to_vec(&json!({ "packs": index.packs, "packs_to_delete": index.packs_to_delete }))
            .context(|| "write an index".into())?;
        let content = Cipher::of(&self.key).seal(&plain)?;
        Ok((cipher::name(&content), content))
    }

    /// Whole index files that the cache has, and storage has not, or not whole: names and contents.
    fn cached_index(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let stored: HashMap<_, _> = self.backend.below("index/")?.into_iter().collect();
        let mut found = Vec::new();
        for repository in directories(&self.cache) {
            for path in directories(&repository.join("index")).iter().flat_map(|folder| directories(folder)) {
                let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 64) else {
                    continue;
                };
                let size = path.metadata().map(|data| data.len()).unwrap_or_default();
                if stored.get(&format!("index/{name}")) == Some(&size) {
                    continue;
                }
                // It is a copy, and of another repository perhaps: only what is whole and opens counts.
                let content = fs::read(&path).unwrap_or_default();
                if cipher::name(&content) == name {
                    found.push((name.to_owned(), content));
                }
            }
        }
        Ok(found)
    }

    /// Writes to storage what it has lost of the index, from the cache. What another program has replaced stays as it is:
    /// only packs that are there and in no other file of the index come back.
    fn put_back(&self, cached: Vec<(String, Vec<u8>)>, packs: &Packs) -> Result<()> {
        if cached.is_empty() {
            return Ok(());
        }
        let stored: HashSet<_> = self.backend.below("index/")?.into_iter().map(|(key, _)| key).collect();
        let (cut, gone): (Vec<_>, Vec<_>) =
            cached.into_iter().partition(|(name, _)| stored.contains(&format!("index/{name}")));
        let cipher = Cipher::of(&self.key);
        for (name, content) in cut {
            if cipher.open(&content).is_some() {
                self.write_index(&name, content)?;
                self.damaged(format!(
                    "index/{name} in {} was not whole; it is written again, from this machine's copy",
                    self.store()
                ));
            }
        }
        let gone: Vec<_> =
            gone.iter().filter_map(|(name, content)| Some((name, index_of(content, &cipher)?))).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let known = || {
            self.cached("read the index of", |rustic| {
                let mut known = HashSet::new();
                for file in rustic.stream_files::<IndexFile>()? {
                    let (_, file) = file?;
                    known.extend(file.packs.iter().chain(&file.packs_to_delete).map(|pack| *pack.id));
                }
                Ok(known)
            })
        };
        let known: HashSet<_> = self.without_damaged("index", known)?;
        let mut lost = IndexFile::default();
        let mut names = HashSet::new();
        for (name, file) in gone {
            for pack in file.packs {
                let size = u64::from(pack.pack_size());
                if !known.contains(&*pack.id) && packs.get(&*pack.id) == Some(&size) {
                    names.insert(name);
                    lost.packs.push(pack);
                }
            }
        }
        if lost.packs.is_empty() {
            return Ok(());
        }
        let (name, content) = self.sealed(&lost)?;
        self.write_index(&name, content)?;
        names.retain(|name| !self.backend.was_on_its_way(name));
        if names.is_empty() {
            log::info!("{}: what a backup that was cut off had stored is used", self.step);
            return Ok(());
        }
        self.damaged_with(
            format!(
                "{} files of the index of {} were gone; where {} packs lie that only they named is written again, from this machine's copy",
                names.len(),
                self.store(),
                lost.packs.len()
            ),
            Some("find out who removed them; all else is well".into()),
        );
        Ok(())
    }

    /// Also into the listing, by which rustic knows what there is.
    fn write_index(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let id = name.parse().expect("64 hexadecimal digits");
        self.backend.put(FileType::Index, &id, &bytes::Bytes::from(content).into())
    }
}

/// What an index file of this repository says.
fn index_of(content: &[u8], cipher: &Cipher) -> Option<IndexFile> {
    let plain = cipher.open(content)?;
    match plain.first() {
        Some(&COMPRESSED) => serde_json::from_reader(zstd::Decoder::new(&plain[1..]).ok()?).ok(),
        _ => serde_json::from_slice(&plain).ok(),
    }
}

fn sizes(packs: impl IntoIterator<Item = (String, u64)>) -> Packs {
    let name = |key: &str| key.rsplit('/').next()?.parse().ok();
    packs.into_iter().filter_map(|(key, size)| Some((name(&key)?, size))).collect()
}

/// What is in a folder of the cache, whatever it is; nothing where it cannot be read.
fn directories(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
