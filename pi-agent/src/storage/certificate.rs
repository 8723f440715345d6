//! Until when the server's certificate is good: the one line of X.509 that this needs, and no more.

use jiff::Timestamp;

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version, which old certificates leave out.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate (DER); `None` when it is none that we understand. It was verified by whoever connected.
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    let signed = content_of(SEQUENCE, certificate)?;
    let mut fields = Elements(content_of(SEQUENCE, signed)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    // Serial number, algorithm, issuer; then from when to when.
    let (tag, validity) = fields.nth(3)?;
    let (tag, text) = Elements(validity).nth(1).filter(|_| tag == SEQUENCE)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ`, or with four digits of the year (RFC 5280, 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14 && digits.is_ascii())?;
    let (day, clock) = digits.split_at(8);
    format!("{}-{}-{}T{}:{}:{}Z", &day[..4], &day[4..6], &day[6..], &clock[..2], &clock[2..4], &clock[4..]).parse().ok()
}

fn content_of(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    Elements(bytes).next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// Tag and content, one after another.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match usize::from(*first) {
            short @ 0..=0x7f => (short, rest),
            long @ 0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [&head[..], content].concat()
    }

    fn certificate(version: bool, end_tag: u8, end: &str) -> Vec<u8> {
        let version = if version { element(VERSION, &element(2, &[2])) } else { vec![] };
        let issuer = element(SEQUENCE, &[7; 120]);
        let validity = [element(UTC_TIME, b"260101000000Z"), element(end_tag, end.as_bytes())].concat();
        let fields = [version, element(2, &[1]), element(SEQUENCE, &[]), issuer, element(SEQUENCE, &validity)].concat();
        element(SEQUENCE, &element(SEQUENCE, &fields))
    }

    #[test]
    fn the_end_is_found_in_both_forms() {
        let end_of = |version, tag, text| end(&certificate(version, tag, text)).map(|end| end.to_string());
        assert_eq!(end_of(true, UTC_TIME, "270203040506Z").as_deref(), Some("2027-02-03T04:05:06Z"));
        assert_eq!(end_of(false, GENERALIZED_TIME, "20510203040506Z").as_deref(), Some("2051-02-03T04:05:06Z"));
        assert_eq!(end_of(true, UTC_TIME, "2702030405Z"), None);
        assert_eq!(end_of(true, GENERALIZED_TIME, "20271303040506Z"), None);
        assert_eq!(end_of(true, 0x16, "270203040506Z"), None);
    }

    #[test]
    fn no_bytes_panic() {
        let good = certificate(true, UTC_TIME, "270203040506Z");
        for length in 0..good.len() {
            assert_eq!(end(&good[..length]), None);
        }
        for at in 0..good.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = end(&bad);
            }
        }
    }

    #[test]
    fn no_certificate_panics() {
        let good = certificate(true, UTC_TIME, "270203040506Z");
        crate::fuzzed::fuzz(&[&good], |bytes| {
            let _ = end(bytes);
        });
    }
}
