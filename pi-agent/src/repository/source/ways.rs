//! The ways to what is read. A symbolic link that somebody puts on one while it is read would lead elsewhere, and root could be made
//! to store what its owner may not read: so each name is looked up in its own directory, and no link is followed.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustic_core::repofile::Node;

use super::describe::describe;
use super::tally::Shared;
use crate::error::{Context, Result};
use crate::repository::target::{Chain, Item, Place};

/// The ways to configured paths, none of which lies in another.
#[derive(Clone, Debug)]
pub(in crate::repository) struct Ways(Arc<Vec<Way>>);

#[derive(Debug)]
struct Way {
    path: PathBuf,
    /// The directory that it lies in.
    above: File,
}

impl Ways {
    /// Opens the directories above the paths. Links on the way to those are followed: where one leads is remembered instead, see
    /// [`super::Look::moved_since`].
    ///
    /// # Errors
    /// One cannot be opened.
    pub fn to(paths: &[PathBuf]) -> Result<Self> {
        let open = |path: &PathBuf| {
            let above = path.parent().unwrap_or(path);
            let opened = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(above);
            Ok(Way { path: path.clone(), above: opened.context(|| format!("cannot read {}", above.display()))? })
        };
        Ok(Self(Arc::new(paths.iter().map(open).collect::<Result<_>>()?)))
    }

    /// What is at a path now, held open.
    ///
    /// # Errors
    /// It is not there, or a directory on the way is none any more.
    pub fn item(&self, path: &Path) -> io::Result<Item> {
        self.place(path, &mut Chain::default())?.item()
    }

    /// What a snapshot would say of it.
    ///
    /// # Errors
    /// As [`Ways::item`].
    pub fn describe(&self, path: &Path, shared: &Shared) -> io::Result<Node> {
        // The attributes of a link are read by its name in its directory, which is open meanwhile.
        let mut chain = Chain::default();
        describe(&self.place(path, &mut chain)?.item()?, path, shared)
    }

    fn place<'d, 'p>(&'d self, path: &'p Path, chain: &'d mut Chain) -> io::Result<Place<'d, 'p>> {
        let way = self.0.iter().find(|way| path.starts_with(&way.path)).ok_or(io::ErrorKind::NotFound)?;
        let (above, below) = (way.above.as_fd(), path.strip_prefix(way.path.parent().unwrap_or(&way.path)));
        match below {
            Ok(below) if below.file_name().is_some() => chain.place(above, below),
            _ => Ok(Place::of_directory(above)),
        }
    }

    /// The walk from a configured path on, or from one below.
    pub fn walk<T: Glance>(&self, path: &Path, wants: Wants) -> Walk<T> {
        Walk {
            ways: self.clone(),
            chain: Chain::default(),
            first: Some(path.into()),
            entered: None,
            levels: Vec::new(),
            wants,
            looks: PhantomData,
        }
    }
}

/// How a walk looks at an entry.
pub(in crate::repository) trait Glance: Sized {
    /// Looks at it.
    ///
    /// # Errors
    /// It is not there.
    fn at(place: &Place<'_, '_>) -> io::Result<Self>;

    /// What is said of it.
    fn found(&self) -> &Metadata;
}

/// It is held open from then on.
impl Glance for Item {
    fn at(place: &Place<'_, '_>) -> io::Result<Self> {
        place.item()
    }

    fn found(&self) -> &Metadata {
        &self.found
    }
}

/// For who asks nothing else: a third of the work.
impl Glance for Metadata {
    fn at(place: &Place<'_, '_>) -> io::Result<Self> {
        place.metadata()
    }

    fn found(&self) -> &Metadata {
        self
    }
}

/// Says of each entry but the first whether it is wanted, by its path and whether it is a directory; and once more when it was looked at,
/// by what was found there.
pub(super) type Wants = Box<dyn FnMut(&Path, bool, Option<&Metadata>) -> bool + Send>;

/// Everything from a path on, in the order of a tree.
pub(in crate::repository) struct Walk<T = Item> {
    ways: Ways,
    chain: Chain,
    /// Where it begins.
    first: Option<PathBuf>,
    /// A directory whose entries come next.
    entered: Option<PathBuf>,
    levels: Vec<Level>,
    wants: Wants,
    looks: PhantomData<fn() -> T>,
}

struct Level {
    directory: PathBuf,
    /// Whether each is a directory, as the list has it; the last one first.
    names: Vec<(OsString, bool)>,
}

/// What a walk came by.
pub(in crate::repository) struct Found<T = Item> {
    pub path: PathBuf,
    /// The walk began with it.
    pub first: bool,
    pub item: T,
}

/// What a walk could not look at.
pub(in crate::repository) struct Unseen {
    pub path: PathBuf,
    pub first: bool,
    pub error: io::Error,
    /// Nobody knows what lies in it.
    pub is_directory: bool,
}

impl<T: Glance> Iterator for Walk<T> {
    type Item = std::result::Result<Found<T>, Unseen>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(path) = self.first.take() {
            return self.look(path, true, true);
        }
        if let Some(directory) = self.entered.take()
            && let Err(error) = self.list(&directory)
        {
            let first = self.levels.is_empty();
            return Some(Err(Unseen { path: directory, first, error, is_directory: true }));
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some((name, is_directory)) = level.names.pop() else {
                self.levels.pop();
                continue;
            };
            let path = level.directory.join(name);
            if (self.wants)(&path, is_directory, None)
                && let Some(found) = self.look(path, false, is_directory)
            {
                return Some(found);
            }
        }
    }
}

impl<T: Glance> Walk<T> {
    /// Passes by what lies in the directory that came last.
    pub fn pass_by(&mut self) {
        self.entered = None;
    }

    /// What is there decides, and not what a list said before; `None`: it is not wanted.
    fn look(
        &mut self,
        path: PathBuf,
        first: bool,
        listed_as_directory: bool,
    ) -> Option<std::result::Result<Found<T>, Unseen>> {
        let item = match self.ways.place(&path, &mut self.chain).and_then(|place| T::at(&place)) {
            Ok(item) => item,
            Err(error) => return Some(Err(Unseen { path, first, error, is_directory: listed_as_directory })),
        };
        let is_directory = item.found().is_dir();
        let mut wants = |found| (self.wants)(&path, is_directory, found);
        let is_as_listed = first || is_directory == listed_as_directory;
        if !first && !((is_as_listed || wants(None)) && wants(Some(item.found()))) {
            return None;
        }
        if is_directory {
            self.entered = Some(path.clone());
        }
        Some(Ok(Found { path, first, item }))
    }

    fn list(&mut self, directory: &Path) -> io::Result<()> {
        let opened = self.ways.place(directory, &mut self.chain)?.open_directory()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))? {
            let entry = entry?;
            names.push((entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir())));
        }
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        self.levels.push(Level { directory: directory.into(), names });
        Ok(())
    }
}
