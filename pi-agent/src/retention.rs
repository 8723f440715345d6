//! Which restore points are kept, why and until when: one pure function for snapshots, and the same with PostgreSQL's extra
//! promises for pgBackRest backups.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp, tz::TimeZone};

use crate::config::{Count, Keep};

/// A restore point as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Snapshot id or backup label.
    pub id: String,
    /// When it was made (for PostgreSQL: when the backup stopped, from which on it can be restored).
    pub time: Timestamp,
    /// Stands alone (snapshots always; PostgreSQL: full backups).
    pub full: bool,
    /// Ids this point needs, direct or not.
    pub needs: Vec<String>,
    /// Files could not be read when it was made, and are not in it; or pages of a database were damaged already.
    pub lacks: bool,
}

/// Which promises hold for the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Each stands alone.
    Snapshots,
    /// pgBackRest's backups:
    /// - a week, month or year is kept by its newest *full* backup (it must stand without WAL and without a chain); one without a full by its newest;
    /// - every moment since [`window_start`] that could be reached stays reachable: the backup through which the start is reached is kept.
    Backups,
}

/// Why a point is kept: the rule that keeps it longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No rule keeps it: it goes with the next backup, unless nothing is removed then.
    Nothing,
    /// The newest that lacks nothing: it may be all there is of what newer ones lack.
    Whole,
    /// It is the newest.
    Newest,
    /// It is younger than [`Keep::GRACE`].
    Young,
    /// A kept one needs it.
    Needed,
    /// The window of point-in-time recovery begins with it.
    Window,
    /// It is one of the last N.
    Last,
    /// The newest of its day.
    Daily,
    /// The newest of its week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// The newest of its year.
    Yearly,
    /// It is [of the future](is_of_the_future): only a person removes it.
    Future,
    /// Everything is kept.
    Everything,
}

/// How long a point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// It goes with the backup of that day, if there is one every day; without backups nothing goes.
    Day(Date),
    /// It stays.
    Forever,
}

/// A point and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Snapshot id or backup label.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// By which rule.
    pub why: Why,
    /// For how long.
    pub until: Until,
}

/// How far apart two clocks may be that are both right.
pub(crate) const APART: SignedDuration = SignedDuration::from_mins(1);

/// Whether no clock that is right can have shown that time yet. A restore point of such a time was made by a clock that was wrong;
/// nobody knows when.
pub fn is_of_the_future(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > APART
}

/// The ids that `keep` no longer keeps, oldest first. Nothing a kept point needs is among them.
pub fn victims(points: &[Point], keep: &Keep, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    all_but(points, &reasons(points, keep, Family::Snapshots, now, zone))
}

/// The pgBackRest backups that `keep` no longer keeps, oldest first; see [`Family::Backups`].
///
/// A victim's dependents are victims too, so expiring a full backup (which takes its dependents with it) takes nothing that is kept.
pub fn pg_victims(points: &[Point], keep: &Keep, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    all_but(points, &reasons(points, keep, Family::Backups, now, zone))
}

/// Why and for how long each point is kept, oldest first.
pub fn explained(points: &[Point], keep: &Keep, family: Family, now: Timestamp, zone: &TimeZone) -> Vec<Kept> {
    let reasons = reasons(points, keep, family, now, zone);
    let sorted = newest_first(points);
    let newest = sorted.iter().find(|point| !is_of_the_future(point.time, now));
    let next = newest.map_or(Date::MAX, |newest| later(newest.time.to_zoned(zone.clone()).date(), 1));
    let kept = |point: &Point| {
        let (until, why) = reasons.0.get(point.id.as_str()).copied().unwrap_or((Until::Day(next), Why::Nothing));
        Kept { id: point.id.clone(), time: point.time, why, until }
    };
    sorted.into_iter().rev().map(kept).collect()
}

