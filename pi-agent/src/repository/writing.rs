//! Writing entries of a snapshot into a directory. rustic's own restore ends, by a panic of one of its threads, at the first
//! thing that the target refuses; here that is named, and everything else is written.
//!
//! Three passes over the entries: directories and empty files are made, and existing files read ([`Writing::plan`]); contents
//! are fetched, pack by pack, and written ([`contents`](super::contents)); owners, modes, times and attributes are set and
//! compared ([`Writing::finish`]).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader};
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use rustic_core::repofile::Node;
use rustic_core::{DataId, IndexedFullStatus, Repository as Rustic, RusticResult};

use super::Repository;
use super::capabilities::Capabilities;
use super::contents::{Piece, Plan};
use super::metadata::{Compared, Unset, grants_more, link_key, set};
use super::target::{Identity, Place, Target, Walk, identity};
use crate::durable::settle;
use crate::monitor::{Problem, Unit};
use crate::{Result, shown};

/// Two names of the snapshot are one name in the target.
const TWIN: &str = "for this file system its name is the same as another's, as if upper and lower case were one; \
                    the other is here. Restored alone (--path) into another directory it comes back";

/// What became of a restore.
#[derive(Debug, Default)]
pub struct Written {
    /// Bytes that were fetched and written.
    pub bytes: u64,
    /// What is not as it was.
    pub problems: Vec<Problem>,
    /// A full disk kept some of it back.
    pub full: bool,
}

/// What the target refused.
#[derive(Debug, Default)]
pub(super) struct Refused {
    paths: HashSet<PathBuf>,
    /// Each refused entry is named: whatever is not named is whole.
    problems: Vec<Problem>,
    pub full: bool,
}

impl Refused {
    /// Names an entry that is there nevertheless.
    fn remark(&mut self, target: &Target, path: &Path, what: &str) {
        let message = format!("{} {what}", shown(&target.shown(path)));
        self.problems.push(Problem { message, hint: None });
    }

    /// Names an entry that is not there, nor what is in it.
    pub(super) fn failed(&mut self, target: &Target, path: &Path, error: &io::Error) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let why = match errno {
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                self.full = true;
                "the disk is full".to_owned()
            }
            Some(Errno::EPERM) => format!(
                "{error}; the target's file system knows no such files, or it or its directory is immutable (lsattr says so)"
            ),
            Some(Errno::ENOENT | Errno::EINVAL) => "the target's file system cannot hold such a name".into(),
            Some(Errno::ENOSYS | Errno::EOPNOTSUPP) => "the target's file system knows no such files".into(),
            Some(Errno::ENAMETOOLONG) => "its name or path is too long for the target".into(),
            Some(Errno::EISDIR) => "a directory is in its place: move that away".into(),
            Some(Errno::EFBIG) => "it is too large for the target's file system".into(),
            Some(Errno::ELOOP | Errno::ENOTDIR) => "a directory above it was replaced meanwhile".into(),
            _ if error.kind() == io::ErrorKind::AlreadyExists => TWIN.into(),
            _ => error.to_string(),
        };
        self.remark(target, path, &format!("was not restored: {why}"));
        self.paths.insert(path.to_owned());
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// Leaves out what was refused, and everything below it.
struct Left<'a> {
    refused: &'a HashSet<PathBuf>,
    below: Option<PathBuf>,
}

impl Left<'_> {
    fn out(&mut self, path: &Path) -> bool {
        if self.below.as_ref().is_some_and(|below| path.starts_with(below)) {
            return true;
        }
        let out = self.refused.contains(path);
        self.below = out.then(|| path.to_owned());
        out
    }
}

/// The parts of files that are nothing but zeros: they take no room, and are not fetched.
#[derive(Default)]
pub(super) struct Zeros {
    zeros: HashSet<DataId>,
    others: HashSet<DataId>,
}

impl Zeros {
    fn are(&self, id: &DataId) -> bool {
        self.zeros.contains(id)
    }

