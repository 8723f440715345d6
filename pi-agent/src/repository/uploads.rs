//! Packs on their way to a server. Its answer takes as long as it is far away, so the next pack leaves before the last one has
//! been acknowledged. What says that a pack is there waits for all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustic_core::BytesList;

use crate::error::Context;
use crate::storage::Store;
use crate::{Error, Result};

/// On the way while the next one may be made. Each takes a pack's size of memory.
const AHEAD: usize = 1;

/// The packs that are not yet acknowledged.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<Packs>);

#[derive(Debug, Default)]
struct Packs {
    /// Oldest first.
    on_the_way: VecDeque<JoinHandle<Result<()>>>,
    /// One did not arrive.
    lost: bool,
}

impl Uploads {
    /// Sends a pack, and returns while it is on its way.
    ///
    /// # Errors
    /// One sent earlier did not arrive.
    pub fn send(&self, store: &Store, name: String, content: BytesList) -> Result<()> {
        let store = store.clone();
        let upload = Builder::new()
            .name("upload".into())
            .spawn(move || store.put(&name, content.slice()))
            .context(|| "start an upload".into())?;
        let mut packs = self.lock();
        packs.on_the_way.push_back(upload);
        packs.wait_for_all_but(AHEAD)
    }

    /// Waits until all have arrived.
    ///
    /// # Errors
    /// One did not, now or ever: whatever counts on it must not be written, and nothing deleted that it stands for.
    pub fn settle(&self) -> Result<()> {
        let mut packs = self.lock();
        packs.wait_for_all_but(0)?;
        match packs.lost {
            true => Err(Error::new("a pack could not be stored before")),
            false => Ok(()),
        }
    }

    /// Held while one waits: nobody else may meanwhile take those for arrived that are waited for.
    fn lock(&self) -> MutexGuard<'_, Packs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Packs {
    fn wait_for_all_but(&mut self, few: usize) -> Result<()> {
        while self.on_the_way.len() > few
            && let Some(oldest) = self.on_the_way.pop_front()
        {
            let arrived = oldest.join().unwrap_or_else(|_| Err(Error::new("an upload broke off")));
            self.lost |= arrived.is_err();
            arrived?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Limits, Location, Storage};
    use crate::secrets::Secrets;

    #[test]
    fn what_did_not_arrive_is_never_taken_for_stored() {
        let directory = tempfile::tempdir().unwrap();
        let location = Location::File(directory.path().to_owned());
        let (timeout, retry_for) = (Duration::from_secs(5), Duration::from_secs(1));
        let storage = Storage { location: location.clone(), timeout, retry_for, limits: Limits::default() };
        let store = Store::open(&storage, &location, &Secrets::new("/nowhere")).unwrap();
        let content = || BytesList::from(bytes::Bytes::from_static(b"a pack"));
        let uploads = Uploads::default();
        for number in 0..5 {
            uploads.send(&store, format!("data/{number}"), content()).unwrap();
        }
        uploads.settle().unwrap();
        assert_eq!(store.list("data/").unwrap().len(), 5);

        // A file is where a folder should be.
        uploads.send(&store, "data/0/below".into(), content()).unwrap();
        // It is told when it is waited for.
        let mut later = (5..5 + AHEAD).map(|number| uploads.send(&store, format!("data/{number}"), content()));
        assert!(later.by_ref().take(AHEAD - 1).all(|sent| sent.is_ok()));
        later.next().unwrap().unwrap_err();
        for _ in 0..2 {
            uploads.settle().unwrap_err();
        }
        assert!(store.list("data/").unwrap().iter().any(|(name, _)| name == "data/5"), "the others arrive");
    }
}
