//! The limit of what is read from the sources: no relay is needed, who reads waits.

use std::io::{self, Read};
use std::sync::Arc;

use super::line::{Line, Way};
use crate::config::Limits;

/// What all readers of this machine share: the same bucket for files and dumps.
#[derive(Clone, Debug, Default)]
pub struct Reading(Option<Arc<Line>>);

impl Reading {
    /// As `[limits] read` says.
    pub fn of(limits: &Limits) -> Self {
        Self(limits.limit_reading().then(|| Arc::new(Line::new(limits))))
    }

    /// How much of `length` bytes to read at once.
    pub fn at_once(&self, length: usize) -> usize {
        self.0
            .as_ref()
            .filter(|line| line.rate(Way::Read).is_some())
            .map_or(length, |line| length.min(line.chunk(Way::Read)))
    }

    /// So much was read: returns when more may be.
    pub fn wait(&self, bytes: usize) {
        if let Some(line) = &self.0 {
            line.pass_here(Way::Read, bytes);
        }
    }

    /// Reads at most as much as may be.
    ///
    /// # Errors
    /// The reader's.
    pub fn read(&self, from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.at_once(buffer.len());
        let read = from.read(&mut buffer[..length])?;
        self.wait(read);
        Ok(read)
    }
}
