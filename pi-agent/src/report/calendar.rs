//! A calendar of restore points: the last weeks day by day, what is older month by month, coloured by how long it is kept.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::report::html::put;
use crate::report::words;
use crate::retention::{Kept, Until, Why};

const WEEKS: i64 = 6;

/// How long a point is kept, as a shade. In order: the longest-kept point colours a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shade {
    Briefly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    ForGood,
}

impl Shade {
    const ALL: [Self; 6] = [Self::Briefly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly, Self::ForGood];

    fn of(point: &Kept) -> Self {
        match (point.until, point.why) {
            (Until::Forever, _) => Self::ForGood,
            (_, Why::Yearly) => Self::Yearly,
            (_, Why::Monthly) => Self::Monthly,
            (_, Why::Weekly) => Self::Weekly,
            (_, Why::Daily) => Self::Daily,
            _ => Self::Briefly,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Briefly => "for now",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::ForGood => "for good",
        }
    }
}

/// Why and until when, in words: "daily, until 2026-12-21".
pub(super) fn kept_in_words(point: &Kept) -> String {
    let why = match point.why {
        Why::Nothing => "by no rule any more",
        Why::Newest => "as the newest",
        Why::Whole => "as the newest that lacks nothing",
        Why::Young => "as a young one",
        Why::Needed => "because later ones need it",
        Why::Window => "to reach any moment",
        Why::Last => "as one of the last",
        Why::Daily => "daily",
        Why::Weekly => "weekly",
        Why::Monthly => "monthly",
        Why::Yearly => "yearly",
        Why::Future => "its time is still to come, and only a person removes it",
        Why::Everything => "all are kept",
    };
    match point.until {
        _ if point.why == Why::Future => why.into(),
        Until::Day(day) => format!("{why}, until {day}"),
        Until::Forever => format!("{why}, for good"),
    }
}

/// The points of a period.
#[derive(Default)]
struct Cell {
    count: usize,
    shade: Option<Shade>,
    title: String,
}

impl Cell {
    fn add(&mut self, point: &Kept) {
        self.count += 1;
        self.shade = self.shade.max(Some(Shade::of(point)));
        if self.count <= 4 {
            let line = format!("{}: {}", words::time(point.time), kept_in_words(point));
            self.title = if self.title.is_empty() { line } else { format!("{}; {line}", self.title) };
        }
    }

    /// A table's cell that shows `label`.
    fn html(&self, label: &str, more: &str) -> String {
        match self.shade {
            Some(shade) => {
                let several = if self.count > 1 { format!("<sup>{}</sup>", self.count) } else { String::new() };
                format!(r#"<td class="k{}{more}" title="{}">{label}{several}</td>"#, shade as u8, self.title)
            }
            None => format!(r#"<td class="{}">{label}</td>"#, more.trim_start()),
        }
    }
}

/// The calendar of one step.
pub(super) fn calendar(points: &[Kept], now: Timestamp) -> String {
    let date = |time: Timestamp| time.to_zoned(TimeZone::system()).date();
    let today = date(now);
    let monday = days_later(today, -i64::from(today.weekday().to_monday_zero_offset()) - 7 * (WEEKS - 1));
    let mut days: BTreeMap<Date, Cell> = BTreeMap::new();
    let mut months: BTreeMap<(i16, i8), Cell> = BTreeMap::new();
    for point in points {
        let day = date(point.time);
        if day < monday {
            months.entry((day.year(), day.month())).or_default().add(point);
        } else {
            days.entry(day).or_default().add(point);
        }
    }

    let mut html = String::from(r#"<table class="cal"><thead><tr>"#);
    for day in ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"] {
        put!(html, r#"<th scope="col">{day}</th>"#);
    }
    html.push_str("</tr></thead><tbody>");
    for week in 0..WEEKS {
        html.push_str("<tr>");
        for day in 0..7 {
            let day = days_later(monday, week * 7 + day);
            let label = if day.day() == 1 { day.strftime("%b").to_string() } else { day.day().to_string() };
            let more = match day.cmp(&today) {
                std::cmp::Ordering::Less => "",
                std::cmp::Ordering::Equal => " today",
                std::cmp::Ordering::Greater => " ahead",
            };
            html.push_str(&days.get(&day).unwrap_or(&Cell::default()).html(&label, more));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    if !months.is_empty() {
        html.push_str(&older(&months));
    }
    html.push_str(&legend(points));
    html
}

/// Years as rows, months as columns.
fn older(months: &BTreeMap<(i16, i8), Cell>) -> String {
    let mut html = String::from(r#"<table class="cal old"><caption>older</caption><tbody>"#);
    let years: std::collections::BTreeSet<i16> = months.keys().map(|(year, _)| *year).collect();
    for year in years {
        put!(html, r#"<tr><th scope="row">{year}</th>"#);
        for (month, label) in (1..).zip("JFMAMJJASOND".chars()) {
            html.push_str(&months.get(&(year, month)).unwrap_or(&Cell::default()).html(&label.to_string(), ""));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table>");
    html
}

fn legend(points: &[Kept]) -> String {
    let mut html = String::from(r#"<p class="legend">kept"#);
    for shade in Shade::ALL {
        let count = points.iter().filter(|point| Shade::of(point) == shade).count();
        if count > 0 {
            put!(html, r#" <span><i class="k{}"></i>{} ({count})</span>"#, shade as u8, shade.word());
        }
    }
    if points.is_empty() {
        html.push_str(": nothing yet");
    }
    html.push_str("</p>");
    html
}

fn days_later(date: Date, days: i64) -> Date {
    date.checked_add(Span::new().try_days(days).unwrap_or_default()).unwrap_or(date)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn point(day: &str, why: Why, until: Until) -> Kept {
        let time = day.parse::<Date>().unwrap().at(3, 12, 0, 0).to_zoned(TimeZone::system()).unwrap().timestamp();
        Kept { id: day.into(), time, why, until }
    }

    #[test]
    fn days_and_older_months_have_the_shade_of_the_longest_kept() {
        let until = Until::Day("2026-12-20".parse().unwrap());
        let points = [
            point("2025-12-31", Why::Monthly, Until::Forever),
            point("2026-10-31", Why::Monthly, Until::Forever),
            point("2026-11-20", Why::Newest, until),
            point("2026-11-20", Why::Daily, until),
        ];
        let html = calendar(&points, points[3].time);
        assert!(html.contains(r#"<tr><th scope="row">2025</th>"#), "{html}");
        assert!(html.contains(r#"title="2025-12-31 03:12:00: monthly, for good">D</td>"#), "{html}");
        assert!(html.contains(r#"<td class="k5" title="2026-10-31 03:12:00: monthly, for good">31</td>"#), "{html}");
        assert!(html.contains(r#"<td class="k1 today" title="#) && html.contains("20<sup>2</sup></td>"), "{html}");
        assert!(html.contains(r#"<td class="ahead">21</td>"#) && html.contains(r#"<td class="">19</td>"#), "{html}");
        assert!(html.contains(r#"<i class="k5"></i>for good (2)</span>"#), "{html}");
    }

    #[test]
    fn no_points_are_a_calendar_too() {
        let html = calendar(&[], Timestamp::UNIX_EPOCH);
        assert!(html.contains("nothing yet") && html.matches("<td").count() == 42, "{html}");
    }
}
