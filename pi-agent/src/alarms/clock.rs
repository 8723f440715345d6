//! Whether the clock is right enough to judge ages by, and how much time really passed between two looks.
//!
//! The kernel has a clock that nobody sets: the time since the machine started. The last moment at which the clock was
//! trusted is kept on both, so that a clock moved by a day or a year is noticed at the next look.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::health::judge_clock;
use crate::report::words;
use crate::systemd::TimeService;

/// What a network's time may correct between two looks without anything being wrong.
pub(super) const MOVED: SignedDuration = SignedDuration::from_mins(10);
/// So long after the machine's start a clock may still be waiting for the network's time.
const STARTING: Duration = Duration::from_hours(1);

/// One moment on both clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Which start of the machine.
    pub boot: String,
    /// Milliseconds since then; goes on while the machine sleeps.
    pub since_boot: u64,
    /// What the clock showed.
    pub wall: Timestamp,
}

impl Moment {
    /// Now, with what the clock shows. `root` is `/` but in tests. Without /proc each look counts as a start of its own.
    pub fn of(root: &Path, wall: Timestamp) -> Self {
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let uptime = read("proc/uptime");
        let seconds = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
        Self {
            boot: read("proc/sys/kernel/random/boot_id").trim().to_owned(),
            since_boot: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map_or(0, millis),
            wall,
        }
    }

    /// What a clock that was right at this moment shows at the other; `None` when the machine was started between.
    fn wall_at(&self, other: &Self) -> Option<Timestamp> {
        if self.boot != other.boot || self.boot.is_empty() {
            return None;
        }
        let passed = i128::from(other.since_boot) - i128::from(self.since_boot);
        let passed = SignedDuration::from_millis(i64::try_from(passed).ok()?);
        self.wall.checked_add(passed).ok()
    }
}

/// Whether the clock is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// As far as anybody can tell.
    Trusted,
    /// It is not, because of this.
    Doubted(String),
    /// The machine has only just started; the network's time is still to come.
    Starting(String),
}

impl Trust {
    /// Ages may be judged by it.
    pub fn is_trusted(&self) -> bool {
        *self == Self::Trusted
    }
}

/// Judges the clock. `anchor`: the last moment it was trusted; `service` and `newest` (the newest moment on record) are
/// asked only when that does not tell: in an ordinary look no other program is started.
pub fn judge(
    now: &Moment,
    anchor: Option<&Moment>,
    service: impl FnOnce() -> TimeService,
    newest: impl FnOnce() -> Option<Timestamp>,
) -> Trust {
    if let Some(expected) = anchor.and_then(|anchor| anchor.wall_at(now)) {
        let moved = now.wall.duration_since(expected);
        if moved.abs() <= MOVED || service() == TimeService::Synchronised {
            return Trust::Trusted;
        }
        let direction = if moved.is_negative() { "back" } else { "forward" };
        let by = words::duration(moved.unsigned_abs());
        return Trust::Doubted(format!("the clock was moved {direction} by {by}; it shows {}", words::time(now.wall)));
    }
    let service = service();
    if service == TimeService::Synchronised {
        return Trust::Trusted;
    }
    let last = anchor.map(|anchor| anchor.wall).or_else(newest);
    let waits = service == TimeService::Trying;
    let problem = judge_clock(now.wall, last)
        .or_else(|| waits.then(|| "the network has not set the clock since the machine started".to_owned()));
    match problem {
        None => Trust::Trusted,
        Some(problem) if waits && Duration::from_millis(now.since_boot) < STARTING => Trust::Starting(problem),
        Some(problem) => Trust::Doubted(problem),
    }
}

