//! The directory that a restore writes into. Each name is looked up in its own directory, step by step from the root of the
//! target, and no symbolic link is followed: whoever may write below the target cannot lead the restore out of it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use rustic_core::repofile::{Node, NodeType};

use super::entries::is_one_name;
use crate::error::Context;
use crate::{Result, theirs};

/// Linux refuses longer paths (`PATH_MAX`, without the byte at the end).
const LONGEST_PATH: usize = 4095;

/// Open directories above the current one, at most. Deeper ones are looked up again when the walk comes back to them.
const OPEN: usize = 100;

/// The root of a restore.
#[derive(Debug)]
pub(super) struct Target {
    root: File,
    path: PathBuf,
}

impl Target {
    /// Opens the directory; makes it, for our user alone, if it is missing.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self> {
        // It holds whatever was secret on the source.
        let root = theirs::open_or_make(path).context(|| format!("open {}", path.display()))?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// The whole path of an entry, for messages.
    pub fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// An entry whose path a person could not use.
    pub fn is_too_long(&self, path: &Path) -> bool {
        self.path.as_os_str().len() + 1 + path.as_os_str().len() > LONGEST_PATH
    }

    /// A walk through it that begins at the root.
    pub fn walk(&self) -> Walk<'_> {
        Walk { root: self.root.as_fd(), chain: Chain::default() }
    }

    /// The root's file system.
    pub fn disk(&self) -> io::Result<u64> {
        Ok(self.root.metadata()?.dev())
    }

    /// The root itself.
    pub fn root(&self) -> &File {
        &self.root
    }
}

/// A walk through a directory whose own file is held elsewhere.
pub(super) struct Walk<'a> {
    root: BorrowedFd<'a>,
    chain: Chain,
}

/// The directories from a root down to where a walk is, each opened once.
#[derive(Default)]
pub(super) struct Chain(Vec<(OsString, Option<OwnedFd>)>);

impl Walk<'_> {
    /// The place of an entry, in its own directory.
    ///
    /// # Errors
    /// A directory above it is missing, or is none.
    pub fn place<'p>(&mut self, path: &'p Path) -> io::Result<Place<'_, 'p>> {
        self.chain.place(self.root, path)
    }
}

impl Chain {
    /// The place of an entry below that root, which is always the same.
    ///
    /// # Errors
    /// A directory above it is missing, or is none.
    pub fn place<'d, 'p>(&'d mut self, root: BorrowedFd<'d>, path: &'p Path) -> io::Result<Place<'d, 'p>> {
        // Whatever a path holds, it leads nowhere else.
        if !path.iter().all(is_one_name) {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.directory(root, path.parent().unwrap_or(Path::new("")))?;
        Ok(Place { directory, name })
    }

    fn directory<'d>(&'d mut self, root: BorrowedFd<'d>, path: &Path) -> io::Result<BorrowedFd<'d>> {
        let same = self.0.iter().zip(path.iter()).take_while(|((known, _), name)| known == name).count();
        let depth = path.iter().count();
        if same < depth {
            self.0.truncate(same);
            self.0.extend(path.iter().skip(same).map(|name| (name.to_owned(), None)));
        }
        let mut open = (0..depth).rev().find(|index| self.0[*index].1.is_some()).map_or(0, |index| index + 1);
        while open < depth {
            let above = self.opened(root, open);
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(above, self.0[open].0.as_os_str(), flags, Mode::empty()) {
                Ok(fd) => self.0[open].1 = Some(fd),
                Err(error) => {
                    self.0.truncate(open);
                    return Err(error.into());
                }
            }
            if open > OPEN {
                self.0[open - 1].1 = None;
            }
            open += 1;
        }
        Ok(self.opened(root, depth))
    }

    fn opened<'d>(&'d self, root: BorrowedFd<'d>, depth: usize) -> BorrowedFd<'d> {
        let above = depth.checked_sub(1).and_then(|index| self.0[index].1.as_ref());
        above.map_or(root, AsFd::as_fd)
    }
}

/// A name in an open directory.
#[derive(Clone, Copy)]
pub(super) struct Place<'d, 'p> {
    directory: BorrowedFd<'d>,
    name: &'p OsStr,
}

/// What tells one file from another on one machine.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(found: &Metadata) -> Identity {
    (found.dev(), found.ino())
}

