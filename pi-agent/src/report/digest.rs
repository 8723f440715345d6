//! A run, a night and a month as notices.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::Settings;
use crate::error::Result;
use crate::notify::{Kind, Notice, Tone};
use crate::report::{RunReport, Status, StepStatus, restores, table, words};
use crate::state::{State, StepRecord};
use crate::steps::Outcome;

/// For services that miss us when nothing comes.
pub fn run_started(settings: &Settings, run_id: &str, at: Timestamp) -> Notice {
    Notice {
        incident: format!("run-{run_id}"),
        key: format!("run-{run_id}.started"),
        kind: Kind::RunStarted,
        tone: Tone::Good,
        at,
        host: settings.host.clone(),
        title: "backup started".into(),
        text: String::new(),
        hint: None,
        facts: Vec::new(),
    }
}

/// The same services hear of every end; people who want it, too.
pub fn run_ended(settings: &Settings, report: &RunReport) -> Vec<Notice> {
    let duration = words::duration(words::between(report.started_at, report.finished_at));
    let lines: Vec<String> = report.steps.iter().map(|step| format!("{}: {}", step.name, step.in_words())).collect();
    let ended = Notice {
        key: format!("run-{}.ended", report.run_id),
        kind: Kind::RunEnded,
        tone: tone(report.outcome),
        at: report.finished_at,
        title: format!("backup {} in {duration}", report.outcome.as_str()),
        text: lines.join("\n"),
        ..run_started(settings, &report.run_id, report.finished_at)
    };
    let summary = settings.notify.daily_summary.then(|| Notice {
        key: format!("run-{}.summary", report.run_id),
        kind: Kind::Summary,
        ..ended.clone()
    });
    [ended].into_iter().chain(summary).collect()
}

/// "All healthy", or not, with the month's figures. One a day at most goes out.
///
/// # Errors
/// The history cannot be read.
pub fn heartbeat(settings: &Settings, status: &Status, state: Option<&State>, now: Timestamp) -> Result<Notice> {
    let mut rows = vec![["", "30 days", "stored", "grew by", "points", "last"].map(String::from)];
    for step in &status.steps {
        let before = match state {
            Some(state) => state.backups(&step.name, now.checked_sub(MONTH).unwrap_or(now))?.pop(),
            None => None,
        };
        rows.push(row(step, before.as_ref(), now));
    }
    let good = status.alarms.is_empty();
    let alarms = status.alarms.iter().map(|alarm| format!("! {}\n", alarm.text())).collect::<String>();
    let day = now.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string();
    Ok(Notice {
        incident: format!("heartbeat-{day}"),
        key: format!("heartbeat-{day}.month"),
        kind: Kind::Heartbeat,
        tone: if good { Tone::Good } else { Tone::Warning },
        at: now,
        host: settings.host.clone(),
        title: if good { "all healthy".into() } else { "needs attention".into() },
        text: format!("{alarms}{}", table(&rows)),
        hint: (!good).then(|| "pi-agent status, pi-agent doctor".into()),
        facts: restore_tests(status, now),
    })
}

/// How restores fare: of each step the last test with its trend, then how long everything takes.
fn restore_tests(status: &Status, now: Timestamp) -> Vec<(String, String)> {
    let of = |step: &StepStatus| Some(format!("{}: {}", step.name, step.test_in_words(now)?));
    let mut lines: Vec<_> = status.steps.iter().filter_map(of).collect();
    lines.extend(restores::everything_in_words(&status.steps));
    let text = if lines.is_empty() { "none yet: pi-agent restore-test".into() } else { lines.join("\n") };
    vec![("restore tests".into(), text)]
}

const MONTH: Duration = Duration::from_hours(31 * 24);

fn row(step: &StepStatus, before: Option<&StepRecord>, now: Timestamp) -> [String; 6] {
    let dash = || "-".to_owned();
    let then = before.and_then(|record| record.result.as_ref()?.figures.bytes_stored);
    let growth = step.figures.bytes_stored.zip(then).map(|(now, then)| match now.checked_sub(then) {
        Some(more) => words::size(more),
        None => format!("-{}", words::size(then - now)),
    });
    [
        step.name.clone(),
        step.success_rate_30d.map_or_else(dash, |rate| format!("{:.0} %", rate * 100.0)),
        step.figures.bytes_stored.map_or_else(dash, words::size),
        growth.unwrap_or_else(dash),
        step.figures.restore_points.map_or_else(dash, |points| points.to_string()),
        step.last_success.map_or_else(dash, |then| format!("{} ago", words::duration(words::between(then, now)))),
    ]
}

/// One of each kind, marked, to see that they arrive and how they look.
pub fn samples(settings: &Settings, at: Timestamp) -> Vec<Notice> {
    let incident = format!("test-{}", at.as_millisecond());
    let sample = |kind: Kind, word: &str, tone: Tone, title: &str, text: &str| Notice {
        incident: incident.clone(),
        key: format!("{incident}.{word}"),
        kind,
        tone,
        at,
        host: settings.host.clone(),
        title: format!("test: {title}"),
        text: format!("This is a test; nothing is wrong.\n{text}"),
        hint: None,
        facts: vec![("last good restore point".into(), "would stand here".into())],
    };
    use Tone::{Critical, Good, Warning};
    vec![
        sample(Kind::Raised, "raised", Warning, "a step is degraded", "So an incident begins."),
        sample(Kind::Worse, "worse", Critical, "a step failed", "So it gets worse."),
        sample(Kind::Reminder, "reminder", Critical, "a step failed", "So you are reminded, once a day."),
        sample(Kind::Cleared, "cleared", Good, "a step is well again", "So it ends."),
        sample(Kind::Heartbeat, "heartbeat", Good, "all healthy", "So the monthly figures begin."),
        sample(Kind::Summary, "summary", Good, "backup succeeded in 4 min", "So a daily summary begins."),
        sample(Kind::Test, "test", Good, "this is what a test says", ""),
    ]
}

fn tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Succeeded | Outcome::Skipped => Tone::Good,
        Outcome::Degraded | Outcome::Unfinished => Tone::Warning,
        Outcome::Failed | Outcome::Interrupted => Tone::Critical,
    }
}
