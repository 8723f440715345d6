//! Whether what the clock shows is right enough to delete by.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::report::words;
use crate::systemd::{TimeService, time_service};

/// This version did not exist before; a Pi has no clock that runs while it is off, and starts in the past.
const EARLIEST: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z
/// What the network's time may take back between two runs without anything being wrong.
const TAKEN_BACK: Duration = Duration::from_mins(10);
/// A machine may well rest for a year; beyond that a wrong clock is likelier.
const LONGEST_REST: Duration = Duration::from_hours(400 * 24);

/// Why the clock must not be trusted with deleting, if there is a reason. `last_known`: the newest moment on record.
pub fn clock_problem(last_known: Option<Timestamp>) -> Option<String> {
    judge_clock(Timestamp::now(), last_known).or_else(|| {
        (time_service() == TimeService::Trying)
            .then(|| "the network has not set the clock since the machine started".to_owned())
    })
}

/// What the clock shows, held against the newest moment on record.
pub(crate) fn judge_clock(now: Timestamp, last_known: Option<Timestamp>) -> Option<String> {
    if now < EARLIEST {
        return Some(format!("the clock shows {now:.0}, before this version was made"));
    }
    let last = last_known?;
    if now + TAKEN_BACK < last {
        return Some(format!("the clock shows {now:.0}, but the last run was at {last:.0}"));
    }
    if SignedDuration::try_from(LONGEST_REST).is_ok_and(|longest| now.duration_since(last) > longest) {
        return Some(format!("the clock shows {now:.0}, more than 400 days after the last run at {last:.0}"));
    }
    None
}

/// How far the storage server's clock may be from ours: S3 itself refuses at a quarter of an hour.
const APART: SignedDuration = SignedDuration::from_mins(1);

/// What others say of the clock. `ahead`: by how much it is before the storage server's, as its answers tell; `newest`:
/// when the newest restore point was made.
pub(crate) fn judge_by_others(
    now: Timestamp,
    ahead: Option<SignedDuration>,
    newest: Option<Timestamp>,
) -> Option<String> {
    if let Some(ahead) = ahead.filter(|ahead| ahead.abs() > APART) {
        let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
        let by = words::duration(ahead.unsigned_abs());
        return Some(format!("the clock shows {now:.0}, {by} {direction} the storage server's"));
    }
    let newest = newest.filter(|newest| newest.duration_since(now) > APART)?;
    Some(format!("the clock shows {now:.0}, but the newest restore point is of {newest:.0}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_ordinary_clock_is_trusted() {
        let now = at("2026-11-21T03:00:00Z");
        assert_eq!(judge_clock(now, None), None);
        assert_eq!(judge_clock(now, Some(at("2026-11-20T03:10:00Z"))), None);
        assert_eq!(
            judge_clock(now, Some(at("2026-11-21T03:05:00Z"))),
            None,
            "the network's time took five minutes back"
        );
        assert_eq!(judge_clock(now, Some(at("2025-12-01T00:00:00Z"))), None, "a year of rest");
    }

    #[test]
    fn a_clock_that_lost_or_gained_time_is_not() {
        let told = |now, last: Option<&str>| judge_clock(at(now), last.map(at)).unwrap();
        assert!(told("1970-01-01T00:02:00Z", None).contains("before this version"));
        assert!(told("2026-11-20T03:00:00Z", Some("2026-11-21T03:10:00Z")).contains("the last run was at 2026-11-21"));
        assert!(told("2038-01-19T00:00:00Z", Some("2026-11-21T03:10:00Z")).contains("400 days"));
    }

    #[test]
    fn others_may_know_better() {
        let now = at("2026-11-21T03:00:00Z");
        let told = |seconds| judge_by_others(now, Some(SignedDuration::from_secs(seconds)), None);
        assert_eq!((told(60), told(-60)), (None, None), "a minute is nothing");
        assert!(told(61).unwrap().contains("1 min 1 s ahead of the storage server's"), "{:?}", told(61));
        assert!(told(-7200).unwrap().contains("2 h behind the storage server's"));
        let newest = |text| judge_by_others(now, None, Some(at(text)));
        assert_eq!(newest("2026-11-21T03:00:30Z"), None);
        assert!(
            newest("2026-11-21T03:10:00Z").unwrap().contains("the newest restore point is of 2026-11-21T03:10:00Z")
        );
    }
}
