//! Changes that are in a server alone, by what its `pg_wal` holds: that a server hands over what it writes is seen, and not taken from its
//! settings. It may archive nothing any more, or to somewhere else.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::pg_wal::{Held, Marks, changed, file, first_commit, held};
use super::reached::{Mark, Reached};
use super::segment::{place, system_id_of};

/// An archiver that works has taken a segment by then.
pub(super) const TAKEN: Duration = Duration::from_mins(1);

/// What a server has alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alone {
    /// Since when there are such changes.
    pub since: Timestamp,
    /// Finished segments that nobody waits to hand over, oldest first: they are marked as archived, or not at all.
    pub astray: Vec<String>,
}

impl Alone {
    /// Looks into the `pg_wal` of the cluster in `data`; `None`: it has nothing alone, as far as that can be seen. The server's marks
    /// were read before the names in the spool, and these before the note: what is on its way is in one of them.
    pub(super) fn of(data: &Path, marks: &Marks, spooled: &[String], reached: Option<&Reached>) -> Option<Self> {
        // Without a note the server itself pushes: what it counts as archived is in the repository.
        let id = system_id_of(data)?;
        let archived = marks.newest_archived(data);
        let known: Option<&Mark> = match reached {
            Some(reached) => reached.newest_of_id(id),
            None => archived.as_ref(),
        };
        let held = held(data, id);
        let timeline = held.last()?.timeline();
        let behind = |name: &str| known.is_none_or(|known| name > &*known.segment);
        let alone = |segment: &&Held| {
            segment.follows
                && segment.timeline() == timeline
                && behind(&segment.name)
                && !spooled.contains(&segment.name)
        };
        let alone: Vec<&Held> = held.iter().filter(alone).collect();
        let (first, last) = (*alone.first()?, *alone.last()?);

        // 1. Since when: of segments that were used again, nobody can tell what was in them.
        let size = first.header.segment_size;
        let is_next = |known: &Mark| {
            let waits = |at: u64| spooled.iter().any(|name| place(name, size) == Some(at));
            place(&known.segment, size).is_none_or(|known| ((known + 1)..first.place).all(waits))
        };
        let since = match known.filter(|known| known.segment.starts_with(timeline) && !is_next(known)) {
            Some(known) => Some(known.finished),
            None => alone.iter().find_map(|segment| first_commit(data, segment)),
        };

        // 2. What waits is marked, or will be in a moment.
        let now = Timestamp::now();
        let is_old = |name: &str| changed(&file(data, name)).is_some_and(|then| longer(then, now, TAKEN));
        let astray = alone.iter().filter(|segment| {
            let name = &segment.name;
            !marks.ready.contains(name) && (marks.done.contains(name) || **segment != last && is_old(name))
        });
        let astray: Vec<_> = astray.map(|segment| segment.name.clone()).collect();
        Some(Self { since: since?, astray })
    }

    /// A server with that `archive_timeout` would have handed them over by now; zero: it waits until a segment is full.
    pub fn is_late(&self, timeout: Duration, now: Timestamp) -> bool {
        !self.astray.is_empty() || !timeout.is_zero() && longer(self.since, now, timeout + TAKEN)
    }
}

/// More time than that is between them.
fn longer(then: Timestamp, now: Timestamp, time: Duration) -> bool {
    SignedDuration::try_from(time).is_ok_and(|time| now.duration_since(then) > time)
}
