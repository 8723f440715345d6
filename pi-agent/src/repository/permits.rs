//! A counting semaphore for plain threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many may do something at once, or how much of something there is for all.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), given_back: Condvar::new() }
    }

    pub(super) fn take(this: &Arc<Self>) -> Permit {
        Self::take_many(this, 1)
    }

    /// Waits for so many at once. There must be so many.
    pub(super) fn take_many(this: &Arc<Self>, count: usize) -> Permit {
        let mut free = this.lock();
        while *free < count {
            free = this.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= count;
        Permit(this.clone(), count)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // A plain number.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Permit(Arc<Permits>, usize);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.lock() += self.1;
        // Those who wait may want different numbers.
        self.0.given_back.notify_all();
    }
}
