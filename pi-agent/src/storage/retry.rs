//! When a request is tried again, and how long to wait before.

use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::error::Kind;
use crate::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Bytes that show that a line is slow and not dead: more than an answer that says no, and a second of the lowest rate.
const SIGN_OF_LIFE: u64 = 64 * 1024;
/// And how often one counts: what breaks off again and again is given up in the end.
const MOST_SIGNS: u32 = 10;

/// Runs `attempt` (given its number, from 0) until it succeeds, fails for good, or `patience` has passed.
///
/// # Errors
/// The last attempt's error; a transient one says how often and how long it was tried.
pub(super) async fn retrying<T>(
    patience: Duration,
    meter: &Meter,
    mut attempt: impl AsyncFnMut(u32) -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let mut patience = Patience { left: patience, since: started, moved: meter.bytes(), signs: 0 };
    let mut pause = FIRST_PAUSE;
    for number in 0.. {
        let error = match attempt(number).await {
            Err(error) if error.kind() == Kind::Transient => error,
            result => return result,
        };
        // Between half and all of it, so that parallel requests do not come back in step.
        let wait = pause.mul_f64(0.5 + 0.5 * jitter());
        if patience.is_over(meter.bytes(), wait) {
            return Err(given_up(error, number + 1, started.elapsed()));
        }
        tokio::time::sleep(wait).await;
        meter.retry();
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    unreachable!("the loop has no end but its returns")
}

/// For how long it is tried. On a slow line a single try takes longer than that, and may break off at its end.
struct Patience {
    left: Duration,
    /// From the last failure before which something moved.
    since: Instant,
    /// Bytes by then, this request's and those beside it.
    moved: u64,
    signs: u32,
}

impl Patience {
    fn is_over(&mut self, moved: u64, wait: Duration) -> bool {
        if moved - self.moved >= SIGN_OF_LIFE && self.signs < MOST_SIGNS {
            *self = Self { left: self.left, since: Instant::now(), moved, signs: self.signs + 1 };
        }
        self.since.elapsed() + wait >= self.left
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_begins_anew_while_something_moves_but_not_for_ever() {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(100)).expect("the clock runs since then");
        let mut patience = Patience { left: Duration::from_secs(60), since: long_ago, moved: 5000, signs: 0 };
        let wait = Duration::from_secs(1);
        assert!(patience.is_over(5000 + SIGN_OF_LIFE - 1, wait));
        assert!(!patience.is_over(5000 + SIGN_OF_LIFE, wait));
        assert!(patience.is_over(5000 + SIGN_OF_LIFE, Duration::from_secs(61)));
        for number in 1..20 {
            patience.since = long_ago;
            assert_eq!(patience.is_over((number + 1) * 1_000_000, wait), number >= MOST_SIGNS.into());
        }
    }
}