/// From when on every moment must stay reachable: `daily` days before the newest point that is not of the future (never after `now`);
/// at least [`Keep::GRACE`]. `None`: since ever, or there are no such points.
pub fn window_start(points: &[Point], keep: &Keep, now: Timestamp) -> Option<Timestamp> {
    let newest = points.iter().map(|point| point.time).filter(|time| !is_of_the_future(*time, now)).max()?;
    let Keep::Rules { daily: Count::Of(days), .. } = keep else { return None };
    let length = SignedDuration::from_hours(24 * i64::from(*days)).max(grace());
    Some(now.min(newest).checked_sub(length).unwrap_or(Timestamp::MIN))
}

/// The value of `repo1-retention-archive`: how many full backups back the WAL must be kept whole, so that the window stays reachable.
/// That is the newest full at or before the start of the window; every one when there is none so old. `None`: all WAL is kept.
/// pgBackRest counts those of the future as the newest, and so does this.
pub fn retention_archive(points: &[Point], keep: &Keep, now: Timestamp) -> Option<usize> {
    let start = window_start(points, keep, now)?;
    let fulls: Vec<_> = newest_first(points).into_iter().filter(|point| point.full).collect();
    let within = fulls.iter().take_while(|point| point.time > start).count();
    Some((within + 1).min(fulls.len()).max(1))
}

fn grace() -> SignedDuration {
    SignedDuration::try_from(Keep::GRACE).expect("two days fit")
}

fn newest_first(points: &[Point]) -> Vec<&Point> {
    let mut sorted: Vec<_> = points.iter().collect();
    sorted.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
    sorted
}

/// The kept points: until when, and by which rule.
#[derive(Default)]
struct Reasons<'a>(BTreeMap<&'a str, (Until, Why)>);

impl<'a> Reasons<'a> {
    fn add(&mut self, id: &'a str, why: Why, until: Until) {
        let longest = self.0.entry(id).or_insert((until, why));
        // What a person asked for says more than what follows from it.
        let why = if why < Why::Last && longest.1 >= Why::Last { longest.1 } else { why };
        *longest = (*longest).max((until, why));
    }
}

/// The one place that knows what is kept. Points of the future are kept, and count for nothing.
fn reasons<'a>(points: &'a [Point], keep: &Keep, family: Family, now: Timestamp, zone: &TimeZone) -> Reasons<'a> {
    let all = newest_first(points);
    let mut kept = Reasons::default();
    let Keep::Rules { last, daily, weekly, monthly, yearly } = *keep else {
        all.iter().for_each(|point| kept.add(&point.id, Why::Everything, Until::Forever));
        return kept;
    };
    let (future, sorted): (Vec<_>, Vec<_>) = all.iter().copied().partition(|point| is_of_the_future(point.time, now));
    future.iter().for_each(|point| kept.add(&point.id, Why::Future, Until::Forever));
    // Whatever those need, if there is nothing else, is of the future too.
    let Some(newest) = sorted.first() else { return kept };
    let date = |time: Timestamp| time.to_zoned(zone.clone()).date();
    let today = date(newest.time);

    kept.add(&newest.id, Why::Newest, Until::Day(later(today, 1)));
    if let Some(whole) = sorted.iter().find(|point| !point.lacks) {
        kept.add(&whole.id, Why::Whole, Until::Day(later(today, 1)));
    }
    let young = now.min(newest.time).checked_sub(grace()).unwrap_or(Timestamp::MIN);
    for point in sorted.iter().filter(|point| point.time >= young) {
        kept.add(&point.id, Why::Young, Until::Day(later(date(later_moment(point.time, grace())), 1)));
    }
    for (rank, point) in sorted.iter().take(limit(last)).enumerate() {
        kept.add(&point.id, Why::Last, ends(last, rank, |more| later(today, more)));
    }

    let stands = |point: &Point| family == Family::Snapshots || point.full;
    let periods: [(Why, Count, After); 4] = [
        (Why::Daily, daily, later),
        (Why::Weekly, weekly, weeks_later),
        (Why::Monthly, monthly, months_later),
        (Why::Yearly, yearly, years_later),
    ];
    for (why, count, after) in periods {
        let period = |point: &Point| after(date(point.time), 0);
        let whole_day = |point: &Point| why == Why::Daily || stands(point);
        for (rank, point) in newest_of_each(&sorted, period, whole_day).into_iter().take(limit(count)).enumerate() {
            // As long as the period lasts, a newer point may take its place.
            let goes_on = why != Why::Daily && rank == 0 && after(later(today, 1), 0) == after(today, 0);
            let until =
                if goes_on { Until::Day(later(today, 1)) } else { ends(count, rank, |more| after(today, more)) };
            kept.add(&point.id, why, until);
        }
    }
    if let Some(start) = window_start(points, keep, now).filter(|_| family == Family::Backups) {
        let base = sorted.iter().position(|point| point.time <= start).unwrap_or(sorted.len() - 1);
        let length = now.min(newest.time).duration_since(start);
        let next = base.checked_sub(1).map_or(later_moment(newest.time, DAY), |next| sorted[next].time);
        kept.add(&sorted[base].id, Why::Window, Until::Day(date(later_moment(next, length))));
    }
    // Newest first, so that a dependency which itself names only its direct parent is followed to the end.
    for point in all {
        if let Some((until, _)) = kept.0.get(point.id.as_str()).copied() {
            point.needs.iter().for_each(|id| kept.add(id, Why::Needed, until));
        }
    }
    kept
}

