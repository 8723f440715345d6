//! The storage place becomes this machine's.

use std::path::Path;

use crate::config::{Location, Settings, StateDirectory};
use crate::error::Result;
use crate::secrets::Secrets;
use crate::storage::disk::{self, Disk};
use crate::storage::place::{self, Machine};
use crate::storage::{Store, token};

/// Takes the place over, whoever's it was.
///
/// # Errors
/// The storage fails, or this machine has no id.
pub fn adopt(settings: &Settings, directory: &StateDirectory) -> Result<()> {
    let (system, location) = (Path::new("/"), &settings.storage.location);
    let store = Store::open(&settings.storage, location, &Secrets::new(&settings.secrets))?;
    let disk = match location {
        Location::File(path) => Disk::of(system, path),
        Location::S3(_) => None,
    };
    let machine = Machine::of(system, &settings.host)?;
    place::take_over(&store, &machine, disk.as_ref(), Some(token::next(directory, location)?))?;
    disk::remember(directory, location, disk.as_ref())
}
