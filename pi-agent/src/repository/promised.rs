//! What the index promises, held against what lies there, before a backup relies on it: a listing, and no request for each pack.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use rustic_core::Id;
use rustic_core::repofile::{IndexFile, IndexId};
use serde_json::json;

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

        let mut missing = self.promised()?;
        missing.retain(|promised| !promised.is_kept(&packs));
        drop(packs);
        if missing.is_empty() {
            return Ok(());
        }
        // What another backup has just stored may be in the index and not yet in the older listing.
        let packs = sizes(self.store().list("data/")?);
        missing.retain(|promised| !promised.is_kept(&packs));
        if missing.is_empty() {
            return Ok(());
        }
        let lost: HashSet<_> = missing.iter().map(|promised| promised.pack).collect();
        self.tell_lost(&missing, &packs);
        self.show_without(&missing, &lost)
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

    fn tell_lost(&self, missing: &[Promised], packs: &Packs) {
        let names: Vec<_> = missing
            .iter()
            .take(NAMED)
            .map(|Promised { pack, .. }| {
                let how = if packs.contains_key(pack) { "not whole" } else { "gone" };
                let hex = pack.to_hex();
                format!("data/{}/{} is {how}", &hex.as_str()[..2], hex.as_str())
            })
            .collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let (store, step) = (self.store(), &self.step);
        self.damaged_with(
            format!(
                "{} packs that the index of {store} names are gone or not whole ({}{more}): earlier restore points may have lost content; what the sources \
                 still hold of it is stored again, and nothing is forgotten or pruned meanwhile",
                missing.len(),
                names.join(", ")
            ),
            Some(format!(
                "put copies of those files back; or see what is lost: pi-agent check {step}; then take them out of the index: pi-agent repair {step}"
            )),
        );
    }

    /// Shows the index files that promise what is lost without that.
    fn show_without(&self, missing: &[Promised], lost: &HashSet<Id>) -> Result<()> {
        let files: HashSet<_> = missing.iter().map(|promised| promised.index).collect();
        let kept = self.cached("read the index of", |rustic| {
            let mut kept = IndexFile::default();
            for file in rustic.stream_files::<IndexFile>()? {
                let (id, file) = file?;
                if files.contains(&id) {
                    kept.packs.extend(file.packs.into_iter().filter(|pack| !lost.contains(&pack.id)));
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
        let known: HashSet<_> = self.cached("read the index of", |rustic| {
            let mut known = HashSet::new();
            for file in rustic.stream_files::<IndexFile>()? {
                let (_, file) = file?;
                known.extend(file.packs.iter().chain(&file.packs_to_delete).map(|pack| *pack.id));
            }
            Ok(known)
        })?;
        let mut lost = IndexFile::default();
        let mut names = HashSet::new();
        for (name, file) in gone {
            for pack in file.packs {
                let size = u64::from(pack.pack_size());
                if !known.contains(&pack.id) && packs.get(&*pack.id) == Some(&size) {
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
        self.backend.put(rustic_core::FileType::Index, &id, &bytes::Bytes::from(content).into())
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

fn sizes(packs: Vec<(String, u64)>) -> Packs {
    let name = |key: &str| key.rsplit('/').next()?.parse().ok();
    packs.into_iter().filter_map(|(key, size)| Some((name(&key)?, size))).collect()
}

/// What is in a folder of the cache, whatever it is; nothing where it cannot be read.
fn directories(folder: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
