//! A disk of a few MiB, to run out of space on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{mounts_of_our_own, sh};

/// A tmpfs mounted at a path until dropped. Needs root.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `size` bytes at `path`, which is made.
    pub fn mount(path: impl Into<PathBuf>, size: u64) -> Self {
        let path = path.into();
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        mounts_of_our_own();
        sh(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]).arg(&path));
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the space there is, in a file `full`.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("full")).expect("there is an inode");
        let zeros = vec![0; 1 << 16];
        for length in [zeros.len(), 1] {
            while file.write_all(&zeros[..length]).is_ok() {}
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.path().join("full")).expect("fill was called before");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: something may still be ending that has a file open there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