    /// Bytes of a file that are more than holes.
    pub(super) fn taken(&mut self, rustic: &Rustic<IndexedFullStatus>, node: &Node) -> RusticResult<u64> {
        let parts = node.content.as_deref().unwrap_or_default();
        let mut taken = 0;
        for (index, id) in parts.iter().enumerate() {
            let length = u64::from(rustic.get_index_entry(id)?.location.data_length());
            // A part that follows itself is hardly ever anything else.
            let follows = parts.get(index + 1) == Some(id) && !self.zeros.contains(id) && !self.others.contains(id);
            if follows {
                let zeros = id.blob_matches_reader(length, &mut io::repeat(0));
                if zeros {
                    self.zeros.insert(*id)
                } else {
                    self.others.insert(*id)
                };
            }
            taken += if self.zeros.contains(id) { 0 } else { length };
        }
        Ok(taken)
    }
}

/// Bytes that files take, hard links counted once.
#[derive(Default)]
pub(super) struct Takes {
    links: HashSet<(u64, u64)>,
    pub zeros: Zeros,
}

impl Takes {
    /// Of one more entry; `None`: it is no file, or a further name of one.
    pub(super) fn of(&mut self, rustic: &Rustic<IndexedFullStatus>, node: &Node) -> RusticResult<Option<u64>> {
        if !node.is_file() || link_key(node).is_some_and(|key| !self.links.insert(key)) {
            return Ok(None);
        }
        self.zeros.taken(rustic, node).map(Some)
    }
}

/// A restore of some entries into a target.
pub(super) struct Writing<'a> {
    pub repository: &'a Repository,
    pub rustic: &'a Rustic<IndexedFullStatus>,
    pub target: Target,
    /// The target was empty: what is in the way was made by this restore.
    pub fresh: bool,
    /// It is for a test, whose disk holds so much; `None`: for a person, who will use the paths.
    pub test: Option<Capabilities>,
}

/// What a restore made.
#[derive(Default)]
pub(super) struct Made {
    pub refused: Refused,
    pub bytes: u64,
    /// Further names that are files of their own here.
    pub copies: HashSet<PathBuf>,
    /// How many of them the disk of a test cannot hold otherwise.
    pub not_linked: u64,
    /// Files that will be allowed more than their owner is: they must be those that were made.
    trusted: HashMap<PathBuf, Identity>,
    /// The file systems below the target, each by a directory on it.
    disks: HashMap<u64, (OwnedFd, PathBuf)>,
}

/// What the first pass knows.
#[derive(Default)]
struct Planning {
    plan: Plan,
    zeros: Zeros,
    /// The first name of each file that has several, and the file's number where something is to be written into it.
    links: HashMap<(u64, u64), (PathBuf, Option<u32>)>,
    /// The entries made so far in each directory from the root to the current one.
    seen: Vec<(PathBuf, HashSet<Identity>)>,
}

impl Planning {
    fn siblings(&mut self, path: &Path) -> &mut HashSet<Identity> {
        let directory = path.parent().unwrap_or(Path::new(""));
        while self.seen.last().is_some_and(|(open, _)| !directory.starts_with(open)) {
            self.seen.pop();
        }
        if self.seen.last().is_none_or(|(open, _)| open != directory) {
            self.seen.push((directory.to_owned(), HashSet::new()));
        }
        &mut self.seen.last_mut().expect("it was pushed").1
    }

    /// An entry of the same directory has that identity.
    fn is_twin(&mut self, path: &Path, there: Identity) -> bool {
        self.siblings(path).contains(&there)
    }
}

/// A file's place in the target.
enum Placed {
    /// It was made, and is empty.
    New(File),
    /// It was there, and can be read.
    There(File),
}

