//! The arithmetic of a limit: a bucket that goes into debt. What comes passes at once when all before it is paid for, and
//! then owes the time that it takes at the present rate. Pure: times are nanoseconds of one clock.

/// What a line may catch up that was idle, or whose process slept too long. With the largest chunk, and with what the kernel
/// holds of a connection, no second is above 1.5 times the rate.
const BURST: u64 = 150_000_000;

/// A debt longer than this is none of ours: the file is from before a restart, and so is its clock.
const LONGEST_DEBT: u64 = 60_000_000_000;

/// One direction of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When everything that has passed is paid for.
    pub(super) paid: u64,
}

impl Bucket {
    /// Lets `bytes` pass at `rate` per second; when they may go. Who asks first goes first.
    pub(super) fn take(&mut self, now: u64, bytes: usize, rate: u64) -> u64 {
        let go = match self.paid {
            paid if paid > now.saturating_add(LONGEST_DEBT) => now,
            paid => paid.max(now.saturating_sub(BURST)),
        };
        self.paid = go.saturating_add((bytes as u64).saturating_mul(1_000_000_000) / rate.max(1));
        go
    }
}

/// How many bytes are passed at once at that rate: 32 chunks a second or more, so that many connections take turns smoothly.
pub(super) fn chunk(rate: Option<u64>) -> usize {
    const LARGEST: u64 = 16 << 10;
    // At most 16384, which fits.
    rate.map_or(LARGEST, |rate| (rate / 32).clamp(512, LARGEST)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    /// Workers that send as fast as they may, each waking up late by what `lateness` says: what passed, and when.
    fn simulate(workers: usize, lateness: &[u64], seconds: u64, rate: impl Fn(u64) -> u64) -> Vec<(u64, usize)> {
        let mut bucket = Bucket::default();
        let mut ready = vec![100 * SECOND; workers];
        let mut late = lateness.iter().cycle();
        let mut passed = Vec::new();
        loop {
            let worker = (0..workers).min_by_key(|worker| ready[*worker]).expect("at least one");
            let now = ready[worker];
            if now >= (100 + seconds) * SECOND {
                passed.sort_unstable();
                return passed;
            }
            let bytes = chunk(Some(rate(now)));
            let go = bucket.take(now, bytes, rate(now));
            ready[worker] = if go > now { go + late.next().expect("endless") } else { now };
            passed.push((ready[worker], bytes));
        }
    }

    fn sum(passed: &[(u64, usize)], from: u64, to: u64) -> u64 {
        passed.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, bytes)| *bytes as u64).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_rate_is_kept_to_and_no_second_is_far_above_it(
            rate in 64_u64 << 10..20 << 20,
            workers in 1_usize..8,
            lateness in proptest::collection::vec(0_u64..40_000_000, 1..20),
        ) {
            let passed = simulate(workers, &lateness, 10, |_| rate);
            let total = sum(&passed, 0, 110 * SECOND) as f64 / 10.0;
            prop_assert!((total / rate as f64 - 1.0).abs() < 0.04, "{total} of {rate}");
            for start in (0..90).map(|tenth| 100 * SECOND + tenth * SECOND / 10) {
                let second = sum(&passed, start, start + SECOND);
                prop_assert!(second as f64 <= rate as f64 * 1.4, "{second} of {rate}");
            }
        }
    }

    #[test]
    fn a_rate_that_changes_holds_at_once() {
        let (slow, fast) = (64 << 10, 4 << 20);
        let passed = simulate(4, &[1_000_000], 30, |now| match now / SECOND {
            110..120 => slow,
            _ => fast,
        });
        let each = |from: u64| sum(&passed, from * SECOND, (from + 10) * SECOND) as f64 / 10.0;
        for (from, rate) in [(100, fast), (110, slow), (120, fast)] {
            // Some chunks of the faster rate may still be owed, or owing, at a change.
            assert!((each(from) / rate as f64 - 1.0).abs() < 0.4, "{} at {rate}", each(from));
        }
        assert!((sum(&passed, 112 * SECOND, 120 * SECOND) as f64 / 8.0 / slow as f64 - 1.0).abs() < 0.05);
    }

    #[test]
    fn an_idle_line_catches_up_little_and_a_debt_from_before_a_restart_is_forgotten() {
        let mut bucket = Bucket { paid: 5 * SECOND };
        assert_eq!(bucket.take(100 * SECOND, 1000, 1000), 100 * SECOND - BURST);
        assert_eq!(bucket.take(100 * SECOND, 1000, 1000), 101 * SECOND - BURST);
        let mut bucket = Bucket { paid: 5000 * SECOND };
        assert_eq!(bucket.take(SECOND, 1000, 1000), SECOND);
        assert_eq!(bucket.paid, 2 * SECOND);
    }
}
