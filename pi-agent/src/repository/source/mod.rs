//! What is read: rustic's mapping of files to nodes behind our own walk, because rustic only logs what it leaves out.
//! Here every file that is left out is counted, with its reason.
//!
//! How a file left out stays harmless: it is not in the snapshot's tree at all, so that the next backup finds no parent
//! of that name and reads it whole. Truncated content is never stored for a file that was cut short by the deadline or by
//! a read error, and so never taken over. (What was uploaded of it stays in the index: the next try sends only the rest.)

mod again;
mod anchors;
mod crossing;
mod describe;
mod entries;
mod interior;
mod mounted;
mod moved;
mod named;
mod open;
mod sources;
mod stamp;
mod tally;
mod ways;

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustic_core::RusticResult;

use super::any_source;
use super::progress::Gauge;
use super::target::identity;
use crate::health::MountTable;
use crate::{Error, Result};
use again::{Again, Rereader};
pub use anchors::Anchors;
use crossing::Crossing;
pub(super) use describe::describe;
use entries::Entries;
pub use interior::Inside;
use interior::Interior;
pub use mounted::Mounted;
use named::Named;
pub(crate) use open::READ_AGAIN;
use open::Terms;
pub(crate) use sources::is_bare;
pub use sources::{Look, Sources};
pub(super) use stamp::Stamp;
pub(super) use tally::Shared;
pub use tally::Tally;
pub(super) use ways::{Found, Glance, Walk, Ways};

/// Reads [`Sources`].
pub(super) struct Source {
    sources: Sources,
    /// All paths, also those inside others.
    all: Vec<PathBuf>,
    devices: HashSet<u64>,
    interior: Interior,
    exclude: Gitignore,
    named: Named,
    shared: Arc<Shared>,
    ways: Ways,
}

impl Source {
    /// Reads `sources.paths` in the order of their names; paths inside others are read once, wherever they lie.
    pub(super) fn new(mut sources: Sources) -> Result<Self> {
        let devices: HashSet<_> =
            sources.paths.iter().map(|path| Ok(Sources::look(path)?.device)).collect::<Result<_>>()?;
        let all = Named::sort(&mut sources.paths);
        let mut builder = GitignoreBuilder::new("/");
        for pattern in &sources.exclude {
            builder.add_line(None, pattern).map_err(|error| {
                Error::usage(format!("exclude pattern {pattern:?} is not understood")).caused_by(error)
            })?;
        }
        let exclude =
            builder.build().map_err(|error| Error::usage("exclude patterns are not understood").caused_by(error))?;
        let table = MountTable::read(Path::new("/"))
            .map_err(|error| Error::new("look what is mounted below the paths").caused_by(error))?;
        let mut interior = Interior::find(&table, &all, sources.one_file_system);
        interior.closed.extend(sources.put_aside.iter().cloned());
        let named = Named::new(&all, &exclude, &interior.closed);
        // What was left out when they were held is left out of the backup.
        let shared = sources.held.as_ref().map_or_else(Arc::default, |held| held.shared());
        let ways = Ways::to(&sources.paths)?;
        for path in &all {
            // Else the walk would pass it by.
            ways.item(path).map_err(|error| {
                Error::new(format!("cannot reach {}", path.display())).caused_by(error).hint(
                    "a symbolic link on the way from another of the `paths` is not followed: name in `paths` the place that it leads to",
                )
            })?;
        }
        Ok(Self { sources, all, devices, interior, exclude, named, shared, ways })
    }

    /// No mount on the way to `path` keeps it out.
    pub(super) fn enters(&self, path: &Path) -> bool {
        self.interior.leads_to(path, &self.all)
    }

    /// No pattern leaves out a directory below a path, nor is it ours.
    fn wants(&self, directory: &Path) -> bool {
        let Some(path) = self.sources.paths.iter().find(|path| directory.starts_with(path)) else { return false };
        let wanted = |place: &Path| {
            let beside = place.parent().is_some_and(|parent| self.named.is_passage(parent));
            let kept = !beside && !self.exclude.matched(place, true).is_ignore();
            (kept || self.named.leads_to(place)) && !self.sources.never.iter().any(|other| other == place)
        };
        directory.ancestors().take_while(|place| place != path).all(wanted)
    }

