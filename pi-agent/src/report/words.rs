//! Sizes, durations and times as people read them, and times as programs do.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `1.4 GiB`
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut rest = bytes;
    let mut tenths = 0;
    while rest >= 1024 && unit + 1 < UNITS.len() {
        tenths = rest % 1024 * 10 / 1024;
        rest /= 1024;
        unit += 1;
    }
    if unit == 0 || rest >= 100 {
        format!("{rest} {}", UNITS[unit])
    } else {
        format!("{rest}.{tenths} {}", UNITS[unit])
    }
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |first: u64, unit: &str, second: u64, small: &str| match second {
        0 => format!("{first} {unit}"),
        _ => format!("{first} {unit} {second} {small}"),
    };
    match seconds {
        0 => format!("{}.{} s", 0, duration.subsec_millis() / 100),
        1..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86400, "d", seconds % 86400 / 3600, "h"),
    }
}

/// Local time for people: `2026-11-21 03:00`
pub fn time(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// RFC 3339 with offset, for JSON.
pub fn stamp(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Time from `then` to `now`; none when it runs backwards.
pub fn between(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_three_figures() {
        let shown = [0, 1023, 1024, 1536, 10 << 20, 200 << 20, 1_500_000_000].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10.0 MiB", "200 MiB", "1.3 GiB"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [0, 59, 60, 200, 7500, 90_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0.0 s", "59 s", "1 min", "3 min 20 s", "2 h 5 min", "1 d 1 h"]);
    }
}
