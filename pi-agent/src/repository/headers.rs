//! The headers of packs, for a check. It asks for what is in a pack, and then for the header behind that; from a server both come
//! by one request.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustic_core::Id;

/// Bytes of the longest header that is foreseen, of some 3,000 pieces. One that is longer takes a request of its own.
const LONGEST: usize = 128 << 10;
/// Of packs that are read at a time. Whoever found a pack damaged does not come back for its header.
const KEPT: usize = 4;

/// What was read behind the contents of packs.
#[derive(Debug, Default)]
pub(super) struct Headers {
    wanted: AtomicBool,
    /// The pack, where in it that begins, and what is there.
    read: Mutex<VecDeque<(Id, usize, Bytes)>>,
}

impl Headers {
    /// Does `work`, which asks for them.
    pub fn wanted<T>(&self, work: impl FnOnce() -> T) -> T {
        self.wanted.store(true, Ordering::SeqCst);
        let done = work();
        self.wanted.store(false, Ordering::SeqCst);
        self.read().clear();
        done
    }

    /// A part of a pack: what was read before, or else by `fetch`, which is told how many bytes more there may be.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub fn part<E>(
        &self,
        pack: &Id,
        offset: usize,
        length: usize,
        fetch: impl FnOnce(usize) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        if !self.wanted.load(Ordering::SeqCst) {
            return fetch(0);
        }
        if let Some(read) = self.take(pack, offset, length) {
            return Ok(read);
        }
        let mut bytes = fetch(LONGEST)?;
        let behind = bytes.split_off(length.min(bytes.len()));
        if !behind.is_empty() {
            let mut read = self.read();
            if read.len() == KEPT {
                read.pop_front();
            }
            // A copy: what is behind would keep all of it in memory.
            read.push_back((*pack, offset + length, Bytes::copy_from_slice(&behind)));
        }
        Ok(bytes)
    }

    fn take(&self, pack: &Id, offset: usize, length: usize) -> Option<Bytes> {
        let mut read = self.read();
        let found = read.iter().position(|(of, _, _)| of == pack)?;
        let (_, begin, bytes) = read.remove(found)?;
        let from = offset.checked_sub(begin)?;
        (from + length <= bytes.len()).then(|| bytes.slice(from..from + length))
    }

    fn read(&self) -> MutexGuard<'_, VecDeque<(Id, usize, Bytes)>> {
        // A plain list.
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How many requests these parts of a pack take, of which each is what it should be.
    fn requests(headers: &Headers, pack: &Bytes, parts: &[(usize, usize)]) -> usize {
        let requests = Cell::new(0);
        for (offset, length) in parts {
            let fetch = |more: usize| {
                requests.set(requests.get() + 1);
                Ok::<_, ()>(pack.slice(*offset..(offset + length + more).min(pack.len())))
            };
            let part = headers.part(&Id::default(), *offset, *length, fetch);
            assert_eq!(part, Ok(pack.slice(*offset..offset + length)));
        }
        requests.get()
    }

    #[test]
    fn a_header_comes_with_what_is_before_it() {
        let headers = Headers::default();
        let pack: Bytes = (0..251).cycle().take(300_000).collect();
        let two = [(0, 299_900), (299_900, 100)];
        assert_eq!(requests(&headers, &pack, &two), 2, "nobody wants them");
        headers.wanted(|| {
            assert_eq!(requests(&headers, &pack, &two), 1);
            assert_eq!(requests(&headers, &pack, &[(0, 100_000), (150_000, 149_000), (299_000, 1000)]), 2, "a gap");
            assert_eq!(requests(&headers, &pack, &[(0, 100_000), (100_000, 200_000)]), 2, "a long one");
        });
        assert_eq!(requests(&headers, &pack, &two), 2, "nobody wants them any more");
    }

    #[test]
    fn those_that_nobody_comes_back_for_are_few() {
        let headers = Headers::default();
        headers.wanted(|| {
            for _ in 0..20 {
                headers.part(&Id::random(), 0, 1, |_| Ok::<_, ()>(Bytes::from_static(b"all of it"))).expect("a part");
            }
            assert_eq!(headers.read().len(), KEPT);
        });
        assert!(headers.read().is_empty());
    }
}