/// The first day of the period so many later.
type After = fn(Date, i64) -> Date;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// When the `rank`-th of `count` has had its time; `after` says when that many more have come.
fn ends(count: Count, rank: usize, after: impl Fn(i64) -> Date) -> Until {
    match count {
        Count::Of(n) => Until::Day(after(i64::from(n) - i64::try_from(rank).unwrap_or(i64::MAX))),
        Count::Forever => Until::Forever,
    }
}

fn later_moment(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn later(date: Date, days: i64) -> Date {
    date.checked_add(Span::new().try_days(days).unwrap_or_default()).unwrap_or(Date::MAX)
}

fn weeks_later(date: Date, weeks: i64) -> Date {
    let monday = later(date, -i64::from(date.weekday().to_monday_zero_offset()));
    later(monday, weeks.saturating_mul(7))
}

fn months_later(date: Date, months: i64) -> Date {
    let span = Span::new().try_months(months).unwrap_or_default();
    date.first_of_month().checked_add(span).unwrap_or(Date::MAX)
}

fn years_later(date: Date, years: i64) -> Date {
    let span = Span::new().try_years(years).unwrap_or_default();
    date.first_of_year().checked_add(span).unwrap_or(Date::MAX)
}

fn limit(count: Count) -> usize {
    match count {
        Count::Of(n) => n as usize,
        Count::Forever => usize::MAX,
    }
}

/// The newest point that `stands`, else the newest, of each period that has a point; newest period first.
fn newest_of_each<'a>(
    sorted: &[&'a Point],
    period: impl Fn(&Point) -> Date,
    stands: impl Fn(&Point) -> bool,
) -> Vec<&'a Point> {
    let mut best: BTreeMap<Date, &'a Point> = BTreeMap::new();
    for &point in sorted {
        let current = best.entry(period(point)).or_insert(point);
        if !stands(current) && stands(point) {
            *current = point;
        }
    }
    best.into_values().rev().collect()
}

