//! A model of the history of one database: every commit, the timeline that it is on, and the WAL of it that the repository holds.
//! It knows nothing of how the program chooses; it only says which rows a moment has, and whether they can be had.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// pgBackRest tells the time at which a backup ended in whole seconds.
const SECOND: i64 = 1_000_000;
const SEGMENT: u64 = 16 << 20;

/// The verdict on a moment that came back as it was.
pub const EXACT: &str = "exact";

/// A row, when it was committed (microseconds since the epoch), and a position in the WAL behind that.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    pub row: u64,
    pub time: i64,
    pub position: u64,
}

/// A timeline: where it left which other, and the commits of its own.
#[derive(Debug, Default)]
pub struct Timeline {
    pub left: Option<(u32, u64)>,
    pub commits: Vec<Commit>,
}

/// A stretch of time in which the server was at work on a timeline.
#[derive(Debug)]
struct Life {
    timeline: u32,
    from: i64,
    to: i64,
}

/// A backup: its timeline, the second in which it ended, and its positions in the WAL.
#[derive(Debug)]
pub struct Backup {
    pub timeline: u32,
    pub stopped: i64,
    pub start: u64,
    pub stop: u64,
}

/// What the repository holds of a segment.
#[derive(Clone, Copy, Debug)]
enum Held {
    Whole,
    /// What the server had written up to that position when it died.
    Until(u64),
}

/// What a restore gave.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    /// The rows in it, in their order; none: it was refused.
    pub rows: Option<Vec<u64>>,
    /// The moment that it was said to be of, in whole seconds.
    pub said: Option<i64>,
}

/// How strictly the model counts what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    /// What must be found.
    Surely,
    /// What may be found: the end of a backup is known to the second, and where a timeline was left, either has the segment.
    Perhaps,
}

#[derive(Debug, Default)]
pub struct Model {
    pub timelines: BTreeMap<u32, Timeline>,
    lives: Vec<Life>,
    pub backups: Vec<Backup>,
    held: BTreeMap<(u32, u64), Held>,
}

impl Model {
    /// The server was started on that timeline, and answers.
    pub fn begins(&mut self, timeline: u32, now: i64) {
        self.lives.push(Life { timeline, from: now, to: i64::MAX });
    }

    /// The server is about to be stopped.
    pub fn ends(&mut self, now: i64) {
        self.lives.last_mut().unwrap().to = now;
    }

    /// From the first moment of it all to the last commit.
    pub fn range(&self) -> std::ops::Range<i64> {
        let last = self.timelines.values().flat_map(|timeline| &timeline.commits).map(|commit| commit.time).max();
        self.lives[0].from..last.unwrap() + SECOND
    }

