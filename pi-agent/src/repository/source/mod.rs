//! What is read: rustic's mapping of files to nodes behind our own walk, because rustic only logs what it leaves out.
//! Here every file that is left out is counted, with its reason.
//!
//! How a file left out stays harmless: it is not in the snapshot's tree at all, so that the next backup finds no parent
//! of that name and reads it whole. Truncated content is never stored for a file that was cut short by the deadline or by
//! a read error, and so never taken over. (What was uploaded of it stays in the index: the next try sends only the rest.)

mod entries;
mod named;
mod open;
mod sources;
mod tally;

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{Walk, WalkBuilder};
use rustic_core::RusticResult;

use crate::{Error, Result};
use entries::Entries;
use named::Named;
pub use sources::{Look, Sources};
pub(super) use tally::Shared;
pub use tally::Tally;

/// Reads [`Sources`].
pub(super) struct Source {
    sources: Sources,
    devices: HashSet<u64>,
    exclude: Gitignore,
    named: Named,
    shared: Arc<Shared>,
}

impl Source {
    /// Reads `sources.paths` in the order of their names; paths inside others are read once, wherever they lie.
    pub(super) fn new(mut sources: Sources) -> Result<Self> {
        let devices: HashSet<_> =
            sources.paths.iter().map(|path| Ok(Sources::look(path)?.device)).collect::<Result<_>>()?;
        let all = Named::sort(&mut sources.paths);
        let mut builder = GitignoreBuilder::new("/");
        for pattern in &sources.exclude {
            builder.add_line(None, pattern).map_err(|error| {
                Error::usage(format!("exclude pattern {pattern:?} is not understood")).caused_by(error)
            })?;
        }
        let exclude =
            builder.build().map_err(|error| Error::usage("exclude patterns are not understood").caused_by(error))?;
        let enters = |device| !sources.one_file_system || devices.contains(&device);
        let named = Named::new(all, &exclude, enters);
        // What was left out when they were held is left out of the backup.
        let shared = sources.held.as_ref().map_or_else(Arc::default, |held| held.shared());
        Ok(Self { sources, devices, exclude, named, shared })
    }

    /// It lies on one of the file systems that are read.
    pub(super) fn enters(&self, device: u64) -> bool {
        !self.sources.one_file_system || self.devices.contains(&device)
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.sources.paths
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(super) fn walk(&self, path: &Path) -> Walk {
        let held = self.sources.held.clone();
        let (exclude, never, named) = (self.exclude.clone(), self.sources.never.clone(), self.named.clone());
        let devices = self.sources.one_file_system.then(|| self.devices.clone());
        // Directories that another file system is mounted on: they are kept, empty, and nothing below them.
        let mounts = Mutex::new(HashSet::<PathBuf>::new());
        WalkBuilder::new(path)
            .standard_filters(false)
            .follow_links(false)
            .sort_by_file_name(Ord::cmp)
            .filter_entry(move |entry| {
                let path = entry.path();
                let mut mounts = mounts.lock().unwrap_or_else(PoisonError::into_inner);
                let is_held = |parent| held.as_ref().is_some_and(|held| held.holds(parent));
                if path.parent().is_some_and(is_held) || never.iter().any(|other| other == path) {
                    return false;
                }
                let directory = entry.file_type().is_some_and(|kind| kind.is_dir());
                if !named.leads_to(path) {
                    let kept_empty = |parent| mounts.contains(parent) || named.is_passage(parent);
                    if path.parent().is_some_and(kept_empty) || exclude.matched(path, directory).is_ignore() {
                        return false;
                    }
                }
                if directory && let Some(devices) = &devices {
                    // What cannot be looked at is found unreadable when it is its turn.
                    if fs::symlink_metadata(path).is_ok_and(|metadata| !devices.contains(&metadata.dev())) {
                        mounts.insert(path.into());
                    }
                }
                true
            })
            .build()
    }
}

impl pi_agent_engine::Source for Source {
    /// The sum of all sizes, for the time left; what cannot be read counts nothing here.
    fn size(&self) -> RusticResult<Option<u64>> {
        let sizes = self.sources.paths.iter().flat_map(|path| self.walk(path)).filter_map(|entry| {
            let metadata = entry.ok()?.metadata().ok()?;
            metadata.is_file().then_some(metadata.len())
        });
        let held = self.sources.held.as_ref().map_or(0, |held| held.bytes());
        let in_time = |_: &u64| self.sources.deadline.is_none_or(|deadline| Instant::now() < deadline);
        Ok(Some(held + sizes.take_while(in_time).sum::<u64>()))
    }

