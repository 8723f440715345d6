//! Which way a database goes back: along which timeline, and so from which of the backups. After a restore in place there are
//! several, and a recovery along another one than the database was on at a moment ends at another state, without a word.

use jiff::Timestamp;

use super::lives::{Lives, Taken};
use super::{At, Since};
use crate::error::{Error, Kind, Result};
use crate::pgbackrest::{Backup, Info, PgBackRest};
use crate::report::words;

/// A way back.
pub(super) struct Course {
    /// What lies on it: the backups that lead there, and the last segment that has to be there.
    pub info: Info,
    /// The timeline; `None`: that of the backup.
    number: Option<u32>,
    /// The timelines that lead to it, each with the position at which it was left.
    pub left: Vec<(u32, u64)>,
    /// Another timeline may be meant.
    pub passed_over: Option<String>,
}

impl Course {
    fn without_a_timeline(info: Info) -> Self {
        Self { info, number: None, left: Vec::new(), passed_over: None }
    }

    /// The way to that point, among all that the repository holds. A moment that is on several timelines is taken from the
    /// latest, unless `at` names one.
    ///
    /// # Errors
    /// There is no such timeline, or the repository cannot be read.
    pub fn to(pgbackrest: &PgBackRest, info: Info, step: &str, at: &At) -> Result<Self> {
        let (time, named) = match at {
            At::Latest => (None, None),
            At::Time(time) => (Some(*time), None),
            At::Timeline { number, time } => (*time, Some(*number)),
            // A backup restores to where it is consistent, and needs to know nothing else.
            At::Id(_) => return Ok(Self::without_a_timeline(info)),
        };
        let now = Timestamp::now();
        let newest = match time {
            Some(time) => info.backups.iter().rfind(|backup| backup.stopped <= time),
            None => info.newest(now),
        };
        let Some(archive) = newest.map(|backup| backup.archive.clone()) else {
            return Ok(Self::without_a_timeline(info));
        };
        let unknown = |hint: &'static str| {
            move |error: Error| {
                let kind = error.kind();
                Error::new(format!("find out which timelines {step} was on")).kind_of(kind).hint(hint).caused_by(error)
            }
        };
        let timelines = pgbackrest
            .timelines(&archive, &info.backups)
            .map_err(unknown("a backup itself needs none of them: pi-agent points, then --at ID"))?;
        let taken = match named {
            Some(number) if !timelines.has(number) => {
                let known: Vec<_> = timelines.begun().map(|(number, _)| number.to_string()).collect();
                return Err(Error::new(format!("{step} has no timeline {number}"))
                    .kind_of(Kind::NotFound)
                    .hint(format!("it has: {}", known.join(", "))));
            }
            Some(number) => Some(Taken { number, beside: Vec::new() }),
            None => Lives { pgbackrest, archive: &archive, timelines: &timelines }
                .at(time.unwrap_or(Timestamp::MAX))
                .map_err(unknown(
                "where the timeline is named, no WAL is read for that: pi-agent points, then --timeline N",
            ))?,
        };
        let Some(Taken { number, beside }) = taken else { return Ok(Self::without_a_timeline(info)) };
        let newest_wal = pgbackrest.last_segment_of(&archive, &timelines, number, &info.backups)?;
        let leads = |backup: &Backup| backup.archive == archive && timelines.lead(backup, number);
        Ok(Self {
            info: Info {
                newest_wal: newest_wal.map(|segment| (archive.clone(), segment)),
                backups: info.backups.into_iter().filter(leads).collect(),
                ..info
            },
            number: Some(number),
            left: timelines.before(number).to_vec(),
            passed_over: told(number, &beside),
        })
    }

    /// What pgBackRest is told. That of the backup need not have a history file.
    pub fn target(&self, backup: &Backup) -> Option<String> {
        let number = self.number?;
        Some(if backup.timeline() == Some(number) { "current".into() } else { number.to_string() })
    }
}

/// What is said of a choice between timelines that went on side by side.
fn told(taken: u32, beside: &[(u32, Timestamp)]) -> Option<String> {
    let others: Vec<_> = beside
        .iter()
        .map(|(number, sign)| {
            format!("timeline {number} was at work until {} (--timeline {number})", words::time(*sign))
        })
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "the database went on along several timelines at once, as with a standby that was promoted; this is timeline {taken}, \
             the last at work; {}",
            others.join(", ")
        )
    })
}

/// From when on each timeline of the newest cluster is taken, for who chooses a moment; none while there is only one.
///
/// # Errors
/// The repository cannot be read.
pub(super) fn since(pgbackrest: &PgBackRest, info: &Info) -> Result<Vec<Since>> {
    let Some(newest) = info.newest(Timestamp::now()) else { return Ok(Vec::new()) };
    let timelines = pgbackrest.timelines(&newest.archive, &info.backups)?;
    let begun = timelines.begun().filter_map(|(number, since)| Some(Since { number, since: since? }));
    Ok(begun.filter(|one| one.since < Timestamp::MAX).collect())
}
