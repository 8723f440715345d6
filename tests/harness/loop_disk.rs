//! A disk of any file system, in a file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{mounts_of_our_own, sh};

/// An image mounted at a path until dropped. Needs root.
#[derive(Debug)]
pub struct LoopDisk {
    image: PathBuf,
    at: PathBuf,
}

impl LoopDisk {
    /// Makes an image of `size` bytes beside `at` with `mkfs` (a program and its arguments), and mounts it at `at`.
    pub fn make(at: impl Into<PathBuf>, size: u64, mkfs: &[&str], options: &str) -> Self {
        let at = at.into();
        let image = at.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(size)).expect("a hole costs nothing");
        sh(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image));
        Self::mount(image, at, options)
    }

    /// Mounts an image that was made before.
    pub fn mount(image: impl Into<PathBuf>, at: impl Into<PathBuf>, options: &str) -> Self {
        let (image, at) = (image.into(), at.into());
        std::fs::create_dir_all(&at).unwrap_or_else(|error| panic!("make {}: {error}", at.display()));
        mounts_of_our_own();
        sh(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(&image).arg(&at));
        Self { image, at }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// What the disk holds: all that is there when the power goes.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Unmounts it.
    pub fn unmount(self) {}
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Something may still be ending that has a file open there.
            let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        }
    }
}
