//! A few buffers that go round: memory that is used again has no holes, and what is never given back is never asked for.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Buffers {
    /// Those that nobody has.
    free: Mutex<Vec<Vec<u8>>>,
    given_back: Condvar,
}

impl Buffers {
    /// So many, each for so many bytes: memory is taken as they are filled.
    pub fn new(count: usize, length: usize) -> Self {
        let free = (0..count).map(|_| Vec::with_capacity(length)).collect();
        Self { free: Mutex::new(free), given_back: Condvar::new() }
    }

    /// An empty one. Waits until there is one.
    pub fn take(&self) -> Buffer<'_> {
        let mut free = self.lock();
        loop {
            match free.pop() {
                Some(bytes) => return Buffer { of: self, bytes },
                None => free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Each change is one push or pop.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer of [`Buffers`]; goes back to them when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer<'a> {
    of: &'a Buffers,
    bytes: Vec<u8>,
}

impl Deref for Buffer<'_> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        self.of.lock().push(bytes);
        self.of.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again() {
        let buffers = Buffers::new(2, 1000);
        let (mut first, second) = (buffers.take(), buffers.take());
        first.extend([7; 900]);
        let memory = first.as_ptr();
        thread::scope(|scope| {
            let third = scope.spawn(|| {
                let buffer = buffers.take();
                (buffer.as_ptr() as usize, buffer.len(), buffer.capacity())
            });
            drop(first);
            let (place, length, capacity) = third.join().expect("taken");
            assert!(place == memory as usize && length == 0 && capacity >= 1000);
        });
        drop(second);
    }
}
