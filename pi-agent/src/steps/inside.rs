//! What lies below the paths of a directory step on mounts and btrfs subvolumes of its own. What was entered must be there the next
//! time, as the paths themselves; what is left out is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Directory, Settings};
use crate::health::answered;
use crate::monitor::Problem;
use crate::mounts;
use crate::repository::{self, Mounted, Sources, Tally, is_bare};
use crate::{Result, path_text, shown};

/// The fact that a usable backup leaves of it.
pub(crate) const INSIDE: &str = "inside";
/// The fact which patterns of `exclude` left nothing out.
pub(crate) const IDLE_EXCLUDES: &str = "idle-excludes";
/// More subvolumes than a person makes are not remembered one by one.
const REMEMBERED: usize = 1000;

/// What the last usable backup found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// Mounts that were entered, as [`crate::repository::Look::fact`] tells them.
    entered: BTreeMap<String, String>,
    /// Of those, single files: they are entered whatever file system they are of.
    files: BTreeSet<String>,
    /// Subvolumes that were entered and not empty.
    subvolumes: BTreeSet<String>,
    /// Read-only ones that were left out: how many, and the first.
    snapshots: Option<(usize, String)>,
    /// Mounts that were left out, which a run has told.
    told: BTreeSet<String>,
}

impl Known {
    fn of(facts: &BTreeMap<String, String>) -> Self {
        facts.get(INSIDE).and_then(|fact| serde_json::from_str(fact).ok()).unwrap_or_default()
    }
}

/// What is there now, beside what was.
pub(crate) struct Inside {
    mounted: Mounted,
    known: Known,
    entered: BTreeMap<String, String>,
    files: BTreeSet<String>,
    /// What was filled and is not what it was, each as a sentence.
    pub changes: Vec<String>,
}

/// Looks at what is entered, and for what was; touches nothing that is left out.
///
/// # Errors
/// A path cannot be looked at.
pub(crate) fn look(sources: &Sources, facts: &BTreeMap<String, String>) -> Result<Inside> {
    let known = Known::of(facts);
    // What is mounted when somebody enters it may have been unmounted meanwhile.
    let filled = |fact: &str| fact.ends_with(":filled");
    let wake = |place: &String| {
        let place = path_text::path(place);
        answered(move || fs::read_dir(place).map(|mut entries| entries.next().is_some()).is_ok()).is_some()
    };
    let before = known.entered.iter().filter(|(_, fact)| filled(fact)).map(|(place, _)| place);
    let silent: BTreeSet<_> = before.filter(|place| !wake(place)).collect();
    let mounted = sources.mounted()?;
    let (mut entered, mut files, mut changes) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for place in mounted.entered() {
        let (key, at) = (path_text::of(&place.at), place.at.clone());
        if silent.contains(&key) {
            changes.push(format!("{} does not answer", shown(&place.at)));
            continue;
        }
        match (answered(move || Sources::look(&at)), known.entered.get(&key)) {
            (None, _) => changes.push(format!("{} does not answer", shown(&place.at))),
            (Some(Ok(look)), before) => {
                let change = before.and_then(|before| look.change_since(before));
                changes.extend(change.map(|change| format!("{} {change}", shown(&place.at))));
                if place.is_file {
                    files.insert(key.clone());
                }
                entered.insert(key, look.fact());
            }
            (Some(Err(error)), Some(_)) => changes.push(error.chain()),
            // The walk names what cannot be read.
            (Some(Err(_)), None) => {}
        }
    }
    for (place, fact) in known.entered.iter().filter(|(place, fact)| filled(fact) && !entered.contains_key(*place)) {
        let at = path_text::path(place);
        let is_there = mounted.entered().any(|inside| inside.at == at);
        let is_missed = known.files.contains(place) || would_be_entered(&mounted, &at, fact);
        if !is_there && mounted.reads(&at) && is_missed {
            changes.push(format!("{} is not mounted any more, at the last backup it was", shown(&at)));
        }
    }
    // Those that containers are put together of come and go; an older version remembered them.
    let lasting = |place: &Path| mounted.reads(place) && !mounted.is_put_together(place);
    for place in known.subvolumes.iter().map(|place| path_text::path(place)).filter(|place| lasting(place)) {
        match is_bare(&place) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                changes.push(format!(
                    "the subvolume {} is gone, at the last backup it was there (`exclude` it if such come and go)",
                    shown(&place)
                ));
            }
            // A snapshot of what is around a subvolume has an empty directory in its place.
            Ok(true) => changes.push(format!("{} is empty, at the last backup it was not", shown(&place))),
            _ => {}
        }
    }
    Ok(Inside { mounted, known, entered, files, changes })
}

/// Whether the step would enter what was mounted there: what it entered when it entered everything proves nothing now.
fn would_be_entered(mounted: &Mounted, at: &Path, fact: &str) -> bool {
    let file_system = fact.trim_end_matches(":filled");
    let around = || Sources::look(mounted.path_around(at)?).ok();
    !mounted.one_file_system() || around().is_some_and(|path| path.file_system.is_remembered_as(file_system))
}

