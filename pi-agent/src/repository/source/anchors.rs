//! The mounts that are read, held meanwhile: nobody unmounts one but lazily, and one that was mounted again in between is told from
//! the one before, which looks the same and was not there for a while.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The mounts that some places lie on.
#[derive(Debug)]
pub struct Anchors(Vec<(PathBuf, File)>);

impl Anchors {
    /// Holds them. What cannot be opened is not held: the walk names what it cannot read.
    pub fn hold<'a>(places: impl Iterator<Item = &'a Path>) -> Self {
        Self(places.filter_map(|place| Some((place.to_owned(), open(place).ok()?))).collect())
    }

    /// The places that lie on other mounts now.
    pub fn moved(&self) -> impl Iterator<Item = &Path> {
        let is_same = |place: &Path, held: &File| Some(mount_id(&open(place).ok()?).ok()? == mount_id(held).ok()?);
        // What is gone is missed as a source.
        let moved = self.0.iter().filter(move |(place, held)| is_same(place, held) == Some(false));
        moved.map(|(place, _)| place.as_path())
    }
}

/// Opens what is there, and nothing else: neither does a link lead on, nor is anything read.
pub(super) fn open(place: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(place);
    // Only who asks for a directory has an automount mounted.
    match open(flags | libc::O_DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => open(flags),
        opened => opened,
    }
}

/// The mount that it lies on. On one mount there is one file system, whatever the device numbers say.
pub(super) fn mount_id(opened: &File) -> io::Result<String> {
    let said = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd()))?;
    let id = said.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.map(|id| id.trim().to_owned()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}
