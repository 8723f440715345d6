//! Files that changed between the walk and their last byte, read a second time: now what the snapshot says of one is taken
//! from the file that is open.
//!
//! A small file is read before rustic hears of it, as often as it takes. A large one must hold still while it passes, or only
//! grow: of a log, what was there when it was opened is stored, if that is still its beginning at the end.

use std::collections::HashSet;
use std::io::{self, Cursor, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::SignedDuration;
use rustic_core::RusticResult;
use sha2::{Digest, Sha256};

use super::open::{Evidence, Failure, Reader, Said, Terms};
use super::stamp::Stamp;
use super::tally;
use crate::repository::any_source::{self, Entries, Entry, Open};
use crate::repository::progress::Gauge;

/// Whatever is smaller is read whole.
const SMALL: u64 = 512 << 10;
/// What is compared first where a file grew.
const TAIL: u64 = 64 << 10;
/// How often a file is looked at anew, and how long to wait in between.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// So many times it must also have been left alone for a moment.
const PATIENT_TRIES: u32 = 3;

/// Files that changed while they were read, and what was moved meanwhile.
pub(in crate::repository) struct Again {
    pub(super) paths: Vec<PathBuf>,
    /// Of those, the directories that were moved.
    pub(super) moved: Arc<HashSet<PathBuf>>,
    pub(super) reader: Rereader,
}

/// Reads them.
#[derive(Clone)]
pub(super) struct Rereader {
    pub terms: Terms,
    pub gauge: Arc<Gauge>,
}

impl any_source::Source for Again {
    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Entries {
        let (in_time, reader, moved) = (self.reader.clone(), self.reader.clone(), self.moved.clone());
        let paths = self.paths.clone().into_iter().take_while(move |_| in_time.in_time());
        Box::new(paths.filter_map(move |path| reader.entry(&path, moved.contains(&path))).map(Ok))
    }
}

impl Rereader {
    fn in_time(&self) -> bool {
        let late = self.terms.late();
        self.terms.shared.lock().stopped |= late;
        !late
    }

    fn entry(&self, path: &Path, moved: bool) -> Option<Entry> {
        let mut unreadable = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                thread::sleep(PAUSE);
            }
            match self.take(path, attempt < PATIENT_TRIES, moved) {
                Ok(entry) => {
                    self.terms.shared.lock().handed_over += u64::from(!entry.node.is_dir());
                    return Some(entry);
                }
                Err(_) if !self.in_time() => return None,
                Err(Failure::Changed) => unreadable = None,
                // A handle of a server's file may have become stale, and the name leads to another.
                Err(Failure::Unreadable(error)) if tally::seems_gone(&error) && !self.terms.is_gone(path) => {
                    unreadable = Some(error);
                }
                Err(Failure::Unreadable(error)) => {
                    self.terms.shared.settle(path, &error, self.terms.is_gone(path));
                    return None;
                }
            }
        }
        match unreadable {
            Some(error) => self.terms.shared.settle(path, &error, self.terms.is_gone(path)),
            None => self.terms.shared.never_the_same(path),
        }
        None
    }

    fn take(&self, path: &Path, patient: bool, moved: bool) -> Result<Entry, Failure> {
        let mut node = self.terms.ways.describe(path, &self.terms.shared)?;
        if node.is_dir() && !moved {
            return Err(io::Error::other("a directory is in its place now, which the next backup reads").into());
        }
        if !node.is_file() {
            return Ok(Entry { path: path.into(), node, open: None });
        }
        let (mut file, metadata) = self.terms.open(path)?;
        let stamp = Stamp::said_by(&node);
        let unchanged = |file: &std::fs::File| -> Result<(), Failure> {
            if Stamp::of(&file.metadata()?) == stamp { Ok(()) } else { Err(Failure::Changed) }
        };
        if Stamp::of(&metadata) != stamp {
            return Err(Failure::Changed);
        }
        let unsettled = stamp.unsettled();
        if let (Some(wait), true) = (unsettled, patient) {
            thread::sleep(wait);
            unchanged(&file)?;
        }
        if stamp.size > SMALL {
            let mut tail = vec![0; TAIL as usize];
            file.read_exact_at(&mut tail, stamp.size - TAIL)?;
            let evidence = Evidence { hasher: Sha256::new(), tail, gauge: self.gauge.clone() };
            let reader = Reader::new(file, path.into(), Said::Stamp(stamp), self.terms.clone(), Some(evidence));
            return Ok(Entry { path: path.into(), node, open: Some(Open::new(|| Ok(Box::new(reader)))) });
        }
        let content = whole(&mut file)?;
        if content.len() as u64 > SMALL {
            unchanged(&file)?;
            let why = format!("its file system says a length of {} bytes, and gives more", stamp.size);
            return Err(io::Error::other(why).into());
        }
        if patient {
            unchanged(&file)?;
        } else {
            // It is never left alone for a moment, so no stamp proves anything: but what is there twice was there at once, and a
            // log may have grown meanwhile.
            file.rewind()?;
            if !whole(&mut file)?.starts_with(&content) {
                return Err(Failure::Changed);
            }
            // Nor may its stamp prove to the next backup that it is still the same.
            node.meta.ctime = node.meta.ctime.and_then(|time| time.checked_sub(SignedDuration::from_nanos(1)).ok());
        }
        // Only now, for nobody waits between two looks at a file.
        self.terms.reading.wait(content.len());
        // A log may have grown, and some file systems say another length than they give.
        node.meta.size = content.len() as u64;
        Ok(Entry { path: path.into(), node, open: Some(Open::new(|| Ok(Box::new(Cursor::new(content))))) })
    }
}

/// The whole of a small file, or a little more than is small.
fn whole(file: &mut impl Read) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    file.by_ref().take(SMALL + 1).read_to_end(&mut content)?;
    Ok(content)
}