    fn entries(&self) -> pi_agent_engine::Entries {
        let walks = self.sources.paths.iter().map(|path| (path.clone(), self.walk(path))).collect();
        Box::new(Entries {
            walks,
            current: None,
            held: self.sources.held.clone(),
            inserting: None,
            missed: self.sources.held.iter().flat_map(|held| held.paths()).cloned().collect(),
            ancestors: VecDeque::new(),
            opened: HashSet::new(),
            deadline: self.sources.deadline,
            reading: self.sources.reading.clone(),
            shared: self.shared.clone(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pi_agent_engine::Source as _;
    use rustic_core::{ErrorKind, ReadSourceOpen as _, RusticError};

    use super::*;
    use crate::storage::shaper::Reading;

    fn source(root: &Path, deadline: Option<Instant>) -> Source {
        let paths = vec![root.to_owned()];
        Source::new(Sources {
            paths,
            exclude: Vec::new(),
            one_file_system: true,
            never: Vec::new(),
            deadline,
            held: None,
            reading: Reading::default(),
        })
        .unwrap()
    }

    /// Reads everything as rustic would; the contents by name.
    fn read(source: &Source, mut before: impl FnMut(&Path)) -> Vec<(String, Option<Vec<u8>>)> {
        let files = source.entries().map(Result::unwrap).filter(|entry| entry.node.is_file());
        files
            .map(|entry| {
                before(&entry.path);
                let mut content = Vec::new();
                let whole = entry.open.unwrap().open().and_then(|mut reader| {
                    reader.read_to_end(&mut content).map_err(|error| RusticError::from(ErrorKind::InputOutput, error))
                });
                let name = entry.path.file_name().unwrap().to_string_lossy().into_owned();
                (name, whole.is_ok().then_some(content))
            })
            .collect()
    }

    #[test]
    fn a_file_that_vanishes_is_only_counted() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let source = source(directory.path(), None);
        let found = read(&source, |path| {
            if path.ends_with("b") {
                fs::remove_file(path).unwrap();
            }
        });
        let b = found.iter().find(|(name, _)| name == "b").unwrap();
        assert_eq!((found.len(), &b.1), (3, &None));
        let tally = source.shared().tally();
        assert_eq!((tally.vanished, tally.unreadable_count, tally.handed_over, tally.failed), (1, 0, 3, 1));
        assert!(!tally.stopped && !tally.listing_incomplete);
    }

    #[test]
    fn a_file_that_becomes_a_pipe_does_not_hang_and_one_that_grows_is_cut_at_its_size() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["grows", "pipe"] {
            fs::write(directory.path().join(name), "1234").unwrap();
        }
        let source = source(directory.path(), None);
        let found = read(&source, |path| {
            fs::remove_file(path).unwrap();
            if path.ends_with("pipe") {
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
            } else {
                fs::write(path, "123456").unwrap();
            }
        });
        assert_eq!(found, [("grows".into(), Some(b"1234".to_vec())), ("pipe".into(), None)]);
        assert_eq!(source.shared().tally().vanished, 1);
    }

    #[test]
    fn a_path_inside_what_is_excluded_is_read_and_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        for name in ["cache/keep/x.tmp", "cache/keep/deep/y", "cache/other/z", "cache/file", "srv/a", "srv/b.tmp"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), name).unwrap();
        }
        let mut sources = source(&root, None).sources;
        sources.exclude = vec!["cache/".into(), "*.tmp".into(), "deep".into()];
        sources.paths.extend(["cache/keep", "cache/keep/deep/y", "srv/b.tmp"].map(|name| root.join(name)));
        let source = Source::new(sources).unwrap();
        let found: Vec<_> = source.entries().map(|entry| entry.unwrap().path).collect();
        let inside: Vec<_> = found.iter().filter_map(|path| path.strip_prefix(&root).ok()?.to_str()).collect();
        let wanted = ["", "cache", "cache/keep", "cache/keep/deep", "cache/keep/deep/y", "srv", "srv/a", "srv/b.tmp"];
        assert_eq!(inside, wanted);
    }

    #[test]
    fn the_root_of_all_has_no_entry_of_its_own() {
        let mut sources = source(Path::new("/"), None).sources;
        sources.exclude = vec!["/*".into(), "!/usr".into(), "/usr/*".into()];
        let source = Source::new(sources).unwrap();
        let found: Vec<_> = source.entries().map(|entry| entry.unwrap().path).collect();
        assert_eq!(found, [Path::new("/usr")]);
    }

    #[test]
    fn after_the_deadline_nothing_is_handed_over_and_an_open_file_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let deadline = Instant::now() + std::time::Duration::from_millis(300);
        let source = source(directory.path(), Some(deadline));
        let found = read(&source, |_| std::thread::sleep(std::time::Duration::from_millis(400)));
        assert_eq!(found, [("a".into(), None)]);
        let tally = source.shared().tally();
        assert!(tally.stopped);
        assert_eq!((tally.unreadable_count, tally.vanished, tally.failed), (0, 0, 1));
    }

    #[test]
    fn directories_above_come_first_and_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let paths = ["x/b", "x/a", "x/a/inside"].map(|name| root.join(name));
        paths.iter().for_each(|path| fs::create_dir_all(path).unwrap());
        let source = Source::new(Sources {
            paths: paths.to_vec(),
            exclude: Vec::new(),
            one_file_system: true,
            never: Vec::new(),
            deadline: None,
            held: None,
            reading: Reading::default(),
        });
        let found: Vec<_> = source.unwrap().entries().map(|entry| entry.unwrap().path).collect();
        let mut wanted: Vec<_> = root.ancestors().filter(|path| path.parent().is_some()).map(Path::to_owned).collect();
        wanted.reverse();
        wanted.extend(["x", "x/a", "x/a/inside", "x/b"].map(|name| root.join(name)));
        assert_eq!(found, wanted);
    }
}
