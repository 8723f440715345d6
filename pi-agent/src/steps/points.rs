//! Whose restore points are whose, and the fact `points`: which of ours there are after a backup, so that status knows them without asking
//! storage.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::report::short;
use crate::repository::Snapshot;
use crate::retention::{Family, Point};
use crate::shown::harmless;

/// The snapshots that this host made, by the label of a step or of its dumps: what is forgotten, counted and missed. Another tool's are its
/// own affair, and another host's stay until a person removes them.
pub fn ours<'a>(snapshots: &'a [Snapshot], label: &'a str, host: &'a str) -> impl Iterator<Item = &'a Snapshot> {
    snapshots.iter().filter(move |snapshot| snapshot.label == label && snapshot.host == host)
}

/// The other host that made a snapshot under that label.
pub fn other_host<'a>(snapshot: &'a Snapshot, label: &str, host: &str) -> Option<&'a str> {
    (snapshot.label == label && snapshot.host != host).then_some(&snapshot.host)
}

/// How many points there are of each other host.
pub fn of_others(snapshots: &[Snapshot], label: &str, host: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for snapshot in snapshots.iter().filter(|snapshot| !snapshot.unfinished) {
        if let Some(other) = other_host(snapshot, label, host) {
            *counts.entry(other.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// What is said of another host's points.
pub fn kept(count: u64, host: &str) -> String {
    let points = if count == 1 { "1 point".into() } else { format!("{count} points") };
    format!("{points} of {}, kept until you remove them", harmless(host))
}

/// The key of the fact.
pub const POINTS: &str = "points";

/// Behind the id of one that lacks files.
const LACKS: char = '-';

/// Its value, compact: `[[seconds since 1970, "1a2b3c4d"], …]`. Each is told as its time, its id, and whether it lacks files.
pub fn told<'a>(points: impl Iterator<Item = (Timestamp, &'a str, bool)>) -> String {
    let id = |id, lacks: bool| format!("{}{}", short(id), if lacks { LACKS.to_string() } else { String::new() });
    let points: Vec<_> = points.map(|(time, name, lacks)| (time.as_second(), id(name, lacks))).collect();
    serde_json::to_string(&points).unwrap_or_default()
}

/// The points of its value; none when it is of another version.
pub fn understood(fact: &str, family: Family) -> Vec<Point> {
    let mut told: Vec<(i64, String)> = serde_json::from_str(fact).unwrap_or_default();
    told.sort();
    let mut points: Vec<Point> = Vec::new();
    for (time, id) in told {
        let Ok(time) = Timestamp::from_second(time) else { continue };
        let (id, lacks) = match id.strip_suffix(LACKS) {
            Some(id) => (id.to_owned(), true),
            None => (id, false),
        };
        let needs = match family {
            Family::Snapshots => Vec::new(),
            Family::Backups => needs(&id, &points),
        };
        points.push(Point { full: needs.is_empty(), id, time, needs, lacks });
    }
    points
}

/// pgBackRest's labels tell the chain: `20261121-030000F` is full, `20261121-030000F_20261122-030000I` builds upon all
/// since that, and one that ends with D upon the full alone.
fn needs(id: &str, earlier: &[Point]) -> Vec<String> {
    let Some((full, _)) = id.split_once('_') else { return Vec::new() };
    let chain = earlier.iter().filter(|point| match point.id.strip_prefix(full) {
        Some("") => true,
        Some(rest) => rest.starts_with('_') && id.ends_with('I'),
        None => false,
    });
    chain.map(|point| point.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        let ids = ["1a2b3c4d".repeat(8), "20261121-030000F".into()];
        let fact = told(ids.iter().map(|id| (Timestamp::UNIX_EPOCH, id.as_str(), id.ends_with('d'))));
        assert_eq!(fact, r#"[[0,"1a2b3c4d-"],[0,"20261121-030000F"]]"#);
        let ids: Vec<_> =
            understood(&fact, Family::Snapshots).into_iter().map(|point| (point.id, point.lacks)).collect();
        assert_eq!(ids, [("1a2b3c4d".into(), true), ("20261121-030000F".into(), false)]);
        assert!(understood("{}", Family::Snapshots).is_empty());
    }

    #[test]
    fn labels_tell_the_chain() {
        let labels = ["A-1F", "A-1F_B-2I", "A-1F_C-3D", "A-1F_D-4I", "E-5F", "E-5F_F-6I"];
        let fact = told(labels.iter().map(|label| (Timestamp::UNIX_EPOCH, *label, false)));
        let points = understood(&fact, Family::Backups);
        let needs: Vec<_> = points.iter().map(|point| point.needs.join(" ")).collect();
        assert_eq!(needs, ["", "A-1F", "A-1F", "A-1F A-1F_B-2I A-1F_C-3D", "", "E-5F"]);
        assert!(points[0].full && !points[1].full);
    }

    #[test]
    fn no_fact_panics() {
        crate::fuzzed::fuzz_text(&[r#"[[0,"1a2b3c4d-"],[17,"20261121-030000F_20261122-030000I"]]"#], |fact| {
            drop(understood(fact, Family::Backups));
        });
    }
}
