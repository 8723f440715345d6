//! `host.json` at the root of a place: which machine writes there. Two machines that prune one repository with no lock
//! between them would destroy it.

use std::path::Path;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Store;
use super::disk::Disk;
use crate::error::{Context, Kind};
use crate::{Error, Result};

const KEY: &str = "host.json";

/// What `host.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Version of this record: 1.
    pub schema: u32,
    /// `[host] name` of the machine that writes here.
    pub host: String,
    /// Its `/etc/machine-id`.
    pub machine_id: String,
    /// Since when.
    pub since: Timestamp,
    /// The disk that it is on, when that is not the system's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// This machine's id, below `root` (`/` but in tests).
///
/// # Errors
/// `/etc/machine-id` is missing or empty.
pub fn machine_id(root: &Path) -> Result<String> {
    let path = root.join("etc/machine-id");
    let hint = "run systemd-machine-id-setup";
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::new(format!("cannot read {}", path.display())).hint(hint).caused_by(error))?;
    let id = text.trim();
    if id.is_empty() || id == "uninitialized" {
        return Err(Error::new(format!("{} holds no id", path.display())).hint(hint));
    }
    Ok(id.into())
}

/// Who writes to the place at the root of `store`; `None`: nobody yet.
///
/// # Errors
/// It cannot be read, or is no such record.
pub fn owner(store: &Store) -> Result<Option<Owner>> {
    match store.get(KEY) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(format!("{store}/{KEY} is not readable"))
                .hint("look at it; pi-agent adopt writes it anew")
                .caused_by(error)
        }),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes sure that the place at the root of `store` is this machine's; an unclaimed one becomes it. `known`: backups were
/// made there before, so a place without an owner is not a new one but a disk that is not mounted. `disk`: where it is now.
///
/// # Errors
/// It belongs to another machine, it holds things but no owner, it was ours and is empty now, it is a copy on another
/// disk, or storage fails.
pub fn verify(store: &Store, host: &str, machine_id: &str, known: bool, disk: Option<&Disk>) -> Result<Owner> {
    match owner(store)? {
        Some(owner) if owner.machine_id == machine_id => {
            if let Some(marked) = &owner.disk {
                marked.expect(disk, &store.to_string())?;
            }
            Ok(owner)
        }
        Some(owner) => Err(Error::new(format!(
            "{store} belongs to the machine {} (id {}) since {}",
            owner.host, owner.machine_id, owner.since
        ))
        .hint(
            "each machine needs a place of its own in [storage] url; if this machine replaces that one: pi-agent adopt",
        )),
        None if known => {
            Err(Error::new(format!("{store} held this machine's backups, and now does not even say whose it is"))
                .hint("mount the disk it lies on; if the backups were given up on purpose: pi-agent adopt"))
        }
        None => {
            store.make_root()?;
            // A listing that fails ends here: it does not make the place ours.
            if store.list("")?.is_empty() {
                take_over(store, host, machine_id, disk)
            } else {
                Err(Error::new(format!("{store} is not empty, and says nothing of whose it is"))
                    .hint("if what lies there is this machine's: pi-agent adopt"))
            }
        }
    }
}

/// Makes the place this machine's, whoever's it was.
///
/// # Errors
/// Storage fails.
pub fn take_over(store: &Store, host: &str, machine_id: &str, disk: Option<&Disk>) -> Result<Owner> {
    let (host, machine_id, disk) = (host.into(), machine_id.into(), disk.cloned());
    write(store, Owner { schema: 1, host, machine_id, since: Timestamp::now(), disk })
}

/// Marks the disk that the place is on, unless it is marked already.
///
/// # Errors
/// Storage fails.
pub fn mark(store: &Store, owner: Owner, disk: Option<&Disk>) -> Result<()> {
    // A UUID that is not to be seen just now is not forgotten.
    let same = disk.is_none_or(|disk| owner.disk.as_ref().is_some_and(|marked| marked == disk || disk.uuid.is_none()));
    if same { Ok(()) } else { write(store, Owner { disk: disk.cloned(), ..owner }).map(drop) }
}

fn write(store: &Store, owner: Owner) -> Result<Owner> {
    let text = serde_json::to_vec_pretty(&owner).context(|| "cannot write down the owner".into())?;
    store.put(KEY, &[Bytes::from(text)])?;
    Ok(owner)
}
