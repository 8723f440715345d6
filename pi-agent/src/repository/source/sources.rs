//! What to read, and how a configured path looks before it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Directory, Location, Settings};
use crate::health::FileSystem;
use crate::repository::hold::Held;
use crate::storage::shaper::Reading;
use crate::{Error, Result, shown};

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
    /// A directory with no entries or a file of no bytes.
    pub empty: bool,
}

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
    /// It does not exist, cannot be read, or is a symbolic link.
    pub fn look(path: &Path) -> Result<Look> {
        let failed = |error| Error::new(format!("cannot read {}", path.display())).caused_by(error);
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        if metadata.is_symlink() {
            let target = fs::canonicalize(path).unwrap_or_else(|_| "a place that does not exist".into());
            return Err(Error::new(format!("{} is a symbolic link", path.display()))
                .hint(format!("name in `paths` what is to be backed up: it points to {}", shown(&target))));
        }
        let empty =
            if metadata.is_dir() { fs::read_dir(path).map_err(failed)?.next().is_none() } else { metadata.len() == 0 };
        let file_system = FileSystem::of(Path::new("/"), path).map_err(failed)?;
        Ok(Look { device: metadata.dev(), file_system, empty })
    }
}
