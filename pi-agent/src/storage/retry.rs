//! When a request is tried again, and how long to wait before.

use std::time::{Duration, Instant};

use crate::error::Kind;
use crate::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs `attempt` (given its number, from 0) until it succeeds, fails for good, or `patience` has passed.
/// `before_retry` is told of every try after the first.
///
/// # Errors
/// The last attempt's error; a transient one says how often and how long it was tried.
pub(super) async fn retrying<T>(
    patience: Duration,
    before_retry: impl Fn(),
    mut attempt: impl AsyncFnMut(u32) -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    for number in 0.. {
        let error = match attempt(number).await {
            Err(error) if error.kind() == Kind::Transient => error,
            result => return result,
        };
        // Between half and all of it, so that parallel requests do not come back in step.
        let wait = pause.mul_f64(0.5 + 0.5 * jitter());
        if started.elapsed() + wait >= patience {
            return Err(given_up(error, number + 1, started.elapsed()));
        }
        tokio::time::sleep(wait).await;
        before_retry();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    unreachable!("the loop has no end but its returns")
}

fn given_up(error: Error, tries: u32, elapsed: Duration) -> Error {
    if tries == 1 {
        return error;
    }
    Error::transient(format!("gave up after {tries} tries in {} s", elapsed.as_secs())).caused_by(error)
}

/// A number in 0..1 that differs between moments and threads; its quality does not matter here.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    (random % 1024) as f64 / 1024.0
}
