//! Which point: a list of the newest, with what is new in each.

use crate::config::{Settings, Step};
use crate::error::Result;
use crate::report::{short, table, words};
use crate::restore::points::points;
use crate::restore::{At, Point, at};
use crate::setup::Dialogue;

/// As many as fit on a screen.
const SHOWN: usize = 15;

pub(super) fn ask(dialogue: &Dialogue, settings: &Settings, step: &Step) -> Result<At> {
    let mut found = points(settings, std::slice::from_ref(&step.name), None)?;
    if let (true, Some((_, error))) = (found.points.is_empty(), found.failures.pop()) {
        return Err(error);
    }
    let older = found.points.len().saturating_sub(SHOWN);
    let shown = &found.points[older..];
    if older > 0 {
        dialogue.say(&format!(
            "The newest {SHOWN}; pi-agent points {} lists all {}.",
            step.name,
            found.points.len()
        ))?;
    }
    dialogue.say(&text(shown))?;
    for window in &found.windows {
        let (from, to) = (words::time(window.from), words::time(window.to));
        dialogue.say(&format!("  or any moment from {from} to {to}"))?;
    }
    dialogue.ask("When: a number, a time (2026-11-20 21:30), an id, or latest", "latest", |answer| {
        match answer.parse::<usize>().ok().filter(|_| answer.len() < 4) {
            None => at::parse(answer).map_err(|error| format!("{error}; {}", error.advice().unwrap_or_default())),
            Some(number) => number
                .checked_sub(1)
                .and_then(|number| shown.get(number))
                .map(|point| At::Id(point.id.clone()))
                .ok_or_else(|| format!("wanted a number from 1 to {}", shown.len())),
        }
    })
}

fn text(shown: &[Point]) -> String {
    let mut rows = vec![["", "time", "kind", "size", "new in it", "id"].map(String::from)];
    rows.extend(shown.iter().enumerate().map(|(number, point)| {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), words::size);
        let (number, time) = ((number + 1).to_string(), words::time(point.time));
        [number, time, point.kind.clone(), size(point.bytes), size(point.new_bytes), short(&point.id).to_owned()]
    }));
    table(&rows)
}
