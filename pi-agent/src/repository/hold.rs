//! Files that are written to day and night, as they were at one moment: described in memory, their contents copied aside.
//!
//! What a snapshot tells of them (owner, times, links, attributes) is taken from the files themselves, at their own paths,
//! while nobody writes; only contents lie elsewhere, in files with numbers for names. So nothing has to survive a copy, and
//! the next backup recognises what did not change.
//!
//! That nobody writes is a promise of others. A file that changes all the same is not held: it is read like any other.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};
use rustic_core::repofile::Node;

use super::source::{Found, Shared, Source, Sources, Stamp, describe};
use crate::error::Kind;
use crate::health;
use crate::monitor::{Monitor, Progress, Unit};
use crate::run::make_private;
use crate::storage::shaper::Reading;
use crate::{Error, Result, shown};

/// Copied at once: between two of them the time is looked at.
const LARGEST: usize = 4 << 20;
/// File systems stamp changes with a clock that may stand still for some 10 ms, FAT's for 2 s: a copy taken sooner after a
/// change may lack a second one of the same stamp.
const CLOCK_STEP: Duration = Duration::from_secs(2);

/// What is to be held: first copied at leisure, then once more what has changed.
pub struct Hold {
    source: Source,
    paths: Vec<PathBuf>,
    folder: Folder,
    copies: HashMap<(u64, u64), Copy>,
    copied: u64,
    reading: Reading,
}

/// What was held. Its copies are removed with it.
#[derive(Debug)]
pub struct Held {
    parts: BTreeMap<PathBuf, Vec<Kept>>,
    shared: Arc<Shared>,
    /// Files that changed while nobody was to write.
    changed: Vec<PathBuf>,
    _folder: Folder,
}

/// A file as it was.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) node: Node,
    pub(super) content: Option<PathBuf>,
}

/// Where the copies lie, until dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Copy {
    content: PathBuf,
    stamp: Stamp,
    /// The file was left alone long enough before, so that a later change must have changed its stamp.
    settled: bool,
    /// A name of the file has it.
    taken: bool,
}

/// Why a file was not copied.
enum Failure {
    /// It cannot be read.
    File(io::Error),
    /// The copy cannot be written.
    Copy(io::Error),
    /// It changed while nobody was to write.
    Changed,
    OutOfTime,
}

impl Hold {
    /// Looks at `paths`, which are among `sources`; copies will lie in `folder`, which is made.
    ///
    /// # Errors
    /// One of them does not exist, cannot be read, is a symbolic link, or lies on a file system that is not entered.
    pub fn prepare(sources: &Sources, paths: &[PathBuf], folder: PathBuf) -> Result<Self> {
        let source = Source::new(sources.clone())?;
        for path in paths {
            Sources::look(path)?;
            if !source.enters(path) {
                return Err(Error::new(format!(
                    "{} lies on another file system than the step's paths",
                    path.display()
                ))
                .hint("name it in `paths` too, or set one-file-system = false"));
            }
        }
        make_private(&folder)?;
        Ok(Self {
            source,
            paths: paths.to_vec(),
            folder: Folder(folder),
            copies: HashMap::new(),
            copied: 0,
            reading: sources.reading.clone(),
        })
    }

    /// Bytes on the disk that copies of everything will take, and that are free where they go.
    ///
    /// # Errors
    /// The place of the copies cannot be looked at.
    pub fn room(&self) -> Result<(u64, u64)> {
        let mut seen = std::collections::HashSet::new();
        let files = self.entries().map(|(_, found)| found).filter(Metadata::is_file);
        let needed = files.filter(|file| seen.insert((file.dev(), file.ino()))).map(|file| file.blocks() * 512).sum();
        Ok((needed, health::room(&self.folder.0)?.free))
    }

    /// Copies everything once while it is written to, so that less is left to copy when it is not.
    ///
    /// # Errors
    /// A copy cannot be written.
    pub fn copy_ahead(&mut self, monitor: &Monitor) -> Result<()> {
        let entries: Vec<_> = self.entries().collect();
        for (path, found) in entries {
            if found.is_file() && !self.copies.contains_key(&(found.dev(), found.ino())) {
                match self.copy(&path, None, None, monitor) {
                    // It may be gone, or another, when it counts.
                    Ok(_) | Err(Failure::File(_) | Failure::Changed | Failure::OutOfTime) => {}
                    Err(Failure::Copy(error)) => return Err(self.unwritable(error)),
                }
            }
        }
        Ok(())
    }

