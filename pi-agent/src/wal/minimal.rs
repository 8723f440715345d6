//! WAL that does not hold all changes: a server with `wal_level = minimal` leaves out what it writes into new tables. It ends an archive
//! as a segment that is missing does, but no name tells.

use std::io::{self, Read};
use std::path::Path;

use super::records::{kind, records, said, word};
use super::segment::open_plain;

/// The position from which on a segment was written so: of PostgreSQL's record of changed settings (`xl_parameter_change`), in which two
/// flags come behind `wal_level`, filled up to four bytes.
///
/// # Errors
/// It cannot be read.
pub fn minimal(wal: impl Read) -> io::Result<Option<u64>> {
    let mut first = None;
    records(wal, &mut |position, head| {
        if first.is_none() && is_minimal(head) == Some(true) {
            first = Some(position);
        }
    })?;
    Ok(first)
}

/// The same of a file.
///
/// # Errors
/// As of [`minimal`].
pub fn minimal_in(file: &Path) -> io::Result<Option<u64>> {
    minimal(open_plain(file)?)
}

fn is_minimal(head: &[u8]) -> Option<bool> {
    const PARAMETER_CHANGE: (u8, u8) = (0, 0x60);
    const MINIMAL: u32 = 0;
    let (manager, info) = kind(head)?;
    let said = said(head).filter(|_| (manager, info & 0xF0) == PARAMETER_CHANGE)?;
    // max_wal_senders came with 12.
    matches!(said.len(), 24 | 28).then(|| word(said, said.len() - 8) == MINIMAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_settings_tells_the_level() {
        let record = |info: u8, level: u32, length: u8| {
            let mut record = vec![0; 24];
            (record[16], record[17]) = (info, 0);
            record.extend([0xFF, length]);
            record.resize(24 + 2 + usize::from(length), 7);
            let at = record.len() - 8;
            record[at..at + 4].copy_from_slice(&level.to_ne_bytes());
            record.resize(record.len().next_multiple_of(8), 7);
            record
        };
        for length in [24, 28] {
            assert_eq!(is_minimal(&record(0x60, 0, length)), Some(true));
            assert_eq!(is_minimal(&record(0x60, 1, length)), Some(false), "replica");
        }
        assert_eq!(is_minimal(&record(0x70, 0, 28)), None, "another kind");
        assert_eq!(is_minimal(&record(0x60, 0, 40)), None, "a layout of the future");
        assert_eq!(is_minimal(&[]), None);
    }
}
