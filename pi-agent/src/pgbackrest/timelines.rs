//! The timelines of a cluster, as its archive knows them. Each restore to an earlier moment that goes on as the original begins
//! one; its history file says where it left which other. When each began is known by the time at which that file arrived, or later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use jiff::Timestamp;
use serde::Deserialize;

use super::{Backup, PgBackRest, SHORT, View, version};
use crate::error::{Context, Error, Result};

/// The timelines of one archive, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timelines(BTreeMap<u32, Timeline>);

/// One timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Those it comes from, each with the position at which it was left.
    from: Vec<(u32, u64)>,
    /// When it began, or soon after; `None`: before all others.
    pub since: Option<Timestamp>,
    /// The folders of its segments, oldest first: the first 16 digits of their names.
    folders: Vec<String>,
}

/// A segment in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// Its name: 24 digits.
    pub name: String,
    /// When it reached the repository, which may be long after it was written.
    pub arrived: Option<Timestamp>,
    path: String,
}

impl Timelines {
    /// What the listing, the history files and the backups say. The number of a timeline is higher than that of each earlier one, so
    /// none began later than a higher one, whatever the times of copied files say.
    fn new(listed: &Listing, histories: &BTreeMap<u32, String>, backups: &[&Backup]) -> Result<Self> {
        let mut all: BTreeMap<u32, Timeline> = BTreeMap::new();
        for (number, text) in histories {
            let entry = all.entry(*number).or_default();
            entry.from = history(text)
                .ok_or_else(|| Error::new(format!("understand the history of timeline {number}: {:?}", text.trim())))?;
            entry.since = listed.histories.get(number).copied();
        }
        for backup in backups {
            let Some(number) = backup.timeline() else { continue };
            let entry = all.entry(number).or_default();
            if number > 1 {
                entry.since = Some(entry.since.map_or(backup.stopped, |since| since.min(backup.stopped)));
            }
        }
        for folder in &listed.folders {
            let known = folder.get(..8).and_then(number).and_then(|number| all.get_mut(&number));
            if let Some(timeline) = known {
                timeline.folders.push(folder.clone());
            }
        }
        let mut before: Option<Timestamp> = None;
        for timeline in all.values_mut().rev() {
            if let Some(since) = timeline.since {
                before = Some(before.map_or(since, |before| before.min(since)));
                timeline.since = before;
            }
        }
        Ok(Self(all))
    }

    /// The numbers, lowest first, with when each began.
    pub fn begun(&self) -> impl Iterator<Item = (u32, Option<Timestamp>)> {
        self.0.iter().map(|(number, timeline)| (*number, timeline.since))
    }

    /// That one is known.
    pub fn has(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// The folders of a timeline's own segments, oldest first.
    pub fn folders(&self, number: u32) -> &[String] {
        self.0.get(&number).map_or(&[], |timeline| &timeline.folders)
    }

    /// The timeline that this one left last, and where.
    pub fn left(&self, number: u32) -> Option<(u32, u64)> {
        self.0.get(&number)?.from.last().copied()
    }

    /// Those that a timeline comes from, each with the position at which it was left.
    pub fn before(&self, number: u32) -> &[(u32, u64)] {
        self.0.get(&number).map_or(&[], |timeline| &timeline.from)
    }

    /// A recovery that begins with that backup comes to that timeline.
    pub fn lead(&self, backup: &Backup, number: u32) -> bool {
        let (Some(timeline), Some(own)) = (self.0.get(&number), backup.timeline()) else { return false };
        let before = |left: u64| backup.stop_lsn.is_some_and(|stop| stop <= left);
        own == number || timeline.from.iter().any(|(from, left)| *from == own && before(*left))
    }
}

/// What lies in the folder of an archive.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    histories: BTreeMap<u32, Timestamp>,
    folders: BTreeSet<String>,
}

fn listing(json: &str) -> Result<Listing> {
    #[derive(Deserialize)]
    struct Entry {
        time: Option<i64>,
    }
    let entries: BTreeMap<String, Entry> =
        serde_json::from_str(json).context(|| "understand pgbackrest repo-ls's output".into())?;
    let mut listing = Listing::default();
    for (name, entry) in entries {
        if let Some(number) = name.strip_suffix(".history").and_then(number) {
            let time = entry.time.and_then(|time| Timestamp::from_second(time).ok()).unwrap_or(Timestamp::MAX);
            listing.histories.insert(number, time);
        } else if name.len() == 16 && name.get(..8).and_then(number).is_some() {
            listing.folders.insert(name);
        }
    }
    Ok(listing)
}

fn history_file(number: u32) -> String {
    format!("{number:08X}.history")
}

/// Eight hexadecimal digits.
fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)
}

