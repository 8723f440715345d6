//! A hole in the WAL is closed by a new backup, and that is not left to the next night.

use jiff::Timestamp;
use log::warn;

use super::{Hole, spool_directory};
use crate::config::{Settings, StateDirectory};
use crate::error::Result;
use crate::state::State;
use crate::{lock, systemd};

/// Starts the backup when a hole was found since the last one began. One that is at work may have begun before; the next
/// look sees whether it closed the hole. Without systemd it is left to whoever reads the alarm.
///
/// # Errors
/// The history cannot be read, or systemd does not start the backup.
pub fn close_holes(settings: &Settings, directory: &StateDirectory) -> Result<()> {
    let holes: Vec<(&str, Hole)> = settings
        .steps
        .iter()
        .filter_map(|step| Some((&*step.name, Hole::read(&spool_directory(settings, step.postgres()?))?)))
        .collect();
    if holes.is_empty() || !systemd::is_manager() || lock::is_held(&directory.run_lock()) {
        return Ok(());
    }
    let state = State::open_read_only(&directory.database())?;
    for (step, hole) in holes {
        let newest = state.as_ref().map_or(Ok(Vec::new()), |state| state.newest_backups(step, 1))?;
        if is_due(&hole, newest.first().map(|backup| backup.started_at)) {
            warn!(STEP = step; "{step}: {hole}; starting a backup, which closes it");
            return systemd::start(systemd::BACKUP);
        }
    }
    Ok(())
}

/// Tried once: what does not succeed then is told as any failure, and made again at the next time.
fn is_due(hole: &Hole, newest: Option<Timestamp>) -> bool {
    newest.is_none_or(|began| began <= hole.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_starts_one_backup() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let hole = Hole { after: "a".into(), before: "b".into(), since: at(10), found: at(20), minimal: false };
        assert!(is_due(&hole, None));
        assert!(is_due(&hole, Some(at(15))), "it began before the hole was found");
        assert!(!is_due(&hole, Some(at(21))));
    }
}
