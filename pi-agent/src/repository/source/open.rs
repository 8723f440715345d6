//! One file, read up to the deadline, and whether it was the same from the first byte to the last.
//!
//! rustic keeps a file's length and times as the walk found them, which may be minutes before its turn comes. So a file is
//! compared with them when it is open, and again behind its last byte. One that is another by then is not stored with them:
//! it is read again (see [`super::again`]).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustic_core::{ErrorKind, RusticError, RusticResult};
use sha2::{Digest, Sha256};

use super::stamp::Stamp;
use super::tally::{Shared, has_no_name};
use super::ways::Ways;
use crate::repository::progress::Gauge;
use crate::repository::target::Item;
use crate::storage::shaper::Reading;

/// What rustic is told of a file that is read again, and logs.
pub(crate) const READ_AGAIN: &str = "it changed meanwhile and is read again";
/// Read at once when a beginning is compared.
const CHUNK: usize = 64 << 10;

/// How files are read: until when, how fast, and where it is told.
#[derive(Clone)]
pub(super) struct Terms {
    pub deadline: Option<Instant>,
    pub reading: Reading,
    pub shared: Arc<Shared>,
    pub ways: Ways,
}

impl Terms {
    pub(super) fn late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Opens the regular file at a path.
    pub(super) fn open(&self, path: &Path) -> Result<(File, Metadata), Failure> {
        let (file, found) = open_found(&self.ways.item(path)?)?;
        if Stamp::of(&found).is_of_late() && self.shared.may_wait_for_a_disk() {
            // A program that writes by `mmap` into a page that is on no disk yet leaves no stamp. Of one that is, it does. A file system
            // that refuses has no such pages.
            let _ = file.sync_data();
            let found = file.metadata()?;
            return Ok((file, found));
        }
        Ok((file, found))
    }

