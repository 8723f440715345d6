//! restic's repository layout over a [`Store`], as rustic's backend.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustic_core::repofile::MasterKey;
use rustic_core::{BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend};

use super::cipher::Cipher;
use super::index_parts;
use super::listing::{Kept, Listing, identity};
use super::lock::is_ending;
use super::permits::{Permit, Permits};
use super::uploads::Uploads;
use crate::Error;
use crate::error::Kind;
use crate::storage::{SMALL, Store};

/// How many packs may be in memory for reading at once.
/// Two gave 52–77 MiB resident at no loss of speed; from a server, whose answers take their time, a third is worth its memory.
pub(super) fn readers(store: &Store) -> usize {
    match store {
        Store::Local(_) => 2,
        Store::S3(_) => 3,
    }
}

/// The backend; it remembers what went wrong in storage, because rustic's errors do not say whether it may pass.
#[derive(Debug)]
pub(super) struct Backend {
    store: Store,
    config: Mutex<Option<Bytes>>,
    kept_config: Kept,
    listing: Mutex<Option<Listing>>,
    packs: Mutex<Option<Vec<(String, u64)>>>,
    failure: Mutex<Option<Error>>,
    write_failed: AtomicBool,
    /// A snapshot is written only when it is known what it is worth: see [`Backend::hold_snapshots`].
    holding: AtomicBool,
    held: Mutex<Option<(Id, BytesList)>>,
    last_snapshot: Mutex<Option<Id>>,
    readers: Arc<Permits>,
    uploads: Uploads,
    /// The packs that were written to a disk, by their keys.
    written: Mutex<Vec<String>>,
    cipher: Mutex<Option<Cipher>>,
    /// What stands in for a config that is lost.
    assumed_config: Mutex<Option<Bytes>>,
    /// Damaged, and not to be read.
    left_out: Mutex<HashSet<Id>>,
    /// Index files that are shown and do not lie there.
    index: Mutex<Vec<(Id, Bytes)>>,
}

/// How the names of marks end.
const ON_ITS_WAY: &str = ".on-its-way";