    /// Everything as it is now. Nobody may write there before this returns.
    ///
    /// # Errors
    /// Kind `OutOfTime` when `until` passed; else a copy cannot be written.
    pub fn hold(mut self, until: Option<Instant>, monitor: &Monitor) -> Result<Held> {
        let (shared, mut changed) = (self.source.shared(), Vec::new());
        let mut parts = BTreeMap::new();
        for root in std::mem::take(&mut self.paths) {
            let mut kept = Vec::new();
            for entry in self.source.walk(&root) {
                match entry {
                    Ok(found) => kept.extend(self.keep(found, &shared, &mut changed, until, monitor)?),
                    Err(unseen) => shared.unseen(&unseen),
                }
            }
            parts.insert(root, kept);
        }
        Ok(Held { parts, shared, changed, _folder: self.folder })
    }

    /// One file; `None` when it cannot be read.
    fn keep(
        &mut self,
        Found { path, first, item }: Found,
        shared: &Shared,
        changed: &mut Vec<PathBuf>,
        until: Option<Instant>,
        monitor: &Monitor,
    ) -> Result<Option<Kept>> {
        let late = || Error::transient("the time ran out").kind_of(Kind::OutOfTime);
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(late());
        }
        let node = match describe(&item, &path, shared) {
            Ok(node) => node,
            Err(error) => {
                shared.left_out(&path, &error, first);
                return Ok(None);
            }
        };
        if !node.is_file() {
            return Ok(Some(Kept { path, node, content: None }));
        }
        let (id, said) = ((item.found.dev(), item.found.ino()), Stamp::said_by(&node));
        let content = match self.copies.get(&id) {
            Some(copy) if copy.settled && copy.stamp == said => Ok(copy.content.clone()),
            Some(copy) if copy.taken => Err(Failure::Changed),
            _ => self.copy(&path, Some(said), until, monitor),
        };
        let content = match content {
            Ok(content) => {
                self.copies.entry(id).and_modify(|copy| copy.taken = true);
                Some(content)
            }
            Err(Failure::Changed) => {
                changed.push(path.clone());
                None
            }
            Err(Failure::File(error)) => {
                shared.left_out(&path, &error, first);
                return Ok(None);
            }
            Err(Failure::Copy(error)) => return Err(self.unwritable(error)),
            Err(Failure::OutOfTime) => return Err(late()),
        };
        Ok(Some(Kept { path, node, content }))
    }

    fn entries(&self) -> impl Iterator<Item = (PathBuf, Metadata)> + '_ {
        let walks = self.paths.iter().flat_map(|path| self.source.walk::<Metadata>(path));
        let found = walks.filter_map(std::result::Result::ok);
        found.map(|found| (found.path, found.item))
    }

    /// Copies a file's content, and remembers what it looked like before; where the copy is. `quiet`: nobody writes to it, and
    /// this is what the snapshot says of it.
    fn copy(
        &mut self,
        path: &Path,
        quiet: Option<Stamp>,
        until: Option<Instant>,
        monitor: &Monitor,
    ) -> Result<PathBuf, Failure> {
        let item = self.source.ways().item(path).map_err(Failure::File)?;
        if !item.found.is_file() {
            return Err(Failure::File(io::ErrorKind::NotFound.into()));
        }
        let file = item.open().map_err(Failure::File)?;
        if quiet.is_none() {
            // What is changed through a memory map later changes the file's times only once its pages are clean.
            let _ = file.sync_data();
        }
        let metadata = file.metadata().map_err(Failure::File)?;
        let unchanged = |metadata: &Metadata| quiet.is_none_or(|said| Stamp::of(metadata) == said);
        if !unchanged(&metadata) {
            return Err(Failure::Changed);
        }
        let settled = quiet.is_some() || is_settled(&metadata);
        let number = self.copies.len();
        let id = (metadata.dev(), metadata.ino());
        let content =
            self.copies.get(&id).map_or_else(|| self.folder.0.join(number.to_string()), |copy| copy.content.clone());
        // Known before it is whole, so that no other file gets its number.
        let copy = Copy { content: content.clone(), stamp: Stamp::of(&metadata), settled: false, taken: false };
        self.copies.insert(id, copy);
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&content);
        let to = to.map_err(Failure::Copy)?;
        to.set_len(metadata.len()).map_err(Failure::Copy)?;
        let mut at = 0;
        while let Some((start, end)) = next_data(&file, at, metadata.len()) {
            at = start;
            while at < end {
                if until.is_some_and(|until| Instant::now() >= until) {
                    return Err(Failure::OutOfTime);
                }
                // Its writer must not wait for a limit.
                let reading = quiet.is_none().then_some(&self.reading);
                let chunk = reading.map_or(LARGEST, |reading| reading.at_once(LARGEST));
                let copied = transfer(&file, &to, at, (chunk as u64).min(end - at))?;
                if copied == 0 {
                    break;
                }
                if let Some(reading) = reading {
                    // At most a chunk.
                    reading.wait(copied as usize);
                }
                at += copied;
                self.copied += copied;
                let phase = match quiet {
                    Some(_) => "copying what changed, its writer is quiet",
                    None => "copying the live part",
                };
                monitor.progress(Progress { phase: phase.into(), done: self.copied, total: None, unit: Unit::Bytes });
            }
            at = end;
        }
        if !unchanged(&file.metadata().map_err(Failure::File)?) {
            return Err(Failure::Changed);
        }
        if let Some(copy) = self.copies.get_mut(&id) {
            copy.settled = settled;
        }
        Ok(content)
    }

    fn unwritable(&self, error: io::Error) -> Error {
        Error::new(format!("copy the live part to {}", self.folder.0.display())).caused_by(error)
    }
}

