//! The records of a segment of WAL, one after the other.
//!
//! The layout has been PostgreSQL's since 9.5 (`XLogPageHeaderData`, `XLogRecord`), in the machine's byte order. Whatever does not fit is
//! taken for the end.

use std::io::{self, ErrorKind, Read};

/// The first bytes of a record, among them all that is asked of one.
const HEAD: usize = 128;
/// The fixed part of a record, with what comes before and the kind.
pub(super) const FIXED: usize = 24;

/// Calls `tell` with the position of each record that begins in it, and the first bytes of the record.
///
/// # Errors
/// It cannot be read.
pub(super) fn records(mut wal: impl Read, tell: &mut dyn FnMut(u64, &[u8])) -> io::Result<()> {
    let mut page = vec![0; 40];
    if !filled(&mut wal, &mut page)? {
        return Ok(());
    }
    let (begins, size) = (number(&page, 8), word(&page, 36) as usize);
    if !size.is_power_of_two() || !(1 << 10..=1 << 16).contains(&size) {
        return Ok(());
    }
    page.resize(size, 0);
    if !filled(&mut wal, &mut page[40..])? {
        return Ok(());
    }
    let mut record = Record::default();
    let mut here = begins;
    loop {
        let (info, rest) = (half(&page, 2), word(&page, 16) as usize);
        let mut at = if info & 2 == 0 { 24 } else { 40 };
        if number(&page, 8) != here {
            return Ok(()); // An older one that waits to be written anew.
        }
        if here == begins {
            record.left = aligned(rest);
        } else if info & 1 == 0 && record.left > 0 {
            record = Record::default(); // It was given up.
        }
        while at < page.len() {
            if record.left == 0 {
                let length = word(&page, at) as usize;
                if length < FIXED {
                    return Ok(());
                }
                record = Record { position: here + at as u64, left: aligned(length), ..record };
                record.head.clear();
            }
            let part = record.left.min(page.len() - at);
            let known = if record.position == 0 { 0 } else { part.min(HEAD - record.head.len()) };
            record.head.extend_from_slice(&page[at..at + known]);
            record.left -= part;
            at += part;
            if record.left == 0 && record.position != 0 {
                if record.before.is_some_and(|before| before != number(&record.head, 8)) {
                    return Ok(());
                }
                tell(record.position, &record.head);
                record.before = Some(record.position);
            }
        }
        here += size as u64;
        if !filled(&mut wal, &mut page)? {
            return Ok(());
        }
    }
}

/// The one that is read.
#[derive(Default)]
struct Record {
    /// 0: it began in an earlier segment.
    position: u64,
    head: Vec<u8>,
    /// Bytes that are still to come.
    left: usize,
    /// The position of the one before.
    before: Option<u64>,
}

/// False: there is no more.
fn filled(wal: &mut impl Read, page: &mut [u8]) -> io::Result<bool> {
    match wal.read_exact(page) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// What a record says that refers to no page: an origin and an outer transaction may come before it.
pub(super) fn said(head: &[u8]) -> Option<&[u8]> {
    let mut at = FIXED;
    loop {
        match *head.get(at)? {
            0xFD => at += 3,
            0xFC => at += 5,
            0xFF => return upto(head.get(at + 2..)?, usize::from(*head.get(at + 1)?)),
            0xFE => return upto(head.get(at + 5..)?, word(head.get(at + 1..at + 5)?, 0) as usize),
            _ => return None,
        }
    }
}

/// That many of the bytes, or as many as were kept; records are filled up to a multiple of eight.
fn upto(bytes: &[u8], length: usize) -> Option<&[u8]> {
    bytes.get(..length.min(bytes.len()))
}

/// Whose record it is, and of which kind.
pub(super) fn kind(head: &[u8]) -> Option<(u8, u8)> {
    Some((*head.get(17)?, *head.get(16)?))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(8)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(field)
}
