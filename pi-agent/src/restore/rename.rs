//! Renames that never write over anything.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::shown;
use crate::theirs::Held;

/// Fails where something has that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_as(from, to, to)
}

/// The same in directories that are held meanwhile.
pub(super) fn rename_held(from: &Path, to: &Path) -> io::Result<()> {
    rename_as(&Held::of(from)?.path(), &Held::of(to)?.path(), to)
}

/// `name` is what an error says.
fn rename_as(from: &Path, to: &Path, name: &Path) -> io::Result<()> {
    let taken = || io::Error::new(ErrorKind::AlreadyExists, format!("{} is taken by something else", shown(name)));
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE).map_err(io::Error::from) {
        Err(error) if cannot(&error) && !exists(to)? => fs::rename(from, to),
        Err(error) if cannot(&error) || error.kind() == ErrorKind::AlreadyExists => Err(taken()),
        done => done,
    }
}

/// The file system, such as a share in the network, knows only the plain rename.
pub(super) fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS))
}

/// Something has that name. A disk that fails to tell is not taken for an empty place.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        found => found.map(|_| true),
    }
}
