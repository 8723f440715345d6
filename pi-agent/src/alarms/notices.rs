//! From what happened to an incident to the message about it. Pure.

use jiff::Timestamp;

use super::evidence::Evidence;
use super::incidents::{Event, Incident};
use crate::notify::{Kind, Notice, Tone};
use crate::report::words;

/// The message.
pub fn notice(event: &Event, evidence: &Evidence, host: &str) -> Notice {
    let Event { incident, kind, well } = event;
    let subject = incident.subject.as_deref().unwrap_or(host);
    let over = *kind == Kind::Cleared;
    let lasted = words::duration(words::between(incident.since, evidence.now));
    let (title, text) = match kind {
        Kind::Cleared => (format!("{subject}: over: {}", incident.title), format!("{well}; it lasted {lasted}")),
        Kind::Reminder => (format!("{subject}: still: {}", incident.title), incident.text.clone()),
        _ => (format!("{subject}: {}", incident.title), incident.text.clone()),
    };
    let mut facts = vec![("since".to_owned(), format!("{} ({lasted})", words::time(incident.since)))];
    facts.extend(still_safe(incident, evidence).map(|safe| ("still safe".to_owned(), safe)));
    Notice {
        incident: incident.id.clone(),
        key: format!("{}.{}", incident.id, suffix(*kind, incident.worse)),
        kind: *kind,
        tone: if over { Tone::Good } else { incident.tone },
        at: evidence.now,
        host: host.to_owned(),
        title,
        text,
        hint: incident.hint.clone().filter(|_| !over),
        facts,
    }
}

/// A reminder that could not be delivered is replaced by the next, so all of an incident's have one key.
fn suffix(kind: Kind, worse: u32) -> String {
    match kind {
        Kind::Worse => format!("worse-{worse}"),
        Kind::Reminder => "reminder".into(),
        Kind::Cleared => "cleared".into(),
        _ => "raised".into(),
    }
}

/// The last good restore point of the step it is about; else the oldest of all steps' last ones.
fn still_safe(incident: &Incident, evidence: &Evidence) -> Option<String> {
    if evidence.unreadable.is_some() {
        return None;
    }
    let point = |name: &str, finished: Timestamp| {
        let age = words::duration(words::between(finished, evidence.now));
        format!("last good restore point of {name}: {}, {age} old", words::time(finished))
    };
    let nothing = |name: &str| format!("nothing yet: there is no good restore point of {name}");
    if let Some(step) = incident.subject.as_deref().and_then(|subject| evidence.step(subject)) {
        return Some(step.last_good.map_or_else(|| nothing(&step.name), |finished| point(&step.name, finished)));
    }
    // None sorts before every moment, as it should here.
    let worst = evidence.steps.iter().filter(|step| !step.own).min_by_key(|step| step.last_good)?;
    Some(match worst.last_good {
        None => nothing(&worst.name),
        Some(finished) => format!("every step; the oldest is the {}", point(&worst.name, finished)),
    })
}
