//! What lies in a repository beside its packs, by one request: keys, index and snapshots sort behind `data/`.
//!
//! rustic lists each kind whenever it needs it. All of a night's questions are answered from one look instead, which sees
//! what others added and removed as well as many would.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Result;
use crate::secrets::write_private;
use crate::storage::Store;

/// Sorts behind every `data/…`, and before `index/`, `keys/` and `snapshots/`.
const BEHIND_PACKS: &str = "data0";
/// Where the packs are.
const PACKS: &str = "data/";

/// A look is trusted for so long: an unchanged night is over by then, and during a long one others may have been there.
const FRESH: Duration = Duration::from_secs(300);

/// Keys and sizes of everything but the packs and the config; what we write and delete ourselves is followed.
#[derive(Debug)]
pub(super) struct Listing {
    taken: Instant,
    objects: Vec<(String, u64)>,
}

impl Listing {
    /// Looks now.
    ///
    /// # Errors
    /// Storage cannot be listed.
    pub(super) fn take(store: &Store) -> Result<Self> {
        Ok(Self { taken: Instant::now(), objects: store.list_after(BEHIND_PACKS)? })
    }

    /// Looks now, at the packs too: each by its key and size.
    ///
    /// # Errors
    /// Storage cannot be listed.
    pub(super) fn take_all(store: &Store) -> Result<(Self, Vec<(String, u64)>)> {
        let taken = Instant::now();
        let (packs, rest) = store.list("")?.into_iter().partition(|(key, _)| key.starts_with(PACKS));
        let mut objects: Vec<(String, u64)> = rest;
        objects.retain(|(key, _)| key.as_str() > BEHIND_PACKS);
        Ok((Self { taken, objects }, packs))
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.taken.elapsed() < FRESH
    }

    /// Everything below `prefix`.
    pub(super) fn below(&self, prefix: &str) -> Vec<(String, u64)> {
        self.objects.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect()
    }

    pub(super) fn add(&mut self, key: String, size: u64) {
        self.remove(&key);
        self.objects.push((key, size));
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.objects.retain(|(known, _)| known != key);
    }
}

/// The repository's config, kept beside the cache: it spares a request a night. It belongs to one place with one set of
/// keys, which are random: in another repository's place it is of no use. That others changed it there is seen by every
/// prune and check, which forget it, and within [`Kept::GOOD_FOR`].
#[derive(Debug)]
pub(super) struct Kept(pub(super) PathBuf);

impl Kept {
    const GOOD_FOR: Duration = Duration::from_hours(7 * 24);

    /// The config, when it was kept for this very repository.
    pub(super) fn read(&self, repository: &str) -> Option<Bytes> {
        let age = fs::metadata(&self.0).ok()?.modified().ok()?.elapsed().ok()?;
        let content = (age < Self::GOOD_FOR).then(|| fs::read(&self.0).ok())??;
        content.strip_prefix(repository.as_bytes()).map(Bytes::copy_from_slice)
    }

    pub(super) fn write(&self, repository: &str, config: &Bytes) {
        // Without it the next night asks again.
        let _ = write_private(&self.0, &[repository.as_bytes(), config].concat());
    }

    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What tells one repository from another without asking for its config: its place, and the names of its keys.
pub(super) fn identity(store: &Store, listing: &Listing) -> String {
    let mut keys = listing.below("keys/");
    keys.sort();
    let keys: String = keys.iter().map(|(key, _)| format!("{key}\n")).collect();
    format!("{store}\n{keys}\n")
}
