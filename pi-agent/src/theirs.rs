//! Directories that belong to somebody else, such as a database's user.
//!
//! Whoever owns a directory can exchange each name in it at any moment. So root comes to one by a walk that follows no link but root's
//! own, gives away only what it holds open, and does what is to be done in there with the owner's rights ([`Theirs`]).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::geteuid;

use crate::durable::syncfs;
use crate::error::{Context, Error, Result};
use crate::process::{User, acting_as};
use crate::shown;

/// As many links as the kernel follows in one path.
const MOST_LINKS: usize = 40;
const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Makes a directory (and its parents, which everybody may pass through) of that owner and mode; an existing one keeps its owner and gets
/// the mode.
///
/// # Errors
/// It cannot be made, belongs to somebody else, or somebody else's link leads there.
pub fn make(path: &Path, user: &User, mode: u32) -> Result<()> {
    let doing = || format!("make the directory {}", shown(path));
    let (opened, is_new) = reach(path, true).context(doing)?;
    if is_new {
        give(&opened, user).context(doing)?;
    }
    let found = fstat(&opened).context(doing)?;
    if found.st_uid != user.uid {
        return Err(Error::new(format!("{} does not belong to {}", shown(path), user.name)).hint(format!(
            "chown -R {}: {}",
            user.name,
            path.display()
        )));
    }
    // What can only be read may have it already.
    if found.st_mode & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(inside(&opened, ""), Permissions::from_mode(mode)).context(doing)
}

/// Opens a directory, for use as a path only.
///
/// # Errors
/// It is none, or somebody else's link leads there.
pub fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(reach(path, false)?.0)
}

/// The same of a directory or a plain file.
///
/// # Errors
/// It is neither, or somebody else's link leads there.
pub fn open_path_of_any(path: &Path) -> io::Result<OwnedFd> {
    match reach(path, false) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let opened = open(&Held::of(path)?.path(), DIRECTORY, Mode::empty())?;
            let kind = SFlag::from_bits_truncate(fstat(&opened)?.st_mode & SFlag::S_IFMT.bits());
            if kind == SFlag::S_IFREG { Ok(opened) } else { Err(error) }
        }
        opened => Ok(opened?.0),
    }
}

/// Opens a directory; makes it, for nobody but root, if it is missing, and what is missing above it.
///
/// # Errors
/// It is none, cannot be made, or somebody else's link leads there.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    let (opened, _) = reach(path, true)?;
    File::options().read(true).custom_flags(libc::O_DIRECTORY).open(inside(&opened, "."))
}

/// A name in its directory, which is held open. Whoever may write to a directory above can put a link there at any moment, and it leads
/// nowhere.
pub struct Held {
    directory: OwnedFd,
    name: OsString,
}

impl Held {
    /// Holds the directory of a path. Nothing need have the name.
    ///
    /// # Errors
    /// There is no such directory, or somebody else's link leads there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        Ok(Self { directory: open_path(above)?, name: name.to_owned() })
    }

    /// Holds a directory itself.
    ///
    /// # Errors
    /// As of [`Held::of`].
    pub fn directory(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: open_path(path)?, name: ".".into() })
    }

    /// The path by which it is used, as long as this lives.
    pub fn path(&self) -> PathBuf {
        inside(&self.directory, &self.name)
    }
}

/// Makes the directories that are missing on the way to that one, and it, for nobody but us.
///
/// # Errors
/// One cannot be made, or somebody else's link leads there.
pub fn make_private(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|above| above.symlink_metadata().is_err()).collect();
    missing.into_iter().rev().try_for_each(|above| DirBuilder::new().mode(0o700).create(Held::of(above)?.path()))
}

/// Gives an empty directory to that user; one that holds something stays whose it is.
///
/// # Errors
/// Somebody else's link leads there, or it cannot be read.
pub fn give_if_empty(path: &Path, user: &User) -> Result<()> {
    let doing = || format!("give {} to {}", shown(path), user.name);
    let (opened, _) = reach(path, false).context(doing)?;
    let found = fstat(&opened).context(doing)?;
    if found.st_uid == user.uid || fs::read_dir(inside(&opened, "")).context(doing)?.next().is_some() {
        return Ok(());
    }
    give(&opened, user).context(doing)
}

