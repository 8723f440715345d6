//! The file system that a path lies on, in a form in which it is recognised after a reboot, when disks have other numbers.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use nix::sys::statvfs::statvfs;

use super::mount_point;
use super::mounted::{Mount, MountTable};
use crate::path_text;

/// Types of file systems whose id in `statvfs` comes from their UUID. That of others is the number of their device (XFS, FAT, exFAT,
/// f2fs, NTFS), another one after each mount (tmpfs), or missing (FUSE, NFS).
const WITH_A_LASTING_ID: [&str; 7] = ["bcachefs", "btrfs", "ext2", "ext3", "ext4", "overlay", "zfs"];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `fsid` and the id of `statvfs`, or `uuid` and a UUID; `None`: it has none, or nobody can tell just now.
    id: Option<String>,
    /// What a network or a program mounts, such as `nas:/photos`; `None` for devices, which change their names.
    source: Option<String>,
    /// Where it is mounted.
    mounted_at: PathBuf,
    /// btrfs, whose id is another one in each subvolume.
    has_subvolumes: bool,
}

/// Between the name and the mount point of a file system that is written down.
const AT: &str = " at ";

impl FileSystem {
    /// The file system of a path that exists. `root` is `/` but in tests.
    ///
    /// # Errors
    /// The path or the table of mounts cannot be read.
    pub fn of(root: &Path, path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let table = MountTable::read(root)?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "/proc/self/mountinfo names no mount above it");
        let Mount { kind, source, .. } = table.above(&path).ok_or_else(missing)?;
        let (device, mounted_at) = mount_point(&path).ok_or_else(missing)?;
        let id = if WITH_A_LASTING_ID.contains(&kind.as_str()) {
            Some(statvfs(&path)?.filesystem_id()).filter(|id| *id != 0).map(|id| format!("{FSID}{id:x}"))
        } else {
            uuid(root, device).map(|uuid| format!("{UUID}{uuid}"))
        };
        // Sources such as `none` and `tmpfs` name nothing.
        let source = Some(source.clone()).filter(|source| !source.starts_with('/') && source.contains([':', '/', '@']));
        Ok(Self { id, source, mounted_at, has_subvolumes: kind == "btrfs" })
    }

    /// Whether a remembered one is this one: by id, else by source, else by where it is mounted.
    pub fn is_remembered_as(&self, text: &str) -> bool {
        let Some((name, at)) = text.split_once(AT) else {
            // Only an id was remembered before there was more. Where ids do not last it proves nothing.
            return self.id.as_ref().and_then(|id| id.strip_prefix(FSID)).is_none_or(|id| self.same_id(id, text));
        };
        let same = |ours: &Option<String>, theirs: &str| ours.as_ref().map(|ours| ours == theirs);
        let ids = |id: &String| match (id.strip_prefix(FSID), name.strip_prefix(FSID)) {
            (Some(ours), Some(theirs)) => self.same_id(ours, theirs),
            _ => id == name,
        };
        let named = if name.starts_with(FSID) || name.starts_with(UUID) {
            self.id.as_ref().map(ids)
        } else {
            name.strip_prefix(SOURCE).and_then(|source| same(&self.source, source))
        };
        named.unwrap_or_else(|| self.mounted_at == path_text::path(at))
    }

    /// Whether two ids of `statvfs` are those of one file system. btrfs adds the number of the subvolume to the upper half, and a
    /// subvolume that is replaced by a snapshot of itself is on the same disk still.
    fn same_id(&self, ours: &str, theirs: &str) -> bool {
        let of_the_disk = |id: &str| u64::from_str_radix(id, 16).ok().map(|id| id as u32);
        ours == theirs || (self.has_subvolumes && of_the_disk(ours).is_some_and(|id| of_the_disk(theirs) == Some(id)))
    }
}

const FSID: &str = "fsid ";
const UUID: &str = "uuid ";
const SOURCE: &str = "source ";

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.id, &self.source) {
            (Some(id), _) => write!(f, "{id}")?,
            (None, Some(source)) => write!(f, "{SOURCE}{source}")?,
            (None, None) => write!(f, "nameless")?,
        }
        write!(f, "{AT}{}", path_text::of(&self.mounted_at))
    }
}

