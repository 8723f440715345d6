//! The status as one page that needs nothing else: no script, no other file. For a phone as for a desk, by day and by night.

use jiff::{SignedDuration, Timestamp};

use crate::notify::Tone;
use crate::report::calendar::{calendar, kept_in_words};
use crate::report::charts::{Series, Span, Value, chart};
use crate::report::html::{Safe, outcome_class, put, tone_class};
use crate::report::screen::short_time;
use crate::report::{History, Status, StepStatus, timeline, words};
use crate::state::Night;
use crate::steps::Outcome;

/// Every line of it is on the page.
const STYLE: &str = include_str!("page.css");

/// Tables of figures have so many rows; charts and calendars show the rest.
const ROWS: usize = 30;
/// Points by name; a step that keeps everything has thousands.
const POINTS: usize = 60;

/// The page.
pub fn page(status: &Status, history: &History) -> String {
    let (tone, verdict) = status.verdict();
    let mut html = String::new();
    put!(
        html,
        r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/><meta name="referrer" content="no-referrer"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"/>
<title>{host}: {verdict}</title><link rel="icon" href="data:,"/><style>{STYLE}</style></head>
<body><header class="{class}"><h1>{host}</h1><p class="verdict">{mark} {verdict}</p>
<p class="muted">As of {time}{next}</p>"#,
        host = Safe(&status.host),
        verdict = Safe(&verdict),
        class = tone_class(tone),
        mark = match tone {
            Tone::Good => "✓",
            Tone::Warning => "!",
            Tone::Critical => "✗",
        },
        time = words::time(status.generated_at),
        next = Safe(&status.next_in_words().map_or_else(String::new, |next| format!("; {next}"))),
    );
    if let Some(count) = status.waiting_notices.filter(|count| *count > 0) {
        put!(html, r#"<p class="warn">Notices that wait to be sent: {count}</p>"#);
    }
    html.push_str("</header><main>");
    attention(&mut html, status);
    timeline::timeline(&mut html, status, &history.nights);
    html.push_str(r#"<div class="steps">"#);
    let span = span(status, &history.nights);
    for step in &status.steps {
        article(&mut html, status, step, history, span);
    }
    put!(
        html,
        "</div></main><footer>pi-agent {}. Times are local. A point goes on the day that is named here if there is a backup \
         every day; without backups nothing goes.</footer></body></html>\n",
        env!("CARGO_PKG_VERSION")
    );
    html
}

/// The alarms.
fn attention(html: &mut String, status: &Status) {
    if status.alarms.is_empty() {
        return;
    }
    html.push_str("<section><h2>To look at</h2><ul>");
    for alarm in &status.alarms {
        put!(
            html,
            r#"<li class="{}"><strong>{}</strong>: {} <small>since {}</small>"#,
            tone_class(alarm.tone),
            Safe(alarm.step.as_deref().unwrap_or(&status.host)),
            Safe(&alarm.message),
            words::time(alarm.since)
        );
        if let Some(hint) = &alarm.hint {
            put!(html, r#"<br/><small>{}</small>"#, Safe(hint));
        }
        html.push_str("</li>");
    }
    html.push_str("</ul></section>");
}

/// From the first night on record, but never less than a week.
fn span(status: &Status, nights: &[Night]) -> Span {
    let week = status.generated_at.checked_sub(SignedDuration::from_hours(24 * 7)).unwrap_or(Timestamp::MIN);
    Span { from: nights.first().map_or(week, |night| night.started_at.min(week)), to: status.generated_at }
}

fn article(html: &mut String, status: &Status, step: &StepStatus, history: &History, span: Span) {
    put!(
        html,
        r#"<article><h2>{} <small>{}</small> <span class="pill {}">{}</span></h2>"#,
        Safe(&step.name),
        step.kind,
        tone_class(status.tone_of(step)),
        step.word()
    );
    facts(html, step, status.generated_at);
    let nights: Vec<&Night> = history.nights.iter().filter(|night| night.step == step.name).collect();
    if !nights.is_empty() {
        charts(html, step, &nights, span);
    }
    put!(html, "<h3>restore points</h3>");
    match history.points.get(&step.name) {
        Some(points) => {
            html.push_str(&calendar(points, status.generated_at));
            let rows = points.iter().rev().take(POINTS);
            let rows = rows.map(|point| [words::time(point.time), point.id.clone(), kept_in_words(point)]);
            let more = points.len().saturating_sub(POINTS);
            let title = if more > 0 { format!("the newest {POINTS} points") } else { "the points by name".to_owned() };
            table(html, &title, ["made", "id", "kept"], rows);
        }
        None => put!(html, r#"<p class="muted">Not known before the next backup.</p>"#),
    }
    for others in step.others_in_words() {
        put!(html, r#"<p class="muted">Also {}.</p>"#, Safe(&others));
    }
    html.push_str("</article>");
}

fn facts(html: &mut String, step: &StepStatus, now: Timestamp) {
    let figures = &step.figures;
    let ago = |then: Timestamp| format!("{} ago", words::rough(words::between(then, now)));
    let facts = [
        ("last backup", step.last_success.map(|then| short_time(then, now))),
        ("age", step.last_success.map(ago)),
        ("took", step.duration.map(words::duration)),
        ("size", figures.bytes_processed.map(words::size)),
        ("stored", figures.bytes_stored.map(words::size)),
        ("deduplication", step.deduplication_ratio().map(|ratio| words::ratio(ratio) + " ×")),
        ("written here", figures.bytes_written_here.map(words::size)),
        ("restore points", figures.restore_points.map(|points| points.to_string())),
        ("success, 30 d", step.success_rate_30d.map(words::percent)),
        ("restore test", step.test_in_words(now).or_else(|| Some("none yet".into()))),
    ];
    html.push_str("<dl>");
    let wal = step.safe_in_words(now).map(|safe| ("safe until", Some(safe)));
    for (name, value) in facts.into_iter().chain(wal) {
        put!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", Safe(value.as_deref().unwrap_or("–")));
    }
    html.push_str("</dl>");
}

/// Size, duration and throughput over time, and the same as a table.
#[allow(clippy::cast_precision_loss)] // for drawing
fn charts(html: &mut String, step: &StepStatus, nights: &[&Night], span: Span) {
    let took = |night: &Night| Some(words::between(night.started_at, night.finished_at?));
    let usable = |night: &&&Night| night.outcome.is_some_and(Outcome::is_usable);
    let values = |of: &dyn Fn(&Night) -> Option<f64>| -> Vec<Value> {
        let value = |night: &&Night| {
            Some(Value { at: night.started_at, value: of(night)?, class: outcome_class(night.outcome) })
        };
        nights.iter().filter(usable).filter_map(value).collect()
    };
    let rate = |night: &Night| {
        let seconds = took(night)?.as_secs_f64();
        Some(night.processed? as f64 / seconds).filter(|_| seconds >= 0.001)
    };
    let bytes = |value: f64| words::size(value as u64);
    let name = &step.name;

    let sizes = [
        Series::Area(values(&|night| night.stored.map(|bytes| bytes as f64))),
        Series::Line(values(&|night| night.processed.map(|bytes| bytes as f64))),
    ];
    html.push_str(r#"<h3>size <small class="key">stored</small> <small class="key other">source</small></h3>"#);
    html.push_str(&chart(&format!("{name}: bytes stored, and bytes of the source"), span, &sizes, bytes));

    let ended = nights.iter().filter_map(|night| {
        Some(Value { at: night.started_at, value: took(night)?.as_secs_f64(), class: outcome_class(night.outcome) })
    });
    let words = |value: f64| words::duration(std::time::Duration::from_secs_f64(value));
    html.push_str("<h3>duration</h3>");
    html.push_str(&chart(&format!("{name}: duration of each backup"), span, &[Series::Bars(ended.collect())], words));

    html.push_str("<h3>throughput <small>source covered per second</small></h3>");
    let rates = [Series::Area(values(&rate))];
    html.push_str(&chart(&format!("{name}: source covered per second"), span, &rates, |value| bytes(value) + "/s"));

    let size = |bytes: Option<u64>| bytes.map_or_else(|| "–".into(), words::size);
    let rows = nights.iter().rev().take(ROWS).map(|night| {
        [
            words::time(night.started_at),
            night.outcome.map_or("running", Outcome::as_str).to_owned(),
            size(night.processed),
            size(night.added),
            size(night.stored),
            took(night).map_or_else(|| "–".into(), words::duration),
            rate(night).map_or_else(|| "–".into(), |rate| bytes(rate) + "/s"),
        ]
    });
    table(html, "the figures", ["started", "outcome", "size", "new", "stored", "took", "throughput"], rows);
}

/// A table that is opened on demand, and scrolls by itself where it is too wide.
pub(super) fn table<const N: usize>(
    html: &mut String,
    title: &str,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    put!(
        html,
        r#"<details><summary>{title}</summary><div class="scroll" tabindex="0"><table class="data"><thead><tr>"#
    );
    for name in header {
        put!(html, r#"<th scope="col">{name}</th>"#);
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            put!(html, "<td>{}</td>", Safe(&cell));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></details>");
}
