//! Renaming of which nothing is ever written over.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::super::beside;
use super::Whole;

impl Whole {
    /// That is new.
    pub(super) fn has(&self, path: &Path) -> bool {
        inode(path).is_some_and(|inode| self.inodes.contains(&inode))
    }

    /// The same again is fine, wherever the first was cut off.
    pub(super) fn put(&self, from: &Path, to: &Path, kept: &Path) -> io::Result<()> {
        if exists(from) && !self.has(from) && !self.has(to) {
            // To take it for something old would keep away what was restored.
            return Err(io::Error::other(format!("{} is not what was restored: move it away", from.display())));
        }
        if self.has(from) {
            match exists(to) {
                true => exchange(from, to, kept)?,
                false => fs::rename(from, to)?,
            }
        }
        for old in [from, to] {
            // An empty directory is nothing.
            if exists(old) && !self.has(old) && fs::remove_dir(old).is_err() {
                keep(old, kept)?;
            }
        }
        Ok(())
    }
}

pub(super) fn exchange(new: &Path, old: &Path, kept: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE) {
        // A file system that cannot, such as a share in the network.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            keep(old, kept)?;
            fs::rename(new, old)
        }
        done => Ok(done?),
    }
}

/// Under that name, or a longer one: nothing is ever written over.
pub(super) fn keep(old: &Path, kept: &Path) -> io::Result<PathBuf> {
    let mut kept = kept.to_owned();
    while exists(&kept) {
        kept = beside(&kept, "-again");
    }
    if let Some(folder) = kept.parent().filter(|folder| !folder.exists()) {
        // The directory that was around it may have been private.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::rename(old, &kept)?;
    Ok(kept)
}

pub(super) fn exists(path: &Path) -> bool {
    inode(path).is_some()
}

pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}
