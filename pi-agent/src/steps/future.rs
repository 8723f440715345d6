//! Restore points of the future: made by a clock that was wrong, nobody knows when. Where somebody confirms the clock, they are what is
//! wrong: told, and never taken for the newest.

use jiff::{SignedDuration, Timestamp};

use crate::health::is_confirmed;
use crate::monitor::Problem;
use crate::report::short;
use crate::retention::is_of_the_future;

/// Points that are named, of many.
const NAMED: usize = 3;

/// What is said of such points, by a clock that is right. `what`: time, id, and the command that removes one.
pub(crate) fn told<'a, T>(
    points: impl Iterator<Item = T>,
    what: impl Fn(T) -> (Timestamp, &'a str, String),
) -> Vec<Problem> {
    let mut points = points.map(what);
    let mut told: Vec<_> = points.by_ref().take(NAMED).map(|(time, id, remove)| one(time, id, &remove)).collect();
    match points.count() {
        0 => {}
        more => told.push(Problem {
            message: format!("{more} more restore points are of the future, and count for nothing"),
            hint: Some("pi-agent points lists them; they are removed like the others".into()),
        }),
    }
    told
}

fn one(time: Timestamp, id: &str, remove: &str) -> Problem {
    Problem {
        message: format!(
            "restore point {} is of {time:.0}: a clock that was wrong made it, so it counts for nothing",
            short(id)
        ),
        hint: Some(format!("it can be restored as any other; when nobody needs it: {remove}")),
    }
}

/// The newest of some restore points, oldest first; with what is to be said when there is one of the future. `ahead`: see
/// [`is_confirmed`].
pub(crate) fn newest<T>(
    points: &[T],
    what: impl Fn(&T) -> (Timestamp, &str),
    ahead: Option<SignedDuration>,
) -> Option<(&T, Option<String>)> {
    let (now, newest) = (Timestamp::now(), points.last()?);
    let (time, id) = what(newest);
    // Where there is no other one, it is the clock that is wrong: a Pi has none that runs while it is off.
    let before = points.iter().rfind(|point| !is_of_the_future(what(point).0, now));
    let Some(before) = before.filter(|_| is_of_the_future(time, now)) else { return Some((newest, None)) };
    let (id, other) = (short(id), short(what(before).1));
    let point = format!("restore point {id} is of {time:.0}");
    Some(if is_confirmed(ahead) {
        let said = format!(
            "{point}: a clock that was wrong made it, and the newest of the others is taken; for that one: --at {id}"
        );
        (before, Some(said))
    } else {
        let said = format!(
            "{point}, and the clock shows {now:.0}: if the clock is right, the newest is another one: --at {other}"
        );
        (newest, Some(said))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_point_of_the_future_is_passed_over_by_a_clock_that_is_confirmed() {
        let now = Timestamp::now();
        let at = |days: i64, id| (now + SignedDuration::from_hours(24 * days), id);
        let (old, new, future) = (at(-2, "old"), at(-1, "new"), at(4000, "future"));
        let of = |points: &[(Timestamp, &'static str)], ahead: i64| {
            let found = newest(points, |(time, id)| (*time, *id), Some(SignedDuration::from_secs(ahead)));
            let (point, said) = found.unwrap();
            (point.1, said)
        };
        assert_eq!(of(&[old, new], 0), ("new", None));
        let (taken, said) = of(&[old, new, future], 0);
        assert_eq!(taken, "new");
        assert!(said.unwrap().contains("restore point future is of"));
        let (taken, said) = of(&[old, new, future], -7200);
        assert_eq!(taken, "future", "by a clock that may be wrong");
        assert!(said.unwrap().ends_with("--at new"));
        assert_eq!(of(&[future], 0), ("future", None), "it is all there is");
    }
}