    /// Whether nothing of that name is there any more.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        self.ways.item(path).is_err_and(|error| has_no_name(&error))
    }

    /// Fills the buffer but at the end of the file: rustic takes a short read for the end.
    pub(super) fn fill(&self, file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            if self.late() {
                return Err(io::Error::other("out of time"));
            }
            match self.reading.read(file, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Why a file is not stored.
pub(super) enum Failure {
    Unreadable(io::Error),
    /// It is not what the snapshot would say.
    Changed,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Opens a regular file that was found, and nothing that a link or somebody else put in its place: what was a file a moment ago may be
/// a pipe now, whose opening would wait for ever.
fn open_found(item: &Item) -> Result<(File, Metadata), Failure> {
    if !item.found.is_file() {
        return Err(Failure::Changed);
    }
    let file = item.open()?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// What the snapshot says of a file.
#[derive(Clone, Copy)]
pub(super) enum Said {
    /// The file itself had this length and these times.
    Stamp(Stamp),
    /// Its content is a copy of this length.
    Copy(u64),
}

/// Opens one file.
pub(super) struct Opener {
    /// Where it is read.
    pub content: PathBuf,
    /// Where it belongs.
    pub path: PathBuf,
    pub said: Said,
    pub terms: Terms,
}

impl Opener {
    pub fn open(self) -> RusticResult<Reader> {
        let failure = match self.begin() {
            Ok(file) => return Ok(Reader::new(file, self.path, self.said, self.terms, None)),
            Err(failure) => failure,
        };
        self.terms.shared.lock().failed += 1;
        let error = match failure {
            Failure::Changed => {
                self.terms.shared.read_again(&self.path);
                io::Error::other(READ_AGAIN)
            }
            Failure::Unreadable(error) => {
                self.terms.shared.left_out(&self.path, &error, false);
                error
            }
        };
        Err(RusticError::with_source(ErrorKind::InputOutput, "cannot open {path}", error)
            .attach_context("path", self.path.display().to_string()))
    }

    fn begin(&self) -> Result<File, Failure> {
        let (file, metadata) = match &self.said {
            // In a folder of ours.
            Said::Copy(_) => open_found(&Item::behind(&self.content)?)?,
            Said::Stamp(_) => self.terms.open(&self.content)?,
        };
        match self.said {
            Said::Copy(size) if metadata.len() != size => {
                Err(io::Error::other("the copy that was made of it is of another length").into())
            }
            Said::Copy(_) => Ok(file),
            Said::Stamp(stamp) if Stamp::of(&metadata) != stamp => Err(Failure::Changed),
            Said::Stamp(stamp) => match stamp.unsettled() {
                None => Ok(file),
                Some(wait) => {
                    std::thread::sleep(wait);
                    if Stamp::of(&file.metadata()?) == stamp { Ok(file) } else { Err(Failure::Changed) }
                }
            },
        }
    }
}

/// What proves at the end that a file only grew: its beginning is read twice.
pub(super) struct Evidence {
    /// Of what was read.
    pub hasher: Sha256,
    /// The last bytes, as they were before anything was read.
    pub tail: Vec<u8>,
    /// Where the second reading shows.
    pub gauge: Arc<Gauge>,
}

/// Reads one file as long as the snapshot says it is.
pub(super) struct Reader {
    file: File,
    path: PathBuf,
    said: Said,
    terms: Terms,
    left: u64,
    checked: bool,
    failed: bool,
    /// It is read for the last time, and may grow.
    evidence: Option<Evidence>,
}

impl Reader {
    pub(super) fn new(file: File, path: PathBuf, said: Said, terms: Terms, evidence: Option<Evidence>) -> Self {
        let (Said::Stamp(Stamp { size: left, .. }) | Said::Copy(left)) = said;
        Self { file, path, said, terms, left, checked: false, failed: false, evidence }
    }

    fn advance(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = self.terms.fill(&mut self.file, &mut buffer[..wanted])?;
        if length < wanted {
            return Err(Failure::Changed);
        }
        if let Some(evidence) = &mut self.evidence {
            evidence.hasher.update(&buffer[..length]);
        }
        self.left -= length as u64;
        if self.left == 0 && !self.checked {
            self.check()?;
            self.checked = true;
        }
        Ok(length)
    }

    /// What was read is what the snapshot says.
    fn check(&self) -> Result<(), Failure> {
        let Said::Stamp(stamp) = self.said else { return Ok(()) };
        let now = Stamp::of(&self.file.metadata()?);
        if now == stamp {
            // Some file systems say a length of 0 of whatever a program makes up, and give more.
            let more = self.evidence.is_none() && self.file.read_at(&mut [0], stamp.size)? > 0;
            return if more { Err(Failure::Changed) } else { Ok(()) };
        }
        match &self.evidence {
            Some(evidence) if now.size > stamp.size && self.begins_so(evidence, stamp.size)? => Ok(()),
            _ => Err(Failure::Changed),
        }
    }

    /// The first `size` bytes are still those that were read.
    fn begins_so(&self, evidence: &Evidence, size: u64) -> Result<bool, Failure> {
        let mut tail = vec![0; evidence.tail.len()];
        let length = tail.len() as u64;
        self.file.read_exact_at(&mut tail, size - length)?;
        if tail != evidence.tail {
            return Ok(false);
        }
        let (mut hasher, mut at, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
        while at < size {
            if self.terms.late() {
                return Err(io::Error::other("out of time").into());
            }
            let wanted = usize::try_from(size - at).map_or(CHUNK, |left| left.min(CHUNK));
            let length = self.file.read_at(&mut buffer[..self.terms.reading.at_once(wanted)], at)?;
            if length == 0 {
                return Ok(false);
            }
            self.terms.reading.wait(length);
            hasher.update(&buffer[..length]);
            evidence.gauge.add(length as u64);
            at += length as u64;
        }
        Ok(hasher.finalize() == evidence.hasher.clone().finalize())
    }

    /// Counts the file, once, as what became of it.
    fn fail(&mut self, failure: Failure) -> io::Error {
        let first = !std::mem::replace(&mut self.failed, true);
        let shared = &self.terms.shared;
        if first {
            shared.lock().failed += 1;
        }
        match failure {
            Failure::Changed => {
                match &self.evidence {
                    _ if !first => {}
                    None => shared.read_again(&self.path),
                    Some(_) => shared.never_the_same(&self.path),
                }
                io::Error::other(READ_AGAIN)
            }
            Failure::Unreadable(error) => {
                if first && self.terms.late() {
                    shared.lock().stopped = true;
                } else if first && self.evidence.is_some() {
                    shared.settle(&self.path, &error, self.terms.is_gone(&self.path));
                } else if first {
                    shared.left_out(&self.path, &error, false);
                }
                error
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance(buffer).map_err(|failure| self.fail(failure))
    }
}
