//! What is read: rustic's mapping of files to nodes behind our own walk, because rustic only logs what it leaves out.
//! Here every file that is left out is counted, with its reason.
//!
//! How a file left out stays harmless: it is not in the snapshot's tree at all, so that the next backup finds no parent
//! of that name and reads it whole. Truncated content is never stored for a file that was cut short by the deadline or by
//! a read error, and so never taken over. (What was uploaded of it stays in the index: the next try sends only the rest.)

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::error::Error as StdError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Take};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, Walk, WalkBuilder};
use nix::sys::statvfs::statvfs;
use pi_agent_engine::{Entry, Open};
use rustic_core::repofile::Node;
use rustic_core::{ErrorKind, LocalSourceSaveOptions, RusticError, RusticResult};

use super::hold::Held;
use crate::storage::shaper::Reading;
use crate::{Error, Result};

/// At most so many unreadable files are named; all are counted.
const NAMED: usize = 50;

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
    /// The file system's own id where it has one (ext4 and btrfs derive it from their UUID), so that a disk that changed
    /// its device number is still known.
    pub file_system: String,
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
            _ if self.file_system != file_system => Some("lies on another disk than at the last backup"),
            _ => None,
        }
    }
}

impl Sources {
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
                .hint(format!("name in `paths` what is to be backed up: it points to {}", target.display())));
        }
        let empty =
            if metadata.is_dir() { fs::read_dir(path).map_err(failed)?.next().is_none() } else { metadata.len() == 0 };
        let id = statvfs(path).map_err(|error| failed(error.into()))?.filesystem_id();
        let file_system = if id == 0 { format!("device-{}", metadata.dev()) } else { format!("{id:x}") };
        Ok(Look { device: metadata.dev(), file_system, empty })
    }
}

/// What was left out, and why.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The first unreadable files with their errors.
    pub unreadable: Vec<(PathBuf, String)>,
    /// How many could not be read.
    pub unreadable_count: u64,
    /// How many were gone when they were to be read.
    pub vanished: u64,
    /// A directory could not be listed: nobody knows what is missing.
    pub listing_incomplete: bool,
    /// The deadline stopped the reading.
    pub stopped: bool,
    /// Files handed to rustic.
    pub(super) handed_over: u64,
    /// Of those, how many then failed.
    pub(super) failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Tally>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tally(&self) -> Tally {
        self.lock().clone()
    }

    /// A file (or directory) that could not be read. One that is gone is only counted, but for a configured path.
    pub(super) fn left_out(&self, path: &Path, error: &io::Error, configured: bool) {
        let mut tally = self.lock();
        let gone = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle
        );
        if gone && !configured {
            tally.vanished += 1;
            return;
        }
        tally.unreadable_count += 1;
        if tally.unreadable.len() < NAMED {
            tally.unreadable.push((path.into(), error.to_string()));
        }
    }

    /// What rustic could not describe.
    pub(super) fn unmapped(&self, path: &Path, error: &(dyn StdError + 'static), configured: bool) {
        let error = io_cause(error).unwrap_or_else(|| io::Error::other(error.to_string()));
        self.left_out(path, &error, configured);
    }

    /// The walk could not read a directory, or one of its entries.
    pub(super) fn unlisted(&self, error: &ignore::Error) {
        let path = path_of(error).unwrap_or(Path::new("(unknown path)"));
        let io = error.io_error().map_or_else(|| io::Error::other(error.to_string()), copy);
        if io.kind() != io::ErrorKind::NotFound {
            self.lock().listing_incomplete = true;
        }
        self.left_out(path, &io, error.depth() == Some(0));
    }
}

/// Reads [`Sources`].
pub(super) struct Source {
    sources: Sources,
    devices: HashSet<u64>,
    exclude: Gitignore,
    shared: Arc<Shared>,
}

