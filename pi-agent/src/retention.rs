//! Which restore points are kept: one pure function for snapshots and for pgBackRest backups.

use jiff::{Timestamp, tz::TimeZone};

use crate::config::Keep;

/// A restore point as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Snapshot id or backup label.
    pub id: String,
    /// When it was made (for PostgreSQL: when the backup stopped, from which on it can be restored).
    pub time: Timestamp,
    /// Stands alone (snapshots always; PostgreSQL: full backups).
    pub full: bool,
    /// Ids this point needs, direct or not.
    pub needs: Vec<String>,
}

/// The ids that `keep` no longer keeps.
pub fn victims(points: &[Point], keep: &Keep, now: Timestamp, zone: &TimeZone) -> Vec<String> {
    let _ = (points, keep, now, zone);
    todo!()
}