impl Inside {
    /// Makes the walk pass by what would hold it up, and is not read; where that is.
    ///
    /// # Errors
    /// The kernel refuses that, so the backup would wait for ever.
    pub fn put_aside(&self) -> Result<Vec<PathBuf>> {
        let (places, silent) = self.mounted.in_the_way();
        match mounts::put_aside(&places) {
            Ok(()) => Ok(places),
            Err(error) if silent => Err(error),
            // Who may not do that need not: what is there opens, or says why not.
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Where what is mounted below the paths is entered.
    pub fn entered(&self) -> impl Iterator<Item = &Path> {
        self.mounted.entered().map(|inside| inside.at.as_path())
    }

    /// What is left out, for those who ask each time.
    pub fn left_out(&self) -> Vec<Problem> {
        left_out(&self.mounted, &self.known)
    }

    /// The same when it is new, for a run's report.
    pub fn news(&self, tally: &Tally) -> Vec<Problem> {
        let mut news: Vec<_> = self.untold().map(|inside| left_out_at(&self.mounted, inside)).collect();
        if self.known.snapshots.is_none() {
            news.extend(tally.snapshots.first().map(|first| snapshots(tally.snapshots.len(), shown(first))));
        }
        news
    }

    /// Of what a backup left out, that which was not mounted yet when this looked.
    pub fn unseen<'a>(&self, left_out: &'a [PathBuf]) -> impl Iterator<Item = &'a Path> {
        let seen: BTreeSet<_> = self.mounted.left_out().map(|inside| &inside.at).collect();
        left_out.iter().filter(move |place| !seen.contains(place)).map(PathBuf::as_path)
    }

    /// What is left out, and no run has told.
    pub fn untold(&self) -> impl Iterator<Item = &repository::Inside> {
        self.mounted.left_out().filter(|inside| !self.known.told.contains(&path_text::of(&inside.at)))
    }

    /// The fact to remember, with what the backup met.
    pub fn fact(&self, tally: &Tally) -> String {
        let is_filled = |path: &Path| is_bare(path).is_ok_and(|bare| !bare);
        let mut told = self.known.told.clone();
        told.extend(self.mounted.left_out().map(|inside| path_text::of(&inside.at)));
        // Those that containers are put together of come and go.
        let lasting = tally.subvolumes.iter().filter(|path| !self.mounted.is_put_together(path));
        let subvolumes = lasting.filter(|path| is_filled(path)).take(REMEMBERED);
        // One that was removed meanwhile is missed at once.
        let entered = |place: &Path| tally.subvolumes.contains(place) || !is_filled(place);
        let before = self.known.subvolumes.iter().filter(|place| {
            let place = &path_text::path(place);
            self.mounted.reads(place) && !self.mounted.is_put_together(place) && entered(place)
        });
        let known = Known {
            entered: self.entered.clone(),
            files: self.files.clone(),
            subvolumes: subvolumes.map(|path| path_text::of(path)).chain(before.cloned()).collect(),
            snapshots: tally.snapshots.first().map(|first| (tally.snapshots.len(), path_text::of(first))),
            told,
        };
        serde_json::to_string(&known).unwrap_or_default()
    }
}

fn left_out(mounted: &Mounted, known: &Known) -> Vec<Problem> {
    let mounts = mounted.left_out().map(|inside| left_out_at(mounted, inside));
    let snapshots_too = known.snapshots.iter().filter(|_| mounted.one_file_system());
    mounts.chain(snapshots_too.map(|(count, first)| snapshots(*count, first))).collect()
}

fn left_out_at(mounted: &Mounted, inside: &repository::Inside) -> Problem {
    let other = if mounted.one_file_system() { ", or one-file-system = false" } else { "" };
    Problem {
        message: format!(
            "{} is left out: a file system of its own is mounted there, {}",
            shown(&inside.at),
            inside.what
        ),
        hint: Some(format!("add it to `paths`{other}; if it needs no backup, exclude it")),
    }
}

fn snapshots(count: usize, first: impl std::fmt::Display) -> Problem {
    Problem {
        message: match count {
            1 => format!("a read-only btrfs snapshot is left out: {first}"),
            _ => format!("{count} read-only btrfs snapshots are left out, the first {first}"),
        },
        hint: Some("add one to `paths` to keep it, or one-file-system = false to keep all".into()),
    }
}

/// The fact [`IDLE_EXCLUDES`].
pub(crate) fn idle_excludes(exclude: &[String], tally: &Tally) -> String {
    let idle: Vec<_> = exclude.iter().filter(|pattern| !tally.left_out_by(pattern)).collect();
    serde_json::to_string(&idle).unwrap_or_default()
}

/// What patterns do that nobody can have meant, each with its advice.
pub(crate) fn odd_excludes(inside: &Inside, directory: &Directory, facts: &BTreeMap<String, String>) -> Vec<Problem> {
    let emptied = inside.mounted.emptied().into_iter().map(|path| Problem {
        message: format!("`exclude` leaves nothing of {}", shown(path)),
        hint: Some("correct the patterns, or take the path out of `paths`".into()),
    });
    let idle: Vec<String> =
        facts.get(IDLE_EXCLUDES).and_then(|fact| serde_json::from_str(fact).ok()).unwrap_or_default();
    let idle = idle.into_iter().filter(|pattern| directory.exclude.contains(pattern)).map(|pattern| Problem {
        message: format!("exclude = {pattern:?} left nothing out of the last backup that another pattern does not"),
        hint: Some("look whether it is written as it is meant: a / that is not its end ties it to the root of the file system; **/a/b is any a/b".into()),
    });
    emptied.chain(idle).collect()
}

/// What the next backup of a step would leave out, for the plan; nothing when nobody can tell in time.
pub(crate) fn left_out_of(settings: &Settings, directory: &Directory, facts: &BTreeMap<String, String>) -> Vec<String> {
    let (sources, known) = (Sources::of(settings, directory), Known::of(facts));
    let mounted = answered(move || sources.mounted().ok()).flatten();
    let told = mounted.map(|mounted| left_out(&mounted, &known)).unwrap_or_default();
    told.into_iter().map(|problem| format!("{} ({})", problem.message, problem.hint.unwrap_or_default())).collect()
}
