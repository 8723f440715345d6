//! The time zone that pgBackRest is told. It dates the labels of its backups by local time and refuses one that is not later than
//! all others: after a journey to the west, or in the hour that winter time repeats, that would be every night until the wall
//! clock has passed the last label. So it is told UTC. Where labels are ahead of that, dated further east by an older release or
//! by a clock that was wrong by some hours, it is led over them: told a zone in which it is later.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Of all that needs no label.
pub(super) const UTC: &str = "UTC";

/// The furthest that C libraries understand.
const FURTHEST: i64 = 24;

/// The zone, as the variable `TZ` has it, in which a backup that begins now gets a label later than these. UTC where none is.
pub(super) fn after<'a>(labels: impl Iterator<Item = &'a str>, now: Timestamp) -> String {
    let now = now.to_zoned(TimeZone::UTC).datetime();
    let later = |hours: i64, label: DateTime| now.checked_add(hours.hours()).is_ok_and(|local| local > label);
    // Over one of a clock that was wrong by more, no zone leads.
    let Some(latest) = labels.filter_map(dated).filter(|label| later(FURTHEST, *label)).max() else {
        return UTC.into();
    };
    match (0..=FURTHEST).find(|hours| later(*hours, latest)) {
        // What is west has a plus there.
        Some(hours) if hours > 0 => format!("UTC-{hours}"),
        _ => UTC.into(),
    }
}

/// The local time in a label's last part: `20261121-030001F_20261122-030001I`.
fn dated(label: &str) -> Option<DateTime> {
    let last = label.rsplit('_').next()?;
    DateTime::strptime("%Y%m%d-%H%M%S", last.get(..15)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_ahead_are_led_over() {
        let now: Timestamp = "2026-11-21T03:00:00Z".parse().expect("a timestamp");
        let zone = |labels: &[&str]| after(labels.iter().copied(), now);
        assert_eq!(zone(&[]), UTC);
        assert_eq!(zone(&["20261120-030000F", "20261120-030000F_20261121-025959I"]), UTC);
        assert_eq!(zone(&["20261120-030000F_20261121-030000I"]), "UTC-1");
        assert_eq!(zone(&["20261121-155900F", "20261120-030000F"]), "UTC-13", "New Zealand in summer");
        assert_eq!(zone(&["20991121-155900F"]), UTC, "no zone is so far ahead");
        assert_eq!(
            zone(&["20991121-155900F", "20991121-155900F_20261121-040000I"]),
            "UTC-2",
            "and over the rest it leads"
        );
        assert_eq!(zone(&["odd"]), UTC);
    }
}
