//! The one rule about notes: whatever says that something is whole is written, and whatever says that it is unfinished is
//! removed, only after the data are on the disk. A file system may commit lengths and times long before contents.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Result};

/// Waits until everything written to the file system of `place` is on its disk. Nothing there needs nothing.
///
/// # Errors
/// The disk did not take all of it.
pub(crate) fn make_durable(place: &Path) -> Result<()> {
    match File::open(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        opened => settle(&opened.context(|| format!("open {}", place.display()))?, place),
    }
}

/// The same for an open directory or file; `place` is its name in messages.
///
/// # Errors
/// The disk did not take all of it.
pub(crate) fn settle(opened: &impl AsFd, place: &Path) -> Result<()> {
    let doing = || format!("bring what is in {} onto the disk", place.display());
    nix::unistd::syncfs(opened).context(doing)?;
    if fstatfs(opened).is_ok_and(|found| found.filesystem_type() == FUSE_SUPER_MAGIC) {
        // Its process has what was written, and wrote it to a device that it has not synced.
        nix::unistd::sync();
    }
    Ok(())
}
