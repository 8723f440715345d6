//! Restoring a snapshot, or a share of it, to see that it can be: afterwards every byte on the disk is read again and held
//! against the ids of the pieces that the repository says it is made of, which are the checksums of what was backed up.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use rustic_core::repofile::{Node, NodeType};
use rustic_core::{IndexedFullStatus, Repository as Rustic, RusticResult};
use sha2::{Digest, Sha256};

use super::capabilities::{Capabilities, NotHeld};
use super::metadata::{Compared, link_key};
use super::target::Target;
use super::writing::{Takes, Writing, Zeros};
use super::{Repository, Snapshot};
use crate::error::Context;
use crate::monitor::{Monitor, Problem, Progress, Unit};
use crate::{Error, Result, shown};

/// A part of the files of a snapshot, by their names: all parts together are all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which, from 0.
    pub part: u32,
    /// Of how many.
    pub of: u32,
}

/// What is to be proven.
pub struct Order<'a> {
    /// Which snapshot.
    pub snapshot: &'a Snapshot,
    /// An empty directory.
    pub to: &'a Path,
    /// Which share, of so many bytes.
    pub share: &'a dyn Fn(u64) -> Share,
    /// Restored whatever the share; by its path on the source.
    pub always: &'a dyn Fn(&Path) -> bool,
    /// Refuses so many bytes.
    pub room: &'a dyn Fn(u64) -> Result<()>,
}

/// What was seen.
#[derive(Debug)]
pub struct Proven {
    /// Which share it was.
    pub share: Share,
    /// Bytes of the whole snapshot.
    pub whole: u64,
    /// Bytes restored and compared.
    pub bytes: u64,
    /// Files restored and compared.
    pub files: u64,
    /// From reading the index to the last byte written.
    pub took: Duration,
    /// Files with other bytes than they were backed up with.
    pub content: Vec<Problem>,
    /// Device files, which are not made: that takes more than a test should be allowed.
    pub devices: u64,
    /// What was not compared.
    pub not_held: NotHeld,
    /// What is not as it was in type, length, owner, mode, time, links and attributes.
    pub metadata: Vec<Problem>,
    /// The files restored whatever the share, by their paths on the source.
    pub always: Vec<PathBuf>,
}

impl Share {
    /// Hard links of one file are in one share: apart, each would be a file of its own.
    fn holds(self, path: &Path, node: &Node) -> bool {
        if self.of <= 1 {
            return true;
        }
        let mut hash = Sha256::new();
        match link_key(node) {
            Some((device, inode)) => hash.update([device.to_le_bytes(), inode.to_le_bytes()].concat()),
            None => hash.update(path.as_os_str().as_encoded_bytes()),
        }
        let hash = hash.finalize();
        u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]) % self.of == self.part
    }
}

impl Repository {
    /// Restores and compares. What is damaged in the repository is an error; what came back wrong is told.
    ///
    /// # Errors
    /// The repository cannot be read or is damaged, there is no room, or the directory cannot be written.
    pub fn prove(&self, order: &Order<'_>, monitor: &Monitor) -> Result<Proven> {
        let began = Instant::now();
        // Until a file gets its own mode, it is its owner's alone.
        umask(Mode::from_bits_truncate(0o077));
        let what = format!("restore to {} from", order.to.display());
        let known = self.damage().len();
        let (rustic, mut proven, root) = self.watched(monitor, || {
            let rustic = self.cached("read the index of", Rustic::to_indexed)?;
            let written = self.attempt(&what, || self.write_share(&rustic, order));
            let (proven, root) = written.map_err(|failed| failed.error)??;
            Ok::<_, Error>((rustic, proven, root))
        })?;
        proven.took = began.elapsed();
        let compared =
            self.attempt("compare what was restored with", || compare(self, &rustic, order, &root, proven, monitor));
        compared.map_err(|failed| failed.error)?.map(|proven| {
            let strange = self.damage().into_iter().skip(known);
            Proven { content: proven.content.into_iter().chain(strange).collect(), ..proven }
        })
    }

