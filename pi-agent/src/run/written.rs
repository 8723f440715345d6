//! What a run writes to this machine's disks, for the sake of SD cards, which wear out by it.

use nix::sys::resource::{UsageWho, getrusage};

use crate::config::{Location, Source};
use crate::steps::StepResult;

/// Whose writing is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// This process alone.
    Us,
    /// Every process it has waited for, with those that they waited for.
    Children,
}

/// Bytes that were written to disks so far, as the kernel counts them: whole pages, once each time they become dirty, what is
/// deleted again before it reaches the disk included. What a file system writes for itself (its journal) is not in it.
/// Nothing is counted for files in memory (tmpfs).
pub fn written(by: Writers) -> u64 {
    /// Linux counts blocks of this size, whatever the disk has.
    const BLOCK: u64 = 512;
    let who = match by {
        Writers::Us => UsageWho::RUSAGE_SELF,
        Writers::Children => UsageWho::RUSAGE_CHILDREN,
    };
    // It has no reason to fail.
    getrusage(who).map_or(0, |usage| u64::try_from(usage.block_writes()).unwrap_or(0) * BLOCK)
}

/// Counts since a run began.
pub struct Written {
    us: u64,
    children: u64,
    /// How much of it went into a storage that is a folder; `None`: nobody can tell.
    stored: Option<u64>,
}

impl Written {
    /// Begins to count.
    pub fn begin() -> Self {
        Self { us: written(Writers::Us), children: written(Writers::Children), stored: Some(0) }
    }

    /// A step's part of `bytes`, which its processes wrote: without what went into the storage, where that is a folder.
    /// (Our client counts what it puts there. pgBackRest does not say.) The history of the run is the `agent` step's.
    pub fn by_step(&mut self, storage: &Location, source: &Source, result: &StepResult, bytes: u64) -> Option<u64> {
        let stored = match (storage, source) {
            (Location::S3(_), _) => Some(0),
            (Location::File(_), Source::Directory(_) | Source::Agent(_)) => Some(result.requests.bytes_up),
            (Location::File(_), Source::Postgres(_)) => None,
        };
        self.stored = self.stored.zip(stored).map(|(before, now)| before + now);
        let ours = if let Source::Agent(_) = source { written(Writers::Us) - self.us } else { 0 };
        Some((bytes + ours).saturating_sub(stored?))
    }

    /// All of it until now.
    pub fn by_the_run(&self) -> Option<u64> {
        let bytes = written(Writers::Us) - self.us + written(Writers::Children) - self.children;
        Some(bytes.saturating_sub(self.stored?))
    }
}