impl Source {
    /// `sources.paths` are read in order of their names, those inside others once.
    pub(super) fn new(mut sources: Sources) -> Result<Self> {
        let devices = sources.paths.iter().map(|path| Ok(Sources::look(path)?.device)).collect::<Result<_>>()?;
        sources.paths.sort();
        let all = sources.paths.clone();
        sources.paths.retain(|path| !all.iter().any(|other| other != path && path.starts_with(other)));
        sources.paths.dedup();
        let mut builder = GitignoreBuilder::new("/");
        for pattern in &sources.exclude {
            builder.add_line(None, pattern).map_err(|error| {
                Error::usage(format!("exclude pattern {pattern:?} is not understood")).caused_by(error)
            })?;
        }
        let exclude =
            builder.build().map_err(|error| Error::usage("exclude patterns are not understood").caused_by(error))?;
        // What was left out when they were held is left out of the backup.
        let shared = sources.held.as_ref().map_or_else(Arc::default, |held| held.shared());
        Ok(Self { sources, devices, exclude, shared })
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
        let (exclude, never) = (self.exclude.clone(), self.sources.never.clone());
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
                let kept_empty =
                    |parent| mounts.contains(parent) || held.as_ref().is_some_and(|held| held.holds(parent));
                if path.parent().is_some_and(kept_empty) || never.iter().any(|other| other == path) {
                    return false;
                }
                let directory = entry.file_type().is_some_and(|kind| kind.is_dir());
                if exclude.matched(path, directory).is_ignore() {
                    return false;
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

/// Directories above the configured paths with their own owners and modes, then each path and what lies in it.
struct Entries {
    walks: VecDeque<(PathBuf, Walk)>,
    current: Option<Walk>,
    held: Option<Arc<Held>>,
    /// Which of the held paths it is in, and where.
    inserting: Option<(PathBuf, usize)>,
    /// Held paths it did not come by.
    missed: BTreeSet<PathBuf>,
    ancestors: VecDeque<PathBuf>,
    opened: HashSet<PathBuf>,
    deadline: Option<Instant>,
    reading: Reading,
    shared: Arc<Shared>,
}

impl Iterator for Entries {
    type Item = RusticResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.step()?;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.shared.lock().stopped = true;
                return None;
            }
            if let Some(entry) = found {
                return Some(Ok(entry));
            }
        }
    }
}

impl Entries {
    /// The next entry; `Some(None)` when something was left out; `None` at the end.
    fn step(&mut self) -> Option<Option<Entry>> {
        loop {
            if let Some(ancestor) = self.ancestors.pop_front() {
                return Some(self.ancestor(&ancestor));
            }
            if let Some(entry) = self.next_held() {
                return Some(Some(entry));
            }
            if let Some(found) = self.current.as_mut().and_then(Iterator::next) {
                return Some(match found {
                    Ok(entry) if self.missed.remove(entry.path()) => {
                        self.inserting = Some((entry.into_path(), 0));
                        continue;
                    }
                    Ok(entry) => self.entry(entry),
                    Err(error) => {
                        self.shared.unlisted(&error);
                        None
                    }
                });
            }
            let Some((path, walk)) = self.walks.pop_front() else {
                // What was held has no place to be shown at.
                for path in std::mem::take(&mut self.missed) {
                    self.shared.left_out(&path, &io::ErrorKind::NotFound.into(), true);
                }
                return None;
            };
            self.current = Some(walk);
            let above: Vec<_> = path.ancestors().skip(1).filter(|above| above.parent().is_some()).collect();
            for above in above.into_iter().rev() {
                if self.opened.insert(above.into()) {
                    self.ancestors.push_back(above.into());
                }
            }
        }
    }

    /// What was held, in place of what the walk would find there now.
    fn next_held(&mut self) -> Option<Entry> {
        let (path, next) = self.inserting.as_mut()?;
        let Some(kept) = self.held.as_ref().and_then(|held| held.get(path, *next)) else {
            self.inserting = None;
            return None;
        };
        *next += 1;
        let (node, content) = (kept.node.clone(), kept.content.clone());
        Some(self.hand_over(kept.path.clone(), node, content))
    }

