//! The words of `--at`.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::restore::At;

/// A time with offset (`2026-11-20T21:30:00+10:00`, `…Z`), a local time (`2026-11-20 21:30`, with or without seconds),
/// `latest`, or else an id or label. A local time that happens twice in a night (the clock goes back) is the first of the two.
pub fn parse(text: &str) -> At {
    let text = text.trim();
    if text == "latest" {
        return At::Latest;
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return At::Time(moment);
    }
    let local = text.parse::<civil::DateTime>().ok().filter(|_| text.contains(':'));
    match local.and_then(|local| local.to_zoned(TimeZone::system()).ok()) {
        Some(zoned) => At::Time(zoned.timestamp()),
        None => At::Id(text.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_with_offset_local_times_and_ids_are_told_apart() {
        let moment: Timestamp = "2026-11-20T11:30:00Z".parse().unwrap();
        assert_eq!(parse("2026-11-20T21:30:00+10:00"), At::Time(moment));
        assert_eq!(parse("2026-11-20 11:30:00Z"), At::Time(moment));
        let local = civil::date(2026, 11, 20).at(21, 30, 0, 0).to_zoned(TimeZone::system()).unwrap().timestamp();
        assert_eq!(parse("2026-11-20 21:30"), At::Time(local));
        assert_eq!(parse("latest"), At::Latest);
        assert_eq!(parse("1a2b3c4d"), At::Id("1a2b3c4d".into()));
        assert_eq!(parse("20261121-030001F_20261122-030001I"), At::Id("20261121-030001F_20261122-030001I".into()));
        assert_eq!(parse("20261121"), At::Id("20261121".into()));
    }
}