/// The UUID of the file system on a device, as udev knows it (also inside of a unit, which sees no devices), or as its links say.
pub(crate) fn uuid(root: &Path, device: u64) -> Option<String> {
    let known = root.join(format!("run/udev/data/b{}:{}", major(device), minor(device)));
    if let Ok(text) = fs::read_to_string(known)
        && let Some(uuid) = text.lines().find_map(|line| line.strip_prefix("E:ID_FS_UUID="))
    {
        return Some(uuid.to_owned());
    }
    let links = fs::read_dir(root.join("dev/disk/by-uuid")).ok()?.flatten();
    let is_it = |path: PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device() && metadata.rdev() == device)
    };
    links.into_iter().find(|link| is_it(link.path()))?.file_name().into_string().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn named(id: Option<&str>, source: Option<&str>, at: &str) -> FileSystem {
        FileSystem {
            id: id.map(Into::into),
            source: source.map(Into::into),
            mounted_at: at.into(),
            has_subvolumes: false,
        }
    }

    #[test]
    fn it_is_recognised_by_the_most_lasting_name_that_both_have() {
        let disk = named(Some("uuid aa-bb"), None, "/mnt/usb");
        assert!(disk.is_remembered_as(&disk.to_string()));
        assert!(disk.is_remembered_as("uuid aa-bb at /media/usb"), "mounted elsewhere");
        assert!(!disk.is_remembered_as("uuid cc-dd at /mnt/usb"), "another disk at the same place");
        // Nobody could tell the UUID then, or can now.
        assert!(disk.is_remembered_as("nameless at /mnt/usb"));
        assert!(!disk.is_remembered_as("nameless at /"));
        assert!(named(None, None, "/mnt/usb").is_remembered_as("uuid aa-bb at /mnt/usb"));
        assert!(!named(Some("fsid 1f"), None, "/").is_remembered_as("uuid aa-bb at /mnt/usb"), "it is not mounted");

        let network = named(None, Some("nas:/photos"), "/mnt/nas");
        assert!(network.is_remembered_as("source nas:/photos at /elsewhere"));
        assert!(!network.is_remembered_as("source nas:/music at /mnt/nas"));
        let no_text = FileSystem { mounted_at: path_text::path("bytes:2fe9"), ..named(None, None, "") };
        for one in [disk, network, named(None, None, "/mnt/a b at c"), no_text] {
            assert!(one.is_remembered_as(&one.to_string()), "{one}");
        }
    }

    #[test]
    fn an_id_that_was_remembered_before_counts_where_ids_last() {
        assert!(named(Some("fsid 1f"), None, "/").is_remembered_as("1f"));
        assert!(!named(Some("fsid 1f"), None, "/").is_remembered_as("2f"));
        // XFS and NFS had the number of a device there.
        assert!(named(Some("uuid aa-bb"), None, "/mnt/usb").is_remembered_as("700"));
        assert!(named(None, Some("nas:/photos"), "/mnt/nas").is_remembered_as("device-39"));
    }

    #[test]
    fn subvolumes_of_btrfs_are_one_disk() {
        let btrfs = FileSystem { has_subvolumes: true, ..named(Some("fsid 10000000aabbccdd"), None, "/") };
        for same in ["fsid 10000007aabbccdd at /", "10000007aabbccdd", "fsid 10000000aabbccdd at /mnt"] {
            assert!(btrfs.is_remembered_as(same), "{same}");
        }
        assert!(!btrfs.is_remembered_as("fsid 10000000aabbccde at /"));
        assert!(!named(Some("fsid 10000000aabbccdd"), None, "/").is_remembered_as("fsid 10000007aabbccdd at /"));
    }

    #[test]
    fn every_path_lies_on_something() {
        assert!(FileSystem::of(Path::new("/"), Path::new("/proc/self")).unwrap().to_string().ends_with(" at /proc"));
    }

    #[test]
    fn udev_knows_the_uuid_of_a_device() {
        let root = tempfile::tempdir().unwrap();
        let device = nix::sys::stat::makedev(8, 1);
        assert_eq!(uuid(root.path(), device), None);
        let data = root.path().join("run/udev/data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("b8:1"), "S:disk/by-uuid/aaaa\nE:ID_FS_TYPE=ext4\nE:ID_FS_UUID=aaaa\n").unwrap();
        assert_eq!(uuid(root.path(), device).as_deref(), Some("aaaa"));
        assert_eq!(uuid(root.path(), nix::sys::stat::makedev(8, 2)), None);
    }
}