impl<'d> Place<'d, '_> {
    /// What is there, itself and not what it links to; `None`: nothing is.
    pub fn found(&self) -> io::Result<Option<Metadata>> {
        match self.item() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            item => Ok(Some(item?.found)),
        }
    }

    /// Makes a directory that is our user's alone.
    pub fn make_directory(&self) -> io::Result<()> {
        Ok(mkdirat(self.directory, self.name, Mode::S_IRWXU)?)
    }

    /// Makes a file that is our user's alone, never in the place of another.
    pub fn create(&self) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(self.directory, self.name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }

    /// Opens the regular file that is there.
    pub fn open(&self, write: bool) -> io::Result<File> {
        let access = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: File = openat(self.directory, self.name, flags, Mode::empty())?.into();
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Opens the directory that is there, to ask for its file system.
    pub fn open_directory(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(self.directory, self.name, flags, Mode::empty())?)
    }

    /// Removes what is there, unless it is a directory.
    pub fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(self.directory, self.name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Makes a further name of a file that is there already.
    pub fn link(&self, first: &Place<'_, '_>) -> io::Result<()> {
        Ok(linkat(first.directory, first.name, self.directory, self.name, AtFlags::empty())?)
    }

    /// Makes a symbolic link, a device file, a pipe or a socket.
    pub fn make_special(&self, node: &Node) -> io::Result<()> {
        let make = |kind, device| Ok(mknodat(self.directory, self.name, kind, Mode::empty(), device)?);
        match &node.node_type {
            NodeType::Symlink { .. } => Ok(symlinkat(node.node_type.to_link(), self.directory, self.name)?),
            NodeType::Dev { device } => make(SFlag::S_IFBLK, *device),
            NodeType::Chardev { device } => make(SFlag::S_IFCHR, *device),
            NodeType::Fifo => make(SFlag::S_IFIFO, 0),
            NodeType::Socket => make(SFlag::S_IFSOCK, 0),
            NodeType::File | NodeType::Dir => Ok(()),
        }
    }

    /// Where the symbolic link that is there leads.
    pub fn read_link(&self) -> io::Result<PathBuf> {
        Ok(readlinkat(self.directory, self.name)?.into())
    }

    /// The directory itself, under a name of its own.
    pub fn of_directory(directory: BorrowedFd<'d>) -> Place<'d, 'static> {
        Place { directory, name: OsStr::new(".") }
    }

    /// The entry that is there, held open: whatever takes its name meanwhile is not touched.
    pub fn item(&self) -> io::Result<Item> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd: File = openat(self.directory, self.name, flags, Mode::empty())?.into();
        let found = fd.metadata()?;
        // A link's own attributes have no other way than by its name.
        let path = match found.is_symlink() {
            true => self.by_name(),
            false => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
        };
        Ok(Item { fd, path, found })
    }

    /// What is said of the entry that is there, which is not held.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.by_name().symlink_metadata()
    }

    fn by_name(&self) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(self.name)
    }
}

/// An entry held open.
pub(super) struct Item {
    /// Opened with `O_PATH`.
    pub fd: File,
    /// A path that leads to it; to a symbolic link itself, when used without following it.
    pub path: PathBuf,
    /// As it was when it was opened.
    pub found: Metadata,
}

impl Item {
    /// What `path` leads to, by whatever links.
    pub fn behind(path: &Path) -> io::Result<Self> {
        let fd = File::options().read(true).custom_flags(libc::O_PATH).open(path)?;
        Ok(Self { path: format!("/proc/self/fd/{}", fd.as_raw_fd()).into(), found: fd.metadata()?, fd })
    }

    /// Opens it for reading. Who holds a lease on it (a file server) is asked to give it back, and has until
    /// `/proc/sys/fs/lease-break-time`.
    pub fn open(&self) -> io::Result<File> {
        match self.found.is_file() {
            true => File::open(&self.path),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("target/inside")).unwrap();
        let target = Target::open(&root.path().join("target")).unwrap();
        for path in ["../outside", "inside/../../outside", "/etc/outside", "inside/..", ".."] {
            assert!(target.walk().place(Path::new(path)).is_err(), "{path}");
        }
        assert!(target.walk().place(Path::new("inside/new")).is_ok());
    }
}
