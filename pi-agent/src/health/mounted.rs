//! What is mounted where, as the kernel tells it. Asking it touches no file system: a dead disk or server does not hold it up.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The mounts of this process's namespace, in the kernel's order.
#[derive(Clone, Debug, Default)]
pub struct MountTable(Vec<Mount>);

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    id: u64,
    parent: u64,
    /// Major and minor number of the file system's device.
    device: String,
    /// The directory (or file) of the file system that is seen at `at`.
    root: PathBuf,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// What is mounted: a device, `nas:/photos`, or a word that says nothing.
    pub source: String,
    /// The btrfs subvolume.
    subvolume: Option<String>,
}

impl MountTable {
    /// Reads it. `root` is `/` but in tests.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn read(root: &Path) -> io::Result<Self> {
        // Names may be anything but valid UTF-8.
        Ok(Self::parse(&fs::read(root.join("proc/self/mountinfo"))?))
    }

    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// All that can be reached by its path, whatever for.
    pub fn visible(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter().filter(|mount| !self.is_hidden(mount))
    }

    /// The mount that a path without symbolic links lies on.
    pub fn above(&self, path: &Path) -> Option<&Mount> {
        let above = self.0.iter().filter(|mount| path.starts_with(&mount.at) && !self.is_hidden(mount));
        above.max_by_key(|mount| mount.at.as_os_str().len())
    }

    /// Where a path without symbolic links lies in its file system, by whatever path that is reached.
    pub fn location(&self, path: &Path) -> Option<(&str, PathBuf)> {
        let mount = self.above(path)?;
        Some((&mount.device, mount.root.join(path.strip_prefix(&mount.at).ok()?)))
    }

    /// What is mounted below a directory, at any depth. A mount that shows what lies there anyway is none: systemd makes such
    /// for the directories that a unit may not write to.
    pub fn below(&self, path: &Path) -> impl Iterator<Item = &Mount> {
        let inside = self.0.iter().filter(move |mount| mount.at != path && mount.at.starts_with(path));
        inside.filter(|mount| !self.is_hidden(mount) && !self.changes_nothing(mount))
    }

    fn parent(&self, mount: &Mount) -> Option<&Mount> {
        self.0.iter().find(|other| other.id == mount.parent && other.id != mount.id)
    }

    /// Something else is mounted over it, or over a directory on the way to it.
    fn is_hidden(&self, mount: &Mount) -> bool {
        let covered = |here: &Mount, way: &Mount| {
            let over = |other: &&Mount| other.parent == here.id && other.id != way.id && other.id != here.id;
            self.0.iter().filter(over).any(|other| way.at.starts_with(&other.at))
        };
        if covered(mount, mount) {
            return true;
        }
        let mut way = mount;
        // A mount below itself would be the kernel's mistake; it costs no eternity.
        for _ in 0..self.0.len() {
            let Some(here) = self.parent(way) else { return false };
            if covered(here, way) {
                return true;
            }
            way = here;
        }
        false
    }

    /// It shows the directory that lies at its place without it.
    fn changes_nothing(&self, mount: &Mount) -> bool {
        self.parent(mount).is_some_and(|parent| {
            let inside = mount.at.strip_prefix(&parent.at);
            parent.device == mount.device && inside.is_ok_and(|inside| parent.root.join(inside) == mount.root)
        })
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').map(unescaped);
        let mut text = || fields.next()?.into_string().ok();
        let (id, parent, device) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?);
        let (root, at) = (fields.next()?.into(), fields.next()?.into());
        // Options of the mount, and any number of others.
        fields.find(|field| field == "-")?;
        let mut text = || fields.next().map(|field| field.to_string_lossy().into_owned());
        let (kind, source) = (text()?, text()?);
        let subvolume = text().and_then(|options| {
            options.split(',').find_map(|option| option.strip_prefix("subvolid=")).map(str::to_owned)
        });
        Some(Self { id, parent, device, root, at, kind, source, subvolume })
    }

    /// Both show parts of one file system; of btrfs, of one subvolume.
    pub fn is_of_the_same(&self, other: &Self) -> bool {
        (&self.device, &self.subvolume) == (&other.device, &other.subvolume)
    }

    /// Only a part of its file system is seen, which may be a single file.
    pub fn is_part(&self) -> bool {
        self.root != Path::new("/")
    }

    /// What it is, for a person: `ext4 of /dev/sda1`.
    pub fn in_words(&self) -> String {
        match self.source.contains('/') {
            true => format!("{} of {}", self.kind, self.source),
            false => self.kind.clone(),
        }
    }
}

