//! Reading all that the packs hold. Each comes by one request, into one buffer, in which it is opened; whoever fetches is ahead of
//! those who verify. rustic's own reading takes two requests a pack, and on one thread waits for each answer before it verifies.

use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustic_core::repofile::{IndexFile, IndexPack};
use rustic_core::{FileType, Id};

use super::Repository;
use super::backend::key;
use super::buffers::{Buffer, Buffers};
use super::cipher::Cipher;
use super::pack::{Entry, Opener, summary};
use super::progress::Gauge;
use crate::error::Kind;
use crate::monitor::Unit;
use crate::storage::Store;
use crate::{Error, Result};

/// What every repository has.
const CONFIG: &str = "config";

/// Threads that verify.
const VERIFYING: usize = 2;

/// Threads that fetch. A folder answers at once. A bucket's server takes its time to begin, and while two of its answers are taken, the
/// beginnings of others come and wait in the kernel.
fn fetching(store: &Store) -> usize {
    match store {
        Store::Local(_) => 1,
        Store::S3(_) => 4,
    }
}

/// Packs in memory, whoever has them: from a folder one is read while two are verified, when that is not much.
fn in_memory(store: &Store, largest: usize) -> usize {
    match store {
        Store::Local(_) if largest < 5 << 20 => 3,
        _ => 2,
    }
}

/// On a line on which a pack takes longer, none is asked for before it has a buffer: who does not take what a server sends is cut off
/// after a while.
const SLOW: Duration = Duration::from_secs(5);

/// What the index says of a pack.
struct Expected {
    id: Id,
    /// Bytes of all of it.
    length: usize,
    /// Bytes of its largest piece, decompressed.
    largest: usize,
    summary: u64,
}

impl Expected {
    /// Bytes that are read: one that is too long is seen by a byte.
    fn most(&self) -> usize {
        self.length + 1
    }
}

impl From<IndexPack> for Expected {
    fn from(pack: IndexPack) -> Self {
        let entries: Vec<_> = pack.blobs.iter().map(Entry::from).collect();
        let largest = entries.iter().filter_map(|entry| entry.uncompressed).max().unwrap_or_default() as usize;
        Self { id: *pack.id, length: pack.pack_size() as usize, largest, summary: summary(entries) }
    }
}

/// What reading found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is wrong with which pack.
    pub damage: Vec<String>,
    /// These packs.
    pub bad: Vec<Id>,
    /// Why not all was read: storage cannot be reached, or does not give something.
    pub stopped: Option<Error>,
}