/// Whether the last change is long enough ago that another one now would show.
fn is_settled(metadata: &Metadata) -> bool {
    let seconds = u64::try_from(metadata.ctime().max(metadata.mtime())).unwrap_or_default();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds + 1);
    SystemTime::now().duration_since(changed).is_ok_and(|since| since > CLOCK_STEP)
}

/// The next stretch that holds data, from `at` on: holes are not copied.
fn next_data(file: &File, at: u64, length: u64) -> Option<(u64, u64)> {
    let seek = |at: u64, whence| lseek(file, i64::try_from(at).unwrap_or(i64::MAX), whence).map(i64::cast_unsigned);
    if at >= length {
        return None;
    }
    match seek(at, Whence::SeekData) {
        Ok(start) if start < length => {
            Some((start, seek(start, Whence::SeekHole).map_or(length, |end| end.min(length))))
        }
        Ok(_) | Err(Errno::ENXIO) => None,
        // A file system that knows no holes.
        Err(_) => Some((at, length)),
    }
}

/// Copies up to `length` bytes at `at`; how many. In the kernel, which shares the blocks where the file system can.
fn transfer(from: &File, to: &File, at: u64, length: u64) -> Result<u64, Failure> {
    let (mut there, mut here) = (at.cast_signed(), at.cast_signed());
    let size = usize::try_from(length).expect("at most a chunk");
    match copy_file_range(from, Some(&mut there), to, Some(&mut here), size) {
        Ok(copied) if copied > 0 => Ok(copied as u64),
        Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS) => Err(Failure::Copy(io::ErrorKind::StorageFull.into())),
        // Between file systems, or on one that cannot; an unreadable block shows again. Some say 0 instead of an error.
        Ok(_) | Err(_) => {
            let mut buffer = vec![0; size.min(256 << 10)];
            let read = from.read_at(&mut buffer, at).map_err(Failure::File)?;
            to.write_all_at(&buffer[..read], at).map_err(Failure::Copy)?;
            Ok(read as u64)
        }
    }
}

impl Held {
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(super) fn holds(&self, path: &Path) -> bool {
        self.parts.contains_key(path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.parts.keys()
    }

    /// What is not as it was at that moment, and why.
    pub fn trouble(&self) -> Option<Error> {
        let first = shown(self.changed.first()?);
        let more = match self.changed.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more files"),
        };
        let message = format!("{first}{more} changed though nobody was to write, and is read like any other file");
        Some(
            Error::new(message)
                .hint("keep quiet what else writes there, or name in `live` only what its writer writes"),
        )
    }

    /// The files of a held path, in the order of a walk, the path itself first.
    pub(super) fn get(&self, path: &Path, index: usize) -> Option<&Kept> {
        self.parts.get(path)?.get(index)
    }

    /// Of all files together.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.values().flatten().filter(|kept| kept.node.is_file()).map(|kept| kept.node.meta.size).sum()
    }
}
