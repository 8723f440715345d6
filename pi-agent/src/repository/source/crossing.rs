//! Directories with another device number than the one above them that stand in no table of mounts.

use std::path::Path;
use std::time::Duration;

use super::anchors::{mount_id, open};
use crate::process::Program;

/// What a directory with another device number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crossing {
    /// A btrfs subvolume that is mounted nowhere: the same file system goes on there.
    Subvolume,
    /// One that nobody can write to: how it was once, or was elsewhere.
    Snapshot,
    /// Another file system, mounted since the table was read.
    Mount,
}

impl Crossing {
    /// Finds out. What cannot be looked at counts as a mount, which is told.
    pub fn at(directory: &Path) -> Self {
        let id = |directory: &Path| mount_id(&open(directory).ok()?).ok();
        let same = |parent: &Path| Some(id(directory)? == id(parent)?);
        match directory.parent().and_then(same) {
            Some(true) if is_read_only(directory) => Self::Snapshot,
            Some(true) => Self::Subvolume,
            _ => Self::Mount,
        }
    }
}

/// The kernel tells it by an ioctl alone, and a mount that is read-only for our unit hides it. Where the program is missing, it is
/// read: too much is better than too little.
fn is_read_only(subvolume: &Path) -> bool {
    let arguments = ["property".as_ref(), "get".as_ref(), "-ts".as_ref(), subvolume.as_os_str(), "ro".as_ref()];
    let asked = Program::new("btrfs", arguments).within(Duration::from_secs(20)).run(&mut |_, _| {});
    asked.is_ok_and(|answer| answer.status.success() && answer.stdout.trim() == "ro=true")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_one_mount_are_told_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        assert_eq!(Crossing::at(&below), Crossing::Subvolume);
        assert_eq!(Crossing::at(Path::new("/proc")), Crossing::Mount);
        assert_eq!(Crossing::at(&directory.path().join("missing")), Crossing::Mount);
    }
}
