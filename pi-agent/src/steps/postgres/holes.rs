//! Holes in the archived WAL: segments that PostgreSQL gave up (`archive-push-queue-max`, an archive_command that lied,
//! a spool that was emptied by hand). No moment behind a hole can be reached from a backup before it.
//!
//! A hole is judged along each timeline that a recovery can take: what another timeline has of that place does not fill it.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::pgbackrest::{Backup, PgBackRest, Timelines};
use crate::wal::place;

/// The segments of one cluster's archive, and the timelines that they belong to.
pub(super) struct Archive<'a> {
    segments: Segments<'a>,
    /// `None`: there is only one.
    timelines: Option<Timelines>,
}

impl<'a> Archive<'a> {
    /// `archive`: which one of the stanza's. `objects`: all of the stanza's archives. `backups`: all of the stanza's.
    ///
    /// # Errors
    /// The histories of the timelines cannot be read.
    pub fn read(
        pgbackrest: &PgBackRest,
        (stanza, archive): (&str, &str),
        backups: &[Backup],
        objects: &'a [(String, u64)],
        segment_size: u64,
    ) -> Result<Self> {
        let folder = format!("archive/{stanza}/{archive}/");
        let keys = objects.iter().map(|(key, _)| key.as_str()).filter(|key| key.starts_with(&folder));
        let segments = Segments::of(keys, segment_size);
        let several = segments.timelines() > 1;
        let timelines = several.then(|| pgbackrest.timelines(archive, backups)).transpose()?;
        Ok(Self { segments, timelines })
    }

    /// The segments around the first hole behind a backup, on any of the timelines that a recovery from it comes to.
    pub fn hole_behind(&self, backup: &Backup) -> Option<(String, String)> {
        let (from, own) = (backup.wal_start.as_ref()?, backup.timeline()?);
        let Some(timelines) = &self.timelines else { return self.segments.hole(from, &[], own) };
        let mut reached = timelines.begun().map(|(number, _)| number).filter(|number| timelines.lead(backup, *number));
        reached.find_map(|number| self.segments.hole(from, timelines.before(number), number))
    }
}

/// The names of whole segments, by timeline and place in the stream of WAL.
struct Segments<'a> {
    there: BTreeMap<u32, BTreeMap<u64, &'a str>>,
    size: u64,
}

impl<'a> Segments<'a> {
    /// `keys` are names of objects of one cluster's archive, `SEGMENT-CHECKSUM.zst` at their end.
    fn of(keys: impl Iterator<Item = &'a str>, size: u64) -> Self {
        let mut there = BTreeMap::<u32, BTreeMap<u64, &str>>::new();
        // Not `.backup` and `.history`, which lie beside the segments.
        for (name, _) in keys.filter_map(|key| key.rsplit('/').next()?.split_once('-')) {
            let timeline = name.get(..8).and_then(|number| u32::from_str_radix(number, 16).ok());
            if let (Some(timeline), Some(place)) = (timeline, place(name, size)) {
                there.entry(timeline).or_default().insert(place, name);
            }
        }
        Self { there, size }
    }

    fn timelines(&self) -> usize {
        self.there.len()
    }

    /// The last segment before the first hole and the first after it, from `from` on, on the way to the end of that timeline.
    /// `before`: those that it comes from, each with the position at which it was left.
    fn hole(&self, from: &str, before: &[(u32, u64)], number: u32) -> Option<(String, String)> {
        let from = place(from, self.size)?;
        let ends = before.iter().map(|(number, left)| (*number, left / self.size)).chain([(number, u64::MAX)]);
        let (mut begins, mut last) = (from, None::<(u64, &str)>);
        for (number, end) in ends {
            // The segment in which a timeline was left is the next one's, which copies its beginning.
            let own = self.there.get(&number).into_iter().flat_map(|own| own.range(begins..end.max(begins)));
            for (place, name) in own {
                match last {
                    Some((before, last)) if place - before > 1 => return Some((last.to_owned(), (*name).to_owned())),
                    _ => last = Some((*place, name)),
                }
            }
            begins = begins.max(end);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn hole(names: &[&str], from: &str, before: &[(u32, u64)], number: u32) -> Option<(String, String)> {
        let keys: Vec<_> = names.iter().map(|name| format!("archive/m/15-1/{}/{name}-0a1b.zst", &name[..16])).collect();
        Segments::of(keys.iter().map(String::as_str), SIZE).hole(from, before, number)
    }

    #[test]
    fn a_missing_segment_is_found_across_logs() {
        let whole = ["0000000100000000000000FE", "0000000100000000000000FF", "000000010000000100000000"];
        assert_eq!(hole(&whole, whole[0], &[], 1), None);
        assert_eq!(hole(&[whole[0], whole[2]], whole[0], &[], 1), Some((whole[0].into(), whole[2].into())));
        assert_eq!(hole(&[whole[0], whole[2]], whole[1], &[], 1), None, "only what comes after is asked");
        let notes = ["a/0000000100000000000000FE.00000028.backup", "a/00000002.history"];
        assert_eq!(Segments::of(notes.into_iter(), SIZE).timelines(), 0);
    }

    #[test]
    fn what_another_timeline_has_fills_no_hole() {
        let [one, two]: [Vec<String>; 2] =
            [1, 2].map(|timeline| (0..9).map(|number| format!("{timeline:08X}00000000{number:08X}")).collect());
        let of = |numbers: &[usize], names: &[String]| numbers.iter().map(|at| names[*at].clone()).collect::<Vec<_>>();
        let all = |first: &[usize], second: &[usize]| [of(first, &one), of(second, &two)].concat();
        let left = [(1, 4 * SIZE + 0x28)];
        let to_two =
            |names: Vec<String>| hole(&names.iter().map(String::as_str).collect::<Vec<_>>(), &one[2], &left, 2);
        let around = |last: &String, next: &String| Some((last.clone(), next.clone()));
        assert_eq!(to_two(all(&[2, 3, 4, 5, 6], &[4, 5, 6])), None);
        assert_eq!(to_two(all(&[2, 3], &[4, 5, 6])), None, "the beginning of the first is in the second");
        assert_eq!(to_two(all(&[2, 3, 4, 5, 6], &[4, 6])), around(&two[4], &two[6]));
        assert_eq!(to_two(all(&[2, 3, 4, 5, 6], &[5, 6])), around(&one[3], &two[5]), "its first is gone");
        assert_eq!(to_two(all(&[2, 4, 5, 6], &[3, 4, 5])), around(&one[2], &two[4]), "one of before it began");
        assert_eq!(to_two(all(&[2, 3, 4, 6], &[])), None, "that is the other's");
        // Left again before it had one of its own.
        let names = all(&[2, 3, 4], &[]);
        let names: Vec<_> = names.iter().map(String::as_str).chain(["000000030000000000000004"]).collect();
        assert_eq!(hole(&names, &one[2], &[left[0], (2, 4 * SIZE + 0x90)], 3), None);
    }
}
