//! The contents of files that are restored: fetched span by span of each pack, opened, and written to wherever they belong.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustic_core::repofile::PackId;
use rustic_core::{FileType, RusticResult};
use zstd::bulk::Decompressor;

use super::backend::{key, readers};
use super::cipher::Cipher;
use super::target::Walk;
use super::writing::{Refused, Writing};
use crate::error::Context;
use crate::monitor::Unit;
use crate::{Error, Result};

/// Read at once, at most: packs of other programs may be far larger than ours.
const LONGEST_SPAN: u32 = 40 << 20;

/// Bytes between two parts that are read along, because they cost less than a further request.
const LARGEST_HOLE: u32 = 256 << 10;

/// A file that lacks some of its content.
struct Planned {
    path: PathBuf,
    /// Its further names: hard links.
    links: Vec<PathBuf>,
    /// This restore made it, so that it holds nothing but zeros.
    new: bool,
}

impl Planned {
    /// All its names.
    fn names(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.path).chain(&self.links).map(PathBuf::as_path)
    }
}

/// Where a part of a file lies.
pub(super) struct Piece {
    pub pack: PackId,
    pub offset: u32,
    pub length: u32,
    /// Bytes before compression; 0: it is not compressed.
    pub uncompressed: u32,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A part of a file, and where it lies in a pack.
struct Part {
    pack: u32,
    offset: u32,
    length: u32,
    /// 0: it is not compressed.
    uncompressed: u32,
    file: u32,
    at: u64,
}

impl Part {
    fn end(&self) -> u32 {
        self.offset.saturating_add(self.length)
    }
}

/// What is to be written.
#[derive(Default)]
pub(super) struct Plan {
    files: Vec<Planned>,
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    parts: Vec<Part>,
    pub bytes: u64,
}

impl Plan {
    /// Its number. `new`: this restore made it.
    pub fn add_file(&mut self, path: PathBuf, new: bool) -> u32 {
        self.files.push(Planned { path, links: Vec::new(), new });
        number(self.files.len() - 1)
    }

    /// A further name of a file: what becomes of the file becomes of it.
    pub fn add_link(&mut self, file: u32, path: PathBuf) {
        self.files[file as usize].links.push(path);
    }

    pub fn add_part(&mut self, piece: &Piece, file: u32, at: u64) {
        let Piece { pack, offset, length, uncompressed, bytes } = *piece;
        let next = number(self.packs.len());
        let number = *self.numbers.entry(pack).or_insert(next);
        if number == next {
            self.packs.push(pack);
        }
        self.bytes += bytes;
        self.parts.push(Part { pack: number, offset, length, uncompressed, file, at });
    }

    /// Parts that are read at once.
    fn spans(&mut self) -> Vec<Range<usize>> {
        self.parts.sort_by_key(|part| (part.pack, part.offset));
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            if let Some(span) = spans.last_mut() {
                let (first, last) = (&self.parts[span.start], &self.parts[index - 1]);
                let near = part.offset <= last.end().saturating_add(LARGEST_HOLE);
                if first.pack == part.pack && near && part.end() - first.offset <= LONGEST_SPAN {
                    span.end = index + 1;
                    continue;
                }
            }
            spans.push(index..index + 1);
        }
        spans
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than four billion")
}

impl Writing<'_> {
    /// Fetches and writes everything that is planned.
    ///
    /// # Errors
    /// Storage fails, or a pack is damaged.
    pub(super) fn contents(&self, mut plan: Plan, refused: &mut Refused) -> RusticResult<()> {
        let gauge = &self.repository.gauge;
        gauge.phase("restoring file contents", Unit::Bytes);
        gauge.total(plan.bytes);
        let mut spans = plan.spans();
        // The last one is fetched first.
        spans.reverse();
        let work = Work {
            writing: self,
            plan: &plan,
            cipher: Cipher::of(&self.repository.key),
            spans: Mutex::new(spans),
            failures: Mutex::default(),
            stopped: Mutex::default(),
        };
        thread::scope(|scope| {
            for _ in 0..readers(self.repository.store()) {
                scope.spawn(|| work.fetch());
            }
        });
        let Work { failures, stopped, .. } = work;
        let mut failures: Vec<_> = inner(failures).into_iter().collect();
        failures.sort_by_key(|(file, _)| *file);
        for (file, error) in failures {
            for name in plan.files[file as usize].names() {
                refused.failed(&self.target, name, &error);
            }
        }
        inner(stopped).map_or(Ok(()), |error| Err(self.repository.backend.failed(error)))
    }
}

