//! A disk of any file system, in a file.

use std::fs::File;
use std::os::unix::fs::FileExt;
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

    /// Gives a btrfs disk a bad place where that content begins: a read of it fails from then on (EIO), as of a bad sector,
    /// for its checksum is another. Mount it with `max_inline=0`, or the content of a small file is no block of its own.
    #[must_use]
    pub fn with_bad_place(self, content: &[u8], options: &str) -> Self {
        const BLOCK: u64 = 4096;
        let (image, at) = (self.image.clone(), self.at.clone());
        self.unmount();
        let begins = &content[..content.len().min(64)];
        let disk = File::options().read(true).write(true).open(&image).expect("our own file");
        let blocks = (0..disk.metadata().expect("it is open").len()).step_by(BLOCK as usize);
        let mut found = vec![0; begins.len()];
        let mut is_there = |place: &u64| disk.read_exact_at(&mut found, *place).is_ok() && found == begins;
        let place = blocks.into_iter().find(|place| is_there(place)).expect("the content is on the disk");
        disk.write_all_at(&[!begins[0]], place).expect("our own file");
        Self::mount(image, at, options)
    }
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
