//! The texts inside values: durations, sizes, times, URLs. Pure; a wrong text is `None`.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// `90s`, `30m`, `26h`, `7d`: more than nothing, at most a hundred years.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=36_500 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// `512KiB`, `2MiB`, `1048576`: more than nothing.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

/// `07:00`.
pub(super) fn time(text: &str) -> Option<jiff::civil::Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| (text.len() == 2 && all_digits(text)).then(|| text.parse::<i8>().ok()).flatten();
    jiff::civil::Time::new(two(hour)?, two(minute)?, 0, 0).ok()
}

/// An absolute path without `..` and control characters; doubled and trailing slashes go.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain =
        path.is_absolute() && !text.contains(char::is_control) && !path.components().any(|c| c == Component::ParentDir);
    plain.then(|| path.components().collect())
}

/// Letters, digits and `extra`, beginning with a letter or digit; at most 63.
pub(super) fn word(text: &str, extra: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
}

/// The path in `file:///absolute/path`, taken literally (no percent signs are decoded).
pub(super) fn file_url(text: &str) -> Option<PathBuf> {
    path(text.strip_prefix("file://")?).filter(|path| path.parent().is_some())
}

/// Bucket and prefix in `s3://bucket/prefix`; the prefix without slashes at its ends.
pub(super) fn s3_url(text: &str) -> Option<(String, String)> {
    let rest = text.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let bucket_good = (3..=63).contains(&bucket.len())
        && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bucket.ends_with(|c: char| c.is_ascii_alphanumeric())
        && bucket.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c));
    let segment_good = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || "-_.=!'()*+@,".contains(c))
    };
    let good = bucket_good && (prefix.is_empty() || prefix.split('/').all(segment_good));
    good.then(|| (bucket.to_owned(), prefix.to_owned()))
}

/// `https://HOST[:PORT]/PATH[?QUERY]`, or `http://` on loopback.
pub(super) fn url(text: &str) -> Option<String> {
    let authority = text.find("://")? + 3;
    let end = text[authority..].find(['/', '?']).map_or(text.len(), |end| authority + end);
    let plain = text.chars().all(|c| c.is_ascii_graphic() && !"\"<>\\^`{|}#".contains(c));
    (plain && endpoint(&text[..end]).is_some()).then(|| text.to_owned())
}

/// `https://HOST[:PORT]`, or `http://` on loopback; no trailing slash comes out.
pub(super) fn endpoint(text: &str) -> Option<String> {
    let (scheme, authority) = text.strip_suffix('/').unwrap_or(text).split_once("://")?;
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    };
    let port_good = port.is_none_or(|port| all_digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_good = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    let loopback = host == "localhost" || address.unwrap_or(host).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let scheme_good = scheme == "https" || (scheme == "http" && loopback);
    (scheme_good && host_good && port_good).then(|| format!("{scheme}://{authority}"))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("30m"), Some(Duration::from_mins(30)));
        assert_eq!(duration("26h"), Some(Duration::from_hours(26)));
        assert_eq!(duration("7d"), Some(Duration::from_hours(168)));
        for wrong in ["", "7", "d", "0s", "1.5h", "-1h", "7 d", "7D", "1h30m", "99999999999999999999s", "40000d", "७d"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512KiB"), Some(524_288));
        assert_eq!(size("2MiB"), Some(2_097_152));
        assert_eq!(size("1000"), Some(1000));
        for wrong in ["", "0", "MiB", "2MB", "2 MiB", "-1", "1.5MiB", "99999999999TiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time("07:00").unwrap(), jiff::civil::time(7, 0, 0, 0));
        assert_eq!(time("23:59").unwrap(), jiff::civil::time(23, 59, 0, 0));
        for wrong in ["", "7:00", "24:00", "07:60", "07:00:00", "+7:00", "0700"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn urls() {
        assert_eq!(file_url("file:///mnt/usb//pi/"), Some("/mnt/usb/pi".into()));
        assert_eq!(s3_url("s3://example-bucket/a/b/"), Some(("example-bucket".into(), "a/b".into())));
        assert_eq!(s3_url("s3://example-bucket"), Some(("example-bucket".into(), String::new())));
        for wrong in ["", "/mnt/usb", "file://mnt/usb", "file://", "file:///", "file:///a/../b", "FILE:///a"] {
            assert_eq!(file_url(wrong), None, "{wrong}");
        }
        for wrong in
            ["s3:///x", "s3://Upper", "s3://ab", "s3://bucket//x//y", "s3://bucket/a/../b", "s3://bucket/a?x=1"]
        {
            assert_eq!(s3_url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_of_services() {
        for good in ["https://hc-ping.com/uuid?create=1", "http://127.0.0.1:8080/x", "https://ntfy.sh/attic"] {
            assert_eq!(url(good).as_deref(), Some(good));
        }
        for wrong in ["http://ntfy.sh/attic", "https://me:word@host/x", "https:///x", "https://host/a b", "host/x"] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn endpoints() {
        for good in [
            "https://garage.home:3900",
            "https://[::1]:9000",
            "http://127.0.0.1:3900",
            "http://[::1]",
            "http://localhost:1",
        ] {
            assert_eq!(endpoint(good).as_deref(), Some(good));
        }
        assert_eq!(endpoint("https://garage.home/").as_deref(), Some("https://garage.home"));
        for wrong in [
            "garage.home:3900",
            "http://garage.home",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "https://user:word@host",
            "https://host/path",
            "https://host:0",
            "https://host:99999",
            "https://",
            "ftp://localhost",
        ] {
            assert_eq!(endpoint(wrong), None, "{wrong}");
        }
    }
}
