//! A counting semaphore for plain threads.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many may do something at once.
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
        let mut free = this.lock();
        while *free == 0 {
            free = this.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(this.clone())
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // A plain number.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.given_back.notify_one();
    }
}