/// The ids of the rest, oldest first.
fn all_but(points: &[Point], kept: &Reasons<'_>) -> Vec<String> {
    let gone = |point: &&Point| !kept.0.contains_key(point.id.as_str());
    newest_first(points).into_iter().rev().filter(gone).map(|point| point.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn rules(last: u32, daily: u32, weekly: u32, monthly: Count, yearly: u32) -> Keep {
        Keep::Rules {
            last: Count::Of(last),
            daily: Count::Of(daily),
            weekly: Count::Of(weekly),
            monthly,
            yearly: Count::Of(yearly),
        }
    }

    fn household() -> Keep {
        rules(0, 30, 0, Count::Forever, 0)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn snapshot(time: &str) -> Point {
        Point { id: time.into(), time: at(time), full: true, needs: vec![], lacks: false }
    }

    /// One backup a night, full every seventh.
    fn nights(first: Timestamp, count: usize) -> Vec<Point> {
        let mut chain: Vec<String> = vec![];
        (0..count)
            .map(|night| {
                let full = night % 7 == 0;
                if full {
                    chain.clear();
                }
                let id = format!("{night:04}{}", if full { 'F' } else { 'I' });
                let time = first + SignedDuration::from_hours(24 * night as i64);
                let point = Point { id: id.clone(), time, full, needs: chain.clone(), lacks: false };
                chain.push(id);
                point
            })
            .collect()
    }

    fn survivors(points: &[Point], victims: &[String]) -> Vec<Point> {
        points.iter().filter(|point| !victims.contains(&point.id)).cloned().collect()
    }

    #[test]
    fn three_years_of_nights_leave_thirty_days_and_the_months() {
        let points: Vec<_> = nights(at("2023-01-01T03:00:00Z"), 1096)
            .into_iter()
            .map(|point| Point { full: true, needs: vec![], ..point })
            .collect();
        let now = points[1095].time;
        let left = survivors(&points, &victims(&points, &household(), now, &TimeZone::UTC));
        assert_eq!(left.len(), 30 + 35, "thirty nights of December 2025, then one of each earlier month");
        assert_eq!(left[0].time, at("2023-01-31T03:00:00Z"));
    }

    #[test]
    fn the_newest_that_lacks_nothing_stays_while_newer_ones_lack_files() {
        let mut points: Vec<_> = (1..=9).map(|day| snapshot(&format!("2026-11-0{day}T03:00:00Z"))).collect();
        points[3..].iter_mut().for_each(|point| point.lacks = true);
        let oldest_left = |points: &[Point]| {
            let victims = victims(points, &rules(0, 2, 0, Count::Of(0), 0), at("2026-11-09T04:00:00Z"), &TimeZone::UTC);
            survivors(points, &victims)[0].id.clone()
        };
        assert_eq!(oldest_left(&points), points[2].id);
        points[8].lacks = false;
        assert_eq!(oldest_left(&points), points[6].id, "those of the last two days");

        // Of a database with all that it needs.
        let mut points = nights(at("2026-10-01T03:00:00Z"), 60);
        points[10..].iter_mut().for_each(|point| point.lacks = true);
        let (now, keep) = (points[59].time, rules(0, 2, 0, Count::Of(0), 0));
        let left = survivors(&points, &pg_victims(&points, &keep, now, &TimeZone::UTC));
        let whole: Vec<_> = left.iter().filter(|point| !point.lacks).map(|point| point.id.as_str()).collect();
        assert_eq!(whole, ["0007F", "0008I", "0009I"]);
    }

    #[test]
    fn weekly_fulls_keep_the_window_and_a_full_of_each_month() {
        let points = nights(at("2025-01-01T03:00:00Z"), 365);
        let now = points[364].time;
        let left = survivors(&points, &pg_victims(&points, &household(), now, &TimeZone::UTC));
        let start = window_start(&points, &household(), now).expect("a window");
        let base = left.iter().rfind(|point| point.time <= start).expect("a base");
        assert_eq!(start, base.time, "the nightly exactly thirty days back");
        let old: Vec<_> = left.iter().filter(|point| point.time < start && !base.needs.contains(&point.id)).collect();
        assert!(old.iter().all(|point| point.full || *point == base));
        let months: BTreeSet<_> = left.iter().map(|p| p.time.to_zoned(TimeZone::UTC).month()).collect();
        assert_eq!(months.len(), 12);

        let archive = retention_archive(&left, &household(), now).expect("limited");
        let fulls: Vec<_> = newest_first(&left).into_iter().filter(|point| point.full).collect();
        assert!(fulls[archive - 1].time <= start, "WAL is whole from before the window");
        assert!(fulls[archive - 2].time > start, "and not for longer than needed");
    }

    #[test]
    fn a_day_is_a_local_day_also_when_the_clock_changes() {
        let zone = TimeZone::get("Australia/Sydney").expect("bundled or system zone");
        // 13:30 and 14:30 UTC are 23:30 and 00:30 of the next day in Sydney; on 2026-04-05 the clock goes back.
        let points = [
            "2026-04-03T12:30:00Z",
            "2026-04-04T12:30:00Z",
            "2026-04-04T13:30:00Z",
            "2026-04-05T13:30:00Z",
            "2026-04-05T14:30:00Z",
            "2026-04-20T00:00:00Z",
        ]
        .map(snapshot);
        let gone = victims(&points, &rules(0, 9, 0, Count::Of(0), 0), at("2026-04-20T00:00:00Z"), &zone);
        // Local dates: 3rd 23:30, 4th 23:30, 5th 00:30, 5th 23:30, 6th 00:30.
        assert_eq!(gone, ["2026-04-04T13:30:00Z"]);
    }

    #[test]
    fn why_and_until_when_are_told() {
        let points: Vec<_> = nights(at("2026-09-28T03:00:00Z"), 54)
            .into_iter()
            .map(|point| Point { full: true, needs: vec![], ..point })
            .collect();
        let now = points[53].time;
        let left = survivors(&points, &victims(&points, &household(), now, &TimeZone::UTC));
        let told = explained(&left, &household(), Family::Snapshots, now, &TimeZone::UTC);
        assert_eq!(told.len(), left.len());
        let of = |time: &str| {
            let kept = told.iter().find(|kept| kept.time == at(time)).expect("kept");
            (kept.why, kept.until)
        };
        let day = |text: &str| Until::Day(text.parse().expect("a date"));
        assert_eq!(of("2026-09-30T03:00:00Z"), (Why::Monthly, Until::Forever));
        assert_eq!(of("2026-10-31T03:00:00Z"), (Why::Monthly, Until::Forever));
        assert_eq!(of("2026-11-01T03:00:00Z"), (Why::Daily, day("2026-12-01")));
        assert_eq!(of("2026-11-20T03:00:00Z"), (Why::Daily, day("2026-12-20")), "November is not over");
    }

    #[test]
    fn a_chain_is_needed_as_long_as_its_last_link() {
        let points = nights(at("2026-11-01T03:00:00Z"), 10);
        let now = points[9].time;
        let keep = rules(0, 3, 0, Count::Of(0), 0);
        let left = survivors(&points, &pg_victims(&points, &keep, now, &TimeZone::UTC));
        let told = explained(&left, &keep, Family::Backups, now, &TimeZone::UTC);
        let shown: Vec<_> = told.iter().map(|kept| (kept.id.as_str(), kept.why)).collect();
        let needed = ["0000F", "0001I", "0002I", "0003I", "0004I", "0005I"].map(|id| (id, Why::Needed));
        assert_eq!(shown[..6], needed);
        assert_eq!(shown[6], ("0006I", Why::Window));
        assert_eq!(told[0].until, told[6].until);
        assert_eq!(told[6].until, Until::Day("2026-11-11".parse().expect("a date")), "then the full of the 8th serves");
    }

    #[test]
    fn a_clock_in_the_past_or_future_takes_nothing_young() {
        let points = ["2026-01-01T00:00:00Z", "2026-01-02T23:00:00Z", "2026-01-03T00:00:00Z"].map(snapshot);
        let one = rules(1, 0, 0, Count::Of(0), 0);
        assert_eq!(victims(&points, &one, at("2036-01-01T00:00:00Z"), &TimeZone::UTC), Vec::<String>::new());
        assert_eq!(victims(&points, &one, at("1970-01-01T00:00:00Z"), &TimeZone::UTC), Vec::<String>::new());
        let points = ["2025-12-31T23:00:00Z", "2026-01-03T00:00:00Z"].map(snapshot);
        assert_eq!(victims(&points, &one, at("2036-01-01T00:00:00Z"), &TimeZone::UTC), ["2025-12-31T23:00:00Z"]);
    }

    #[test]
    fn no_points_no_victims() {
        assert!(victims(&[], &household(), Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_empty());
        assert!(pg_victims(&[], &household(), Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_empty());
        assert_eq!(retention_archive(&[], &household(), Timestamp::UNIX_EPOCH), None);
    }

    /// Chains as pgBackRest makes them: the first is full; an incremental needs all since the full, a differential only the full.
    fn histories() -> impl Strategy<Value = Vec<Point>> {
        prop::collection::vec((1_i64..80, 0_u8..10), 1..120).prop_map(|steps| {
            let mut time = at("2024-02-20T03:00:00Z");
            let mut chain: Vec<String> = vec![];
            steps
                .into_iter()
                .enumerate()
                .map(|(number, (hours, kind))| {
                    time += SignedDuration::from_hours(hours);
                    let id = format!("{number:04}");
                    if number == 0 || kind == 0 {
                        chain.clear();
                    } else if kind < 3 {
                        chain.truncate(1);
                    }
                    let point =
                        Point { id: id.clone(), time, full: chain.is_empty(), needs: chain.clone(), lacks: false };
                    chain.push(id);
                    point
                })
                .collect()
        })
    }

    fn counts() -> impl Strategy<Value = Count> {
        prop_oneof![4 => (0_u32..40).prop_map(Count::Of), 1 => Just(Count::Forever)]
    }

    fn keeps() -> impl Strategy<Value = Keep> {
        (counts(), counts(), counts(), counts(), counts())
            .prop_map(|(last, daily, weekly, monthly, yearly)| Keep::Rules { last, daily, weekly, monthly, yearly })
    }

    fn zones() -> impl Strategy<Value = TimeZone> {
        prop::sample::select(vec!["UTC", "Australia/Sydney", "America/St_Johns"])
            .prop_map(|name| TimeZone::get(name).expect("bundled or system zone"))
    }

    fn last_periods<K: Ord + Clone>(points: &[Point], count: Count, period: impl Fn(&Point) -> K) -> BTreeSet<K> {
        let all: BTreeSet<K> = points.iter().map(period).collect();
        all.into_iter().rev().take(limit(count)).collect()
    }

    proptest! {
        #[test]
        fn the_newest_and_everything_young_stay(points in histories(), keep in keeps(), zone in zones(), late in 0_i64..4000) {
            let newest = points.last().expect("at least one");
            let now = newest.time + SignedDuration::from_hours(late - 1000);
            for gone in [victims(&points, &keep, now, &zone), pg_victims(&points, &keep, now, &zone)] {
                prop_assert!(!gone.contains(&newest.id));
                for point in points.iter().filter(|point| newest.time.duration_since(point.time) < grace()) {
                    prop_assert!(!gone.contains(&point.id));
                }
            }
        }

        #[test]
        fn kept_days_and_months_stay_covered(points in histories(), keep in keeps(), zone in zones()) {
            let now = points.last().expect("at least one").time;
            let Keep::Rules { daily, monthly, .. } = keep else { unreachable!("keeps() makes rules") };
            let day = |point: &Point| point.time.to_zoned(zone.clone()).date();
            let month = |point: &Point| (day(point).year(), day(point).month());
            for gone in [victims(&points, &keep, now, &zone), pg_victims(&points, &keep, now, &zone)] {
                let left = survivors(&points, &gone);
                for date in last_periods(&points, daily, day) {
                    let newest = points.iter().rfind(|point| day(point) == date).expect("the period has one");
                    prop_assert!(left.contains(newest), "the newest of {date}");
                }
                for period in last_periods(&points, monthly, month) {
                    prop_assert!(left.iter().any(|point| month(point) == period));
                }
            }
            let left = survivors(&points, &pg_victims(&points, &keep, now, &zone));
            for period in last_periods(&points, monthly, month) {
                let newest_full = points.iter().rfind(|point| point.full && month(point) == period);
                prop_assert!(newest_full.is_none_or(|full| left.contains(full)));
            }
        }

        #[test]
        fn nothing_a_kept_point_needs_goes(points in histories(), keep in keeps(), zone in zones()) {
            let now = points.last().expect("at least one").time;
            for gone in [victims(&points, &keep, now, &zone), pg_victims(&points, &keep, now, &zone)] {
                for point in survivors(&points, &gone) {
                    prop_assert!(point.needs.iter().all(|id| !gone.contains(id)));
                }
            }
        }

        #[test]
        fn every_moment_of_the_window_stays_reachable(points in histories(), keep in keeps(), zone in zones(), back in 0_i64..24 * 40) {
            let newest = points.last().expect("at least one").time;
            let Keep::Rules { daily, .. } = keep else { unreachable!("keeps() makes rules") };
            let left = survivors(&points, &pg_victims(&points, &keep, newest, &zone));
            let moment = newest - SignedDuration::from_hours(back);
            let in_window = match daily { Count::Of(days) => back <= 24 * i64::from(days), Count::Forever => true };
            if in_window && points[0].time <= moment {
                let base = left.iter().rfind(|point| point.time <= moment);
                prop_assert!(base.is_some());
                // WAL is whole from the start of the n-th newest full: the base must not be older.
                if let (Some(n), Some(base)) = (retention_archive(&left, &keep, newest), base) {
                    let fulls: Vec<_> = newest_first(&left).into_iter().filter(|point| point.full).collect();
                    prop_assert!(fulls[n - 1].time <= base.time);
                }
            }
        }

        #[test]
        fn a_point_goes_on_the_day_that_was_told(count in 1_usize..60, keep in keeps(), ahead in 1_usize..90) {
            let mut points = nights(at("2025-11-10T03:00:00Z"), count);
            points.iter_mut().for_each(|point| point.needs.clear());
            let told = explained(&points, &keep, Family::Snapshots, points[count - 1].time, &TimeZone::UTC);
            for night in 0..ahead {
                let time = points[points.len() - 1].time + DAY;
                points.push(Point { id: format!("later{night}"), time, full: true, needs: vec![], lacks: false });
                let gone = victims(&points, &keep, time, &TimeZone::UTC);
                points.retain(|point| !gone.contains(&point.id));
                let today = time.to_zoned(TimeZone::UTC).date();
                for kept in &told {
                    let here = points.iter().any(|point| point.id == kept.id);
                    prop_assert_eq!(here, kept.until > Until::Day(today), "{:?} on {}", kept, today);
                }
            }
        }

        #[test]
        fn a_second_pass_finds_nothing(points in histories(), keep in keeps(), zone in zones()) {
            let now = points.last().expect("at least one").time;
            let left = survivors(&points, &victims(&points, &keep, now, &zone));
            prop_assert!(victims(&left, &keep, now, &zone).is_empty());
            let left = survivors(&points, &pg_victims(&points, &keep, now, &zone));
            prop_assert!(pg_victims(&left, &keep, now, &zone).is_empty());
        }

        #[test]
        fn a_more_generous_rule_keeps_at_least_as_much(points in histories(), keep in keeps(), zone in zones()) {
            let now = points.last().expect("at least one").time;
            let Keep::Rules { last, daily, weekly, monthly, yearly } = keep else { unreachable!("keeps() makes rules") };
            let more = [
                Keep::Forever,
                Keep::Rules { last: Count::Forever, daily, weekly, monthly, yearly },
                Keep::Rules { last, daily: Count::Forever, weekly, monthly, yearly },
                Keep::Rules { last, daily, weekly, monthly: Count::Forever, yearly },
            ];
            for generous in more {
                let gone = victims(&points, &keep, now, &zone);
                prop_assert!(victims(&points, &generous, now, &zone).iter().all(|id| gone.contains(id)));
                let gone = pg_victims(&points, &keep, now, &zone);
                // A longer window moves its base, so only what the rules keep is compared there.
                if !matches!(generous, Keep::Rules { daily: Count::Forever, .. }) {
                    prop_assert!(pg_victims(&points, &generous, now, &zone).iter().all(|id| gone.contains(id)));
                }
            }
            prop_assert!(victims(&points, &Keep::Forever, now, &zone).is_empty());
            prop_assert!(pg_victims(&points, &Keep::Forever, now, &zone).is_empty());
        }
    }
}
