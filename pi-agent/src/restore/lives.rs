//! On which timeline a database was at a moment: the one whose last sign of life by then is the latest. The numbers do not tell, for
//! somebody may have taken a restore in place back; nor do the times of files, for WAL may reach the repository late. The WAL itself
//! tells, and is read where more than one timeline could be meant.

use jiff::Timestamp;

use crate::error::Result;
use crate::pgbackrest::{Archived, PgBackRest, Timelines};
use crate::wal::times;

/// The timelines of one archive.
pub(super) struct Lives<'a> {
    pub pgbackrest: &'a PgBackRest,
    pub archive: &'a str,
    pub timelines: &'a Timelines,
}

impl Lives<'_> {
    /// The timeline on which the database was at that moment; `None`: none had begun.
    ///
    /// # Errors
    /// The repository cannot be read, or a segment in it is damaged: a guess could be another history.
    pub fn at(&self, time: Timestamp) -> Result<Option<u32>> {
        // 1. The last that had begun. Its history may have reached the repository late.
        let mut begun: Vec<(u32, Option<Timestamp>)> = Vec::new();
        for (number, since) in self.timelines.begun() {
            let since = match since {
                Some(since) if since > time => {
                    self.first_sign(number)?.map_or(Some(since), |first| Some(first.min(since)))
                }
                since => since,
            };
            if since.is_some_and(|since| since > time) {
                break;
            }
            begun.push((number, since));
        }
        let Some((last, since)) = begun.pop() else { return Ok(None) };
        // Before all others.
        let Some(since) = since else { return Ok(Some(last)) };

        // 2. Unless an earlier one went on after that.
        let mut latest = (None, last);
        for (number, _) in begun {
            let sign = self.last_sign(number, since, time)?.filter(|sign| *sign > since);
            latest = latest.max((sign, number));
        }
        match latest {
            (Some(sign), other) if self.last_sign(last, since, time)?.is_none_or(|own| own < sign) => Ok(Some(other)),
            _ => Ok(Some(last)),
        }
    }

    /// When a timeline left another.
    fn first_sign(&self, number: u32) -> Result<Option<Timestamp>> {
        let Some(folder) = self.timelines.folders(number).first() else { return Ok(None) };
        let segments = self.pgbackrest.archived(self.archive, folder)?;
        segments.first().map_or(Ok(None), |first| self.signs(number, first, Timestamp::MAX).map(|(first, _)| first))
    }

    /// The last sign of life of a timeline until then, in what reached the repository since `since`.
    fn last_sign(&self, number: u32, since: Timestamp, until: Timestamp) -> Result<Option<Timestamp>> {
        let mut segments = Vec::new();
        for folder in self.timelines.folders(number).iter().rev() {
            let all = self.pgbackrest.archived(self.archive, folder)?;
            let is_late = |segment: &Archived| segment.arrived.is_none_or(|arrived| arrived >= since);
            let all_late = all.iter().all(is_late);
            segments.splice(..0, all.into_iter().filter(is_late));
            if !all_late {
                break;
            }
        }
        // The last is asked first: mostly nothing came behind the moment.
        let (mut low, mut high) = (0, segments.len());
        let mut middle = high.saturating_sub(1);
        while low < high {
            let (first, _) = self.signs(number, &segments[middle], until)?;
            if first.is_some_and(|first| first > until) {
                high = middle;
            } else {
                low = middle + 1;
            }
            middle = low.midpoint(high);
        }
        for segment in segments[..low].iter().rev() {
            if let (_, Some(last)) = self.signs(number, segment, until)? {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// The first time that a segment tells of its timeline, and the last until then. Of one that is compressed in another way, when it arrived.
    fn signs(
        &self,
        number: u32,
        segment: &Archived,
        until: Timestamp,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
        // It begins with a copy of what was before.
        let own = self.timelines.left(number).map_or(0, |(_, left)| left);
        let (mut first, mut last) = (None, None);
        let read = self.pgbackrest.read_archived(segment, &mut |content| {
            times(content, &mut |position, time| {
                if position >= own {
                    first = first.or(Some(time));
                    last = last.max(Some(time).filter(|time| *time <= until));
                }
            })
        })?;
        if !read {
            (first, last) = (segment.arrived, segment.arrived.filter(|arrived| *arrived <= until));
        }
        Ok((first, last))
    }
}