fn give(opened: &OwnedFd, user: &User) -> io::Result<()> {
    // Who is not root is that user, or fails soon.
    if geteuid().is_root() { chown(inside(opened, ""), Some(user.uid), Some(user.gid)) } else { Ok(()) }
}

/// An open directory of a user's. Who acts as that user may not pass through what is above it, such as `/var/lib/docker`.
pub struct Theirs<'a> {
    directory: OwnedFd,
    user: &'a User,
}

impl<'a> Theirs<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// It is no directory of the user's, or somebody else's link leads there.
    pub fn open(path: &Path, user: &'a User) -> Result<Self> {
        let doing = || format!("open {}", shown(path));
        let (directory, _) = reach(path, false).context(doing)?;
        if fstat(&directory).context(doing)?.st_uid != user.uid {
            return Err(Error::new(format!("{}: it does not belong to {}", doing(), user.name)));
        }
        Ok(Self { directory, user })
    }

    /// A path in there, for whoever [acts](Self::act) as its owner.
    pub fn inside(&self, name: impl AsRef<Path>) -> PathBuf {
        inside(&self.directory, name)
    }

    /// Waits until everything written to its file system is on the disk. For whoever acts as its owner.
    ///
    /// # Errors
    /// The disk did not take it.
    pub fn sync(&self) -> io::Result<()> {
        syncfs(&File::options().read(true).custom_flags(libc::O_DIRECTORY).open(self.inside(""))?)
    }

    /// Does the work with the owner's rights.
    ///
    /// # Errors
    /// What the work returns, or the kernel does not allow it.
    pub fn act<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        acting_as(self.user, work)
    }
}

/// A file's content, if it is a plain one of at most that many bytes; whoever owns its directory may have put anything there.
///
/// # Errors
/// It is none, it is larger, or it cannot be read.
pub fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    plain(file, most)
}

/// The same of a file that we or root made. Whoever owns its directory can put another in its place, but none that is ours.
///
/// # Errors
/// As of [`read_plain`]; it belongs to somebody else, others may write to it, or it has other names.
pub fn read_ours(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let found = fstat(&file)?;
    if !is_ours(&found) || found.st_mode & 0o022 != 0 || found.st_nlink != 1 {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "somebody else may have written it"));
    }
    plain(file, most)
}

fn plain(file: File, most: u64) -> io::Result<Vec<u8>> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no plain file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn inside(directory: &OwnedFd, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

/// The directory at a path; with `make` missing ones are made, the last for nobody but root. True: the last was.
fn reach(path: &Path, make: bool) -> io::Result<(OwnedFd, bool)> {
    let path = std::path::absolute(path)?;
    let mut left: Vec<OsString> = parts(&path).collect();
    let mut here = open("/", DIRECTORY | OFlag::O_DIRECTORY, Mode::empty())?;
    let (mut links, mut is_new) = (0, false);
    while let Some(name) = left.pop() {
        is_new = false;
        let next = match openat(&here, &*name, DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT) if make => {
                is_new = make_in(&here, &name, left.is_empty())?;
                openat(&here, &*name, DIRECTORY, Mode::empty())?
            }
            opened => opened?,
        };
        let found = fstat(&next)?;
        match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR if is_new && !is_ours(&found) => return Err(ErrorKind::PermissionDenied.into()),
            SFlag::S_IFDIR => here = next,
            SFlag::S_IFLNK if !is_ours(&found) => {
                let name = shown(Path::new(&name)).to_string();
                return Err(io::Error::other(format!(
                    "{name} is a link of somebody else's; chown -h root makes it yours"
                )));
            }
            SFlag::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let led_to = PathBuf::from(readlinkat(&next, "")?);
                if led_to.is_absolute() {
                    here = open("/", DIRECTORY | OFlag::O_DIRECTORY, Mode::empty())?;
                }
                left.extend(parts(&led_to));
            }
            _ => return Err(ErrorKind::NotADirectory.into()),
        }
    }
    Ok((here, is_new))
}

