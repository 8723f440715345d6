//! The fact `points`: which restore points there are after a backup, so that status knows them without asking storage.

use jiff::Timestamp;

use crate::report::short;
use crate::retention::{Family, Point};

/// Its key.
pub const POINTS: &str = "points";

/// Its value, compact: `[[seconds since 1970, "1a2b3c4d"], …]`.
pub fn told<'a>(points: impl Iterator<Item = (Timestamp, &'a str)>) -> String {
    let points: Vec<_> = points.map(|(time, id)| (time.as_second(), short(id))).collect();
    serde_json::to_string(&points).unwrap_or_default()
}

/// The points of its value; none when it is of another version.
pub fn understood(fact: &str, family: Family) -> Vec<Point> {
    let mut told: Vec<(i64, String)> = serde_json::from_str(fact).unwrap_or_default();
    told.sort();
    let mut points: Vec<Point> = Vec::new();
    for (time, id) in told {
        let Ok(time) = Timestamp::from_second(time) else { continue };
        let needs = match family {
            Family::Snapshots => Vec::new(),
            Family::Backups => needs(&id, &points),
        };
        points.push(Point { full: needs.is_empty(), id, time, needs });
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
        let fact = told(ids.iter().map(|id| (Timestamp::UNIX_EPOCH, id.as_str())));
        assert_eq!(fact, r#"[[0,"1a2b3c4d"],[0,"20261121-030000F"]]"#);
        let ids: Vec<_> = understood(&fact, Family::Snapshots).into_iter().map(|point| point.id).collect();
        assert_eq!(ids, ["1a2b3c4d", "20261121-030000F"]);
        assert!(understood("{}", Family::Snapshots).is_empty());
    }

    #[test]
    fn labels_tell_the_chain() {
        let labels = ["A-1F", "A-1F_B-2I", "A-1F_C-3D", "A-1F_D-4I", "E-5F", "E-5F_F-6I"];
        let fact = told(labels.iter().map(|label| (Timestamp::UNIX_EPOCH, *label)));
        let points = understood(&fact, Family::Backups);
        let needs: Vec<_> = points.iter().map(|point| point.needs.join(" ")).collect();
        assert_eq!(needs, ["", "A-1F", "A-1F", "A-1F A-1F_B-2I A-1F_C-3D", "", "E-5F"]);
        assert!(points[0].full && !points[1].full);
    }
}
