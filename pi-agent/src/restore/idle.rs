//! A recovery to a moment of an idle database. PostgreSQL calls a moment reached when it sees a transaction that ended later, and an
//! idle database has none. That it was as it is then, whatever else it wrote or had backed up later tells.

use jiff::Timestamp;

use super::recovery::Recovery;
use crate::error::Result;
use crate::pgbackrest::{Info, PgBackRest};
use crate::wal::times;

/// A recovery that found no transaction after that moment has come to what was written or backed up after it. `info`: what lies on its
/// way; `left`: the timelines before the last one, each with the position at which it was left.
///
/// # Errors
/// The repository cannot be read.
pub(super) fn came_behind(
    time: Timestamp,
    recovery: &Recovery,
    pgbackrest: &PgBackRest,
    info: &Info,
    left: &[(u32, u64)],
) -> Result<bool> {
    let end = recovery.control.checkpoint;
    // 1. A backup. pgBackRest tells when it ended in whole seconds, and not later than it was.
    let backed_up = info.backups.iter().filter(|backup| backup.stop_lsn.is_some_and(|stop| stop <= end));
    if backed_up.into_iter().any(|backup| backup.stopped >= time) {
        return Ok(true);
    }

    // 2. The last record that tells a time.
    let (Some((archive, _)), Some(last)) = (&info.newest_wal, recovery.last_segment()) else { return Ok(false) };
    let (Some(folder), Some(number)) = (last.get(..16), last.get(..8)) else { return Ok(false) };
    let is_its = |(timeline, _): &&(u32, u64)| u32::from_str_radix(number, 16).ok() == Some(*timeline);
    // What its timeline wrote after it was left is another history.
    let end = left.iter().find(is_its).map_or(end, |(_, left)| end.min(*left));
    let segments = pgbackrest.archived(archive, folder)?;
    for segment in segments.iter().rev().filter(|segment| *segment.name <= *last) {
        let mut newest = None;
        let is_read = pgbackrest.read_archived(segment, &mut |content| {
            times(content, &mut |position, told| newest = newest.max(Some(told).filter(|_| position < end)))
        })?;
        if !is_read || newest.is_some() {
            return Ok(newest.is_some_and(|newest| newest > time));
        }
    }
    Ok(false)
}
