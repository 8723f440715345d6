//! Every point one can restore to, asked of the repositories themselves: the truth is in storage, not in our history.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::{Settings, Source, Step};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::report::{SCHEMA, short, table, words};
use crate::restore::{Point, Window, directory, dumps, postgres};
use crate::shown::{harmless, shown};
use crate::steps::points::kept;

/// What there is.
#[derive(Debug, Default)]
pub struct Points {
    /// Step by step, oldest first.
    pub points: Vec<Point>,
    /// For databases.
    pub windows: Vec<Window>,
    /// Steps that could not be asked.
    pub failures: Vec<(String, Error)>,
    /// What was asked for and is in no point.
    nowhere: Option<PathBuf>,
}

/// Asks the repositories of the steps named (none: of all). One that cannot be asked does not hide the others.
///
/// # Errors
/// An unknown step.
pub fn points(settings: &Settings, names: &[String], path: Option<&PathBuf>) -> Result<Points> {
    for name in names {
        settings.step(name)?;
    }
    let mut found = Points::default();
    for step in settings.steps.iter().filter(|step| names.is_empty() || names.contains(&step.name)) {
        if let Err(error) = ask(settings, step, path, &mut found) {
            found.failures.push((step.name.clone(), error));
        }
    }
    found.nowhere = path.filter(|_| found.points.is_empty() && found.failures.is_empty()).cloned();
    Ok(found)
}

fn ask(settings: &Settings, step: &Step, path: Option<&PathBuf>, found: &mut Points) -> Result<()> {
    match &step.source {
        Source::Postgres(source) if path.is_none() => {
            // One of the two that cannot be asked does not hide the other.
            let (backups, dumps) = (postgres::points(settings, step, source), dumps::points(settings, step));
            let mut points = Vec::new();
            if let Ok((dumps, damage)) = &dumps {
                points.extend(dumps.iter().cloned());
                found.tell(step, damage);
            }
            if let Ok((backups, window)) = &backups {
                points.extend(backups.iter().cloned());
                found.windows.extend(window.clone());
            }
            points.sort_by_key(|point| point.time);
            found.points.extend(points);
            backups?;
            dumps?;
        }
        Source::Postgres(_) => {}
        Source::Directory(_) | Source::Agent(_) => {
            let (points, damage) = directory::points(settings, step, path.map(PathBuf::as_path))?;
            found.points.extend(points);
            found.tell(step, &damage);
        }
    }
    Ok(())
}

impl Points {
    /// What of a step's repository is damaged.
    fn tell(&mut self, step: &Step, damage: &[Problem]) {
        let told = |problem: &Problem| (step.name.clone(), Error::new(&problem.message));
        self.failures.extend(damage.iter().map(told));
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "points": self.points.iter().map(|point| json!({
                "step": point.step,
                "id": point.id,
                "time": words::stamp(point.time),
                "kind": point.kind,
                "bytes": point.bytes,
                "new_bytes": point.new_bytes,
                "same_as_before": point.same,
                "postgresql": point.postgresql,
                "other_host": point.other_host,
            })).collect::<Vec<_>>(),
            "windows": self.windows.iter().map(|window| json!({
                "step": window.step,
                "from": words::stamp(window.from),
                "to": words::stamp(window.to),
                "timelines": window.timelines.iter().map(|one| json!({
                    "timeline": one.number,
                    "since": words::stamp(one.since),
                })).collect::<Vec<_>>(),
                "gaps": window.gaps.iter().map(|(from, to)| json!({
                    "from": words::stamp(*from),
                    "to": words::stamp(*to),
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "failures": self.failures.iter().map(|(step, error)| json!({
                "step": step,
                "message": error.chain(),
                "hint": error.advice(),
            })).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        if let Some(path) = &self.nowhere {
            let path = shown(path);
            return format!("no restore point holds {path}: paths are given whole, as they were on the source\n");
        }
        let mut rows = vec![["step", "time", "kind", "size", "id"].map(String::from)];
        let mut points = self.points.iter().peekable();
        while let Some(point) = points.next() {
            let mut again = 0;
            while points
                .next_if(|next| next.same && next.step == point.step && next.other_host == point.other_host)
                .is_some()
            {
                again += 1;
            }
            let size = point.bytes.map_or_else(|| "-".into(), words::size);
            let mut kind =
                point.postgresql.map_or_else(|| point.kind.clone(), |major| format!("{} of {major}", point.kind));
            if let Some(host) = &point.other_host {
                kind.push_str(&format!(" of {}", harmless(host)));
            }
            if again > 0 {
                kind.push_str(&format!(", the same in {again} later"));
            }
            rows.push([point.step.clone(), words::time(point.time), kind, size, short(&point.id).to_owned()]);
        }
        let mut text = table(&rows);
        let mut others: BTreeMap<_, u64> = BTreeMap::new();
        for point in &self.points {
            if let Some(host) = &point.other_host {
                *others.entry((&point.step, host)).or_default() += 1;
            }
        }
        for ((step, host), count) in others {
            text.push_str(&format!("{step}: {}\n", kept(count, host)));
        }
        for window in &self.windows {
            for one in &window.timelines {
                text.push_str(&format!(
                    "{}: timeline {} since {}; --timeline N takes a later moment from an earlier one\n",
                    window.step,
                    one.number,
                    words::time(one.since)
                ));
            }
            text.push_str(&format!(
                "{}: any moment from {} to {} (--at TIME)\n",
                window.step,
                words::time(window.from),
                words::time(window.to)
            ));
            for (from, to) in &window.gaps {
                let (from, to) = (words::time(*from), words::time(*to));
                text.push_str(&format!("{}: but none from {from} to {to}: WAL is lost there\n", window.step));
            }
        }
        text
    }
}