impl Repository {
    /// Reads the packs of that part of all of them.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(super) fn read_packs(&self, part: u32, of: u32) -> Result<Found> {
        let packs = self.expected(part, of)?;
        self.gauge.phase("reading all data", Unit::Items);
        self.gauge.total(packs.len() as u64);
        let store = self.store();
        Reading::of(packs, store, &self.gauge, Cipher::of(&self.key)).read(fetching(store))
    }

    fn expected(&self, part: u32, of: u32) -> Result<Vec<Expected>> {
        self.cached("read the index of", |rustic| {
            let mut packs = Vec::new();
            for file in rustic.stream_files::<IndexFile>()? {
                let wanted = file?.1.packs.into_iter().filter(|pack| is_in(&pack.id, part, of));
                packs.extend(wanted.map(Expected::from));
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
    /// Not yet fetched, the largest at the end and so the first: what comes later finds room where it was.
    packs: Mutex<Vec<Expected>>,
    /// Bytes of the largest piece.
    largest: usize,
    buffers: Buffers,
    found: Mutex<Found>,
}

/// A pack, and what came of it.
type Fetched<'a> = (Expected, Result<Buffer<'a>>);

impl<'a> Reading<'a> {
    fn of(mut packs: Vec<Expected>, store: &'a Store, gauge: &'a Gauge, cipher: Cipher) -> Self {
        packs.sort_by_key(|pack| pack.length);
        let largest = packs.iter().map(|pack| pack.largest).max().unwrap_or_default();
        let longest = packs.last().map_or(0, Expected::most);
        let buffers = Buffers::new(in_memory(store, longest), longest);
        let (packs, found) = (Mutex::new(packs), Mutex::default());
        Self { store, gauge, cipher, packs, largest, buffers, found }
    }

    fn read(self, fetching: usize) -> Result<Found> {
        let openers = (0..VERIFYING).map(|_| Opener::new(&self.cipher, self.largest)).collect::<Result<Vec<_>>>()?;
        let (hand_over, fetched) = sync_channel(0);
        let (reading, fetched) = (&self, Arc::new(Mutex::new(fetched)));
        thread::scope(|scope| {
            for _ in 0..fetching {
                let hand_over = hand_over.clone();
                scope.spawn(move || reading.fetch(&hand_over));
            }
            // The last of theirs closes it.
            drop(hand_over);
            for opener in openers {
                let fetched = fetched.clone();
                scope.spawn(move || reading.verify(opener, &fetched));
            }
            // And when all of these are gone, nobody hands anything over.
            drop(fetched);
        });
        Ok(self.found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn fetch<'s>(&'s self, hand_over: &SyncSender<Fetched<'s>>) {
        let mut fast = false;
        while let Some(pack) = self.next() {
            let mut buffer = if fast { None } else { Some(self.buffers.take()) };
            let began = Instant::now();
            let content = self.store.get_into(&key(FileType::Pack, &pack.id), pack.most(), || {
                mem::take(&mut **buffer.get_or_insert_with(|| self.buffers.take()))
            });
            fast = began.elapsed() < SLOW;
            let content = content.map(|content| {
                let mut buffer = buffer.expect("it was asked for");
                *buffer = content;
                buffer
            });
            if hand_over.send((pack, content)).is_err() {
                return;
            }
        }
    }

    fn verify(&self, mut opener: Opener<'_>, fetched: &Mutex<Receiver<Fetched<'_>>>) {
        while let Some((pack, content)) = received(fetched) {
            let name = pack.id.to_hex();
            let name = name.as_str();
            let trouble = match content {
                Ok(mut content) => opener.trouble(&mut content, name, pack.summary).map(str::to_owned),
                // The others may be given.
                Err(error) if error.kind() == Kind::Refused => {
                    lock(&self.found).stopped.get_or_insert(error);
                    None
                }
                Err(error) if error.is_unread() || self.is_away(&error) => {
                    self.stop(error);
                    None
                }
                Err(error) if error.kind() == Kind::NotFound => Some("it is gone".into()),
                // A bad place on a disk, say: the others are read all the same.
                Err(error) => Some(error.chain()),
            };
            if let Some(trouble) = trouble {
                let mut found = lock(&self.found);
                found.damage.push(format!("pack {name}: {trouble}"));
                found.bad.push(pack.id);
            }
            self.gauge.add(1);
        }
    }

    fn next(&self) -> Option<Expected> {
        lock(&self.packs).pop()
    }

    /// A pack may be gone. That nothing is there any more is another thing, such as a disk that was unplugged.
    fn is_away(&self, error: &Error) -> bool {
        error.kind() == Kind::NotFound && self.store.get(CONFIG).is_err()
    }

    /// The first failure is told, and nothing more is fetched.
    fn stop(&self, error: Error) {
        lock(&self.packs).clear();
        lock(&self.found).stopped.get_or_insert(error);
    }
}

/// The lock is held while one waits, and no longer.
fn received<'a>(fetched: &Mutex<Receiver<Fetched<'a>>>) -> Option<Fetched<'a>> {
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
    fn read(config: bool, make: impl Fn(&std::path::Path)) -> Found {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().to_owned());
        let (timeout, retry_for) = (Duration::from_secs(5), Duration::from_secs(1));
        let storage = Storage { location: location.clone(), timeout, retry_for, limits: Limits::default() };
        let store = Store::open(&storage, &location, &Secrets::new("/nowhere")).unwrap();
        let one = |length| Expected { id: Id::random(), length, largest: 0, summary: 0 };
        let packs: Vec<_> = (0..50).map(|number| one(number << 20)).collect();
        for pack in &packs {
            let path = directory.path().join(key(FileType::Pack, &pack.id));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            make(&path);
        }
        let cipher = Cipher::new(&[1; 32], &[2; 16], &[3; 16]);
        if config {
            std::fs::write(directory.path().join(CONFIG), "one").unwrap();
        }
        Reading::of(packs, &store, &Gauge::default(), cipher).read(2).unwrap()
    }

    #[test]
    fn damage_is_found_and_a_storage_that_fails_is_none() {
        let all_end_with = |found: Found, end: &str| {
            let Found { damage, stopped, .. } = found;
            assert!(stopped.is_none() && damage.len() == 50, "{damage:?}");
            assert!(damage.iter().all(|one| one.contains(end)), "{damage:?}");
        };
        all_end_with(
            read(true, |path| std::fs::write(path, "no pack").unwrap()),
            ": its bytes are not those that were stored",
        );
        // Far longer than it should be: as much as shows that is read.
        all_end_with(
            read(true, |path| std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
            ": its bytes are not those that were stored",
        );
        all_end_with(read(true, |_| ()), ": it is gone");
        all_end_with(read(true, |path| std::fs::create_dir(path).unwrap()), "directory");
        // Nothing is there any more, and nobody waits for the others.
        let away = read(false, |_| ());
        assert!(away.stopped.is_some() && away.damage.is_empty(), "{away:?}");
    }
}