/// The lines of a history file: a timeline, the position at which it was left, and a reason for people. A recovery along a timeline
/// that stops before that had begun leaves it there: then those before it count up to that position, too.
fn history(text: &str) -> Option<Vec<(u32, u64)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut left = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, lsn(words.next()?)?))
        })
        .collect::<Option<Vec<(u32, u64)>>>()?;
    let mut end = u64::MAX;
    for (_, left) in left.iter_mut().rev() {
        end = end.min(*left);
        *left = end;
    }
    Some(left)
}

/// A position in the stream of WAL, as PostgreSQL writes it: `0/4009F20`.
pub fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

/// The size of a segment by which the first segments of these backups have their names; `None`: they do not tell.
fn segment_size(backups: &[&Backup]) -> Option<u64> {
    let fits = |size: u64| {
        backups.iter().all(|backup| match (&backup.wal_start, backup.start_lsn) {
            (Some(name), Some(lsn)) => name.get(8..) == Some(&*place_of(lsn, size)),
            _ => true,
        })
    };
    let mut sizes = (20..=30).map(|power| 1 << power).filter(|size| fits(*size));
    sizes.next().filter(|_| sizes.next().is_none())
}

/// The last 16 digits of the name of the segment that holds that position.
fn place_of(lsn: u64, segment_size: u64) -> String {
    format!("{:08X}{:08X}", lsn >> 32, (lsn & 0xFFFF_FFFF) / segment_size)
}

impl PgBackRest {
    /// The timelines of one of the stanza's archives. `backups`: all of the stanza's.
    ///
    /// # Errors
    /// pgBackRest's, or what it says cannot be understood.
    pub fn timelines(&self, archive: &str, backups: &[Backup]) -> Result<Timelines> {
        let (listed, histories) = self.histories(archive)?;
        let backups: Vec<_> = backups.iter().filter(|backup| backup.archive == archive).collect();
        Timelines::new(&listed, &histories, &backups)
    }

    /// The names and texts of the history files of one of the stanza's archives.
    ///
    /// # Errors
    /// As of [`Self::timelines`].
    pub fn history_files(&self, archive: &str) -> Result<Vec<(String, String)>> {
        let (_, histories) = self.histories(archive)?;
        Ok(histories.into_iter().map(|(number, text)| (history_file(number), text)).collect())
    }

    fn histories(&self, archive: &str) -> Result<(Listing, BTreeMap<u32, String>)> {
        let folder = format!("archive/{}/{archive}", self.stanza);
        let output = self.run(View::Repository, "repo-ls", [&*folder, "--output=json"], SHORT, &mut |_, _| ())?;
        let listed = listing(&output.stdout)?;
        let mut histories = BTreeMap::new();
        for number in listed.histories.keys() {
            let file = format!("{folder}/{}", history_file(*number));
            let output = self.run(View::Repository, "repo-get", [&*file], SHORT, &mut |_, _| ())?;
            histories.insert(*number, output.stdout);
        }
        Ok((listed, histories))
    }

    /// The segments in one folder of an archive, oldest first: whole ones, and the beginnings of some.
    ///
    /// # Errors
    /// pgBackRest's, or its list cannot be understood.
    pub fn archived(&self, archive: &str, folder: &str) -> Result<Vec<Archived>> {
        #[derive(Deserialize)]
        struct Entry {
            time: Option<i64>,
        }
        let folder = format!("archive/{}/{archive}/{folder}", self.stanza);
        let filter = r"--filter=^[0-9A-F]{24}(\.partial)?-";
        let output =
            self.run(View::Repository, "repo-ls", [&*folder, filter, "--output=json"], SHORT, &mut |_, _| ())?;
        let entries: BTreeMap<String, Entry> =
            serde_json::from_str(&output.stdout).context(|| "understand pgbackrest repo-ls's output".into())?;
        let archived = entries.into_iter().filter_map(|(file, entry)| {
            Some(Archived {
                name: file.get(..24)?.to_owned(),
                arrived: entry.time.and_then(|time| Timestamp::from_second(time).ok()),
                path: format!("{folder}/{file}"),
            })
        });
        Ok(archived.collect())
    }

    /// Lets `read` have what is in a segment; false: it is compressed in another way than ours.
    ///
    /// # Errors
    /// pgBackRest's, or `read`'s.
    pub fn read_archived(
        &self,
        segment: &Archived,
        read: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
    ) -> Result<bool> {
        /// Of the largest segment that there can be, the beginning does.
        const MOST: u64 = 64 << 20;
        if !segment.path.ends_with(".zst") {
            return Ok(false);
        }
        let doing = || format!("read {}", segment.path);
        let program = self.program(View::Repository, "repo-get", &[&segment.path], SHORT + self.slack)?;
        let mut compressed = Vec::new();
        let piped = program.pipe(SHORT + self.slack).map_err(version::missing)?;
        piped.take(MOST).read_to_end(&mut compressed).context(doing)?;
        let mut content = zstd::Decoder::new(&compressed).context(doing)?;
        read(&mut content).context(doing)?;
        Ok(true)
    }