impl Backend {
    /// `kept_config`: the file in which the config is kept.
    pub(super) fn new(store: Store, kept_config: PathBuf) -> Self {
        Self {
            readers: Arc::new(Permits::new(readers(&store))),
            store,
            config: Mutex::default(),
            kept_config: Kept(kept_config),
            listing: Mutex::default(),
            packs: Mutex::default(),
            failure: Mutex::default(),
            write_failed: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            held: Mutex::default(),
            last_snapshot: Mutex::default(),
            uploads: Uploads::default(),
            written: Mutex::default(),
            cipher: Mutex::default(),
            assumed_config: Mutex::default(),
            left_out: Mutex::default(),
            index: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The repository's configuration, asked for once; `None`: there is none.
    pub(super) fn config(&self) -> crate::Result<Option<Bytes>> {
        if let Some(assumed) = lock(&self.assumed_config).clone() {
            return Ok(Some(assumed));
        }
        let mut config = lock(&self.config);
        if config.is_none() {
            *config = self.read_config()?;
        }
        Ok(config.clone())
    }

    /// Takes that for the config, whatever storage says.
    pub(super) fn assume_config(&self, config: Bytes) {
        *lock(&self.assumed_config) = Some(config);
    }

    /// Is silent about a damaged part of the index or snapshot.
    pub(super) fn leave_out(&self, id: Id) {
        lock(&self.left_out).insert(id);
    }

    /// Leaves nothing out any more, and shows only what storage has.
    pub(super) fn show_as_it_is(&self) {
        lock(&self.left_out).clear();
        lock(&self.index).clear();
    }

    /// Shows an index file that storage does not have.
    pub(super) fn stand_in(&self, id: Id, content: Bytes) {
        lock(&self.index).push((id, content));
    }

    fn read_config(&self) -> crate::Result<Option<Bytes>> {
        // A file costs nothing to read; a request costs money and, from far away, time.
        let repository = match self.store {
            Store::Local(_) => None,
            Store::S3(_) => Some(self.listed(|listing| identity(&self.store, listing))?),
        };
        let kept = repository.as_ref().and_then(|repository| self.kept_config.read(repository));
        if kept.is_some() {
            return Ok(kept);
        }
        match self.store.get_small("config", SMALL) {
            Ok(config) => {
                if let Some(repository) = repository {
                    self.kept_config.write(&repository, &config);
                }
                Ok(Some(config))
            }
            Err(error) if error.kind() == Kind::NotFound => {
                // A missing root is NotFound too, and must not pass for a place without a repository.
                self.store.list("config/")?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What lies there beside the packs, as it was a moment ago.
    fn listed<T>(&self, look: impl FnOnce(&Listing) -> T) -> crate::Result<T> {
        let mut listing = lock(&self.listing);
        if !listing.as_ref().is_some_and(Listing::is_fresh) {
            *listing = Some(Listing::take(&self.store)?);
        }
        Ok(look(listing.as_ref().expect("it was taken")))
    }

    /// What lies there below `prefix`, which is not that of the packs.
    ///
    /// # Errors
    /// Storage cannot be listed.
    pub(super) fn below(&self, prefix: &str) -> crate::Result<Vec<(String, u64)>> {
        self.listed(|listing| listing.below(prefix))
    }

    /// Looks at all that lies there, once: the packs are for [`Self::take_packs`].
    ///
    /// # Errors
    /// Storage cannot be listed.
    pub(super) fn look_at_all(&self) -> crate::Result<()> {
        let (listing, packs) = Listing::take_all(&self.store)?;
        *lock(&self.listing) = Some(listing);
        *lock(&self.packs) = Some(packs);
        Ok(())
    }

    /// The packs that [`Self::look_at_all`] saw, each by its key and size. They take memory, and are wanted once.
    pub(super) fn take_packs(&self) -> Option<Vec<(String, u64)>> {
        lock(&self.packs).take()
    }

    /// Knows nothing any more that others may have changed: for whoever deletes, and for whoever checks.
    pub(super) fn look_again(&self) {
        lock(&self.listing).take();
        lock(&self.config).take();
        self.kept_config.forget();
    }

    /// The first storage error since the last call.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.write_failed.store(false, Ordering::SeqCst);
        lock(&self.failure).take()
    }

    /// A write failed since [`Self::take_failure`] was called last.
    pub(super) fn write_failed(&self) -> bool {
        self.write_failed.load(Ordering::SeqCst)
    }

    /// From now on a snapshot is kept back until [`Self::release_snapshot`] or [`Self::drop_snapshot`]. So no snapshot
    /// ever appears, not even for a moment, that looks complete and is not.
    pub(super) fn hold_snapshots(&self) {
        self.holding.store(true, Ordering::SeqCst);
        lock(&self.held).take();
    }

    /// Whether a snapshot is kept back.
    pub(super) fn holds_snapshot(&self) -> bool {
        lock(&self.held).is_some()
    }

    /// Writes the snapshot kept back.
    pub(super) fn release_snapshot(&self) -> RusticResult<()> {
        self.holding.store(false, Ordering::SeqCst);
        match lock(&self.held).take() {
            Some((id, content)) => self.write_bytes(FileType::Snapshot, &id, false, content),
            None => Ok(()),
        }
    }

    /// Forgets the snapshot kept back.
    pub(super) fn drop_snapshot(&self) {
        self.holding.store(false, Ordering::SeqCst);
        lock(&self.held).take();
    }

    /// The id of the snapshot written last.
    pub(super) fn last_snapshot(&self) -> Option<String> {
        lock(&self.last_snapshot).map(|id| id.to_hex().as_str().to_owned())
    }

    /// The key of what is written from now on.
    pub(super) fn seal_with(&self, key: &MasterKey) {
        *lock(&self.cipher) = Some(Cipher::of(key));
    }

    /// The packs that were written to a disk since the last time that was asked.
    pub(super) fn take_written(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.written))
    }

    /// Remembers why storage failed.
    pub(super) fn failed(&self, error: Error) -> Box<RusticError> {
        let text = error.chain();
        // The first failure is the cause of those that follow.
        lock(&self.failure).get_or_insert(error);
        RusticError::new(ErrorKind::Backend, text)
    }

    fn write(&self, kind: FileType, id: &Id, content: BytesList) -> crate::Result<()> {
        // rustic has put it into the cache already. What never arrived must not be missed as if somebody had removed it.
        let mark = (kind == FileType::Index).then(|| self.mark(id.to_hex().as_str()));
        mark.iter().for_each(|mark| drop(fs::write(mark, "")));
        self.write_now(kind, id, content)?;
        mark.iter().for_each(|mark| drop(fs::remove_file(mark)));
        Ok(())
    }

    /// There while an index file of that name is on its way to storage.
    fn mark(&self, name: &str) -> PathBuf {
        self.kept_config.0.with_file_name(format!("{name}{ON_ITS_WAY}"))
    }

    /// This machine began to write an index file of that name, and has not seen that it arrived.
    pub(super) fn was_on_its_way(&self, name: &str) -> bool {
        self.mark(name).exists()
    }

    /// What was on its way is compared with what lies there.
    pub(super) fn forget_the_ways(&self) {
        let marks =
            self.kept_config.0.parent().into_iter().filter_map(|cache| fs::read_dir(cache).ok()).flatten().flatten();
        for mark in marks.filter(|mark| mark.file_name().to_string_lossy().ends_with(ON_ITS_WAY)) {
            let _ = fs::remove_file(mark.path());
        }
    }

    fn write_now(&self, kind: FileType, id: &Id, content: BytesList) -> crate::Result<()> {
        if is_ending() {
            // Its lock is gone, or about to be.
            return Err(Error::new(format!("write {}: this process was told to end", key(kind, id))));
        }
        if kind == FileType::Pack && matches!(self.store, Store::S3(_)) {
            return self.uploads.send(&self.store, key(kind, id), content);
        }
        self.uploads.settle()?;
        if kind == FileType::Index
            && let Some(cipher) = lock(&self.cipher).as_ref()
            && index_parts::split(&content, cipher, |name, part| self.put(kind, &name, &Bytes::from(part).into()))?
        {
            return Ok(());
        }
        self.put(kind, id, &content)
    }

    /// Writes a file whole, and notes that it is there.
    pub(super) fn put(&self, kind: FileType, id: &Id, content: &BytesList) -> crate::Result<()> {
        let name = key(kind, id);
        self.store.put(&name, content.slice())?;
        match kind {
            FileType::Config => *lock(&self.config) = None,
            FileType::Pack => {
                lock(&self.written).push(name);
                return Ok(());
            }
            FileType::Snapshot => *lock(&self.last_snapshot) = Some(*id),
            FileType::Index | FileType::Key => {}
        }
        if let Some(listing) = lock(&self.listing).as_mut() {
            listing.add(name, content.slice().iter().map(|part| part.len() as u64).sum());
        }
        Ok(())
    }

    /// Ties the permit to the life of the bytes: given back any earlier, it would limit nothing.
    fn read_pack(&self, read: impl FnOnce() -> crate::Result<Bytes>) -> RusticResult<Bytes> {
        let permit = Permits::take(&self.readers);
        let bytes = read().map_err(|error| self.failed(error))?;
        Ok(Bytes::from_owner(Permitted { bytes, _permit: permit }))
    }
}

/// What a file is called in the store.
pub(super) fn key(kind: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    let hex = hex.as_str();
    match kind {
        FileType::Config => "config".into(),
        FileType::Pack => format!("data/{}/{hex}", &hex[..2]),
        other => format!("{}/{hex}", other.dirname()),
    }
}

impl ReadBackend for Backend {
    fn location(&self) -> String {
        self.store.to_string()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        if kind == FileType::Config {
            let config = self.config().map_err(|error| self.failed(error))?;
            return Ok(config
                .map(|bytes| (Id::default(), u32::try_from(bytes.len()).unwrap_or(u32::MAX)))
                .into_iter()
                .collect());
        }
        let prefix = format!("{}/", kind.dirname());
        let listed = match kind {
            FileType::Pack => self.store.list(&prefix),
            _ => self.below(&prefix),
        };
        let listed = listed.map_err(|error| self.failed(error))?;
        let left_out = lock(&self.left_out).clone();
        let stand_in: Vec<_> = match kind {
            FileType::Index => lock(&self.index).iter().map(|(id, content)| (*id, content.len())).collect(),
            _ => Vec::new(),
        };
        let stand_in = stand_in
            .into_iter()
            .map(|(id, length)| Ok::<_, Box<RusticError>>((id, u32::try_from(length).unwrap_or(u32::MAX))));
        listed
            .into_iter()
            .filter_map(|(key, size)| {
                // What has another kind of name is none of the repository's.
                let name = key.rsplit('/').next().filter(|name| name.len() == 64)?;
                let id = name.parse::<Id>().ok().filter(|id| !left_out.contains(id))?;
                Some(u32::try_from(size).map(|size| (id, size)).map_err(|_| {
                    self.failed(Error::new(format!(
                        "list {prefix} in {}: {key} of {size} bytes is no part of a repository",
                        self.store
                    )))
                }))
            })
            .chain(stand_in)
            .collect()
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        match kind {
            FileType::Config => self
                .config()
                .and_then(|config| {
                    config.ok_or_else(|| Error::new(format!("{} has no config", self.store)).kind_of(Kind::NotFound))
                })
                .map_err(|error| self.failed(error)),
            FileType::Pack => self.read_pack(|| self.store.get(&key(kind, id))),
            _ => {
                let stand_in =
                    lock(&self.index).iter().find(|(shown, _)| shown == id).map(|(_, content)| content.clone());
                match stand_in.filter(|_| kind == FileType::Index) {
                    Some(content) => Ok(content),
                    None => self.store.get(&key(kind, id)).map_err(|error| self.failed(error)),
                }
            }
        }
    }

    fn read_partial(&self, kind: FileType, id: &Id, _cacheable: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        self.read_pack(|| self.store.get_range(&key(kind, id), offset.into(), length as usize))
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        key(kind, id)
    }
}

impl WriteBackend for Backend {
    fn write_bytes(&self, kind: FileType, id: &Id, _cacheable: bool, content: BytesList) -> RusticResult<()> {
        if kind == FileType::Snapshot && self.holding.load(Ordering::SeqCst) {
            *lock(&self.held) = Some((*id, content));
            return Ok(());
        }
        self.write(kind, id, content).map_err(|error| {
            self.write_failed.store(true, Ordering::SeqCst);
            self.failed(error)
        })
    }

    fn remove(&self, kind: FileType, id: &Id, _cacheable: bool) -> RusticResult<()> {
        let name = key(kind, id);
        self.uploads.settle().and_then(|()| self.store.delete(&name)).map_err(|error| self.failed(error))?;
        if let Some(listing) = lock(&self.listing).as_mut() {
            listing.remove(&name);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each lock guards one value that is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was read, and the permit to have it in memory.
struct Permitted {
    bytes: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Permitted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
