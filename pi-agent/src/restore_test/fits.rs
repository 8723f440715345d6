//! What a test will take, as far as the last ones tell: one that would not fit is refused before it takes anything.

use std::time::Duration;

use super::{Earlier, Work};
use crate::error::{Error, Result};
use crate::health::{NEEDED_MEMORY, Sensors};
use crate::report::words;

impl Work<'_> {
    /// Refuses so many bytes when there is no room for them, or not the time.
    pub fn fits(&self, bytes: u64) -> Result<()> {
        self.place.room(bytes).and_then(|()| self.in_time(bytes))
    }

    /// Refuses so many bytes when there is not the time for them.
    pub fn in_time(&self, bytes: u64) -> Result<()> {
        in_time(&self.earlier, bytes, self.place.settings.restore_test.max_duration)
    }
}

/// Refuses when less memory is left than any of the last tests took in its largest process, or than a restore takes.
pub(super) fn in_memory(earlier: &Earlier) -> Result<()> {
    let needed = earlier.least_memory.unwrap_or_default().max(NEEDED_MEMORY);
    match Sensors::below("/").memory() {
        Some(left) if left < needed => Err(Error::new(format!(
            "a restore test needs {} of memory, and {} are left",
            words::size(needed),
            words::size(left)
        ))
        .hint("stop what is not needed meanwhile, or let the test's timer find a quieter hour")),
        _ => Ok(()),
    }
}

/// The fastest of the earlier tests that had a quarter as much to do, or more, tells how long this one takes. Smaller ones
/// say little of it: a server is started in them, too.
fn in_time(earlier: &Earlier, bytes: u64, at_most: Duration) -> Result<()> {
    let told = earlier.paces.iter().filter(|pace| pace.bytes > 0 && pace.bytes >= bytes / 4);
    let takes = told.map(|pace| u128::from(pace.took) * u128::from(bytes) / u128::from(pace.bytes)).min();
    let takes = Duration::from_millis(takes.unwrap_or_default().try_into().unwrap_or(u64::MAX));
    if takes <= at_most {
        return Ok(());
    }
    Err(Error::new(format!(
        "a restore test of {} takes about {} by what the last ones took, and may take {}",
        words::size(bytes),
        words::rough(takes),
        words::duration(at_most)
    ))
    .hint("[restore-test] max-duration; for directories, a smaller budget and more months do"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore_test::Pace;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn only_what_surely_takes_too_long_is_refused() {
        let earlier = |paces: &[(u64, u64)]| Earlier {
            paces: paces.iter().map(|(bytes, took)| Pace { bytes: *bytes, took: *took }).collect(),
            ..Earlier::default()
        };
        let refused = |paces: &[(u64, u64)], bytes| in_time(&earlier(paces), bytes, Duration::from_hours(12)).err();
        assert!(refused(&[], u64::MAX).is_none(), "nobody knows");
        let told = refused(&[(1 << 30, 13 * HOUR)], 1 << 30).expect("longer than it may");
        assert_eq!(
            told.to_string(),
            "a restore test of 1.0 GiB takes about 13 h by what the last ones took, and may take 12 h"
        );
        assert!(refused(&[(1 << 30, 13 * HOUR), (1 << 30, HOUR)], 1 << 30).is_none(), "one was faster");
        assert!(refused(&[(1 << 20, HOUR)], 1 << 30).is_none(), "a small one says little");
        assert!(refused(&[(1 << 30, 7 * HOUR)], 2 << 30).is_some());
        assert!(refused(&[(0, HOUR)], 1).is_none());
    }

    #[test]
    fn a_machine_without_that_memory_is_told() {
        assert!(in_memory(&Earlier::default()).is_ok());
        let told = in_memory(&Earlier { least_memory: Some(1 << 50), ..Earlier::default() }).expect_err("a pebibyte");
        assert!(told.to_string().starts_with("a restore test needs 1024 TiB of memory, and "), "{told}");
    }
}