    /// Notes the files of WAL that are in the repository now; `position`: up to where the server has written.
    pub fn look(&mut self, archive: &Path, position: u64) {
        for folder in fs::read_dir(archive).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            for file in fs::read_dir(folder.path()).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let part = |range| u64::from_str_radix(&name[range], 16);
                let (Ok(timeline), Ok(log), Ok(segment)) = (part(0..8), part(8..16), part(16..24)) else { continue };
                let key = (u32::try_from(timeline).unwrap(), log * (0x1_0000_0000 / SEGMENT) + segment);
                if name[24..].starts_with('-') {
                    self.held.insert(key, Held::Whole);
                } else if name[24..].starts_with(".partial-") {
                    self.held.entry(key).or_insert(Held::Until(position));
                }
            }
        }
    }

    /// The timelines that lead to this one, oldest first, each with where it begins and ends.
    fn path(&self, timeline: u32) -> Vec<(u32, u64, u64)> {
        let mut path = Vec::new();
        let (mut next, mut end) = (Some(timeline), u64::MAX);
        while let Some(number) = next {
            let left = self.timelines[&number].left;
            path.push((number, left.map_or(0, |(_, at)| at).min(end), end));
            end = left.map_or(0, |(_, at)| at).min(end);
            next = left.map(|(from, _)| from);
        }
        path.reverse();
        path
    }

    /// The commits that a database at the end of that timeline has.
    pub fn commits(&self, timeline: u32) -> Vec<Commit> {
        let path = self.path(timeline);
        let own = path.iter().flat_map(|(number, _, end)| {
            self.timelines[number].commits.iter().filter(|commit| commit.position <= *end)
        });
        own.copied().collect()
    }

    /// The timelines on which the database can be said to have been at that moment.
    pub fn at(&self, time: i64) -> Vec<u32> {
        let next = self.lives.iter().position(|life| life.from > time).unwrap_or(self.lives.len());
        let Some(life) = next.checked_sub(1).map(|now| &self.lives[now]) else { return vec![self.lives[0].timeline] };
        let mut timelines = vec![life.timeline];
        if time > life.to {
            timelines.extend(self.lives.get(next).map(|life| life.timeline));
        } else {
            // Of a server that was started and did nothing yet no trace is in the repository.
            let mut commits = self.timelines[&life.timeline].commits.iter();
            // What is lost of its WAL tells nobody that the database was on it.
            let is_told = |commit: &&Commit| match self.held.get(&(life.timeline, commit.position / SEGMENT)) {
                Some(Held::Whole) => true,
                Some(Held::Until(position)) => commit.position <= *position,
                None => false,
            };
            let idle = !commits.any(|commit| (life.from..=time).contains(&commit.time) && is_told(&commit));
            if idle {
                timelines.extend(next.checked_sub(2).map(|before| self.lives[before].timeline));
            }
        }
        timelines.dedup();
        timelines
    }

    /// All of the WAL is there from one position to another.
    fn holds(&self, path: &[(u32, u64, u64)], from: u64, to: u64, count: Count) -> bool {
        (from / SEGMENT..=to.saturating_sub(1) / SEGMENT).all(|segment| {
            let wanted = to.min((segment + 1) * SEGMENT);
            let has = |number: u32| match self.held.get(&(number, segment)) {
                Some(Held::Whole) => true,
                Some(Held::Until(position)) => wanted <= *position,
                None => false,
            };
            let mut there = path.iter().rev().filter(|(_, begin, _)| begin / SEGMENT <= segment);
            match count {
                Count::Surely => there.next().is_some_and(|(number, ..)| has(*number)),
                Count::Perhaps => there.any(|(number, _, end)| wanted.min(*end) == wanted && has(*number)),
            }
        })
    }

    /// How many of the timeline's commits can be had for that moment, from whichever backup; none: there is no backup before it.
    fn reach(&self, timeline: u32, time: i64, count: Count) -> Option<usize> {
        let path = self.path(timeline);
        let commits = self.commits(timeline);
        let leads = |backup: &&Backup| {
            let end = path.iter().find(|(number, ..)| *number == backup.timeline).map(|(.., end)| *end);
            let within = if count == Count::Surely { SECOND } else { 0 };
            end.is_some_and(|end| backup.stopped * SECOND + within <= time && backup.stop <= end)
        };
        let reach = |backup: &Backup| {
            let had = |commit: &&Commit| self.holds(&path, backup.start, commit.position.max(backup.stop), count);
            self.holds(&path, backup.start, backup.stop, count).then(|| commits.iter().take_while(had).count())
        };
        self.backups.iter().filter(leads).filter_map(reach).max()
    }

    /// Whether all of it is as it has to be for that moment, on the timeline asked for; else what is wrong.
    pub fn judge(&self, time: i64, asked: Option<u32>, latest: i64, outcome: &Outcome) -> Result<&'static str, String> {
        let timelines = asked.map_or_else(|| self.at(time), |number| vec![number]);
        let verdicts: Vec<_> = timelines.iter().map(|number| self.judge_on(time, *number, latest, outcome)).collect();
        let good = verdicts.iter().find_map(|verdict| verdict.as_ref().ok());
        good.map(|reason| Ok(*reason)).unwrap_or_else(|| {
            let told = timelines
                .iter()
                .zip(verdicts)
                .map(|(number, verdict)| format!("on timeline {number}: {}", verdict.unwrap_err()));
            Err(told.collect::<Vec<_>>().join("\n"))
        })
    }

    fn judge_on(&self, time: i64, timeline: u32, latest: i64, outcome: &Outcome) -> Result<&'static str, String> {
        let commits = self.commits(timeline);
        let rows = |count: usize| commits[..count].iter().map(|commit| commit.row).collect::<Vec<_>>();
        let wanted = commits.partition_point(|commit| commit.time <= time);
        let [surely, perhaps] = [Count::Surely, Count::Perhaps].map(|count| self.reach(timeline, time, count));
        let can_be_had = surely.is_some_and(|surely| surely > wanted) && time <= latest;
        let said = format!(
            "wanted {:?}, of {} commits surely {surely:?} and perhaps {perhaps:?} can be had",
            rows(wanted),
            commits.len()
        );
        match (outcome.code, &outcome.rows) {
            (0, Some(found)) if *found != rows(wanted) => Err(format!("other rows; {said}")),
            (0, Some(_)) if outcome.said != Some(time.div_euclid(SECOND)) => {
                Err(format!("it is said to be of another moment; {said}"))
            }
            (0, Some(_)) => Ok(EXACT),
            (_, _) if can_be_had => Err(format!("it can be had; {said}")),
            (5, Some(found)) => {
                let [least, most] = [surely, perhaps].map(|reach| reach.unwrap_or(0).min(wanted));
                let count = (least..=most).find(|count| rows(*count) == *found);
                let count = count.ok_or_else(|| format!("neither all that can be had nor nothing else; {said}"))?;
                // Of a moment at which the database held just that.
                let next = commits.get(count).map_or(i64::MAX, |commit| commit.time);
                let last = count.checked_sub(1).map_or(i64::MIN, |last| commits[last].time.div_euclid(SECOND));
                match outcome.said {
                    Some(moment) if moment * SECOND < next && moment >= last => Ok("as far as the WAL goes"),
                    _ => Err(format!("it is said to be of another moment; {said}")),
                }
            }
            (_, None) if time > latest => Ok("in the future"),
            (_, None) if surely.is_none() => Ok("no backup before it"),
            _ => Err(format!("nothing confirms that; {said}")),
        }
    }
}
