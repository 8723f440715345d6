//! Renames that never write over anything, and their way back.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::super::beside;
use super::super::rename::{cannot, exists, rename_held};
use super::Whole;
use crate::shown;
use crate::theirs::{Held, make_private};

impl Whole {
    /// That is new.
    pub(super) fn has(&self, path: &Path) -> bool {
        inode(path).is_some_and(|inode| self.inodes.contains(&inode))
    }

    /// Idempotent: the same again is safe wherever the first was cut off.
    pub(super) fn put(&self, from: &Path, to: &Path, kept: &Path) -> io::Result<()> {
        if exists(from)? && !self.has(from) && !self.has(to) {
            // To take it for something old would keep away what was restored.
            return Err(io::Error::other(format!("{} is not what was restored: move it away", shown(from))));
        }
        if self.has(from) {
            match exists(to)? {
                true => exchange(from, to, kept)?,
                false => rename_held(from, to)?,
            }
        }
        for old in [from, to] {
            // An empty directory is nothing.
            if exists(old)? && !self.has(old) && remove_empty(old).is_err() {
                keep(old, kept)?;
            }
        }
        Ok(())
    }

    /// Reverses [`Self::put`], wherever that stopped: between its two renames the old has the name of the new.
    pub(super) fn take_back(&self, from: &Path, to: &Path, kept: &Path) -> io::Result<()> {
        if self.has(to) {
            match exists(from)? {
                true => swap(from, to)?,
                false => rename_held(to, from)?,
            }
        }
        if exists(kept)? { rename_held(kept, to) } else { Ok(()) }
    }
}

/// Gives each the name of the other in one moment; where the file system cannot, the old is kept first.
pub(super) fn exchange(new: &Path, old: &Path, kept: &Path) -> io::Result<()> {
    match swap(new, old) {
        Err(error) if cannot(&error) => {
            keep(old, kept)?;
            rename_held(new, old)
        }
        done => done,
    }
}

fn swap(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (Held::of(one)?, Held::of(other)?);
    Ok(renameat2(AT_FDCWD, &one.path(), AT_FDCWD, &other.path(), RenameFlags::RENAME_EXCHANGE)?)
}

/// Removes a directory in which there is nothing.
pub(super) fn remove_empty(directory: &Path) -> io::Result<()> {
    fs::remove_dir(Held::of(directory)?.path())
}

/// Moves it to that name, or to a longer one where that is taken.
pub(super) fn keep(old: &Path, kept: &Path) -> io::Result<PathBuf> {
    let mut kept = kept.to_owned();
    while exists(&kept)? {
        kept = beside(&kept, "-again");
    }
    if let Some(folder) = kept.parent().filter(|folder| !folder.exists()) {
        // The directory that was around it may have been private.
        make_private(folder)?;
    }
    rename_held(old, &kept)?;
    Ok(kept)
}

pub(super) fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::rename::rename;
    use super::super::tests::whole;
    use super::*;

    /// Names in a directory with what is in them: what was restored, and what was there.
    fn new_and_old(root: &Path) -> (Whole, [PathBuf; 3]) {
        let paths = ["new", "place", "kept"].map(|name| root.join(name));
        fs::write(&paths[0], "new").unwrap();
        fs::write(&paths[1], "old").unwrap();
        let inodes = vec![inode(&paths[0]).unwrap()];
        (Whole { restored: whole("now"), inodes }, paths)
    }

    #[test]
    fn the_way_back_loses_neither_wherever_the_exchange_stopped() {
        type Stop = fn(&Path, &Path, &Path);
        let stopped: [Stop; 4] = [
            |_, _, _| (),
            |from, to, _| swap(from, to).unwrap(),
            |from, to, kept| swap(from, to).and_then(|()| rename(from, kept)).unwrap(),
            // Where the file system cannot exchange two.
            |_, to, kept| rename(to, kept).unwrap(),
        ];
        for (number, stop) in stopped.into_iter().enumerate() {
            let root = tempfile::tempdir().unwrap();
            let (whole, [from, to, kept]) = new_and_old(root.path());
            stop(&from, &to, &kept);
            whole.take_back(&from, &to, &kept).unwrap();
            let text = |path: &Path| fs::read_to_string(path).unwrap();
            assert_eq!((text(&from), text(&to), kept.exists()), ("new".into(), "old".into(), false), "{number}");
        }
    }

    #[test]
    fn what_came_meanwhile_is_not_written_over() {
        let root = tempfile::tempdir().unwrap();
        let (whole, [from, to, kept]) = new_and_old(root.path());
        whole.put(&from, &to, &kept).unwrap();
        rename(&to, &root.path().join("away")).unwrap();
        fs::write(&to, "since").unwrap();
        let refused = whole.take_back(&from, &to, &kept).unwrap_err();
        assert!(refused.to_string().contains("is taken by something else"), "{refused}");
        assert_eq!((fs::read(&to).unwrap(), fs::read(&kept).unwrap()), (b"since".to_vec(), b"old".to_vec()));
    }
}
