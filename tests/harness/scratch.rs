//! A place to work in that is gone afterwards.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory that other users may enter: PostgreSQL and pgBackRest work in it as `postgres`.
/// With `PI_AGENT_KEEP_SCRATCH` set it stays and its path is printed.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let mut directory = TempDir::with_prefix("pi-agent-test-").expect("a temporary directory can be made");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("our own directory");
        if std::env::var_os("PI_AGENT_KEEP_SCRATCH").is_some() {
            directory.disable_cleanup(true);
            eprintln!("keeping {}", directory.path().display());
        }
        Self(directory)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A directory in it, made with its parents.
    pub fn directory(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        path
    }
}
