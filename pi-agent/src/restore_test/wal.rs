//! The content of WAL of before the newest backup. A restore of the newest moment asks for none of it, one of a random moment
//! for a part: here each segment is fetched and held against its checksum, which its name in the archive ends with.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::{Sheet, Work};
use crate::error::{Context, Error, Result};
use crate::monitor::{Problem, Progress, Unit};
use crate::pgbackrest::PgBackRest;
use crate::repository::hexadecimal;
use crate::wal::minimal_in;

const NAME: &str = "older WAL";
/// So many are named; the rest is counted.
const NAMED: usize = 3;

/// Before a segment is asked for again: pgBackRest itself has tried for a while by then.
const PAUSE: Duration = Duration::from_secs(10);

/// A segment in the archive: `SEGMENT-CHECKSUM`, and how it is compressed.
struct Segment<'a> {
    name: &'a str,
    /// SHA-1, 40 hexadecimal digits.
    checksum: &'a str,
}

enum State {
    Whole,
    Damaged,
    /// It was written with `wal_level = minimal`.
    LacksChanges,
}

impl<'a> Segment<'a> {
    /// `None`: a note of a backup, the history of a timeline, or the beginning of a segment that its timeline ended with
    /// (`.partial`), which no recovery asks for.
    fn of(object: &'a str) -> Option<Self> {
        let (name, rest) = object.split_once('-')?;
        (name.len() == 24).then_some(Self { name, checksum: rest.get(..40)? })
    }

    fn state(&self, pgbackrest: &PgBackRest, data: &Path) -> Result<State> {
        let to = data.join("pg_wal/RECOVERYXLOG");
        let fetched = match pgbackrest.fetch(self.name, data, &to) {
            Err(error) if error.is_transient() => {
                sleep(PAUSE);
                pgbackrest.fetch(self.name, data, &to)
            }
            fetched => fetched,
        };
        let whole = fetched? && checksum(&to)? == self.checksum;
        let state = match whole {
            false => State::Damaged,
            true if minimal_in(&to).context(|| format!("read {}", to.display()))?.is_some() => State::LacksChanges,
            true => State::Whole,
        };
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::new(format!("remove {}", to.display())).caused_by(error))
            }
            _ => Ok(state),
        }
    }
}

/// Reads them, for the cluster in `data`, which no server recovers just now. What was seen until something failed is told.
pub(super) fn test(work: &Work<'_>, pgbackrest: &PgBackRest, objects: &[String], data: &Path, sheet: &mut Sheet) {
    let segments: Vec<_> = objects.iter().filter_map(|object| Segment::of(object)).collect();
    let (mut damaged, mut lacking, mut done, total) = (Vec::new(), Vec::new(), 0, segments.len());
    let ended = segments.iter().try_for_each(|segment| {
        let progress =
            Progress { phase: "reading older WAL".into(), done, total: Some(total as u64), unit: Unit::Items };
        work.monitor.progress(progress);
        match segment.state(pgbackrest, data)? {
            State::Whole => {}
            State::Damaged => damaged.push(segment.name),
            State::LacksChanges => lacking.push(segment.name),
        }
        done += 1;
        Ok::<_, Error>(())
    });
    if !damaged.is_empty() {
        sheet.problem(NAME, told("WAL is damaged in", &damaged, work));
    }
    if !lacking.is_empty() {
        sheet.problem(NAME, told("WAL that was written with wal_level = minimal lacks changes in", &lacking, work));
    }
    match ended {
        Err(error) => sheet.untested(NAME, format!("{done} of {total} segments could be read: {}", error.chain())),
        Ok(()) if damaged.is_empty() && lacking.is_empty() => {
            sheet.passed(NAME, format!("each of {total} segments is as it was written"));
        }
        Ok(()) => {}
    }
}

fn told(what: &str, segments: &[&str], work: &Work<'_>) -> Problem {
    let named = segments[..segments.len().min(NAMED)].join(", ");
    let more = segments.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (storage, step) = (&work.place.settings.storage.location, &work.step.name);
    Problem {
        message: format!("{what} {}: {named}{more}", storage.join(step)),
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
