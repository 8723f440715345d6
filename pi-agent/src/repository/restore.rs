//! Writing a snapshot, or some paths of it, below a directory, as restic does: `/srv/a` becomes `TARGET/srv/a`.
//!
//! [`super::writing`] writes the entries, [`super::metadata`] compares them afterwards: what is not as it was is in the report.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use rustic_core::repofile::Node;
use rustic_core::{IndexedFullStatus, Repository as Rustic, RusticResult};

use super::metadata::Compared;
use super::privileges::{KeptBack, without};
use super::target::Target;
use super::writing::{Takes, Writing, Written};
use super::{Repository, Snapshot};
use crate::error::Kind;
use crate::health::room;
use crate::monitor::Monitor;
use crate::restore::no_room;
use crate::shown::{shown, typed};
use crate::{Error, Result};

/// What to restore where.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Which snapshot.
    pub snapshot: Snapshot,
    /// Target directory.
    pub to: PathBuf,
    /// Only these, absolute, as they were on the source; empty: everything.
    pub paths: Vec<PathBuf>,
    /// The target is empty or does not exist.
    pub fresh: bool,
    /// Set-id bits, capabilities and device files come back too.
    pub privileges: bool,
}

impl Selection {
    /// Everything, or these paths of it; `/` is everything.
    #[must_use]
    pub fn new(snapshot: Snapshot, to: PathBuf, mut paths: Vec<PathBuf>, fresh: bool, privileges: bool) -> Self {
        if paths.iter().any(|path| path.parent().is_none()) {
            paths.clear();
        }
        Self { snapshot, to, paths, fresh, privileges }
    }

    pub(super) fn wants(&self, path: &Path) -> bool {
        let whole = Path::new("/").join(path);
        self.paths.is_empty() || self.paths.iter().any(|wanted| whole.starts_with(wanted) || wanted.starts_with(&whole))
    }

    /// It is one of those asked for by name.
    fn names(&self, path: &Path) -> bool {
        self.paths.contains(&Path::new("/").join(path))
    }

    /// Each that is asked for is among `found`, or was in a directory that is lost.
    ///
    /// # Errors
    /// One is not.
    pub(super) fn check_paths<'a>(&self, found: impl Iterator<Item = &'a Path>, lost: &[PathBuf]) -> Result<()> {
        let found: Vec<_> =
            found.map(|path| Path::new("/").join(path)).filter(|path| self.paths.contains(path)).collect();
        let was_lost = |path: &Path| lost.iter().any(|lost| path.starts_with(Path::new("/").join(lost)));
        match self.paths.iter().find(|path| !found.contains(path) && !was_lost(path)) {
            None => Ok(()),
            Some(missing) => {
                Err(Error::new(format!("{} is not in snapshot {}", shown(missing), short(&self.snapshot.id)))
                    .kind_of(Kind::NotFound)
                    .hint(format!(
                        "an older one may hold it: pi-agent points --path {} (whole paths, as they were on the source)",
                        typed(missing)
                    )))
            }
        }
    }
}

impl Repository {
    /// Restores a selection. What the target refuses, or holds in another way, is in the result; everything else is restored.
    ///
    /// # Errors
    /// Storage fails, the target cannot be written, or a path is not in the snapshot.
    pub fn restore(&self, selection: &Selection, monitor: &Monitor) -> Result<Written> {
        // Until a file gets its own mode, it is its owner's alone.
        let before = umask(Mode::from_bits_truncate(0o077));
        let restored = self.watched(monitor, || {
            let failed = match self.restore_whole(selection) {
                Ok(result) => return result,
                Err(error) => error,
            };
            if failed.is_unread() {
                return Err(failed);
            }
            log::warn!("{}; looking for what can be had", failed.chain());
            let written = self.salvage(selection, monitor)?;
            if written.problems.is_empty() && self.damage().is_empty() {
                // All is there after all; what went wrong is told.
                self.damaged(failed.chain());
            }
            Ok(written)
        });
        // What comes next makes files that others are to read.
        umask(before);
        restored
    }

