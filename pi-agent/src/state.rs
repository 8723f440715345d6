//! What is remembered: runs, steps, maintenance, facts. SQLite, versioned schema.
//!
//! It is a cache of history, not the truth about restore points (the repositories are): a backup never fails because
//! it is damaged, gone or cannot be written. The `agent` step keeps a copy in storage, from which it is rebuilt.
//!
//! Writes a night, for an SD card's sake: one transaction when the run starts and one when it ends, and two a step:
//! twelve for a household with four steps, each a few 4 KiB pages.

mod file;
mod past;
mod recent;
mod restore_tests;
mod runs;
mod stored;

use jiff::Timestamp;
use rusqlite::Connection;

pub use file::Opened;
pub use past::{Damaged, Night, StepRecord};
pub use recent::{Backup, RunEnd};
pub use restore_tests::PastTest;

/// The open database.
pub struct State {
    connection: Connection,
}

/// As times are stored: milliseconds since 1970.
fn moment(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    pub(super) fn opened(path: &Path) -> State {
        match State::open(path).unwrap() {
            Opened::Ready(state) | Opened::Fresh(state, _) => state,
        }
    }

    pub(super) fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }
}
