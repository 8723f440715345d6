//! Reading all that the packs hold. Each comes by one request, into one buffer, in which it is opened; whoever fetches is ahead of
//! those who verify. rustic's own reading takes two requests a pack, and on one thread waits for each answer before it verifies.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustic_core::repofile::IndexFile;
use rustic_core::{FileType, Id};

use super::Repository;
use super::backend::key;
use super::cipher::Cipher;
use super::pack::{Entry, summary, trouble};
use super::progress::Gauge;
use crate::error::Kind;
use crate::monitor::Unit;
use crate::storage::Store;
use crate::{Error, Result};

/// Threads that verify: more would take a pack's memory each.
const VERIFYING: usize = 2;

/// Threads that fetch: a folder answers at once.
fn fetching(store: &Store) -> usize {
    match store {
        Store::Local(_) => 1,
        Store::S3(_) => 2,
    }
}

/// What the index says of a pack.
struct Expected {
    id: Id,
    summary: u64,
}

impl Repository {
    /// What is wrong with the packs of that part of all of them.
    ///
    /// # Errors
    /// The index cannot be read, or storage fails.
    pub(super) fn read_packs(&self, part: u32, of: u32) -> Result<Vec<String>> {
        let packs = self.expected(part, of)?;
        self.gauge.phase("reading all data", Unit::Items);
        self.gauge.total(packs.len() as u64);
        let (store, gauge) = (self.store(), &*self.gauge);
        let reading = Reading {
            store,
            gauge,
            cipher: Cipher::of(&self.key),
            packs: Mutex::new(packs),
            found: Mutex::new(Ok(Vec::new())),
        };
        reading.read(fetching(store))
    }

    fn expected(&self, part: u32, of: u32) -> Result<Vec<Expected>> {
        self.cached("read the index of", |rustic| {
            let mut packs = Vec::new();
            for file in rustic.stream_files::<IndexFile>()? {
                let wanted = file?.1.packs.into_iter().filter(|pack| is_in(&pack.id, part, of));
                packs.extend(wanted.map(|pack| Expected {
                    id: *pack.id,
                    summary: summary(pack.blobs.iter().map(Entry::from).collect()),
                }));
            }
            // Files of the index may tell of a pack twice.
            packs.sort_by_key(|pack| pack.id);
            packs.dedup_by_key(|pack| pack.id);
            Ok(packs)
        })
    }
}

/// Whether a pack is of that part: by its name, so that each is of one.
fn is_in(id: &Id, part: u32, of: u32) -> bool {
    let number = u32::from_str_radix(&id.to_hex().as_str()[..8], 16).expect("hexadecimal digits");
    number % of.max(1) == part % of.max(1)
}

/// What is read, and what was found.
struct Reading<'a> {
    store: &'a Store,
    gauge: &'a Gauge,
    cipher: Cipher,
    /// Not yet fetched.
    packs: Mutex<Vec<Expected>>,
    found: Mutex<Result<Vec<String>>>,
}

type Fetched = (Expected, Result<Vec<u8>>);

impl Reading<'_> {
    fn read(self, fetching: usize) -> Result<Vec<String>> {
        let (hand_over, fetched) = sync_channel(0);
        let fetched = Mutex::new(fetched);
        thread::scope(|scope| {
            for _ in 0..fetching {
                let (reading, hand_over) = (&self, hand_over.clone());
                scope.spawn(move || reading.fetch(&hand_over));
            }
            // The last of theirs closes it.
            drop(hand_over);
            for _ in 0..VERIFYING {
                scope.spawn(|| self.verify(&fetched));
            }
        });
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn fetch(&self, hand_over: &SyncSender<Fetched>) {
        // Who verifies ends after the last of us.
        while let Some(pack) = self.next() {
            let content = self.store.get(&key(FileType::Pack, &pack.id)).map(Vec::from);
            if hand_over.send((pack, content)).is_err() {
                return;
            }
        }
    }

    fn verify(&self, fetched: &Mutex<Receiver<Fetched>>) {
        while let Some((pack, content)) = received(fetched) {
            let name = pack.id.to_hex();
            let name = name.as_str();
            let trouble = match content {
                Ok(mut content) => trouble(&mut content, name, pack.summary, &self.cipher),
                Err(error) if error.kind() == Kind::NotFound => Some("it is gone"),
                Err(error) => {
                    self.fail(error);
                    None
                }
            };
            if let (Some(trouble), Ok(found)) = (trouble, &mut *lock(&self.found)) {
                found.push(format!("pack {name}: {trouble}"));
            }
            self.gauge.add(1);
        }
    }

    fn next(&self) -> Option<Expected> {
        lock(&self.packs).pop()
    }

    /// The first failure is told, and nothing more is fetched.
    fn fail(&self, error: Error) {
        lock(&self.packs).clear();
        let mut found = lock(&self.found);
        if found.is_ok() {
            *found = Err(error);
        }
    }
}

/// The lock is held while one waits, and no longer.
fn received(fetched: &Mutex<Receiver<Fetched>>) -> Option<Fetched> {
    lock(fetched).recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guards one value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Limits, Location, Storage};
    use crate::secrets::Secrets;

    #[test]
    fn each_pack_is_of_one_part() {
        for _ in 0..100 {
            let id = Id::random();
            assert_eq!((0..13).filter(|part| is_in(&id, *part, 13)).count(), 1);
            assert!(is_in(&id, 0, 1) && is_in(&id, 0, 0));
        }
    }

    /// What is found in packs that are this, whatever their names.
    fn read(make: impl Fn(&std::path::Path)) -> Result<Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().to_owned());
        let (timeout, retry_for) = (Duration::from_secs(5), Duration::from_secs(1));
        let storage = Storage { location: location.clone(), timeout, retry_for, limits: Limits::default() };
        let store = Store::open(&storage, &location, &Secrets::new("/nowhere")).unwrap();
        let packs: Vec<_> = (0..50).map(|_| Expected { id: Id::random(), summary: 0 }).collect();
        for pack in &packs {
            let path = directory.path().join(key(FileType::Pack, &pack.id));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            make(&path);
        }
        let cipher = Cipher::new(&[1; 32], &[2; 16], &[3; 16]);
        Reading {
            store: &store,
            gauge: &Gauge::default(),
            cipher,
            packs: Mutex::new(packs),
            found: Mutex::new(Ok(Vec::new())),
        }
        .read(2)
    }

    #[test]
    fn damage_is_found_and_a_storage_that_fails_is_none() {
        let damaged = read(|path| std::fs::write(path, "no pack").unwrap()).unwrap();
        assert_eq!(damaged.len(), 50);
        assert!(damaged[0].ends_with(": its bytes are not those that were stored"), "{damaged:?}");
        assert_eq!(read(|_| ()).unwrap().iter().filter(|found| found.ends_with(": it is gone")).count(), 50);
        // Nobody waits for the others.
        read(|path| std::fs::create_dir(path).unwrap()).unwrap_err();
    }
}