    /// Bytes that a snapshot takes on a disk that knows holes.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn takes(&self, snapshot: &Snapshot) -> Result<u64> {
        self.reading("look into a snapshot of", |rustic| {
            let rustic = rustic.to_indexed()?;
            let file = rustic.get_snapshots(&[&snapshot.id])?.remove(0);
            let root = rustic.node_from_snapshot_and_path(&file, "")?;
            let (mut takes, mut bytes) = (Takes::default(), 0);
            for item in self.entries(&rustic, &root)? {
                bytes += takes.of(&rustic, &item?.1)?.unwrap_or(0);
            }
            Ok(bytes)
        })
    }

    /// The outer error is the repository's, the inner one the request's or the target's.
    fn restore_whole(&self, selection: &Selection) -> Result<Result<Written>> {
        let rustic = self.cached("read the index of", Rustic::to_indexed)?;
        let what = format!("restore to {} from", selection.to.display());
        // Twice a result: rustic's around ours.
        self.attempt(&what, || self.write(&rustic, selection)).map_err(|failed| failed.error)
    }

    fn write(&self, rustic: &Rustic<IndexedFullStatus>, selection: &Selection) -> RusticResult<Result<Written>> {
        let file = rustic.get_snapshots(&[&selection.snapshot.id])?.remove(0);
        let root = rustic.node_from_snapshot_and_path(&file, "")?;
        let nodes = self.entries(rustic, &root)?.filter(|item| match item {
            Ok((path, _)) => selection.wants(path),
            Err(_) => true,
        });
        let mut paths = Vec::new();
        for item in nodes.clone() {
            let (path, _) = item?;
            if selection.names(&path) {
                paths.push(path);
            }
        }
        if let Err(missing) = selection.check_paths(paths.iter().map(PathBuf::as_path), &[]) {
            return Ok(Err(missing));
        }
        self.write_nodes(rustic, selection, nodes)
    }

    /// Writes entries, each directory before what is in it, and waits until they are on the disk.
    ///
    /// The outer error is the repository's, the inner one the request's or the target's.
    pub(super) fn write_nodes(
        &self,
        rustic: &Rustic<IndexedFullStatus>,
        selection: &Selection,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>> + Clone,
    ) -> RusticResult<Result<Written>> {
        let mut kept_back = KeptBack::default();
        if !selection.privileges {
            for item in nodes.clone() {
                let (path, node) = item?;
                kept_back.count(&path, &node);
            }
        }
        let nodes = nodes.filter_map(|item| match item {
            Ok((path, node)) if !selection.privileges => without(node).map(|node| Ok((path, node))),
            item => Some(item),
        });
        let mut takes = Takes::default();
        if let Err(error) = has_room(&mut takes, rustic, selection, nodes.clone())? {
            return Ok(Err(error));
        }
        let target = match Target::open(&selection.to) {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        let fresh = selection.fresh;
        let writing = Writing { repository: self, rustic, target, fresh, test: None };
        let mut compared = Compared::default();
        let made = writing.write(takes.zeros, nodes, &mut compared)?;
        if let Err(error) = writing.settle(&made) {
            return Ok(Err(error));
        }
        let (bytes, full) = (made.bytes, made.refused.full);
        let mut problems = made.refused.into_problems();
        problems.extend(compared.problems());
        problems.extend(kept_back.problem(&selection.to));
        Ok(Ok(Written { bytes, problems, full }))
    }
}

/// Refuses what cannot fit, before hours are spent. Of a target that is spread over several disks nobody knows how much goes
/// where: there the disk that is full says so.
fn has_room(
    takes: &mut Takes,
    rustic: &Rustic<IndexedFullStatus>,
    selection: &Selection,
    nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>>,
) -> RusticResult<Result<()>> {
    let (mut bytes, mut disks) = (0, BTreeSet::new());
    disks.extend(fs::metadata(&selection.to).map(|found| found.dev()));
    for item in nodes {
        let (path, node) = item?;
        let there = || fs::symlink_metadata(selection.to.join(&path)).ok().filter(|_| !selection.fresh);
        if let Some(taken) = takes.of(rustic, &node)? {
            // What is overwritten gives its room back.
            let has = there().filter(Metadata::is_file).map_or(0, |there| there.blocks() * 512);
            bytes += taken.saturating_sub(has);
        } else if node.is_dir() {
            disks.extend(there().filter(Metadata::is_dir).map(|there| there.dev()));
        }
    }
    let room = match room(&selection.to) {
        Ok(room) => room,
        Err(error) => return Ok(Err(error)),
    };
    if disks.len() <= 1 && room.free < bytes {
        return Ok(Err(no_room(&selection.to, bytes, room.free)));
    }
    Ok(Ok(()))
}

pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