impl Writing<'_> {
    /// Writes the entries: each directory comes before what is in it.
    ///
    /// # Errors
    /// The repository cannot be read. What the target refuses is in the result.
    pub(super) fn write(
        &self,
        zeros: Zeros,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>> + Clone,
        compared: &mut Compared,
    ) -> RusticResult<Made> {
        let mut made = Made::default();
        let plan = self.plan(zeros, nodes.clone(), &mut made)?;
        made.bytes = plan.bytes;
        self.contents(plan, &mut made.refused)?;
        self.finish(nodes, &mut made, compared)?;
        Ok(made)
    }

    /// Waits until everything is on its disks.
    ///
    /// # Errors
    /// A disk did not take it.
    pub(super) fn settle(&self, made: &Made) -> Result<()> {
        for (disk, path) in made.disks.values() {
            settle(disk, &self.target.shown(path))?;
        }
        settle(self.target.root(), &self.target.shown(Path::new("")))
    }

    fn plan(
        &self,
        zeros: Zeros,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>>,
        made: &mut Made,
    ) -> RusticResult<Plan> {
        if !self.fresh {
            self.repository.gauge.phase("reading what is there", Unit::Bytes);
        }
        let mut planning = Planning { zeros, ..Planning::default() };
        let (mut walk, mut firsts) = (self.target.walk(), self.target.walk());
        let mut below: Option<PathBuf> = None;
        for item in nodes {
            let (path, node) = item?;
            if below.as_ref().is_some_and(|below| path.starts_with(below)) {
                continue;
            }
            below = None;
            let done = if self.test.is_none() && self.target.is_too_long(&path) {
                Err(Errno::ENAMETOOLONG.into())
            } else if node.is_dir() {
                self.directory(&mut walk, &path, made, &mut planning)
            } else if node.is_file() {
                match self.file((&mut walk, &mut firsts), &path, &node, made, &mut planning) {
                    Err(Failure::Repository(error)) => return Err(error),
                    Err(Failure::Target(error)) => Err(error),
                    Ok(()) => Ok(()),
                }
            } else {
                self.special(&mut walk, &path, &node, &mut planning)
            };
            if let Err(error) = done {
                made.refused.failed(&self.target, &path, &error);
                below = Some(path);
            }
        }
        Ok(planning.plan)
    }

    fn directory(&self, walk: &mut Walk<'_>, path: &Path, made: &mut Made, planning: &mut Planning) -> io::Result<()> {
        let place = walk.place(path)?;
        let mut existed = false;
        match place.make_directory() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = place.found()?.ok_or(io::ErrorKind::NotFound)?;
                existed = found.is_dir();
                if !existed {
                    if self.fresh || planning.is_twin(path, identity(&found)) {
                        return Err(error);
                    }
                    place.remove()?;
                    place.make_directory()?;
                }
            }
            done => done?,
        }
        let found = place.found()?.ok_or(io::ErrorKind::NotFound)?;
        if existed && (self.fresh || planning.is_twin(path, identity(&found))) {
            // What is in both of them comes into one, and is looked at name by name.
            made.refused.remark(&self.target, path, &format!("is one directory with another here: {TWIN}"));
        }
        if !self.fresh {
            planning.siblings(path).insert(identity(&found));
            if self.target.disk()? != found.dev()
                && let Entry::Vacant(entry) = made.disks.entry(found.dev())
            {
                entry.insert((place.open_directory()?, path.to_owned()));
            }
        }
        Ok(())
    }

    fn file(
        &self,
        (walk, firsts): (&mut Walk<'_>, &mut Walk<'_>),
        path: &Path,
        node: &Node,
        made: &mut Made,
        planning: &mut Planning,
    ) -> std::result::Result<(), Failure> {
        let first = link_key(node).and_then(|key| planning.links.get(&key).cloned());
        let mut no_link = None;
        if let Some((first, planned)) = &first {
            match self.link(&walk.place(path)?, &firsts.place(first)?, path, planning) {
                Err(error) => no_link = Some((first, error)),
                Ok(()) => {
                    if let Some(file) = planned {
                        planning.plan.add_link(*file, path.to_owned());
                    }
                    return Ok(());
                }
            }
        }
        let place = walk.place(path)?;
        let placed = self.place(&place, path, planning)?;
        planning.zeros.taken(self.rustic, node)?;
        let (there, planned) = self.fill(&place, placed, path, node, planning)?;
        if !self.fresh {
            planning.siblings(path).insert(there);
        }
        if grants_more(node) {
            made.trusted.insert(path.to_owned(), there);
        }
        if let Some((first, error)) = no_link {
            // Some file systems have an end to the names of a file.
            if self.test.is_some_and(|holds| !holds.links || error.raw_os_error() == Some(libc::EMLINK)) {
                made.not_linked += 1;
            } else {
                let first = self.target.shown(first);
                let what = format!("is a copy of {}, and no hard link to it: {error}", shown(&first));
                made.refused.remark(&self.target, path, &what);
            }
            made.copies.insert(path.to_owned());
        } else if let Some(key) = link_key(node) {
            planning.links.insert(key, (path.to_owned(), planned));
        }
        Ok(())
    }

    fn link(
        &self,
        place: &Place<'_, '_>,
        first: &Place<'_, '_>,
        path: &Path,
        planning: &mut Planning,
    ) -> io::Result<()> {
        match place.link(first) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.fresh => {
                let there = place.found()?.ok_or(io::ErrorKind::NotFound)?;
                if first.found()?.is_some_and(|first| identity(&first) == identity(&there)) {
                    return Ok(());
                }
                make_way(place, path, planning)?;
                place.link(first)
            }
            linked => linked,
        }
    }

    /// Makes a file, or opens the one that is there.
    fn place(&self, place: &Place<'_, '_>, path: &Path, planning: &mut Planning) -> io::Result<Placed> {
        match place.create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.fresh => {}
            made => return made.map(Placed::New),
        }
        let found = place.found()?.ok_or(io::ErrorKind::NotFound)?;
        // Writing into a file that has other names would change them, too.
        let own = found.is_file() && found.nlink() <= 1;
        if own
            && !planning.is_twin(path, identity(&found))
            && let Ok(file) = place.open(false)
        {
            return Ok(Placed::There(file));
        }
        make_way(place, path, planning)?;
        place.create().map(Placed::New)
    }

    /// Gives a file its length, and plans what is to be written into it. Which file it is, and its number in the plan; `None`:
    /// it was there, and holds everything.
    fn fill(
        &self,
        place: &Place<'_, '_>,
        placed: Placed,
        path: &Path,
        node: &Node,
        planning: &mut Planning,
    ) -> std::result::Result<(Identity, Option<u32>), Failure> {
        let (mut new, mut same) = (true, Vec::new());
        let mut file = match placed {
            Placed::New(file) => file,
            Placed::There(file) => {
                new = false;
                same = self.compare(&file, node)?;
                file
            }
        };
        let mut length = 0;
        for id in node.content.iter().flatten() {
            length += self.piece(id)?.bytes;
        }
        if !new {
            if same.iter().all(|same| *same) && file.metadata()?.len() == length {
                return Ok((identity(&file.metadata()?), None));
            }
            match place.open(true) {
                Ok(writable) => file = writable,
                // It runs as a program, say; then it goes on as a file without a name.
                Err(refused) => {
                    let made = place.remove().and_then(|()| place.create());
                    file = made.map_err(|_| refused)?;
                    (new, same) = (true, Vec::new());
                }
            }
        }
        if let Err(error) = file.set_len(length) {
            if new {
                // Nothing may look like it.
                let _ = place.remove();
            }
            return Err(error.into());
        }
        let there = identity(&file.metadata()?);
        let number = planning.plan.add_file(path.to_owned(), new);
        let mut at = 0;
        for (index, id) in node.content.iter().flatten().enumerate() {
            let piece = self.piece(id)?;
            let is_there = same.get(index).copied().unwrap_or(false) || (new && planning.zeros.are(id));
            if !is_there {
                planning.plan.add_part(&piece, number, at);
            }
            at += piece.bytes;
        }
        Ok((there, Some(number)))
    }

    fn piece(&self, id: &DataId) -> RusticResult<Piece> {
        let entry = self.rustic.get_index_entry(id)?;
        let (pack, location) = (entry.pack, entry.location);
        Ok(Piece {
            pack,
            offset: location.offset,
            length: location.length,
            uncompressed: location.uncompressed_length.map_or(0, Into::into),
            bytes: location.data_length().into(),
        })
    }

    /// Which parts of an existing file are right: they are read, for length and time prove nothing.
    fn compare(&self, file: &File, node: &Node) -> RusticResult<Vec<bool>> {
        let mut file = BufReader::with_capacity(64 << 10, file);
        let mut same = Vec::new();
        for id in node.content.iter().flatten() {
            let length = self.piece(id)?.bytes;
            same.push(id.blob_matches_reader(length, &mut file));
            self.repository.gauge.add(length);
        }
        Ok(same)
    }

    fn special(&self, walk: &mut Walk<'_>, path: &Path, node: &Node, planning: &mut Planning) -> io::Result<()> {
        let place = walk.place(path)?;
        match place.make_special(node) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.fresh => {
                make_way(&place, path, planning)?;
                place.make_special(node)?;
            }
            made => made?,
        }
        if !self.fresh
            && let Some(found) = place.found()?
        {
            planning.siblings(path).insert(identity(&found));
        }
        Ok(())
    }

    /// Sets and compares everything but contents, for directories after what is in them.
    fn finish(
        &self,
        nodes: impl Iterator<Item = RusticResult<(PathBuf, Node)>>,
        made: &mut Made,
        compared: &mut Compared,
    ) -> RusticResult<()> {
        self.repository.gauge.phase("setting owners, modes and times", Unit::Items);
        let mut walk = self.target.walk();
        let refused = mem::take(&mut made.refused.paths);
        let mut left = Left { refused: &refused, below: None };
        let mut open: Vec<(PathBuf, Node)> = Vec::new();
        for item in nodes {
            let (path, node) = item?;
            while open.last().is_some_and(|(directory, _)| !path.starts_with(directory)) {
                let (path, node) = open.pop().expect("there is one");
                self.finish_one(&mut walk, &path, &node, made, compared);
            }
            if left.out(&path) {
                continue;
            }
            if node.is_dir() {
                open.push((path, node));
            } else {
                self.finish_one(&mut walk, &path, &node, made, compared);
            }
        }
        while let Some((path, node)) = open.pop() {
            self.finish_one(&mut walk, &path, &node, made, compared);
        }
        Ok(())
    }

    fn finish_one(&self, walk: &mut Walk<'_>, path: &Path, node: &Node, made: &Made, compared: &mut Compared) {
        self.repository.gauge.add(1);
        let item = walk.place(path).and_then(|place| place.item());
        let unset = match &item {
            Ok(item) if item.may_become(node, made.trusted.get(path).copied()) => set(item, node),
            _ => Unset::default(),
        };
        let is_copy = made.copies.contains(path);
        compared.compare(walk.place(path), &self.target.shown(path), node, &unset, is_copy);
    }
}

/// Why a file is not planned.
enum Failure {
    /// Its parts are not in the index.
    Repository(Box<rustic_core::RusticError>),
    Target(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Target(error)
    }
}

impl From<Box<rustic_core::RusticError>> for Failure {
    fn from(error: Box<rustic_core::RusticError>) -> Self {
        Self::Repository(error)
    }
}

/// Removes what is in the way, unless it was made for another entry or is a directory: nobody asked to lose what is in one.
fn make_way(place: &Place<'_, '_>, path: &Path, planning: &mut Planning) -> io::Result<()> {
    let Some(found) = place.found()? else { return Ok(()) };
    if planning.is_twin(path, identity(&found)) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if found.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    place.remove()
}
