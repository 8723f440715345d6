//! The times that a segment of WAL tells: when transactions ended, checkpoints began, restore points were made, and recoveries came to
//! their end. A cluster was at work on a timeline then, whenever the segment reached the repository.
//!
//! The layout has been PostgreSQL's since 9.5 (`xl_xact_commit`, `CheckPoint`, `xl_restore_point`, `xl_end_of_recovery`), in the machine's
//! byte order.

use std::io::{self, Read};

use jiff::Timestamp;

use super::records::{kind, number, records, said};

/// PostgreSQL counts microseconds from the year 2000.
const EPOCH: i64 = 946_684_800_000_000;

/// Calls `tell` with the position of each record that tells a time, and the time.
///
/// # Errors
/// It cannot be read.
pub fn times(wal: impl Read, tell: &mut dyn FnMut(u64, Timestamp)) -> io::Result<()> {
    records(wal, &mut |position, head| {
        if let Some(time) = time(head) {
            tell(position, time);
        }
    })
}

/// Calls `tell` with the position of each record of a transaction's end, and the time of that.
///
/// # Errors
/// It cannot be read.
pub fn commits(wal: impl Read, tell: &mut dyn FnMut(u64, Timestamp)) -> io::Result<()> {
    records(wal, &mut |position, head| {
        if let (Some(1), Some(time)) = (head.get(17), time(head)) {
            tell(position, time);
        }
    })
}

/// The time that a record tells.
fn time(head: &[u8]) -> Option<Timestamp> {
    let ((manager, info), said) = (kind(head)?, said(head)?);
    let long = |at: usize| said.get(at..at + 8).map(|_| number(said, at).cast_signed());
    let of_2000 = |time: i64| Timestamp::from_microsecond(time.checked_add(EPOCH)?).ok();
    match (manager, info & 0xF0) {
        (0, 0x00 | 0x10) => Timestamp::from_second(long(64)?).ok(),
        (0, 0x70 | 0x90) => of_2000(long(0)?),
        // With or without more about it (0x80): the end of a transaction, also of one that was prepared.
        (1, info) if matches!(info & 0x70, 0x00 | 0x20 | 0x30 | 0x40) => of_2000(long(0)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::FIXED;
    use super::*;

    const PAGE: usize = 8192;
    const BEGINS: u64 = 5 << 24;

    /// Pages of a segment, filled with records one after the other.
    struct Segment {
        bytes: Vec<u8>,
        before: u64,
    }

    impl Segment {
        fn begin() -> Self {
            Self { bytes: Vec::new(), before: 0 }
        }

        fn byte(&mut self, byte: u8, left: usize) {
            if self.bytes.len().is_multiple_of(PAGE) {
                let first = self.bytes.is_empty();
                let mut header = vec![0; if first { 40 } else { 24 }];
                header[2] = if first { 2 } else { 1 };
                header[8..16].copy_from_slice(&(BEGINS + self.bytes.len() as u64).to_ne_bytes());
                if first {
                    header[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
                } else {
                    header[16..20].copy_from_slice(&u32::try_from(left).expect("short").to_ne_bytes());
                }
                self.bytes.extend(header);
            }
            self.bytes.push(byte);
        }

        fn record(&mut self, manager: u8, info: u8, said: &[u8]) {
            let mut record = vec![0; FIXED];
            record[8..16].copy_from_slice(&self.before.to_ne_bytes());
            (record[16], record[17]) = (info, manager);
            record.push(0xFE);
            record.extend(u32::try_from(said.len()).expect("short").to_ne_bytes());
            record.extend(said);
            let length = record.len();
            record[..4].copy_from_slice(&u32::try_from(length).expect("short").to_ne_bytes());
            record.resize(length.next_multiple_of(8), 0);
            let begins = if self.bytes.is_empty() { 40 } else { self.bytes.len() };
            self.before = BEGINS + (begins + if begins.is_multiple_of(PAGE) { 24 } else { 0 }) as u64;
            for (at, byte) in record.iter().enumerate() {
                self.byte(*byte, length.saturating_sub(at));
            }
        }

        fn told(mut self) -> Vec<i64> {
            self.bytes.resize(self.bytes.len().next_multiple_of(PAGE) + PAGE, 0);
            let mut told = Vec::new();
            times(&*self.bytes, &mut |_, time| told.push(time.as_second())).expect("it is read");
            told
        }
    }

    fn of_2000(second: i64) -> [u8; 8] {
        (second * 1_000_000 - EPOCH).to_ne_bytes()
    }

    #[test]
    fn transactions_checkpoints_and_recoveries_tell_their_times() {
        let mut segment = Segment::begin();
        segment.record(0, 0x90, &of_2000(1_700_000_001));
        segment.record(10, 0, &[7; 30_000]);
        segment.record(1, 0x80, &[&of_2000(1_700_000_002)[..], &[1; 9_000]].concat());
        segment.record(1, 0x50, &of_2000(1_700_000_099));
        segment.record(1, 0x20, &of_2000(1_700_000_003));
        let mut checkpoint = [0; 88];
        checkpoint[64..72].copy_from_slice(&1_700_000_004_i64.to_ne_bytes());
        segment.record(0, 0x10, &checkpoint);
        segment.record(0, 0x70, &[&of_2000(1_700_000_005)[..], &[b'x'; 64]].concat());
        segment.bytes.resize(segment.bytes.len().next_multiple_of(PAGE) + PAGE, 0);
        let mut ends = Vec::new();
        commits(&*segment.bytes, &mut |_, time| ends.push(time.as_second())).expect("it is read");
        assert_eq!(ends, [1_700_000_002, 1_700_000_003], "of transactions alone");
        assert_eq!(segment.told(), [1, 2, 3, 4, 5].map(|second| 1_700_000_000 + second));
    }

    #[test]
    fn what_does_not_follow_is_the_end() {
        let mut segment = Segment::begin();
        segment.record(1, 0, &of_2000(1_700_000_001));
        segment.before = 12;
        segment.record(1, 0, &of_2000(1_700_000_002));
        assert_eq!(segment.told(), [1_700_000_001]);
        let mut old = Segment::begin();
        old.record(1, 0, &of_2000(1_700_000_001));
        old.record(10, 0, &[0; PAGE]);
        old.record(1, 0, &of_2000(1_700_000_002));
        old.bytes[PAGE + 8] = 1;
        assert_eq!(old.told(), [1_700_000_001], "a page of an older segment");
        for garbage in [&[][..], &[0; 40], &[7; 3 * PAGE]] {
            times(garbage, &mut |_, _| panic!("it tells nothing")).expect("it is read");
        }
    }

    #[test]
    fn no_segment_panics() {
        let mut segment = Segment::begin();
        segment.record(1, 0, &of_2000(1_700_000_001));
        segment.record(10, 0, &[7; 9_000]);
        segment.record(1, 0x20, &of_2000(1_700_000_003));
        segment.bytes.resize(segment.bytes.len().next_multiple_of(PAGE), 0);
        crate::fuzzed::fuzz(&[&segment.bytes], |bytes| {
            times(bytes, &mut |_, _| ()).expect("it is read");
        });
    }
}
