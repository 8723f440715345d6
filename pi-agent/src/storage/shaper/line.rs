//! The one line that all share: every connection of this process, and through a file every process of this machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Zoned;
use nix::time::{ClockId, clock_gettime};

use super::bucket::{Bucket, chunk};
use crate::config::{Limits, Rates};

/// Which way bytes go; also where its bucket lies in the file, in units of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up = 0,
    Down = 1,
    /// From the sources, which is no way of the line's, but shared like it.
    Read = 2,
}

/// How often to try for the lock, a millisecond each: it is held for microseconds, unless its holder was stopped then.
const PATIENCE: u32 = 50;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    limits: Limits,
    /// `None`: it may not be opened (another user made it), so this process counts for itself.
    shared: Option<File>,
    own: Mutex<Own>,
}

#[derive(Debug)]
struct Own {
    buckets: [Bucket; 3],
    rates: Rates,
    /// When the rates of the time of day were looked up.
    looked: Instant,
}

impl Line {
    pub(super) fn new(limits: &Limits) -> Self {
        // Where systemd has not made the folder. What fails here shows in the next line.
        let _ = limits.shared.parent().map(std::fs::create_dir);
        let mut shared = OpenOptions::new();
        // Several processes may make it at the same time.
        shared.read(true).write(true).create(true).truncate(false).mode(0o600);
        Self {
            shared: shared.open(&limits.shared).ok(),
            own: Mutex::new(Own { buckets: [Bucket::default(); 3], rates: now_of(limits), looked: Instant::now() }),
            limits: limits.clone(),
        }
    }

    /// The limit at this moment.
    pub(super) fn rate(&self, way: Way) -> Option<u64> {
        const INTERVAL: Duration = Duration::from_secs(1);
        let mut own = self.own();
        if own.looked.elapsed() >= INTERVAL {
            own.looked = Instant::now();
            own.rates = now_of(&self.limits);
        }
        match way {
            Way::Up => own.rates.upload,
            Way::Down => own.rates.download,
            Way::Read => own.rates.read,
        }
    }

    /// How many bytes to pass at once.
    pub(super) fn chunk(&self, way: Way) -> usize {
        chunk(self.rate(way))
    }

    /// Returns when so many bytes may pass.
    pub(super) async fn pass(&self, way: Way, bytes: usize) {
        let Some(rate) = self.rate(way) else { return };
        let mut tries = 0;
        let go = loop {
            match self.take(way, bytes, rate, tries == PATIENCE) {
                Some(go) => break go,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            tries += 1;
        };
        let wait = go.saturating_sub(monotonic());
        if wait > 0 {
            tokio::time::sleep(Duration::from_nanos(wait)).await;
        }
    }

    /// The same on a thread of one's own.
    pub(super) fn pass_here(&self, way: Way, bytes: usize) {
        let Some(rate) = self.rate(way) else { return };
        let mut tries = 0;
        let go = loop {
            match self.take(way, bytes, rate, tries == PATIENCE) {
                Some(go) => break go,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            tries += 1;
        };
        std::thread::sleep(Duration::from_nanos(go.saturating_sub(monotonic())));
    }

    /// When so many bytes may pass; `None`: another process is counting.
    fn take(&self, way: Way, bytes: usize, rate: u64, alone: bool) -> Option<u64> {
        let mut own = self.own();
        let bucket = &mut own.buckets[way as usize];
        let Some(file) = self.shared.as_ref().filter(|_| !alone) else {
            return Some(bucket.take(monotonic(), bytes, rate));
        };
        let locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(_)) => false,
        };
        let (at, mut paid) = (way as u64 * 8, [0; 8]);
        if file.read_exact_at(&mut paid, at).is_ok() {
            // A new file is empty, and then our own is as good.
            bucket.paid = u64::from_ne_bytes(paid);
        }
        let go = bucket.take(monotonic(), bytes, rate);
        // A full disk: then our own is what counts, too.
        let _ = file.write_all_at(&bucket.paid.to_ne_bytes(), at);
        if locked {
            let _ = file.unlock();
        }
        Some(go)
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        // Plain numbers: a panic elsewhere leaves nothing half-done here.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_of(limits: &Limits) -> Rates {
    limits.at(Zoned::now().time())
}

/// A clock that all processes share and nobody sets.
fn monotonic() -> u64 {
    // Linux always has it.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_share_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let all_day = Rates { upload: Some(256 << 10), ..Rates::default() };
        let limits = Limits { all_day, shared: folder.path().join("line"), ..Limits::default() };
        // As two processes would: each has opened the file for itself.
        let lines = [Line::new(&limits), Line::new(&limits)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let started = Instant::now();
        runtime.block_on(async {
            let work = |line| async move {
                for _ in 0..32 {
                    Line::pass(line, Way::Up, 4 << 10).await;
                }
            };
            tokio::join!(work(&lines[0]), work(&lines[1]));
            lines[0].pass(Way::Down, 1 << 30).await;
        });
        // 256 KiB, less the last chunk and what an idle line may catch up.
        assert!(started.elapsed() > Duration::from_millis(700), "{:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[test]
    fn without_the_file_it_counts_for_itself() {
        let all_day = Rates { upload: Some(1 << 20), ..Rates::default() };
        let line = Line::new(&Limits { all_day, shared: "/dev/null/line".into(), ..Limits::default() });
        assert!(line.shared.is_none());
        let first = line.take(Way::Up, 1 << 20, 1 << 20, false).unwrap();
        assert_eq!(line.take(Way::Up, 1, 1 << 20, false), Some(first + 1_000_000_000));
    }
}
