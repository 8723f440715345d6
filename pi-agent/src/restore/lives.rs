//! On which timeline a database was at a moment: the one whose last sign of life by then is the latest. The numbers do not tell, for
//! somebody may have taken a restore in place back; nor do the times of files, for WAL may reach the repository late. The WAL itself
//! tells, and is read where more than one timeline could be meant.

use jiff::Timestamp;

use crate::error::Result;
use crate::pgbackrest::{Archived, PgBackRest, Timelines};
use crate::wal::times;

/// The timeline that is taken for a moment.
pub(super) struct Taken {
    pub number: u32,
    /// Others that went on beside it, each with its last sign of life by then: two servers were at work at once, or one went on
    /// as if it had not gone back.
    pub beside: Vec<(u32, Timestamp)>,
}

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
    pub fn at(&self, time: Timestamp) -> Result<Option<Taken>> {
        // 1. The last that had begun. Its history may have reached the repository late.
        let earlier = |number, since: Timestamp| {
            self.first_sign(number).map(|first| first.map_or(since, |first| first.min(since)))
        };
        let mut begun: Vec<(u32, Option<Timestamp>)> = Vec::new();
        for (number, since) in self.timelines.begun() {
            let since = match since {
                Some(since) if since > time => Some(earlier(number, since)?),
                since => since,
            };
            if since.is_some_and(|since| since > time) {
                break;
            }
            begun.push((number, since));
        }
        let Some((last, since)) = begun.pop() else { return Ok(None) };
        // Before all others.
        let Some(since) = since else { return Ok(Some(Taken { number: last, beside: Vec::new() })) };

        // 2. Unless an earlier one went on after that.
        let since = earlier(last, since)?;
        let mut signs = Vec::new();
        for (number, _) in begun {
            let sign = self.last_sign(number, since, time)?.filter(|sign| *sign > since);
            signs.extend(sign.map(|sign| (sign, number)));
        }
        if !signs.is_empty() {
            signs.extend(self.last_sign(last, since, time)?.map(|sign| (sign, last)));
        }
        let number = signs.iter().max().map_or(last, |(_, number)| *number);
        let beside = signs.into_iter().filter(|(_, other)| *other != number);
        Ok(Some(Taken { number, beside: beside.map(|(sign, other)| (other, sign)).collect() }))
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
