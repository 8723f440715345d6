//! The files that PostgreSQL archives: their names, and what a segment says of itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::error::{Context, Error, Result};

/// The kinds of names that PostgreSQL archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A segment, or the last, partly filled one of a timeline (`.partial`).
    Segment,
    /// `.history` and `.backup`.
    Note,
}

impl Name {
    /// What a file of that name is; `None`: no WAL.
    pub fn of(name: &str) -> Option<Self> {
        let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        let (base, rest) = name.split_once('.').map_or((name, None), |(base, rest)| (base, Some(rest)));
        match (base.len(), rest) {
            _ if !hex(base) => None,
            (24, None | Some("partial")) => Some(Self::Segment),
            (8, Some("history")) => Some(Self::Note),
            (24, Some(rest)) => {
                let offset = rest.strip_suffix(".backup")?;
                (offset.len() == 8 && hex(offset)).then_some(Self::Note)
            }
            _ => None,
        }
    }

    /// What that file is, by its name.
    pub fn of_file(file: &Path) -> Option<Self> {
        Self::of(file.file_name()?.to_str()?)
    }
}

/// The number of a segment in the stream of WAL, of its name `TTTTTTTTLLLLLLLLSSSSSSSS` (timeline, log, segment); `None`
/// for other names. Timelines overlap where one left the other, so they do not count.
pub fn place(name: &str, segment_size: u64) -> Option<u64> {
    if name.len() != 24 || Name::of(name) != Some(Name::Segment) {
        return None;
    }
    let per_log = 0x1_0000_0000_u64.checked_div(segment_size)?;
    let part = |range| u64::from_str_radix(name.get(range)?, 16).ok();
    Some(part(8..16)? * per_log + part(16..24)?)
}

/// What the long header at the beginning of a segment says (PostgreSQL's `XLogLongPageHeaderData`, in the machine's byte order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the cluster that wrote it.
    pub system_id: u64,
    /// Bytes of each of its segments.
    pub segment_size: u64,
    /// Where in the stream of WAL it begins.
    pub begins: u64,
}

impl Header {
    const LENGTH: usize = 40;
    /// `XLP_LONG_HEADER` in `xlp_info`.
    const LONG: u16 = 2;

    /// Reads it, and compares the size it states with the file's.
    ///
    /// # Errors
    /// The file cannot be read, is no segment, or is truncated.
    pub fn check(file: &Path) -> Result<Self> {
        let doing = || format!("read WAL {}", file.display());
        let mut open = open_plain(file).context(doing)?;
        let size = open.metadata().context(doing)?.len();
        let mut bytes = [0; Self::LENGTH];
        let damaged = |what: String| {
            Error::new(format!("WAL {} {what}", file.display())).hint(
                "something other than the recommended archive_command put it there; remove it: PostgreSQL delivers it \
                 again if it has not counted it as archived, else only a new backup closes the hole",
            )
        };
        if let Err(error) = open.read_exact(&mut bytes) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged(format!("is truncated: {size} bytes")),
                _ => Error::new(doing()).caused_by(error),
            });
        }
        let field = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let info = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let wanted = u64::from(field(32));
        if info & Self::LONG == 0 || !wanted.is_power_of_two() {
            return Err(damaged("does not begin like a WAL segment".into()));
        }
        if wanted != size {
            return Err(damaged(format!("is truncated: {size} of {wanted} bytes")));
        }
        let long = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(field)
        };
        Ok(Self { system_id: long(24), segment_size: size, begins: long(8) })
    }

    /// It is the one of that name, and not an older one that waits to be written anew under it.
    pub fn is_of(&self, name: &str) -> bool {
        place(name, self.segment_size) == self.begins.checked_div(self.segment_size)
    }
}

/// Opens a file in a directory of the server's user: no link is followed, and a pipe is not waited for.
pub(super) fn open_plain(file: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    File::options().read(true).custom_flags(flags.bits()).open(file)
}

/// The system identifier in a data directory's control file (its first field); `None` when it cannot be read.
pub fn system_id_of(data_directory: &Path) -> Option<u64> {
    let mut bytes = [0; 8];
    open_plain(&data_directory.join("global/pg_control")).ok()?.read_exact(&mut bytes).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// Part of a data directory's control file. Read without the server's programs, which a container may have alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The server ended in an orderly way (`DB_SHUTDOWNED` in the fourth of the fields).
    pub is_shut_down: bool,
    /// Where its last checkpoint is in the stream of WAL.
    pub checkpoint: u64,
}

impl Control {
    /// `None`: it cannot be read.
    pub fn read(data_directory: &Path) -> Option<Self> {
        const SHUT_DOWN: u32 = 1;
        let mut bytes = [0; 40];
        open_plain(&data_directory.join("global/pg_control")).ok()?.read_exact(&mut bytes).ok()?;
        let mut checkpoint = [0; 8];
        checkpoint.copy_from_slice(&bytes[32..]);
        Some(Self {
            is_shut_down: u32::from_ne_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) == SHUT_DOWN,
            checkpoint: u64::from_ne_bytes(checkpoint),
        })
    }

    /// The segment in which the server ended holds nothing but the note of that: a server that archives begins another one first.
    pub fn is_first_in_its_segment(&self, segment_size: u64) -> bool {
        self.is_shut_down && self.checkpoint % segment_size == Header::LENGTH as u64
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_wal_is_pushed() {
        for name in ["00000001000000000000000A", "00000002.history", "00000001000000000000000A.partial"] {
            assert!(Name::of(name).is_some(), "{name}");
        }
        assert_eq!(Name::of("00000001000000000000000A.00000028.backup"), Some(Name::Note));
        for name in [
            ".00000001000000000000000A.tmp",
            "00000001000000000000000a",
            "00000001000000000000000A.tmp",
            "00000001000000000000000A.28.backup",
            "history",
            "set-aside-1",
            "",
        ] {
            assert_eq!(Name::of(name), None, "{name}");
        }
    }

    fn segment(size: usize, stated: u32) -> Vec<u8> {
        let mut bytes = vec![0; size.max(Header::LENGTH)];
        bytes[2..4].copy_from_slice(&Header::LONG.to_ne_bytes());
        bytes[8..16].copy_from_slice(&(5_u64 << 20).to_ne_bytes());
        bytes[24..32].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&stated.to_ne_bytes());
        bytes.truncate(size);
        bytes
    }

    #[test]
    fn a_segment_must_be_as_long_as_it_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("000000010000000000000001");
        let check = |bytes: &[u8]| {
            fs::write(&file, bytes).expect("written");
            Header::check(&file).map_err(|error| error.to_string())
        };
        assert_eq!(
            check(&segment(1 << 20, 1 << 20)),
            Ok(Header { system_id: 77, segment_size: 1 << 20, begins: 5 << 20 })
        );
        let header = check(&segment(1 << 20, 1 << 20)).expect("whole");
        assert!(header.is_of("000000010000000000000005") && header.is_of("000000020000000000000005"));
        assert!(!header.is_of("000000010000000000000009"), "it is to be written anew");
        assert!(check(&segment(4096, 1 << 20)).expect_err("short").contains("4096 of 1048576 bytes"));
        assert!(check(&[]).expect_err("empty").contains("is truncated: 0 bytes"));
        assert!(check(&[7; 8192]).expect_err("garbage").contains("does not begin like"));
    }
}