    fn write_share(
        &self,
        rustic: &Rustic<IndexedFullStatus>,
        order: &Order<'_>,
    ) -> RusticResult<Result<(Proven, Node)>> {
        let file = rustic.get_snapshots(&[&order.snapshot.id])?.remove(0);
        let root = rustic.node_from_snapshot_and_path(&file, "")?;
        let ls = || self.entries(rustic, &root);
        let whole = sizes(rustic, ls()?, |_, _| true)?.0;
        let share = (order.share)(whole);
        let wanted = |path: &Path, node: &Node| order.wants(share, path, node);
        let (bytes, files) = sizes(rustic, ls()?, wanted)?;
        if let Err(error) = (order.room)(bytes) {
            return Ok(Err(error));
        }
        let nodes = ls()?.filter(|item| match item {
            Ok((path, node)) => order.wants(share, path, node),
            Err(_) => true,
        });
        let target = match Target::open(order.to) {
            Ok(target) => target,
            Err(error) => return Ok(Err(error)),
        };
        let holds = match Capabilities::of(&target).context(|| format!("write to {}", shown(order.to))) {
            Ok(holds) => holds,
            Err(error) => return Ok(Err(error)),
        };
        let writing = Writing { repository: self, rustic, target, fresh: true, test: Some(holds) };
        let mut seen = Compared::forgiving(holds);
        let made = writing.write(Zeros::default(), nodes, &mut seen)?;
        let not_held = NotHeld { links: made.not_linked, ..seen.not_held };
        let mut metadata = made.refused.into_problems();
        metadata.extend(seen.problems());
        let proven = Proven {
            share,
            whole,
            bytes,
            files,
            took: Duration::ZERO,
            content: Vec::new(),
            devices: 0,
            not_held,
            metadata,
            always: Vec::new(),
        };
        Ok(Ok((proven, root)))
    }
}

impl Order<'_> {
    /// Directories all come back: they cost nothing.
    fn wants(&self, share: Share, path: &Path, node: &Node) -> bool {
        if is_device(node) {
            return false;
        }
        node.is_dir() || share.holds(path, node) || (node.is_file() && (self.always)(&Path::new("/").join(path)))
    }
}

fn is_device(node: &Node) -> bool {
    matches!(node.node_type, NodeType::Dev { .. } | NodeType::Chardev { .. })
}

/// Bytes and number of the files that are wanted, hard links counted once, and holes not at all.
fn sizes(
    rustic: &Rustic<IndexedFullStatus>,
    nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>>,
    wanted: impl Fn(&Path, &Node) -> bool,
) -> RusticResult<(u64, u64)> {
    let (mut bytes, mut files, mut takes) = (0, 0, Takes::default());
    for item in nodes {
        let (path, node) = item?;
        if wanted(&path, &node)
            && let Some(taken) = takes.of(rustic, &node)?
        {
            bytes += taken;
            files += 1;
        }
    }
    Ok((bytes, files))
}

fn compare(
    repository: &Repository,
    rustic: &Rustic<IndexedFullStatus>,
    order: &Order<'_>,
    root: &Node,
    mut proven: Proven,
    monitor: &Monitor,
) -> RusticResult<Result<Proven>> {
    let (mut takes, mut done) = (Takes::default(), 0);
    let target = match Target::open(order.to) {
        Ok(target) => target,
        Err(error) => return Ok(Err(error)),
    };
    let mut walk = target.walk();
    for item in repository.entries(rustic, root)? {
        let (path, node) = item?;
        proven.devices += u64::from(is_device(&node));
        if !order.wants(proven.share, &path, &node) {
            continue;
        }
        let Some(taken) = takes.of(rustic, &node)? else { continue };
        let source = Path::new("/").join(&path);
        let opened = walk.place(&path).and_then(|place| place.open(false));
        if let Some(what) = content(rustic, opened, &node)? {
            let message = format!("{} {what}", shown(&source));
            proven.content.push(Problem { message, hint: None });
        }
        if (order.always)(&source) {
            proven.always.push(source);
        }
        done += taken;
        monitor.progress(Progress {
            phase: "comparing every byte".into(),
            done,
            total: Some(proven.bytes),
            unit: Unit::Bytes,
        });
    }
    Ok(Ok(proven))
}

/// How the bytes of a file differ from what was backed up.
fn content(rustic: &Rustic<IndexedFullStatus>, opened: io::Result<File>, node: &Node) -> RusticResult<Option<String>> {
    let mut file = match opened {
        Ok(file) => BufReader::with_capacity(64 << 10, file),
        Err(error) => return Ok(Some(format!("cannot be read: {error}"))),
    };
    let mut from = 0;
    for id in node.content.iter().flatten() {
        let length = u64::from(rustic.get_index_entry(id)?.data_length());
        if !id.blob_matches_reader(length, &mut file) {
            return Ok(Some(format!("came back with other bytes: some of the {length} from {from} on")));
        }
        from += length;
    }
    let more = file.read(&mut [0]).is_ok_and(|more| more > 0);
    Ok((more || from != node.meta.size).then(|| format!("came back with another length than {}", node.meta.size)))
}
