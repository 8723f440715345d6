//! Whether the repository's place is still this machine's. WAL that a clone pushes is in the way of the original's for ever: its next
//! segment has the same name and other contents.

use std::path::Path;

use jiff::Timestamp;

use crate::config::{Settings, StateDirectory, Step};
use crate::error::{Kind, Result};
use crate::retention::APART;
use crate::secrets::{CREDENTIALS, Secrets};
use crate::storage::place::{self, Machine};
use crate::storage::{Store, token};

/// What the caller knows of whose the place is.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// It is ours: the step that pushes has looked.
    Ours,
    /// Nothing yet; what storage says is compared with what is on record.
    Unknown(&'a Record),
}

/// The record of this machine's tokens: see [`token`].
#[derive(Clone, Debug)]
pub struct Record {
    directory: StateDirectory,
    /// It is a copy of the time when this process was started, for a user who may not read the record itself.
    is_copy: bool,
}

impl Record {
    /// The copy that systemd hands over, else the record in the state directory.
    pub fn at_hand(directory: &StateDirectory) -> Self {
        match std::env::var_os(CREDENTIALS) {
            Some(handed_over) => Self { directory: StateDirectory(handed_over.into()), is_copy: true },
            None => Self { directory: directory.clone(), is_copy: false },
        }
    }

    /// The token there may be one of ours that is younger than the copy.
    fn may_be_behind(&self, written: Option<Timestamp>) -> bool {
        let copied = self.directory.path().join(token::PLACE).metadata().and_then(|copy| copy.modified());
        let copied = copied.ok().and_then(|time| Timestamp::try_from(time).ok());
        // Not one of the future, which never grows old.
        let now = Timestamp::now();
        self.is_copy && written.zip(copied).is_some_and(|(written, copied)| written >= copied && written <= now + APART)
    }
}

impl Whose<'_> {
    /// Whether it may be written to. `false`: a later push has to find that out; only one by a copy of the record.
    ///
    /// # Errors
    /// Another machine writes there, or storage fails.
    pub(crate) fn allows(self, settings: &Settings, step: &Step) -> Result<bool> {
        let Self::Unknown(record) = self else { return Ok(true) };
        let location = &settings.storage.location;
        let secrets = Secrets::new(&settings.secrets).for_the_user_of(&step.name);
        let store = Store::open(&settings.storage, location, &secrets)?;
        let owner = match place::owner(&store) {
            Ok(Some(owner)) => owner,
            // Before the first backup there is no stanza either, and pgBackRest takes nothing.
            Ok(None) => return Ok(true),
            // One that an older version wrote in a folder is root's alone.
            Err(error) if error.kind() == Kind::Refused => return Ok(true),
            Err(error) => return Err(error),
        };
        let machine = Machine::of(Path::new("/"), &settings.host)?;
        // Read after storage has answered: a run has its token on record before it is there.
        let tokens = token::known(&record.directory, location);
        match owner.is(&machine, &tokens, &store.to_string()) {
            Err(_) if record.may_be_behind(owner.written) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }
}
