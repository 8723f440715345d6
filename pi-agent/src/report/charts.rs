//! Charts as SVG: values over time, with a text alternative, in colours that the page's style sheet gives.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::report::html::{Safe, put};

// The drawing's own units; the page scales it to the width there is.
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 100.0;
const LEFT: f64 = 2.0;
const RIGHT: f64 = 318.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 84.0;

/// One value at a moment.
pub(super) struct Value {
    pub at: Timestamp,
    pub value: f64,
    /// Class of its bar.
    pub class: &'static str,
}

/// How values are drawn.
pub(super) enum Series {
    /// A line with the area below it.
    Area(Vec<Value>),
    /// A line.
    Line(Vec<Value>),
    /// Bars.
    Bars(Vec<Value>),
}

impl Series {
    fn values(&self) -> &[Value] {
        match self {
            Self::Area(values) | Self::Line(values) | Self::Bars(values) => values,
        }
    }
}

/// The span of time that all charts of a page share.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Span {
    #[allow(clippy::cast_precision_loss)] // months in milliseconds
    fn x(self, at: Timestamp) -> f64 {
        let whole = (self.to.as_millisecond() - self.from.as_millisecond()).max(1) as f64;
        let part = (at.as_millisecond() - self.from.as_millisecond()) as f64 / whole;
        LEFT + (RIGHT - LEFT) * part.clamp(0.0, 1.0)
    }

    #[allow(clippy::cast_precision_loss)]
    fn days(self) -> f64 {
        ((self.to.as_millisecond() - self.from.as_millisecond()) as f64 / 86_400_000.0).max(1.0)
    }
}

/// A chart from zero to its greatest value, which is written at the top.
pub(super) fn chart(title: &str, span: Span, series: &[Series], words: impl Fn(f64) -> String) -> String {
    let all = || series.iter().flat_map(Series::values);
    let top = all().map(|value| value.value).fold(0.0, f64::max);
    let y = |value: f64| if top > 0.0 { BOTTOM - (BOTTOM - TOP) * value / top } else { BOTTOM };
    let date = |at: Timestamp| at.to_zoned(TimeZone::system()).strftime("%b %-d").to_string();

    let mut svg = String::new();
    put!(svg, r#"<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{}</title><desc>"#, Safe(title));
    let last = all().max_by_key(|value| value.at);
    match (all().map(|value| value.value).min_by(f64::total_cmp), last) {
        (Some(least), Some(last)) => {
            put!(svg, "From {} to {}: ", date(span.from), date(span.to));
            put!(
                svg,
                "between {} and {}, at last {}.",
                Safe(&words(least)),
                Safe(&words(top)),
                Safe(&words(last.value))
            );
        }
        _ => put!(svg, "No values yet."),
    }
    put!(svg, r#"</desc><path class="grid" d="M{LEFT} {TOP}H{RIGHT}M{LEFT} {BOTTOM}H{RIGHT}"/>"#);
    for series in series {
        draw(&mut svg, series, span, y);
    }
    let label = if last.is_some() { words(top) } else { "no values yet".into() };
    put!(svg, r#"<text x="{LEFT}" y="12">{}</text>"#, Safe(&label));
    put!(svg, r#"<text x="{LEFT}" y="97">{}</text>"#, date(span.from));
    put!(svg, r#"<text x="{RIGHT}" y="97" text-anchor="end">{}</text></svg>"#, date(span.to));
    svg
}

fn draw(svg: &mut String, series: &Series, span: Span, y: impl Fn(f64) -> f64) {
    let (Some(first), Some(last)) = (series.values().first(), series.values().last()) else { return };
    let line = |svg: &mut String| {
        for (number, value) in series.values().iter().enumerate() {
            put!(svg, "{}{:.1} {:.1}", if number == 0 { 'M' } else { 'L' }, span.x(value.at), y(value.value));
        }
    };
    match series {
        Series::Bars(values) => {
            let width = ((RIGHT - LEFT) / span.days() * 0.7).clamp(1.5, 10.0);
            for value in values {
                let (x, y) =
                    ((span.x(value.at) - width / 2.0).clamp(LEFT, RIGHT - width), y(value.value).min(BOTTOM - 1.0));
                let (class, height) = (value.class, BOTTOM - y);
                put!(svg, r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#);
            }
            return;
        }
        Series::Area(_) => {
            put!(svg, r#"<path class="area" d=""#);
            line(svg);
            put!(svg, r#"L{:.1} {BOTTOM}L{:.1} {BOTTOM}Z"/><path class="line" d=""#, span.x(last.at), span.x(first.at));
        }
        Series::Line(_) => put!(svg, r#"<path class="line other" d=""#),
    }
    line(svg);
    let class = if matches!(series, Series::Area(_)) { "dot" } else { "dot other" };
    put!(svg, r#""/><circle class="{class}" cx="{:.1}" cy="{:.1}" r="3"/>"#, span.x(last.at), y(last.value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let at = |day: i64| Timestamp::from_second(day * 86_400).expect("a timestamp");
        let span = Span { from: at(0), to: at(10) };
        let values =
            (0..=10_i32).map(|day| Value { at: at(day.into()), value: f64::from(day), class: "good" }).collect();
        let svg = chart("size of <x>", span, &[Series::Area(values)], |value| format!("{value} B"));
        assert!(svg.starts_with("<svg role=\"img\"") && svg.contains("<title>size of &lt;x&gt;</title>"), "{svg}");
        assert!(svg.contains("between 0 B and 10 B, at last 10 B."), "{svg}");
        assert!(svg.contains("cx=\"318.0\" cy=\"18.0\""), "the last value is at the top right: {svg}");
        let empty = chart("x", span, &[Series::Bars(vec![])], |value| value.to_string());
        assert!(empty.contains("No values yet.") && !empty.contains("NaN"), "{empty}");
    }
}
