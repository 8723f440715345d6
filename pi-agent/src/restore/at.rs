//! The words of `--at`.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::error::{Error, Result};
use crate::restore::At;

/// A time with offset (`2026-11-20T21:30:00+10:00`, `…Z`), a local time (`2026-11-20 21:30`, with or without seconds),
/// `latest`, or an id or label. A local time that happens twice in a night (the clock goes back) is the first of the two.
///
/// # Errors
/// It is none of these: a time that is not understood must not pass for the name of a backup that is not there.
pub fn parse(text: &str) -> Result<At> {
    let text = text.trim();
    if text == "latest" {
        return Ok(At::Latest);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(At::Time(moment));
    }
    let local = text.parse::<civil::DateTime>().ok().filter(|_| text.contains(':'));
    match local.and_then(|local| local.to_zoned(TimeZone::system()).ok()) {
        Some(zoned) => Ok(At::Time(zoned.timestamp())),
        None if is_id(text) => Ok(At::Id(text.to_owned())),
        None => Err(Error::usage(format!("{text:?} is no time that is understood, and no id"))
            .hint("a time is written 2026-11-20 21:30 (local), or with its offset: 2026-11-20T21:30:00+10:00; pi-agent points lists the ids")),
    }
}

/// The beginning of a snapshot's id (hexadecimal), or of pgBackRest's label (`20261121-030001F`).
fn is_id(text: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let label = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'F' | b'D' | b'I');
    let bytes = text.as_bytes();
    let dated = bytes.len() > 8 && bytes[..8].iter().all(u8::is_ascii_digit) && bytes[8] == b'-';
    !bytes.is_empty() && (bytes.iter().all(|byte| hex(*byte)) || (dated && bytes.iter().all(|byte| label(*byte))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn understood(text: &str) -> At {
        parse(text).unwrap()
    }

    #[test]
    fn times_with_offset_local_times_and_ids_are_told_apart() {
        let moment: Timestamp = "2026-11-20T11:30:00Z".parse().unwrap();
        assert_eq!(understood("2026-11-20T21:30:00+10:00"), At::Time(moment));
        assert_eq!(understood("2026-11-20 11:30:00Z"), At::Time(moment));
        let local = civil::date(2026, 11, 20).at(21, 30, 0, 0).to_zoned(TimeZone::system()).unwrap().timestamp();
        assert_eq!(understood("2026-11-20 21:30"), At::Time(local));
        assert_eq!(understood("latest"), At::Latest);
        assert_eq!(understood("1a2b3c4d"), At::Id("1a2b3c4d".into()));
        assert_eq!(understood("20261121-030001F_20261122-030001I"), At::Id("20261121-030001F_20261122-030001I".into()));
        assert_eq!(understood("20261121"), At::Id("20261121".into()));
    }

    #[test]
    fn what_is_neither_a_time_nor_an_id_is_said_to_be_no_time() {
        for text in
            ["2026-11-29 21:30:00 UTC", "2026-11-29", "2026-11-29 25:00", "21:30", "yesterday", "", "20261129-x"]
        {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains("is no time"), "{text}");
            assert!(error.advice().unwrap().contains("2026-11-20 21:30"), "{text}");
        }
    }

    #[test]
    fn no_moment_panics() {
        let moments = ["2026-11-20T21:30:00+10:00", "2026-11-20 21:30", "yesterday", "2 days ago", "1a2b3c4d", "now"];
        crate::fuzzed::fuzz_text(&moments, |text| drop(parse(text)));
    }
}
