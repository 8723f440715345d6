//! The file systems that the agent writes to.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::room::{Room, room};
use crate::config::{Location, Settings, StateDirectory};

/// A file system the agent writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is mounted.
    pub name: PathBuf,
    /// What lies there: "state", "cache", "WAL spool", "storage".
    pub holds: Vec<&'static str>,
    /// The room on it.
    pub room: Room,
}

/// Each once, with its device.
pub(super) fn by_device(root: &Path, settings: &Settings, directory: &StateDirectory) -> Vec<(u64, Volume)> {
    let local = &settings.local;
    let mut places = vec![("state", directory.path()), ("cache", &*local.cache)];
    if settings.steps.iter().any(|step| step.postgres().is_some()) {
        places.push(("WAL spool", &local.spool));
    }
    if let Location::File(storage) = &settings.storage.location {
        places.push(("storage", storage));
    }
    let mut found: Vec<(u64, Volume)> = Vec::new();
    for (what, path) in places {
        let Some((device, name)) = mount_point(path) else { continue };
        match found.iter_mut().find(|(known, _)| *known == device) {
            Some((_, volume)) => volume.holds.push(what),
            // One that cannot be asked is the business of whatever uses it: the next run says what is wrong with it.
            None => found.extend(room(&name).ok().map(|room| (device, Volume { name, holds: vec![what], room }))),
        }
    }
    let mounts = mounts(root);
    for (device, volume) in &mut found {
        volume.room.read_only = is_read_only(&mounts, *device);
    }
    found
}

/// Each once. `root` is `/` but in tests, and only tells what is read-only.
pub fn volumes(root: &Path, settings: &Settings, directory: &StateDirectory) -> Vec<Volume> {
    by_device(root, settings, directory).into_iter().map(|(_, volume)| volume).collect()
}

/// What is mounted; asks no file system, so a dead disk does not hold it up.
pub(super) fn mounts(root: &Path) -> String {
    std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default()
}

/// The device of a path (or of its nearest ancestor that exists), and the highest directory on it.
pub(crate) fn mount_point(path: &Path) -> Option<(u64, PathBuf)> {
    let mut there = path.ancestors().filter_map(|path| Some((path, path.metadata().ok()?.dev())));
    let (mut highest, device) = there.next()?;
    for (path, other) in there {
        if other != device {
            break;
        }
        highest = path;
    }
    Some((device, highest.to_owned()))
}

/// Whether the disk itself is. A mount may be so for our own unit alone, which systemd keeps from writing where it need not.
pub(super) fn is_read_only(mounts: &str, device: u64) -> bool {
    let device = format!("{}:{}", major(device), minor(device));
    let of_device = |line: &&str| line.split(' ').nth(2) == Some(&device);
    let options = mounts.lines().find(of_device).and_then(|line| line.rsplit(' ').next());
    options.is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_by_where_it_is_mounted() {
        let (_, name) = mount_point(Path::new("/proc/self/nothing/here")).unwrap();
        assert_eq!(name, Path::new("/proc"));
        let (device, name) = mount_point(Path::new("/no-such-directory/at/all")).unwrap();
        assert_eq!((device, name.as_path()), (Path::new("/").metadata().unwrap().dev(), Path::new("/")));
    }

    #[test]
    fn a_disk_is_read_only_when_its_file_system_is() {
        let mounts = "21 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda rw,discard\n\
                      30 21 8:1 / /mnt/usb rw,relatime - ext4 /dev/sda1 ro,errors=remount-ro\n";
        let device = nix::sys::stat::makedev;
        assert!(!is_read_only(mounts, device(254, 0)), "only for us");
        assert!(is_read_only(mounts, device(8, 1)));
        assert!(!is_read_only(mounts, device(8, 2)), "not known");
    }
}