    /// The last segment that a recovery to the end of that timeline has to have seen; `None`: that is not known.
    ///
    /// # Errors
    /// As of [`Self::archived`].
    pub fn last_segment_of(
        &self,
        archive: &str,
        timelines: &Timelines,
        number: u32,
        backups: &[Backup],
    ) -> Result<Option<String>> {
        let newest =
            timelines.folders(number).last().map_or(Ok(Vec::new()), |folder| self.archived(archive, folder))?;
        if let Some(newest) = newest.into_iter().next_back() {
            return Ok(Some(newest.name));
        }
        let backups: Vec<_> = backups.iter().filter(|backup| backup.archive == archive).collect();
        let left = timelines.left(number).zip(segment_size(&backups));
        Ok(left.map(|((from, left), size)| format!("{from:08X}{}", place_of(left.saturating_sub(1), size))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn backup(segment: &str, start: u64, stopped: i64) -> Backup {
        Backup {
            label: String::new(),
            kind: "full".into(),
            stopped: at(stopped),
            size: 1,
            copied: 1,
            stored: None,
            needs: vec![],
            damaged_pages: false,
            version: 15,
            archive: "15-1".into(),
            wal_start: Some(segment.into()),
            start_lsn: Some(start),
            stop_lsn: Some(start + 0x100),
        }
    }

    /// A backup at 100, back at 400 to before the backup at 300, a backup at 500 there; back once more, to before that.
    fn gone_back_twice() -> (Timelines, [Backup; 3]) {
        let listed = r#"{".":{"type":"path"},"0000000100000000":{"type":"path"},"0000000100000001":{"type":"path"},
            "00000002.history":{"type":"file","size":80,"time":405},"0000000200000000":{"type":"path"},
            "00000003.history":{"type":"file","size":80,"time":605}}"#;
        let listed = listing(listed).expect("readable");
        assert_eq!(listed.folders.len(), 3);
        let histories = BTreeMap::from([
            (2, "1\t0/4009F20\tbefore 2026-11-30 09:03:04.172152+00\n\n".to_owned()),
            (
                3,
                "1\t0/4009F20\tbefore 2026-11-30 09:03:04.172152+00\n\n2\t0/5000100\tno recovery target specified\n"
                    .into(),
            ),
        ]);
        let backups = [
            backup("000000010000000000000002", 0x200_0028, 100),
            backup("000000010000000000000005", 0x500_0028, 300),
            backup("000000020000000000000006", 0x600_0028, 500),
        ];
        let timelines = Timelines::new(&listed, &histories, &backups.each_ref()).expect("understood");
        (timelines, backups)
    }

    #[test]
    fn a_backup_leads_to_what_went_on_from_behind_it() {
        let (timelines, [first, left_behind, second]) = gone_back_twice();
        let leads = |backup| [1, 2, 3].map(|number| timelines.lead(backup, number));
        assert_eq!(leads(&first), [true, true, true]);
        assert_eq!(leads(&left_behind), [true, false, false]);
        assert_eq!(leads(&second), [false, true, false]);
    }

    #[test]
    fn the_times_of_copied_files_do_not_turn_the_order_around() {
        let listed = Listing { histories: [(2, at(9000)), (3, at(8000))].into(), folders: BTreeSet::new() };
        let histories = BTreeMap::from([(2, "1 0/4009F20 x".to_owned()), (3, "1 0/4009F20 x".to_owned())]);
        let on_third = backup("000000030000000000000006", 0x600_0028, 700);
        let timelines = Timelines::new(&listed, &histories, &[&on_third]).expect("understood");
        assert_eq!(timelines.begun().collect::<Vec<_>>(), [(2, Some(at(700))), (3, Some(at(700)))]);
        assert!(Timelines::new(&listed, &[(2, "nonsense".to_owned())].into(), &[]).is_err());
    }

    #[test]
    fn a_timeline_that_was_left_before_it_began_leads_from_there() {
        let text = "1\t0/D000000\tno recovery target specified\n\n2\t0/5007720\tbefore 2026-11-30 12:07:22.52273+00\n";
        assert_eq!(history(text), Some(vec![(1, 0x500_7720), (2, 0x500_7720)]));
        let listed = Listing { histories: [(3, at(9000))].into(), folders: BTreeSet::new() };
        let between = backup("000000010000000000000008", 0x800_0028, 300);
        let timelines = Timelines::new(&listed, &[(3, text.to_owned())].into(), &[&between]).expect("understood");
        assert!(!timelines.lead(&between, 3), "it is behind where the database went back to");
    }

    #[test]
    fn names_of_segments_tell_their_size() {
        let (_, backups) = gone_back_twice();
        assert_eq!(segment_size(&backups.each_ref()), Some(16 << 20));
        assert_eq!(segment_size(&[]), None);
        assert_eq!(place_of(lsn("1/4009F20").expect("a position"), 16 << 20), "0000000100000004");
    }
}