/// How much time passed between two looks, at least. A clock that is moved makes no time pass.
pub fn passed(seen: &Moment, now: &Moment, anchor: Option<&Moment>, trust: &Trust) -> Duration {
    if seen.boot == now.boot {
        return Duration::from_millis(now.since_boot.saturating_sub(seen.since_boot));
    }
    // The machine was off for a while, if both ends are on a clock that was right.
    let off = anchor
        .and_then(|anchor| anchor.wall_at(seen))
        .filter(|_| trust.is_trusted())
        .map_or(Duration::ZERO, |then| words::between(then, now.wall));
    off.max(Duration::from_millis(now.since_boot))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(boot: &str, since_boot: u64, wall: &str) -> Moment {
        Moment { boot: boot.into(), since_boot, wall: wall.parse().unwrap() }
    }

    fn judged(now: &Moment, anchor: Option<&Moment>, service: TimeService, newest: Option<&str>) -> Trust {
        judge(now, anchor, || service, || newest.map(|text| text.parse().unwrap()))
    }

    fn doubted(trust: Trust) -> String {
        match trust {
            Trust::Doubted(why) => why,
            other => panic!("expected doubt, got {other:?}"),
        }
    }

    #[test]
    fn a_clock_moved_while_the_machine_runs_is_not_trusted_unless_the_network_did_it() {
        let anchor = at("a", HOUR, "2026-11-21T03:00:00Z");
        let absent = TimeService::Absent;
        let same = at("a", 2 * HOUR, "2026-11-21T04:05:00Z");
        assert_eq!(judged(&same, Some(&anchor), TimeService::Trying, None), Trust::Trusted, "five minutes are drift");
        for wall in ["2026-11-22T04:00:00Z", "2027-11-21T04:00:00Z", "2026-11-20T04:00:00Z", "2025-11-21T04:00:00Z"] {
            let moved = at("a", 2 * HOUR, wall);
            let why = doubted(judged(&moved, Some(&anchor), absent, None));
            assert!(why.contains(if wall < "2026-11-21" { "moved back by" } else { "moved forward by" }), "{why}");
            assert_eq!(judged(&moved, Some(&anchor), TimeService::Synchronised, None), Trust::Trusted);
        }
        assert_eq!(
            judged(&same, Some(&anchor), absent, Some("2027-11-21T03:00:00Z")),
            Trust::Trusted,
            "a record made while the clock was wrong does not outweigh a clock that is right again"
        );
    }

    #[test]
    fn after_a_start_the_last_trusted_moment_and_the_time_service_tell() {
        let anchor = at("a", HOUR, "2026-11-21T03:00:00Z");
        let later = at("b", HOUR / 60, "2026-11-21T03:30:00Z");
        assert_eq!(judged(&later, Some(&anchor), TimeService::Absent, None), Trust::Trusted);
        assert!(matches!(judged(&later, Some(&anchor), TimeService::Trying, None), Trust::Starting(_)));
        let much_later = at("b", 2 * HOUR, "2026-11-21T05:30:00Z");
        assert!(
            doubted(judged(&much_later, Some(&anchor), TimeService::Trying, None)).contains("has not set the clock")
        );
        let earlier = at("b", 2 * HOUR, "2026-11-20T03:30:00Z");
        assert!(doubted(judged(&earlier, Some(&anchor), TimeService::Absent, None)).contains("2026-11-21"));
        assert_eq!(judged(&earlier, Some(&anchor), TimeService::Synchronised, None), Trust::Trusted);
        let first = at("b", HOUR, "2026-11-21T03:30:00Z");
        assert_eq!(judged(&first, None, TimeService::Absent, None), Trust::Trusted, "a machine without any past");
        doubted(judged(&first, None, TimeService::Absent, Some("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn time_passes_by_the_clock_that_nobody_sets() {
        let seen = at("a", HOUR, "2026-11-21T03:00:00Z");
        let hours = |now: &Moment, anchor, trust: &Trust| passed(&seen, now, anchor, trust).as_secs() / 3600;
        let doubt = Trust::Doubted(String::new());
        assert_eq!(hours(&at("a", 3 * HOUR, "2027-11-21T03:00:00Z"), None, &doubt), 2);
        let restarted = at("b", HOUR, "2026-11-21T13:00:00Z");
        assert_eq!(hours(&restarted, Some(&seen), &Trust::Trusted), 10, "off for nine of them");
        assert_eq!(hours(&restarted, Some(&seen), &doubt), 1, "what is certain");
        assert_eq!(hours(&restarted, Some(&at("0", HOUR, "2026-11-01T00:00:00Z")), &Trust::Trusted), 1);
    }

    #[test]
    fn the_kernel_tells_both() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/sys/kernel/random")).unwrap();
        std::fs::write(root.path().join("proc/uptime"), "12.34 20.00\n").unwrap();
        std::fs::write(root.path().join("proc/sys/kernel/random/boot_id"), "5d1c\n").unwrap();
        let wall = "2026-11-21T03:00:00Z".parse().unwrap();
        assert_eq!(Moment::of(root.path(), wall), at("5d1c", 12_340, "2026-11-21T03:00:00Z"));
        let here = Moment::of(Path::new("/"), wall);
        assert!(!here.boot.is_empty() && here.since_boot > 0);
    }
}
