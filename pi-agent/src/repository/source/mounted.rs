//! What is mounted below the paths of a step, for those who tell of it before anything is read.

use std::fs;
use std::path::{Path, PathBuf};

use super::interior::{Inside, is_put_together};
use super::{Source, Sources};
use crate::Result;
use crate::health::answered;

/// At most so many entries of a directory are looked at to see whether patterns leave any of them.
const LOOKED_AT: usize = 10_000;

/// What is mounted below the paths of [`Sources`].
pub struct Mounted(Source);

impl Sources {
    /// Finds what is mounted below the paths. None of it is touched.
    ///
    /// # Errors
    /// A path cannot be looked at, or the table of mounts cannot be read.
    pub fn mounted(&self) -> Result<Mounted> {
        Source::new(self.clone()).map(Mounted)
    }
}

impl Mounted {
    /// What is read with the paths, without what is excluded.
    pub fn entered(&self) -> impl Iterator<Item = &Inside> {
        self.0.interior.entered.iter().filter(|inside| self.0.wants(&inside.at))
    }

    /// What is not read for no other reason than that it is mounted, without what is excluded.
    pub fn left_out(&self) -> impl Iterator<Item = &Inside> {
        self.0.left_out()
    }

    /// What is not read and holds up whoever opens it, as each walk does with a directory that it then does not enter: mounts of
    /// servers that are gone or of another user's program, and those that are made on demand. Also whether one of them does not answer.
    pub fn in_the_way(&self) -> (Vec<PathBuf>, bool) {
        let interior = &self.0.interior;
        let excluded = interior.entered.iter().filter(|inside| !self.0.wants(&inside.at));
        // Our own storage is not taken away from us.
        let is_ours = |inside: &Inside| self.0.sources.never.iter().any(|ours| ours.starts_with(&inside.at));
        let (mut places, mut silent) = (Vec::new(), false);
        for inside in interior.left_out.iter().chain(excluded).filter(|inside| !is_ours(inside)) {
            let at = inside.at.clone();
            let answer = answered(move || fs::symlink_metadata(at));
            silent |= answer.is_none();
            if inside.on_demand || !matches!(answer, Some(Ok(_))) {
                places.push(inside.at.clone());
            }
        }
        (places, silent)
    }

    /// Other file systems than those of the paths are left out.
    pub fn one_file_system(&self) -> bool {
        self.0.sources.one_file_system
    }

    /// Whether a directory would be read.
    pub fn reads(&self, directory: &Path) -> bool {
        self.0.enters(directory) && self.0.wants(directory)
    }

    /// Whether a directory below a path is one of which containers and snaps put their file systems together.
    pub fn is_put_together(&self, directory: &Path) -> bool {
        self.path_around(directory).is_some_and(|path| is_put_together(directory, path))
    }

    /// The nearest path around a directory.
    pub fn path_around(&self, directory: &Path) -> Option<&Path> {
        let around = self.0.all.iter().filter(|path| directory.starts_with(path));
        around.max_by_key(|path| path.as_os_str().len()).map(PathBuf::as_path)
    }

    /// The paths of which the patterns leave nothing.
    pub fn emptied(&self) -> Vec<&Path> {
        let paths = self.0.all.iter().filter(|path| self.is_emptied(path));
        paths.map(PathBuf::as_path).collect()
    }

    fn is_emptied(&self, path: &Path) -> bool {
        let Ok(entries) = fs::read_dir(path) else { return false };
        let mut any = false;
        for (count, entry) in entries.flatten().enumerate() {
            let (at, directory) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if count == LOOKED_AT || self.0.named.leads_to(&at) || !self.0.exclude.matched(&at, directory).is_ignore() {
                return false;
            }
            any = true;
        }
        any
    }
}
