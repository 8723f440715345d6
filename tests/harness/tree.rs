//! A directory tree read whole, and every difference to another.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

/// A tree at one moment, by path relative to its root (bytes; the root itself is empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<Vec<u8>, Entry>);

/// All that a restore must give back of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    owner: (u32, u32),
    mode: u32,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path (in order) of the same file, when it has several within the tree.
    first_link: Option<Vec<u8>>,
    length: u64,
    /// Bytes that take space on the disk.
    allocated: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    File([u8; 32]),
    Directory,
    Link(Vec<u8>),
    Fifo,
    Other,
}

impl Tree {
    /// Reads everything below `root`, contents too.
    pub fn read(root: impl AsRef<Path>) -> Self {
        let mut tree = Self::default();
        let mut links = BTreeMap::new();
        tree.read_entry(root.as_ref(), &[], &mut links);
        for paths in links.into_values().filter(|paths: &Vec<Vec<u8>>| paths.len() > 1) {
            let first = paths.iter().min().expect("more than one").clone();
            for path in paths {
                tree.0.get_mut(&path).expect("was just read").first_link = Some(first.clone());
            }
        }
        tree
    }

    fn read_entry(&mut self, path: &Path, name: &[u8], links: &mut BTreeMap<(u64, u64), Vec<Vec<u8>>>) {
        let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("look at {}: {error}", path.display()));
        if metadata.is_file() && metadata.nlink() > 1 {
            links.entry((metadata.dev(), metadata.ino())).or_default().push(name.to_owned());
        }
        self.0.insert(name.to_owned(), Entry::read(path, &metadata));
        if !metadata.is_dir() {
            return;
        }
        for child in fs::read_dir(path).unwrap_or_else(|error| panic!("list {}: {error}", path.display())) {
            let child = child.expect("a readable directory");
            let mut below = name.to_owned();
            if !below.is_empty() {
                below.push(b'/');
            }
            below.extend_from_slice(child.file_name().as_bytes());
            self.read_entry(&child.path(), &below, links);
        }
    }

    /// Only names, kinds and contents.
    pub fn contents(&self) -> Vec<(Vec<u8>, String)> {
        self.0.iter().map(|(name, entry)| (name.clone(), format!("{:?}", entry.kind))).collect()
    }

    /// How many entries, the root included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every difference, as sentences; empty when `other` gives back all of this.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, entry) in &self.0 {
            match other.0.get(name) {
                None => found.push(format!("{}: is missing", shown(name))),
                Some(theirs) => entry.differences(theirs, &shown(name), &mut found),
            }
        }
        for name in other.0.keys().filter(|name| !self.0.contains_key(*name)) {
            found.push(format!("{}: was not there before", shown(name)));
        }
        found
    }

    /// Passes when `root` now holds exactly this; else panics with the first twenty differences.
    #[track_caller]
    pub fn assert_equals(&self, root: impl AsRef<Path>) {
        let root = root.as_ref();
        let found = self.differences(&Self::read(root));
        let shown = found.iter().take(20).cloned().collect::<Vec<_>>().join("\n  ");
        assert!(found.is_empty(), "{}: {} differences\n  {shown}", root.display(), found.len());
    }
}

impl Entry {
    fn read(path: &Path, metadata: &Metadata) -> Self {
        let kind = if metadata.is_file() {
            Kind::File(digest(path))
        } else if metadata.is_dir() {
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(path).expect("a link").as_os_str().as_bytes().to_owned())
        } else if metadata.file_type().is_fifo() {
            Kind::Fifo
        } else {
            Kind::Other
        };
        Self {
            kind,
            owner: (metadata.uid(), metadata.gid()),
            mode: metadata.mode(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            attributes: attributes(path),
            first_link: None,
            length: if metadata.is_file() { metadata.len() } else { 0 },
            allocated: metadata.blocks() * 512,
        }
    }

    fn differences(&self, other: &Self, name: &str, found: &mut Vec<String>) {
        let mut compare = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
            let (ours, theirs) = (format!("{ours:x?}"), format!("{theirs:x?}"));
            if ours != theirs {
                found.push(format!("{name}: {what} was {ours}, is {theirs}"));
            }
        };
        compare("content", &self.kind, &other.kind);
        compare("length", &self.length, &other.length);
        compare("owner", &self.owner, &other.owner);
        compare("mode", &format!("{:o}", self.mode), &format!("{:o}", other.mode));
        compare("mtime", &self.mtime, &other.mtime);
        compare("attributes", &self.attributes, &other.attributes);
        compare("hard link", &self.first_link, &other.first_link);
        if self.is_sparse() && other.allocated > self.allocated + self.length / 10 {
            let (ours, theirs) = (self.allocated, other.allocated);
            found.push(format!("{name}: was sparse with {ours} bytes on the disk, has {theirs}"));
        }
    }

    fn is_sparse(&self) -> bool {
        self.allocated < self.length / 2
    }
}

fn digest(path: &Path) -> [u8; 32] {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap_or_else(|error| panic!("read {}: {error}", path.display())) {
            0 => return hash.finalize().into(),
            length => hash.update(&buffer[..length]),
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("list attributes of {}: {error}", path.display()));
    names
        .map(|name| {
            let value = xattr::get(path, &name).expect("a listed attribute").unwrap_or_default();
            (name.as_bytes().to_owned(), value)
        })
        .collect()
}

fn shown(name: &[u8]) -> String {
    if name.is_empty() { ".".into() } else { format!("{}", name.escape_ascii()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{FileTimes, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Scratch, oddities, sh};

    #[test]
    fn a_faithful_copy_has_no_difference_and_every_infidelity_is_named() {
        let scratch = Scratch::new();
        let (original, copy) = (scratch.directory("original"), scratch.join("copy"));
        oddities(&original, 50_000_000);
        let tree = Tree::read(&original);
        sh(Command::new("cp").args(["-a", "--sparse=always"]).arg(&original).arg(&copy));
        tree.assert_equals(&copy);

        type Spoil = fn(&Path);
        let cases: [(&str, Spoil); 9] = [
            ("content", |root| fs::write(root.join("one byte"), "2").unwrap()),
            ("length", |root| fs::write(root.join("empty"), "not").unwrap()),
            ("owner", |root| chown(root.join("old"), Some(9), None).unwrap()),
            ("mode", |root| fs::set_permissions(root.join("old"), Permissions::from_mode(0o600)).unwrap()),
            ("mtime", |root| {
                let time = SystemTime::UNIX_EPOCH + Duration::new(1, 2);
                File::open(root.join("old")).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
            }),
            ("attributes", |root| xattr::remove(root.join("attributes"), "user.comment").unwrap()),
            ("missing", |root| fs::remove_file(root.join("dangling link")).unwrap()),
            ("not there before", |root| fs::write(root.join("surplus"), "").unwrap()),
            ("sparse", |root| {
                let text = vec![0; 50_000_000];
                fs::write(root.join("sparse"), text).unwrap();
            }),
        ];
        for (word, spoil) in cases {
            spoil(&copy);
            let found = tree.differences(&Tree::read(&copy));
            assert!(found.iter().any(|line| line.contains(word)), "{word} is not among {found:?}");
        }
        let link = copy.join("empty directory/hard link");
        fs::remove_file(&link).unwrap();
        fs::copy(original.join("one byte"), &link).unwrap();
        let found = tree.differences(&Tree::read(&copy));
        assert!(found.iter().any(|line| line.contains("hard link was")), "{found:?}");
    }
}