/// The kernel writes blanks, tabs, line ends, `#` and backslashes as octal numbers.
fn unescaped(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let code = octal.and_then(|digits| u8::from_str_radix(OsStr::from_bytes(digits).to_str()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(lines: &str) -> MountTable {
        MountTable::parse(lines.as_bytes())
    }

    fn below(table: &MountTable, path: &str) -> Vec<String> {
        table.below(Path::new(path)).map(|mount| mount.at.display().to_string()).collect()
    }

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let mut line =
            b"30 21 0:45 / /mnt/a\\040b\\134\\012 rw,relatime shared:1 master:2 - nfs4 nas:/my\\040photos rw\n"
                .to_vec();
        line.extend(
            b"31 21 0:46 / /mnt/\xff rw - btrfs /dev/sda1 rw,space_cache=v2,subvolid=257,subvol=/@\nnonsense\n",
        );
        let table = MountTable::parse(&line);
        let [nfs, btrfs] = table.0.as_slice() else { panic!("{table:?}") };
        assert_eq!((nfs.at.as_path(), nfs.in_words()), (Path::new("/mnt/a b\\\n"), "nfs4 of nas:/my photos".into()));
        assert_eq!((btrfs.at.as_os_str().as_bytes(), btrfs.subvolume.as_deref()), (&b"/mnt/\xff"[..], Some("257")));
        assert!(!btrfs.is_part());
        // What every machine has.
        let here = MountTable::read(Path::new("/")).unwrap();
        assert_eq!(here.above(Path::new("/proc/self/status")).unwrap().kind, "proc");
    }

    #[test]
    fn what_is_covered_is_not_there() {
        let table = table(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:2 / /a rw - ext4 /dev/sda2 rw\n\
             3 2 8:3 / /a/b rw - ext4 /dev/sda3 rw\n\
             4 2 8:4 / /a rw - ext4 /dev/sda4 rw\n\
             5 4 8:5 / /a/c rw - ext4 /dev/sda5 rw\n\
             6 1 8:6 / /ab rw - ext4 /dev/sda6 rw\n",
        );
        assert_eq!(below(&table, "/"), ["/a", "/a/c", "/ab"]);
        assert_eq!(below(&table, "/a"), ["/a/c"]);
        let source = |path: &str| table.above(Path::new(path)).map(|mount| mount.source.as_str());
        assert_eq!(source("/a/b/x"), Some("/dev/sda4"));
        assert_eq!(
            (source("/a/c"), source("/abc"), source("/ab")),
            (Some("/dev/sda5"), Some("/dev/sda1"), Some("/dev/sda6"))
        );
    }

    #[test]
    fn what_systemd_mounts_for_a_unit_is_no_mount() {
        let table = table(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
             2 1 8:1 /home /home ro - ext4 /dev/sda1 rw\n\
             3 2 8:1 /srv /home/srv rw - ext4 /dev/sda1 rw\n\
             4 1 8:1 /tmp/systemd-private-1/tmp /tmp rw - ext4 /dev/sda1 rw\n",
        );
        assert_eq!(below(&table, "/"), ["/home/srv", "/tmp"], "only what shows something else");
    }

    #[test]
    fn subvolumes_of_one_disk_are_told_apart() {
        let line = |id: u32, at: &str, subvolume: u32| {
            format!("{id} 1 0:30 /@{subvolume} {at} rw - btrfs /dev/sda1 rw,subvolid={subvolume}\n")
        };
        let table = table(&(line(2, "/a", 256) + &line(3, "/b", 257) + &line(4, "/c", 256)));
        let [a, b, c] = table.0.as_slice() else { panic!("{table:?}") };
        assert!(!a.is_of_the_same(b) && a.is_of_the_same(c));
    }

    #[test]
    fn no_table_panics() {
        const TABLE: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:45 / /mnt/a\\040b rw shared:1 - nfs4 nas:/x rw\n\
                             3 2 0:46 / /mnt/a\\040b/c rw - btrfs /dev/sdb rw,subvolid=257,subvol=/@\n";
        crate::fuzzed::fuzz(&[TABLE.as_bytes()], |text| {
            let table = MountTable::parse(text);
            let _ = (table.visible().count(), table.below(Path::new("/mnt")).count());
            let _ = table.location(Path::new("/mnt/a b/c/d"));
        });
    }
}