    /// A directory above a configured path, through symbolic links: only its owner, mode and times are of use. Without
    /// it, rustic makes one up.
    fn ancestor(&self, path: &Path) -> Option<Entry> {
        let entry =
            WalkBuilder::new(path).standard_filters(false).follow_links(true).max_depth(Some(0)).build().next()?;
        let mapped = LocalSourceSaveOptions::default().map_entry(entry.ok()?).ok()?;
        mapped.node.is_dir().then_some(Entry { path: mapped.path, node: mapped.node, open: None })
    }

    fn entry(&self, entry: DirEntry) -> Option<Entry> {
        let (path, configured) = (entry.path().to_owned(), entry.depth() == 0);
        match LocalSourceSaveOptions::default().map_entry(entry) {
            Ok(mapped) => Some(self.hand_over(mapped.path, mapped.node, None)),
            Err(error) => {
                self.shared.unmapped(&path, &error, configured);
                None
            }
        }
    }

    /// `content`: read there instead.
    fn hand_over(&self, path: PathBuf, node: Node, content: Option<PathBuf>) -> Entry {
        if !node.is_dir() {
            self.shared.lock().handed_over += 1;
        }
        let open = Opener {
            content: content.unwrap_or_else(|| path.clone()),
            path: path.clone(),
            size: node.meta.size,
            deadline: self.deadline,
            reading: self.reading.clone(),
            shared: self.shared.clone(),
        };
        Entry { path, node, open: Some(Open::new(|| Ok(Box::new(open.open()?)))) }
    }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        ignore::Error::Partial(errors) => errors.iter().find_map(path_of),
        _ => None,
    }
}

/// The input/output error somewhere below `error`.
fn io_cause(error: &(dyn StdError + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error
            .downcast_ref::<io::Error>()
            .or_else(|| error.downcast_ref::<ignore::Error>().and_then(ignore::Error::io_error));
        if let Some(io) = found {
            return Some(copy(io));
        }
        next = error.source();
    }
    None
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

/// Opens one file.
struct Opener {
    /// Where it is read.
    content: PathBuf,
    /// Where it belongs.
    path: PathBuf,
    size: u64,
    deadline: Option<Instant>,
    reading: Reading,
    shared: Arc<Shared>,
}

impl Opener {
    fn open(self) -> RusticResult<Reader> {
        // What was a file a moment ago may be a pipe now, whose opening would wait for ever.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.content)
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::ErrorKind::NotFound.into()),
            });
        match opened {
            // A file that grows is stored as long as it was when its size was taken: size and content then agree.
            Ok(file) => Ok(Reader { file: file.take(self.size), opener: self, failed: false }),
            Err(error) => {
                self.shared.lock().failed += 1;
                self.shared.left_out(&self.path, &error, false);
                Err(RusticError::with_source(ErrorKind::InputOutput, "cannot open {path}", error)
                    .attach_context("path", self.path.display().to_string()))
            }
        }
    }
}

/// Reads one file, up to the deadline.
struct Reader {
    file: Take<File>,
    opener: Opener,
    failed: bool,
}

impl Reader {
    fn late(&self) -> bool {
        self.opener.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Rustic takes a short read for the end, so the buffer is filled.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.late() {
                return Err(io::Error::other("out of time"));
            }
            match self.opener.reading.read(&mut self.file, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.fill(buffer);
        let late = self.late();
        let shared = &self.opener.shared;
        match result {
            Err(error) => {
                if !self.failed {
                    self.failed = true;
                    shared.lock().failed += 1;
                    if late {
                        shared.lock().stopped = true;
                    } else {
                        shared.left_out(&self.opener.path, &error, false);
                    }
                }
                Err(error)
            }
            Ok(length) => Ok(length),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pi_agent_engine::Source as _;
    use rustic_core::ReadSourceOpen as _;

    use super::*;

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
