//! What to read, and how a configured path looks before it is.

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Directory, Location, Settings};
use crate::health::{FileSystem, MountTable};
use crate::repository::hold::Held;
use crate::storage::shaper::Reading;
use crate::{Error, Result, path_text, shown};

/// What to read.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Absolute; none is a symbolic link, and each exists: see [`Sources::look`].
    pub paths: Vec<PathBuf>,
    /// gitignore patterns; a leading `/` means the root of the file system.
    pub exclude: Vec<String>,
    /// Do not enter other file systems than those the paths lie on.
    pub one_file_system: bool,
    /// Never read, whatever the patterns say: our own repository and cache.
    pub never: Vec<PathBuf>,
    /// Mount points whose mounts are not seen here any more; they are kept, empty.
    pub put_aside: Vec<PathBuf>,
    /// When to stop.
    pub deadline: Option<Instant>,
    /// What stands for its paths instead of what lies there now.
    pub held: Option<Arc<Held>>,
    /// How fast.
    pub reading: Reading,
}

/// How a configured path looks before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Device number of the file system it lies on; it may be another after a reboot.
    pub device: u64,
    /// The file system it lies on, whatever the number of its device.
    pub file_system: FileSystem,
    /// A directory into which nobody has put anything, or a file of no bytes.
    pub empty: bool,
    /// Where it lies when every symbolic link on the way is followed.
    pub place: PathBuf,
}

/// Directories that are on a disk without anybody's doing.
const MADE_BY_ITSELF: [&str; 6] =
    ["lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trashes", ".Spotlight-V100", ".fseventsd"];

impl Look {
    /// The fact to remember: `FILE-SYSTEM:empty` or `FILE-SYSTEM:filled`.
    #[must_use]
    pub fn fact(&self) -> String {
        format!("{}:{}", self.file_system, if self.empty { "empty" } else { "filled" })
    }

    /// What is suspicious since `fact` was remembered, as the rest of a sentence: an unmounted disk must not become an
    /// empty snapshot. What was empty may change at will.
    #[must_use]
    pub fn change_since(&self, fact: &str) -> Option<&'static str> {
        let file_system = fact.strip_suffix(":filled")?;
        match self {
            Self { empty: true, .. } => Some("is empty, at the last backup it was not"),
            _ if !self.file_system.is_remembered_as(file_system) => {
                Some("lies on another disk than at the last backup")
            }
            _ => None,
        }
    }

    /// The same since the place was remembered: a link on the way to the path may lead elsewhere now.
    #[must_use]
    pub fn moved_since(&self, place: &str) -> Option<String> {
        let now = path_text::of(&self.place);
        (now != place).then(|| {
            format!(
                "leads to {} now, at the last backup it led to {}: a link on the way to it changed",
                shown(&now),
                shown(&place)
            )
        })
    }
}

impl Sources {
    /// What a step reads, without a deadline, as fast as it may.
    pub fn of(settings: &Settings, directory: &Directory) -> Self {
        let mut never = vec![settings.local.cache.clone(), settings.restore_test.directory.clone()];
        if let Location::File(root) = &settings.storage.location {
            never.push(root.clone());
        }
        Self {
            paths: directory.paths.clone(),
            exclude: directory.exclude.clone(),
            one_file_system: directory.one_file_system,
            never,
            put_aside: Vec::new(),
            deadline: None,
            held: None,
            reading: Reading::of(&settings.storage.limits),
        }
    }

    /// Looks at a configured path. A symbolic link is refused: following it would let a changed link silently replace
    /// what is backed up, and not following it would back up nothing.
    ///
    /// # Errors
    /// It does not exist, cannot be read, is a symbolic link, or is neither a directory nor a file.
    pub fn look(path: &Path) -> Result<Look> {
        let failed = |error| Error::new(format!("cannot read {}", path.display())).caused_by(error);
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        if metadata.is_symlink() {
            let target = fs::canonicalize(path).unwrap_or_else(|_| "a place that does not exist".into());
            return Err(Error::new(format!("{} is a symbolic link", path.display()))
                .hint(format!("name in `paths` what is to be backed up: it points to {}", shown(&target))));
        }
        let place = fs::canonicalize(path).map_err(failed)?;
        let empty = match metadata.file_type() {
            kind if kind.is_dir() => {
                no_directory_of_the_kernels(path, &place).map_err(failed)??;
                is_bare(path).map_err(failed)?
            }
            kind if kind.is_file() => metadata.len() == 0,
            kind => return Err(no_content(path, kind)),
        };
        let file_system = FileSystem::of(Path::new("/"), path).map_err(failed)?;
        Ok(Look { device: metadata.dev(), file_system, empty, place })
    }
}

/// Whether nobody has put anything into a directory: what a file system or a desktop makes by itself on an empty disk is nothing.
///
/// # Errors
/// It cannot be read.
pub(crate) fn is_bare(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !(MADE_BY_ITSELF.iter().any(|name| entry.file_name() == *name) && entry.file_type()?.is_dir()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the kernel makes up as it is read has no end, and could not be put back. A single file may be worth a copy.
fn no_directory_of_the_kernels(path: &Path, place: &Path) -> io::Result<Result<()>> {
    const MADE_UP: [&str; 7] = ["cgroup", "cgroup2", "debugfs", "proc", "securityfs", "sysfs", "tracefs"];
    let table = MountTable::read(Path::new("/"))?;
    let made_up = table.above(place).filter(|mount| MADE_UP.contains(&mount.kind.as_str()));
    Ok(made_up.map_or(Ok(()), |mount| {
        Err(Error::new(format!("{} lies on {}, which the kernel makes up as it is read", shown(path), mount.kind))
            .hint("remove it from `paths`: there is nothing to back up"))
    }))
}

/// A backup of it would succeed each night and hold nothing.
fn no_content(path: &Path, kind: FileType) -> Error {
    let (what, hint) = match kind {
        kind if kind.is_block_device() => (
            "a disk",
            "name in `paths` the directory where it is mounted: findmnt; a backup holds files, and no images of disks",
        ),
        kind if kind.is_char_device() => {
            ("a device", "name in `paths` the files or directories that are to be backed up")
        }
        kind if kind.is_fifo() => ("a pipe", "name in `paths` the file that what comes out of it is written to"),
        _ => ("a socket", "name in `paths` the directory where its server keeps its data"),
    };
    Error::new(format!("{} is {what}, which has no content to back up", shown(path))).hint(hint)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_nothing_but_what_it_came_with_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(is_bare(directory.path()).unwrap());
        fs::create_dir(at("lost+found")).unwrap();
        fs::create_dir(at("System Volume Information")).unwrap();
        assert!(Sources::look(directory.path()).unwrap().empty);
        fs::write(at("$RECYCLE.BIN"), "a file of somebody's").unwrap();
        assert!(!Sources::look(directory.path()).unwrap().empty);
    }

    #[test]
    fn what_has_no_content_is_no_source() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let kernels = [Path::new("/proc"), Path::new("/sys/kernel")];
        let kernels = kernels.map(|path| (path, "which the kernel makes up"));
        for (path, what) in
            [(pipe.as_path(), "a pipe"), (Path::new("/dev/null"), "a device")].into_iter().chain(kernels)
        {
            let error = Sources::look(path).unwrap_err();
            assert!(error.to_string().contains(what) && error.advice().is_some(), "{error}");
        }
    }
}
