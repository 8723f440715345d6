//! The content of WAL of before the newest backup. A restore of the newest moment asks for none of it, one of a random moment
//! for a part: here each segment is fetched and held against its checksum, which its name in the archive ends with.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha1::{Digest, Sha1};

use super::{Sheet, Work};
use crate::error::{Context, Error, Result};
use crate::monitor::{Problem, Progress, Unit};
use crate::pgbackrest::PgBackRest;
use crate::repository::hexadecimal;

const NAME: &str = "older WAL";
/// So many are named; the rest is counted.
const NAMED: usize = 3;

/// A segment in the archive: `SEGMENT-CHECKSUM`, and how it is compressed.
struct Segment<'a> {
    name: &'a str,
    /// SHA-1, 40 hexadecimal digits.
    checksum: &'a str,
}

impl<'a> Segment<'a> {
    /// `None`: a note of a backup, the history of a timeline, or the beginning of a segment that its timeline ended with
    /// (`.partial`), which no recovery asks for.
    fn of(object: &'a str) -> Option<Self> {
        let (name, rest) = object.split_once('-')?;
        (name.len() == 24).then_some(Self { name, checksum: rest.get(..40)? })
    }
}

/// Reads them, for the cluster in `data`, which no server recovers just now.
pub(super) fn test(
    work: &Work<'_>,
    pgbackrest: &PgBackRest,
    objects: &[String],
    data: &Path,
    sheet: &mut Sheet,
) -> Result<()> {
    let segments: Vec<_> = objects.iter().filter_map(|object| Segment::of(object)).collect();
    let total = Some(segments.len() as u64);
    let fetched = data.join("pg_wal/RECOVERYXLOG");
    let mut damaged = Vec::new();
    for (done, segment) in (0..).zip(&segments) {
        work.monitor.progress(Progress { phase: "reading older WAL".into(), done, total, unit: Unit::Items });
        if !pgbackrest.fetch(segment.name, data, &fetched)? || checksum(&fetched)? != segment.checksum {
            damaged.push(segment.name);
        }
        match fs::remove_file(&fetched) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::new(format!("remove {}", fetched.display())).caused_by(error));
            }
            _ => {}
        }
    }
    match damaged.first() {
        None => sheet.passed(NAME, format!("each of {} segments is as it was written", segments.len())),
        Some(_) => sheet.problem(NAME, told(&damaged, work)),
    }
    Ok(())
}

fn told(damaged: &[&str], work: &Work<'_>) -> Problem {
    let named = damaged[..damaged.len().min(NAMED)].join(", ");
    let more = damaged.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (storage, step) = (&work.place.settings.storage.location, &work.step.name);
    Problem {
        message: format!("WAL is damaged in {}: {named}{more}", storage.join(step)),
        hint: Some(
            "moments behind it cannot be reached from a backup before it; those since the newest backup can".into(),
        ),
    }
}

fn checksum(file: &Path) -> Result<String> {
    let doing = || format!("read {}", file.display());
    let (mut file, mut sum, mut buffer) = (File::open(file).context(doing)?, Sha1::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer).context(doing)? {
            0 => return Ok(hexadecimal(&sum.finalize())),
            read => sum.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_segments_have_a_checksum_in_their_name() {
        let (name, sum) = ("00000002000000000000000A", "5f2c".repeat(10));
        let segment = Segment::of(&format!("{name}-{sum}.zst"))
            .map(|segment| (segment.name.to_owned(), segment.checksum.to_owned()));
        assert_eq!(segment, Some((name.into(), sum.clone())));
        assert!(Segment::of(&format!("{name}-{sum}")).is_some(), "not compressed");
        for other in [format!("{name}.partial-{sum}.zst"), format!("{name}.00000028.backup"), "00000002.history".into()]
        {
            assert!(Segment::of(&other).is_none(), "{other}");
        }
    }
}
