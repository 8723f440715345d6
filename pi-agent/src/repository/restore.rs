//! Writing a snapshot, or some paths of it, below a directory, as restic does: `/srv/a` becomes `TARGET/srv/a`.
//!
//! rustic only logs metadata it could not set and links it could not make. So afterwards everything is looked at again,
//! and what is not as it was becomes a problem in the report.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};
use rustic_core::repofile::{Node, NodeType};
use rustic_core::{IndexedFullStatus, LocalDestination, LsOptions, Repository as Rustic, RestoreOptions, RusticResult};

use super::{Repository, Snapshot};
use crate::error::{Context, Kind};
use crate::health::room;
use crate::monitor::{Monitor, Problem};
use crate::restore::no_room;
use crate::{Error, Result, shown};

/// At most so many differences are named; all are counted.
const NAMED: usize = 50;

/// A disk with less room is full.
const FULL: u64 = 1 << 20;

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
}

impl Selection {
    /// Everything, or these paths of it; `/` is everything.
    #[must_use]
    pub fn new(snapshot: Snapshot, to: PathBuf, mut paths: Vec<PathBuf>, fresh: bool) -> Self {
        if paths.iter().any(|path| path.parent().is_none()) {
            paths.clear();
        }
        Self { snapshot, to, paths, fresh }
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
                    .hint("paths are absolute, as they were on the source"))
            }
        }
    }
}

impl Repository {
    /// Restores; gives the bytes written and what is not as it was.
    ///
    /// # Errors
    /// Storage fails, the target cannot be written, or a path is not in the snapshot.
    pub fn restore(&self, selection: &Selection, monitor: &Monitor) -> Result<(u64, Vec<Problem>)> {
        let Some(target) = selection.to.to_str() else {
            return Err(Error::usage(format!("cannot restore to {}: its name is not UTF-8", selection.to.display())));
        };
        // Until a file gets its own mode, it is its owner's alone.
        let before = umask(Mode::from_bits_truncate(0o077));
        let restored = self.watched(monitor, || {
            let failed = match self.restore_whole(selection, target) {
                Ok(result) => return result,
                Err(error) => error,
            };
            if failed.is_unread() {
                return Err(failed);
            }
            if let Ok(room) = room(&selection.to)
                && room.free < FULL
            {
                return Err(Error::new(format!("restore into {target}: the disk is full"))
                    .hint("make room; the same command goes on from here")
                    .caused_by(failed));
            }
            log::warn!("{}; looking for what can be had", failed.chain());
            let (bytes, problems) = self.salvage(selection, target, monitor)?;
            if problems.is_empty() && self.damage().is_empty() {
                // All is there after all; what went wrong is told.
                self.damaged(failed.chain());
            }
            Ok((bytes, problems))
        });
        // What comes next makes files that others are to read.
        umask(before);
        restored
    }

    /// The outer error is the repository's, the inner one the request's or the target's.
    fn restore_whole(&self, selection: &Selection, target: &str) -> Result<Result<(u64, Vec<Problem>)>> {
        let rustic = self.cached("read the index of", Rustic::to_indexed)?;
        let what = format!("restore to {target} from");
        // Twice a result: rustic's around ours.
        self.attempt(&what, || self.write(&rustic, selection, target)).map_err(|failed| failed.error)
    }

