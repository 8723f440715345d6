//! Configured paths that lie inside others: the walk of the outer path reaches them even where it would leave out the
//! directories on the way (by an exclude pattern, or because another file system is mounted there).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::gitignore::Gitignore;

/// The configured paths inside others, and the directories that are entered for their sake alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    inner: Arc<HashSet<PathBuf>>,
    passages: Arc<HashSet<PathBuf>>,
}

impl Named {
    /// Sorts `paths` and leaves only those that are in no other; returns all of them.
    pub(super) fn sort(paths: &mut Vec<PathBuf>) -> Vec<PathBuf> {
        paths.sort();
        paths.dedup();
        let all = paths.clone();
        paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
        all
    }

    /// Finds the passages between the paths; nothing is read of directories that are `closed`.
    pub(super) fn new(paths: &[PathBuf], exclude: &Gitignore, closed: &HashSet<PathBuf>) -> Self {
        let (mut inner, mut passages) = (HashSet::new(), HashSet::new());
        for path in paths {
            // The nearest of the paths around it.
            let Some(outer) = path.ancestors().skip(1).find(|above| paths.iter().any(|other| other == above)) else {
                continue;
            };
            let mut between: Vec<_> = path.ancestors().skip(1).take_while(|above| *above != outer).collect();
            between.reverse();
            let mut left_out = false;
            for directory in between {
                left_out |= exclude.matched(directory, true).is_ignore() || closed.contains(directory);
                if left_out {
                    passages.insert(directory.to_owned());
                }
            }
            inner.insert(path.clone());
        }
        Self { inner: Arc::new(inner), passages: Arc::new(passages) }
    }

    /// Whether `path` is a configured path inside another, or a passage to one: no exclude pattern leaves it out.
    pub(super) fn leads_to(&self, path: &Path) -> bool {
        self.inner.contains(path) || self.is_passage(path)
    }

    /// Whether `path` is a directory of which only the way to a configured path is read.
    pub(super) fn is_passage(&self, path: &Path) -> bool {
        self.passages.contains(path)
    }
}
