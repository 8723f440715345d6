//! Whether what the clock shows is right enough to delete by.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::report::{short, words};
use crate::retention::{APART, is_of_the_future};
use crate::systemd::{TimeService, time_service};

/// This version did not exist before; a Pi has no clock that runs while it is off, and starts in the past.
const EARLIEST: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z
/// What the network's time may take back between two runs without anything being wrong.
const TAKEN_BACK: Duration = Duration::from_mins(10);
/// A machine may well rest for a year; beyond that a wrong clock is likelier.
const LONGEST_REST: Duration = Duration::from_hours(400 * 24);

/// Why the clock must not be trusted with deleting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The reason.
    pub why: String,
    /// Nothing but the record of a later run says so, which a clock that was wrong may have made.
    pub by_record: bool,
}

/// Why the clock must not be trusted with deleting, if there is a reason. `last_known`: the newest moment on record.
pub fn clock_problem(last_known: Option<Timestamp>) -> Option<Doubt> {
    doubt(Timestamp::now(), last_known, time_service())
}

fn doubt(now: Timestamp, last_known: Option<Timestamp>, service: TimeService) -> Option<Doubt> {
    let doubt = |why| Doubt { why, by_record: false };
    if service == TimeService::Trying {
        let why = "the network has not set the clock since the machine started".to_owned();
        return Some(doubt(judge_clock(now, last_known).unwrap_or(why)));
    }
    // What was recorded while the clock was wrong says nothing against one that the network has set.
    let by_record = last_known.is_some_and(|last| is_before(now, last));
    let last_known = last_known.filter(|_| !by_record || service != TimeService::Synchronised);
    judge_clock(now, last_known).map(|why| Doubt { by_record: by_record && now >= EARLIEST, ..doubt(why) })
}

/// The clock shows less than it did on record, by more than it may be corrected.
fn is_before(now: Timestamp, last: Timestamp) -> bool {
    now + TAKEN_BACK < last
}

/// What the clock shows, held against the newest moment on record.
pub(crate) fn judge_clock(now: Timestamp, last_known: Option<Timestamp>) -> Option<String> {
    if now < EARLIEST {
        return Some(format!("the clock shows {now:.0}, before this version was made"));
    }
    let last = last_known?;
    if is_before(now, last) {
        return Some(format!("the clock shows {now:.0}, but the last run was at {last:.0}"));
    }
    if SignedDuration::try_from(LONGEST_REST).is_ok_and(|longest| now.duration_since(last) > longest) {
        return Some(format!("the clock shows {now:.0}, more than 400 days after the last run at {last:.0}"));
    }
    None
}

/// Whether somebody else says that the clock is right: the storage's server, or where that says nothing the network's time.
/// `ahead`: by how much the clock is before the server's, as its answers tell.
pub(crate) fn is_confirmed(ahead: Option<SignedDuration>) -> bool {
    match ahead {
        Some(ahead) => ahead.abs() <= APART,
        None => time_service() == TimeService::Synchronised,
    }
}

/// Why the clock is not trusted, if others contradict it. `ahead`: see [`is_confirmed`]; S3 itself refuses at a quarter of an hour.
/// `newest`: when the newest restore point was made, and its id. One of the future contradicts only a clock that nobody confirms.
pub(crate) fn judge_by_others(
    now: Timestamp,
    ahead: Option<SignedDuration>,
    newest: Option<(Timestamp, &str)>,
) -> Option<String> {
    if let Some(ahead) = ahead.filter(|ahead| ahead.abs() > APART) {
        let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
        let by = words::duration(ahead.unsigned_abs());
        return Some(format!("the clock shows {now:.0}, {by} {direction} the storage server's"));
    }
    let (newest, id) = newest.filter(|(newest, _)| is_of_the_future(*newest, now))?;
    let id = short(id);
    (!is_confirmed(ahead))
        .then(|| format!("the clock shows {now:.0}, but the newest restore point is of {newest:.0} ({id})"))
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
        let newest = |ahead: i64, text| {
            judge_by_others(now, Some(SignedDuration::from_secs(ahead)), Some((at(text), "20381121-031000F")))
        };
        assert_eq!(newest(0, "2026-11-21T03:00:30Z"), None);
        assert_eq!(newest(-50, "2038-01-19T03:14:07Z"), None, "the server says that it is the point that is wrong");
        assert!(newest(-7200, "2038-01-19T03:14:07Z").unwrap().contains("2 h behind the storage server's"));
    }

    #[test]
    fn a_record_of_the_future_says_nothing_against_the_networks_time() {
        let (now, later) = (at("2026-11-21T03:00:00Z"), Some(at("2038-01-19T03:14:07Z")));
        let by_record = doubt(now, later, TimeService::Absent).unwrap();
        assert!(by_record.by_record && by_record.why.contains("the last run was at 2038-01-19"), "{by_record:?}");
        assert_eq!(doubt(now, later, TimeService::Synchronised), None);
        let trying = doubt(now, later, TimeService::Trying).unwrap();
        assert!(!trying.by_record && trying.why.contains("the last run was at"), "{trying:?}");
        assert!(doubt(now, None, TimeService::Trying).unwrap().why.contains("has not set the clock"));
        let early = doubt(at("2020-01-01T00:00:00Z"), later, TimeService::Absent).unwrap();
        assert!(!early.by_record, "{early:?}");
        let rest = doubt(at("2038-01-19T03:14:07Z"), Some(now), TimeService::Synchronised).unwrap();
        assert!(!rest.by_record && rest.why.contains("400 days"), "{rest:?}");
    }
}
