//! Which locks are of this machine. A clone of its card has its id, too; what it does not have is the record of what was written since.

use std::sync::OnceLock;

use crate::config::StateDirectory;
use crate::storage::token;

static DIRECTORY: OnceLock<StateDirectory> = OnceLock::new();
/// Of this process; `None`: it cannot be put on record.
static OWN: OnceLock<Option<String>> = OnceLock::new();

/// Has this process put its locks on record in that directory, and know by it those of earlier ones. Without a record, only its age tells of
/// a lock from before the last start of the machine that nobody holds it.
pub fn record_locks(directory: &StateDirectory) {
    let _ = DIRECTORY.set(directory.clone());
}

/// The tokens of this machine's locks.
pub(super) fn known() -> Vec<String> {
    DIRECTORY.get().map(token::known_of_locks).unwrap_or_default()
}

/// The token of this process's locks: on record before any of them is in storage.
pub(super) fn own() -> Option<String> {
    // A machine that only gets something back need not have that directory.
    let new = || token::next_of_locks(DIRECTORY.get().filter(|directory| directory.path().is_dir())?).ok();
    OWN.get_or_init(new).clone()
}