/// True unless somebody else made it at the same time.
fn make_in(above: &impl AsFd, name: &OsString, is_last: bool) -> io::Result<bool> {
    match mkdirat(above, &**name, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => return Ok(false),
        made => made?,
    }
    if !is_last {
        // Others pass through it, whatever our umask.
        let made = openat(above, &**name, DIRECTORY | OFlag::O_DIRECTORY, Mode::empty())?;
        if is_ours(&fstat(&made)?) {
            fs::set_permissions(inside(&made, ""), Permissions::from_mode(0o755))?;
        }
    }
    Ok(true)
}

/// Nobody else can lead us by it.
fn is_ours(found: &FileStat) -> bool {
    found.st_uid == 0 || found.st_uid == geteuid().as_raw()
}

/// The names of a path, the last first.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{MetadataExt, lchown, symlink};

    use super::*;

    fn user() -> User {
        User { name: "4711".into(), uid: 4711, gid: 4712, groups: vec![4712] }
    }

    fn owner(path: &Path) -> (u32, u32, u32) {
        let found = path.symlink_metadata().unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    }

    #[test]
    fn it_is_made_with_what_is_above() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c");
        make(&path, &user(), 0o750).unwrap();
        assert_eq!((owner(&path), owner(&root.path().join("a"))), ((4711, 4712, 0o750), (0, 0, 0o755)));
        make(&path, &user(), 0o700).unwrap();
        assert_eq!(owner(&path), (4711, 4712, 0o700));
        let refused = make(&root.path().join("a"), &user(), 0o700).unwrap_err();
        assert!(refused.advice().unwrap().starts_with("chown -R 4711: "), "{refused}");
    }

    #[test]
    fn no_link_of_anothers_is_followed_and_roots_own_are() {
        let root = tempfile::tempdir().unwrap();
        let [goal, theirs] = ["goal", "theirs"].map(|name| root.path().join(name));
        fs::create_dir(&goal).unwrap();
        fs::create_dir(&theirs).unwrap();
        chown(&theirs, Some(4711), None).unwrap();
        for (link, to) in [("last", goal.clone()), ("above", root.path().to_owned())] {
            symlink(to, theirs.join(link)).unwrap();
            lchown(theirs.join(link), Some(4711), None).unwrap();
        }
        for path in [theirs.join("last"), theirs.join("above/goal"), theirs.join("above/new")] {
            assert!(
                give_if_empty(&path, &user()).is_err() && make(&path, &user(), 0o700).is_err(),
                "{}",
                path.display()
            );
        }
        assert_eq!(owner(&goal).0, 0);
        assert!(!root.path().join("new").exists());
        symlink("../theirs/../goal", theirs.join("roots")).unwrap();
        give_if_empty(&theirs.join("roots"), &user()).unwrap();
        assert_eq!(owner(&goal).0, 4711);
        fs::write(root.path().join("file"), "").unwrap();
        assert!(make(&root.path().join("file/x"), &user(), 0o700).is_err());
        symlink("loop", root.path().join("loop")).unwrap();
        assert!(give_if_empty(&root.path().join("loop"), &user()).is_err());
    }

    #[test]
    fn only_what_is_empty_is_given() {
        let root = tempfile::tempdir().unwrap();
        let full = root.path().join("full");
        fs::create_dir_all(full.join("x")).unwrap();
        give_if_empty(&full, &user()).unwrap();
        assert_eq!(owner(&full).0, 0);
        fs::remove_dir(full.join("x")).unwrap();
        give_if_empty(&full, &user()).unwrap();
        assert_eq!(owner(&full).0, 4711);
        assert!(Theirs::open(&full, &User { uid: 4999, ..user() }).is_err());
        let user = user();
        let theirs = Theirs::open(&full, &user).unwrap();
        theirs.act(|| fs::write(theirs.inside("file"), "").context(|| "write".into())).unwrap();
        assert_eq!(owner(&full.join("file")).0, 4711);
    }

    #[test]
    fn only_a_plain_and_small_file_is_read() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("note"), "1234").unwrap();
        symlink("note", path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(read_plain(&path("note"), 4).unwrap(), b"1234");
        assert!(read_plain(&path("note"), 3).is_err());
        for name in ["link", "pipe", "nothing"] {
            assert!(read_plain(&path(name), 100).is_err(), "{name}");
        }
        assert!(read_plain(root.path(), 100).is_err());
    }
}
