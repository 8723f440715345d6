//! Data and names that survive a power cut, and what some file systems lack for that.
//!
//! The one rule about notes: whatever says that something is whole is written, and whatever says that it is unfinished is removed,
//! only after the data are on the disk ([`make_durable`]). A file system may commit lengths and times long before contents.

use std::fs::File;
use std::io;
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => settle(&opened.context(|| format!("open {}", place.display()))?, place),
    }
}

/// The same for an open directory or file; `place` is its name in messages.
///
/// # Errors
/// The disk did not take all of it.
pub(crate) fn settle(opened: &impl AsFd, place: &Path) -> Result<()> {
    syncfs(opened).context(|| format!("bring what is in {} onto the disk", place.display()))
}

/// The same without a name.
///
/// # Errors
/// The disk did not take all of it.
pub(crate) fn syncfs(opened: &impl AsFd) -> io::Result<()> {
    nix::unistd::syncfs(opened)?;
    if fstatfs(opened).is_ok_and(|found| found.filesystem_type() == FUSE_SUPER_MAGIC) {
        // Its process has what was written, and wrote it to a device that it has not synced.
        nix::unistd::sync();
    }
    Ok(())
}

/// Makes the names in a directory durable. Some file systems (FUSE, shares of the network) know no such thing and keep their names in an
/// order of their own; what the files hold was synced before.
///
/// # Errors
/// The directory cannot be opened, or the disk fails.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// The file system does not know what it was asked for. That says nothing of what lies there.
pub fn is_lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::ENOTTY | libc::EOPNOTSUPP))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_file_system_does_not_know_is_lacking() {
        for (number, lacking) in [
            (libc::EINVAL, true),
            (libc::EOPNOTSUPP, true),
            (libc::ENOSYS, true),
            (libc::EIO, false),
            (libc::EROFS, false),
            (libc::ENOSPC, false),
        ] {
            assert_eq!(is_lacking(&io::Error::from_raw_os_error(number)), lacking, "{number}");
        }
        let directory = tempfile::tempdir().unwrap();
        sync_directory(directory.path()).unwrap();
        assert!(sync_directory(&directory.path().join("nothing")).is_err());
        // Of the kernel's own file systems, this one has no such thing.
        assert!(is_lacking(&File::open("/proc/self").unwrap().sync_all().unwrap_err()));
        sync_directory(Path::new("/proc/self")).unwrap();
    }
}
