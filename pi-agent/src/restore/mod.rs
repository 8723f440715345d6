//! Getting it back: what there is to restore to ([`points`]) and restoring it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One point one can restore to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The step.
    pub step: String,
    /// Snapshot id or pgBackRest label.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// `snapshot`, `unfinished`, `full`, `diff`, `incr`.
    pub kind: String,
    /// Bytes of the source it covers.
    pub bytes: Option<u64>,
}

/// A stretch of time to any moment of which a database can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The step.
    pub step: String,
    /// From.
    pub from: Timestamp,
    /// To: the newest moment known to be archived.
    pub to: Timestamp,
}

/// Which point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// The newest there is.
    Latest,
    /// Directories: the newest snapshot at or before; PostgreSQL: exactly that moment.
    Time(Timestamp),
    /// By id (a unique beginning is enough for snapshots) or label.
    Id(String),
}

/// What is to be restored where.
#[derive(Clone, Debug)]
pub struct Request {
    /// Target directory; made when it does not exist.
    pub to: PathBuf,
    /// Which point.
    pub at: At,
    /// Directories: only these paths, as they were on the source (absolute). Empty: everything.
    pub paths: Vec<PathBuf>,
    /// The target may hold something already.
    pub overwrite: bool,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The point used.
    pub restore_point: String,
    /// Its time (for PITR: the moment asked for).
    pub time: Timestamp,
    /// Bytes written, when known.
    pub bytes: Option<u64>,
    /// Files that could not be restored as they were.
    pub problems: Vec<crate::monitor::Problem>,
    /// What to do next, line by line, commands included.
    pub next: Vec<String>,
}
