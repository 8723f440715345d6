//! One file, read up to the deadline.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Take};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustic_core::{ErrorKind, RusticError, RusticResult};

use super::tally::Shared;
use crate::storage::shaper::Reading;

/// Opens one file.
pub(super) struct Opener {
    /// Where it is read.
    pub content: PathBuf,
    /// Where it belongs.
    pub path: PathBuf,
    pub size: u64,
    pub deadline: Option<Instant>,
    pub reading: Reading,
    pub shared: Arc<Shared>,
}

impl Opener {
    pub fn open(self) -> RusticResult<Reader> {
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
pub(super) struct Reader {
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