    /// What is not read for no other reason than that it is mounted, without what is excluded.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &Inside> {
        self.interior.left_out.iter().filter(|inside| self.wants(&inside.at))
    }

    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.sources.paths
    }

    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    fn terms(&self) -> Terms {
        Terms {
            deadline: self.sources.deadline,
            reading: self.sources.reading.clone(),
            shared: self.shared.clone(),
            ways: self.ways.clone(),
        }
    }

    /// The files that changed while they were read, or were not there and are, to be read once more; `None`: there are none, or no
    /// time is left.
    pub(super) fn again(&self, gauge: &Arc<Gauge>) -> Option<Again> {
        let (mut paths, missed, stopped) = self.shared.to_be_read_again();
        if stopped {
            return None;
        }
        let is_held = |path: &Path| {
            self.sources.held.as_ref().is_some_and(|held| path.ancestors().any(|place| held.holds(place)))
        };
        paths.extend(
            missed
                .into_iter()
                .filter(|path| self.shared.is_back(path, self.ways.item(path).map(|item| item.found), is_held(path))),
        );
        let (moved, directories) = self.moved();
        paths.extend(moved);
        if paths.is_empty() {
            return None;
        }
        // In the order of a tree.
        paths.sort();
        paths.dedup();
        Some(Again {
            paths,
            moved: Arc::new(directories),
            reader: Rereader { terms: self.terms(), gauge: gauge.clone() },
        })
    }

    pub(super) fn walk<T: Glance>(&self, path: &Path) -> Walk<T> {
        let held = self.sources.held.clone();
        let (exclude, never, named) = (self.exclude.clone(), self.sources.never.clone(), self.named.clone());
        let (one_file_system, shared) = (self.sources.one_file_system, self.shared.clone());
        // Whatever they are called here, directories of ours are not read. What is not there yet holds nothing.
        let ours: HashSet<_> = never.iter().filter_map(|path| Some(identity(&fs::metadata(path).ok()?))).collect();
        // The device numbers that are entered, and the directories that are kept, empty, and nothing below them.
        let (mut devices, mut closed) = (self.devices.clone(), self.interior.closed.clone());
        devices.extend(self.ways.item(path).map(|item| item.found.dev()));
        self.ways.walk(
            path,
            Box::new(move |path, directory, found| {
                let Some(found) = found else {
                    let is_held = |parent| held.as_ref().is_some_and(|held| held.holds(parent));
                    if path.parent().is_some_and(is_held) || never.iter().any(|other| other == path) {
                        return false;
                    }
                    if named.leads_to(path) {
                        return true;
                    }
                    let kept_empty = |parent| closed.contains(parent) || named.is_passage(parent);
                    if path.parent().is_some_and(kept_empty) {
                        return false;
                    }
                    match exclude.matched(path, directory) {
                        Match::Ignore(pattern) => {
                            shared.excluded_by(pattern.original());
                            return false;
                        }
                        Match::Whitelist(pattern) => shared.excluded_by(pattern.original()),
                        Match::None => {}
                    }
                    return true;
                };
                if !directory {
                    return true;
                }
                if ours.contains(&identity(found)) {
                    shared.lock().ours.insert(path.into());
                    return false;
                }
                if !closed.contains(path) && !devices.contains(&found.dev()) {
                    match Crossing::at(path) {
                        crossing if one_file_system && crossing != Crossing::Subvolume => {
                            shared.not_entered(path, crossing);
                            closed.insert(path.into());
                        }
                        Crossing::Subvolume => {
                            shared.lock().subvolumes.insert(path.into());
                            devices.insert(found.dev());
                        }
                        _ => {
                            devices.insert(found.dev());
                        }
                    }
                }
                true
            }),
        )
    }
}

impl any_source::Source for Source {
    /// The sum of all sizes, for the time left; what cannot be read counts nothing here.
    fn size(&self) -> RusticResult<Option<u64>> {
        let sizes = self.sources.paths.iter().flat_map(|path| self.walk::<fs::Metadata>(path)).filter_map(|entry| {
            let found = entry.ok()?.item;
            found.is_file().then_some(found.len())
        });
        let held = self.sources.held.as_ref().map_or(0, |held| held.bytes());
        let in_time = |_: &u64| self.sources.deadline.is_none_or(|deadline| Instant::now() < deadline);
        Ok(Some(held + sizes.take_while(in_time).sum::<u64>()))
    }

    fn entries(&self) -> any_source::Entries {
        let walks = self.sources.paths.iter().map(|path| (path.clone(), self.walk(path))).collect();
        Box::new(Entries {
            walks,
            current: None,
            held: self.sources.held.clone(),
            inserting: None,
            missed: self.sources.held.iter().flat_map(|held| held.paths()).cloned().collect(),
            ancestors: VecDeque::new(),
            opened: HashSet::new(),
            terms: self.terms(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