    fn write(
        &self,
        rustic: &Rustic<IndexedFullStatus>,
        selection: &Selection,
        target: &str,
    ) -> RusticResult<Result<(u64, Vec<Problem>)>> {
        let file = rustic.get_snapshots(&[&selection.snapshot.id])?.remove(0);
        let root = rustic.node_from_snapshot_and_path(&file, "")?;
        let nodes = rustic.ls(&root, &LsOptions::default())?.filter(|item| match item {
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
        self.write_nodes(rustic, selection, target, nodes)
    }

    pub(super) fn write_nodes(
        &self,
        rustic: &Rustic<IndexedFullStatus>,
        selection: &Selection,
        target: &str,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>> + Clone,
    ) -> RusticResult<Result<(u64, Vec<Problem>)>> {
        let mut way = Way::default();
        let written = self.write_along(&mut way, rustic, selection, target, nodes);
        if !matches!(written, Ok(Ok(_))) {
            way.fill_in();
        }
        written
    }

    fn write_along(
        &self,
        way: &mut Way,
        rustic: &Rustic<IndexedFullStatus>,
        selection: &Selection,
        target: &str,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>> + Clone,
    ) -> RusticResult<Result<(u64, Vec<Problem>)>> {
        if !selection.fresh {
            for item in nodes.clone() {
                let (path, node) = item?;
                if let Err(error) = way.prepare(&selection.to, &path, &node) {
                    return Ok(Err(error));
                }
            }
        }
        if let Err(error) = make_target(&selection.to) {
            return Ok(Err(error));
        }
        let destination = LocalDestination::new(target, true, false)?;
        let mut options = RestoreOptions::default();
        // As restic does: a container's files belong to numbers, whatever name the number has on another host.
        options.numeric_id = true;
        if selection.fresh {
            // Blocks of zeros are left as holes. Over an existing file that would leave its old content there, so
            // elsewhere `Way::dig` sees to them. (The option's type has no public name.)
            options.sparse = serde_json::from_value("ByContent".into()).ok();
        }
        let plan = rustic.prepare_restore(&options, nodes.clone(), &destination, false)?;
        let bytes = plan.restore_size;
        match room(&selection.to) {
            Ok(room) if room.free < bytes => return Ok(Err(no_room(&selection.to, bytes, room.free))),
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
        self.backend.restoring(|| rustic.restore(plan, &options, nodes.clone(), &destination))?;
        let mut seen = Compared::default();
        for item in nodes {
            let (path, node) = item?;
            seen.compare(&selection.to.join(&path), &node);
        }
        Ok(Ok((bytes, seen.problems())))
    }
}

/// The target holds whatever was secret on the source.
fn make_target(target: &Path) -> Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(target).context(|| format!("cannot make {}", target.display()))
}

pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// What stands in the way in a target that is not empty.
#[derive(Default)]
struct Way {
    links: HashMap<(u64, u64), ()>,
    dug: Vec<PathBuf>,
}

impl Way {
    fn prepare(&mut self, target: &Path, path: &Path, node: &Node) -> Result<()> {
        let further_link = link_key(node).is_some_and(|key| self.links.insert(key, ()).is_some());
        let path = target.join(path);
        Self::clear(&path, node, further_link)?;
        if has_holes(node) && !further_link { self.dig(path, node) } else { Ok(()) }
    }

    /// Makes a missing file as one hole: rustic finds the zeros that it is to write in it already.
    fn dig(&mut self, path: PathBuf, node: &Node) -> Result<()> {
        if fs::symlink_metadata(&path).is_ok() {
            return Ok(());
        }
        path.parent().map_or(Ok(()), make_target)?;
        let made = File::create_new(&path).and_then(|file| file.set_len(node.meta.size));
        made.context(|| format!("cannot make {}", shown(&path)))?;
        self.dug.push(path);
        Ok(())
    }

    /// Removes what is still nothing but a hole: nobody may take it for the file.
    fn fill_in(self) {
        for path in self.dug {
            if fs::symlink_metadata(&path).is_ok_and(|found| found.blocks() == 0) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes an existing entry that rustic cannot turn into the node: of another type, or a link. A directory is
    /// never removed for a file, and a link to a directory never followed out of the target.
    fn clear(path: &Path, node: &Node, further_link: bool) -> Result<()> {
        let Ok(existing) = fs::symlink_metadata(path) else { return Ok(()) };
        let stays = (node.is_dir() && existing.is_dir()) || (node.is_file() && existing.is_file() && !further_link);
        if stays {
            // Writing into a file that has other names would change them, too.
            let shared = existing.is_file() && existing.nlink() > 1;
            if !shared {
                return Ok(());
            }
        } else if existing.is_dir() {
            return Err(Error::new(format!("{} is a directory where the snapshot has none", shown(path)))
                .hint("move it away, or restore to another directory"));
        }
        fs::remove_file(path).context(|| format!("cannot replace {}", shown(path)))
    }
}

/// A part follows itself: what is the same for so long is hardly anything but zeros.
fn has_holes(node: &Node) -> bool {
    node.content.as_ref().is_some_and(|parts| parts.windows(2).any(|two| two[0] == two[1]))
}

pub(super) fn link_key(node: &Node) -> Option<(u64, u64)> {
    let meta = &node.meta;
    (node.is_file() && meta.links > 1 && meta.device_id != 0).then_some((meta.device_id, meta.inode))
}

/// Compares what was restored with what was recorded.
#[derive(Default)]
pub(super) struct Compared {
    links: HashMap<(u64, u64), u64>,
    named: Vec<Problem>,
    count: usize,
}

impl Compared {
    pub(super) fn compare(&mut self, path: &Path, node: &Node) {
        let differs = match fs::symlink_metadata(path) {
            Ok(found) => self.difference(path, node, &found),
            Err(error) => Some(format!("was not restored: {error}")),
        };
        if let Some(difference) = differs {
            self.count += 1;
            if self.named.len() < NAMED {
                self.named.push(Problem { message: format!("{} {difference}", shown(path)), hint: None });
            }
        }
    }

    fn difference(&mut self, path: &Path, node: &Node, found: &Metadata) -> Option<String> {
        if !same_type(&node.node_type, found) {
            return Some("is of another type".into());
        }
        if node.is_symlink() {
            let target = fs::read_link(path).unwrap_or_default();
            if target != node.node_type.to_link() {
                return Some(format!("points to {}", shown(&target)));
            }
        }
        if let Some(key) = link_key(node)
            && *self.links.entry(key).or_insert(found.ino()) != found.ino()
        {
            return Some("is no longer the hard link it was".into());
        }
        let meta = &node.meta;
        let owner = (meta.uid.unwrap_or(found.uid()), meta.gid.unwrap_or(found.gid()));
        // Only root can give files away; whoever else restores knows it.
        if nix::unistd::geteuid().is_root() && owner != (found.uid(), found.gid()) {
            return Some(format!("belongs to {}:{} instead of {}:{}", found.uid(), found.gid(), owner.0, owner.1));
        }
        if let Some(mode) = meta.mode.map(unix_mode).filter(|mode| !node.is_symlink() && *mode != found.mode() & 0o7777)
        {
            return Some(format!("has mode {:04o} instead of {mode:04o}", found.mode() & 0o7777));
        }
        let time = found.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        (meta.mtime.is_some() && meta.mtime != time).then(|| "has another modification time".into())
    }

    pub(super) fn problems(mut self) -> Vec<Problem> {
        if self.count > self.named.len() {
            let message = format!("{} more are not as they were", self.count - self.named.len());
            self.named.push(Problem { message, hint: None });
        }
        self.named
    }
}

fn same_type(kind: &NodeType, found: &Metadata) -> bool {
    let found = found.file_type();
    match kind {
        NodeType::File => found.is_file(),
        NodeType::Dir => found.is_dir(),
        NodeType::Symlink { .. } => found.is_symlink(),
        NodeType::Dev { .. } => found.is_block_device(),
        NodeType::Chardev { .. } => found.is_char_device(),
        NodeType::Fifo => found.is_fifo(),
        NodeType::Socket => found.is_socket(),
    }
}

/// restic stores Go's file modes: permissions as in Unix, the three special bits elsewhere (Go, package io/fs).
fn unix_mode(go: u32) -> u32 {
    let bit = |from: u32, to: u32| if go & (1 << from) == 0 { 0 } else { to };
    (go & 0o777) | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_special_bits_become_unix_ones() {
        assert_eq!(unix_mode(0o755), 0o755);
        assert_eq!(unix_mode(1 << 31 | 1 << 20 | 0o777), 0o1777);
        assert_eq!(unix_mode(1 << 23 | 1 << 22 | 0o4), 0o6004);
    }
}