/// What the threads share. A pack that is read is in memory until its parts are written: the number of threads limits how many.
struct Work<'a> {
    writing: &'a Writing<'a>,
    plan: &'a Plan,
    cipher: Cipher,
    spans: Mutex<Vec<Range<usize>>>,
    /// What the target refused, by the file's number.
    failures: Mutex<HashMap<u32, io::Error>>,
    /// Why nothing more is fetched.
    stopped: Mutex<Option<Error>>,
}

impl Work<'_> {
    fn fetch(&self) {
        if let Err(error) = self.fetch_all() {
            lock(&self.spans).clear();
            lock(&self.stopped).get_or_insert(error);
        }
    }

    fn fetch_all(&self) -> Result<()> {
        let mut decompressor = Decompressor::new().context(|| "open packs".into())?;
        let (mut walk, mut open, mut plain) = (self.writing.target.walk(), None, Vec::new());
        let store = self.writing.repository.store();
        while let Some(span) = self.next() {
            let parts = &self.plan.parts[span];
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else { continue };
            let name = key(FileType::Pack, &self.plan.packs[first.pack as usize]);
            let length = last.end() - first.offset;
            let sealed = store.get_range(&name, first.offset.into(), length as usize)?;
            for same in parts.chunk_by(|one, other| one.offset == other.offset) {
                let part = &same[0];
                let from = (part.offset - first.offset) as usize;
                let content = sealed
                    .get(from..from + part.length as usize)
                    .and_then(|sealed| self.cipher.open(sealed))
                    .ok_or_else(|| Error::new(format!("{name} in {store}: a piece in it is damaged")))?;
                let content = match part.uncompressed as usize {
                    0 => &content,
                    length => {
                        plain.clear();
                        plain.reserve(length);
                        let written = decompressor.decompress_to_buffer(&content, &mut plain).ok();
                        if written != Some(length) {
                            return Err(Error::new(format!("{name} in {store}: a piece in it is damaged")));
                        }
                        &plain
                    }
                };
                let zeros = content.iter().all(|byte| *byte == 0);
                for part in same {
                    self.write(&mut walk, &mut open, part, content, zeros);
                }
            }
        }
        Ok(())
    }

    /// The next span of which something is still wanted.
    fn next(&self) -> Option<Range<usize>> {
        loop {
            let span = lock(&self.spans).pop()?;
            let failures = lock(&self.failures);
            let is_wanted = |part: &Part| failures.is_empty() || !failures.contains_key(&part.file);
            if self.plan.parts[span.clone()].iter().any(is_wanted) {
                return Some(span);
            }
        }
    }

    fn write(&self, walk: &mut Walk<'_>, open: &mut Option<(u32, File)>, part: &Part, content: &[u8], zeros: bool) {
        let file = &self.plan.files[part.file as usize];
        self.writing.repository.gauge.add(content.len() as u64);
        // Where nothing was written yet there are zeros.
        if (zeros && file.new) || lock(&self.failures).contains_key(&part.file) {
            return;
        }
        let written = match open {
            Some((number, file)) if *number == part.file => file.write_all_at(content, part.at),
            _ => walk.place(&file.path).and_then(|place| place.open(true)).and_then(|file| {
                let (_, file) = open.insert((part.file, file));
                file.write_all_at(content, part.at)
            }),
        };
        if let Err(error) = written {
            *open = None;
            // Another thread's may be first: then it has removed the file.
            lock(&self.failures).entry(part.file).or_insert(error);
            if file.new {
                // Nothing may look like it; and others may have its room.
                for name in file.names() {
                    let _ = walk.place(name).and_then(|place| place.remove());
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each guards one value that is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
