//! What tells whether a file changed: its length and times, of the open file and of what a snapshot says.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use rustic_core::repofile::Node;

/// The earliest time that the format holds: its years have four digits.
const EARLIEST: i64 = -62_167_219_200;
/// How long a change may go without a stamp of its own: kernels stamp with a clock that moves every 10 ms at most.
const STEP: Duration = Duration::from_millis(25);
/// The same where file systems keep whole seconds: FAT keeps every other one.
const COARSE_STEP: Duration = Duration::from_secs(2);

/// Length and times of a file. A file whose stamp stays the same did not change, if it was left alone for a moment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::repository) struct Stamp {
    pub size: u64,
    modified: Option<Timestamp>,
    changed: Option<Timestamp>,
}

impl Stamp {
    /// The stamp of an open file.
    pub(in crate::repository) fn of(metadata: &Metadata) -> Self {
        let time = |seconds, nanoseconds| {
            let nanoseconds = i32::try_from(nanoseconds).ok()?;
            held(Timestamp::new(seconds, nanoseconds).ok())
        };
        Self {
            size: metadata.len(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The stamp that a snapshot says the file had.
    pub(in crate::repository) fn said_by(node: &Node) -> Self {
        Self { size: node.meta.size, modified: node.meta.mtime, changed: node.meta.ctime }
    }

    /// Something of it may be in memory alone: kernels write what is older than half a minute, and look every five seconds.
    pub(super) fn is_of_late(&self) -> bool {
        const UNWRITTEN: SignedDuration = SignedDuration::from_secs(60);
        let now = Timestamp::now();
        self.size > 0 && self.modified.is_some_and(|time| now.duration_since(time).abs() < UNWRITTEN)
    }

    /// How long to wait until a further change must show in the stamp; `None`: it must show already.
    pub(super) fn unsettled(&self) -> Option<Duration> {
        let now = Timestamp::try_from(SystemTime::now()).ok()?;
        let fine = |time: &Timestamp| time.subsec_nanosecond() != 0;
        let step = if [self.modified, self.changed].iter().flatten().any(fine) { STEP } else { COARSE_STEP };
        // A time in the future was set by hand, or by another clock: it says nothing.
        let latest = [self.modified, self.changed].into_iter().flatten().filter(|time| *time <= now).max()?;
        step.checked_sub(Duration::try_from(now.duration_since(latest)).ok()?).filter(|wait| !wait.is_zero())
    }
}

/// A time that the format can hold.
pub(super) fn held(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| time.as_second() >= EARLIEST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stamp(age: SignedDuration) -> Stamp {
        let time = Some(Timestamp::now() - age);
        Stamp { size: 1, modified: time, changed: time }
    }

    #[test]
    fn a_file_just_written_may_change_again_unseen() {
        assert!(stamp(SignedDuration::ZERO).unsettled().is_some_and(|wait| wait <= STEP));
        assert_eq!(stamp(SignedDuration::from_millis(500)).unsettled(), None);
        assert_eq!(stamp(SignedDuration::from_secs(-3600)).unsettled(), None, "another clock's");
    }

    #[test]
    fn where_only_seconds_are_kept_the_moment_is_longer() {
        let time = Timestamp::from_second(Timestamp::now().as_second() - 1).ok();
        let coarse = Stamp { size: 1, modified: time, changed: time };
        assert!(coarse.unsettled().is_some_and(|wait| wait <= COARSE_STEP));
    }

    #[test]
    fn years_of_four_digits_are_held() {
        let year = |text: &str| held(Some(text.parse().unwrap()));
        assert!(year("0000-01-01T00:00:00Z").is_some() && year("1901-12-13T20:45:52Z").is_some());
        assert_eq!(year("-000001-12-31T23:59:59Z"), None);
    }
}
