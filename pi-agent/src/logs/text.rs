//! The audit in words, and what to paste.

use std::fmt::Write as _;

use super::containers::Limit;
use super::rotation::Rotation;
use super::{Audit, Log, Place};
use crate::report::{table, words};
use crate::shown;

/// More of one place is not read by anybody.
const SHOWN: usize = 30;

pub(super) fn text(audit: &Audit) -> String {
    let mut text = String::new();
    for place in &audit.places {
        place_text(place, &mut text);
    }
    if !audit.containers.is_empty() {
        let mut rows = vec![["container", "driver", "size", "a day", "limit"].map(String::from)];
        rows.extend(audit.containers.iter().map(|log| {
            let limit = match &log.limit {
                Limit::Driver(limit) => limit.clone(),
                Limit::Elsewhere => "where it goes".into(),
                Limit::None => "NONE".into(),
            };
            [log.container.clone(), log.driver.clone(), size(log.bytes), size(log.growth), limit]
        }));
        let _ = writeln!(text, "containers\n\n{}", indented(&table(&rows)));
    }
    for problem in &audit.problems {
        let _ = writeln!(text, "NOT LOOKED AT: {problem}");
    }
    let to_paste = to_paste(audit);
    if to_paste.is_empty() {
        text.push_str("nothing to set: every log of some size is rotated or limited\n");
    }
    for (place, lines) in to_paste {
        let _ = writeln!(text, "into {place}:\n\n{}", indented(&lines));
    }
    text
}

fn place_text(place: &Place, text: &mut String) {
    let growth = match place.step_growth {
        Some(bytes) if bytes < 0 => ", shrinking".to_owned(),
        Some(bytes) => format!(", the whole step growing by {} a day", words::size(bytes.unsigned_abs())),
        None => String::new(),
    };
    let _ = writeln!(text, "{} (step {}{growth})\n", shown(&place.path), place.step);
    let mut rows = vec![["log", "size", "with older", "a day", "rotated by", "written by"].map(String::from)];
    rows.extend(place.logs.iter().take(SHOWN).map(|log| row(place, log)));
    let _ = writeln!(text, "{}", indented(&table(&rows)));
    if let Some(more) = place.logs.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} smaller ones (--json shows all)\n");
    }
}

fn row(place: &Place, log: &Log) -> [String; 6] {
    let family = &log.family;
    let name = family.path.strip_prefix(&place.path).ok().filter(|rest| rest.components().count() > 0);
    let older = if family.older == 0 { "-".into() } else { words::size(family.all_bytes) };
    let rotation = match log.rotation {
        Rotation::Logrotate => "logrotate",
        Rotation::Itself => "its program",
        Rotation::Journald => "journald",
        Rotation::None if log.grows_for_ever() => "NOTHING",
        Rotation::None => "nothing",
    };
    let writers = log.writers.iter().cloned().collect::<Vec<_>>().join(", ");
    let name = shown(name.unwrap_or(&family.path)).to_string();
    let writers = if writers.is_empty() { "nobody now".into() } else { writers };
    [name, words::size(family.bytes), older, size(log.growth), rotation.into(), writers]
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), words::size)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("  {line}\n") }).collect()
}

/// Where to put what.
pub(super) fn to_paste(audit: &Audit) -> Vec<(String, String)> {
    let logs = audit.places.iter().flat_map(|place| &place.logs).filter(|log| log.grows_for_ever());
    let rules: String = logs
        .map(|log| {
            // Whoever writes keeps writing into the same file: only copytruncate works for every program.
            format!(
                "\"{}\" {{\n    daily\n    rotate 14\n    maxsize 50M\n    compress\n    delaycompress\n    missingok\n    \
                 notifempty\n    copytruncate\n}}\n",
                shown(&log.family.path)
            )
        })
        .collect();
    let unlimited: Vec<_> = audit.containers.iter().filter(|log| log.limit == Limit::None).collect();
    let services: String = unlimited
        .iter()
        .map(|log| {
            format!(
                "  {}:\n    logging:\n      driver: local\n      options: {{ max-size: \"10m\", max-file: \"3\" }}\n",
                log.container
            )
        })
        .collect();
    let mut to_paste = Vec::new();
    if !rules.is_empty() {
        to_paste.push(("/etc/logrotate.d/household".into(), rules));
    }
    if !services.is_empty() {
        to_paste.push(("compose.yaml (then docker compose up -d)".into(), format!("services:\n{services}")));
    }
    to_paste
}
