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

/// One unit, rounded down: `45 s`, `12 min`, `26 h`, `3 d`
pub fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

/// `1.3`, `12`
pub fn ratio(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") }
}

/// `97 %`; 100 only when it is all.
pub fn percent(rate: f64) -> String {
    format!("{:.0} %", (rate * 100.0).floor())
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
    fn rough_words_have_one_unit() {
        let shown = [0, 119, 120, 7199, 7200, 93_600, 172_800].map(|seconds| rough(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "26 h", "2 d"]);
        assert_eq!([1.26, 12.3].map(ratio), ["1.3", "12"]);
        assert_eq!([1.0, 0.999, 0.5].map(percent), ["100 %", "99 %", "50 %"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [0, 59, 60, 200, 7500, 90_000].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0.0 s", "59 s", "1 min", "3 min 20 s", "2 h 5 min", "1 d 1 h"]);
    }
}
