//! The disk that a folder as storage lies on. A mount point without its disk is a folder like any other, on the card that
//! the system runs from: a backup there would fill it, and look well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Location, StateDirectory};
use crate::error::{Context, Error, Result};
use crate::health::{mount_point, uuid};
use crate::secrets::{read_private, write_private};

/// A disk that is not the one the system runs from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    /// Its file system's own; `None`: it has none (a network's), or nobody can tell.
    pub uuid: Option<String>,
}

/// What is remembered in the state directory.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    place: String,
    disk: Option<Disk>,
}

impl Disk {
    /// The disk of a path, or of its nearest ancestor that exists; `None`: the system's own. `root` is `/` but in tests.
    pub fn of(root: &Path, path: &Path) -> Option<Self> {
        let existing = path.ancestors().find_map(|path| path.canonicalize().ok())?;
        let (device, mounted_at) = mount_point(&existing)?;
        (mounted_at != Path::new("/")).then(|| Self { uuid: uuid(root, device), mounted_at })
    }

    /// Whether that is the same one. Where a UUID is not known, the mount point must do.
    fn is(&self, other: Option<&Self>) -> bool {
        other.is_some_and(|other| match (&self.uuid, &other.uuid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.mounted_at == other.mounted_at,
        })
    }

    /// Refuses another disk, and none.
    pub(super) fn expect(&self, now: Option<&Self>, place: &str) -> Result<()> {
        if self.is(now) {
            return Ok(());
        }
        let what = match now {
            Some(now) if now.mounted_at == self.mounted_at => "another disk is mounted there".to_owned(),
            _ => format!("nothing is mounted at {}", self.mounted_at.display()),
        };
        let name = self.uuid.as_ref().map_or_else(String::new, |uuid| format!(" (UUID {uuid})"));
        Err(Error::new(format!("{place} is on a disk of its own{name}, and {what}: nothing is written")).hint(format!(
            "plug it in and mount it: `lsblk -f`, `mount {}`; if the backups were moved on purpose: pi-agent adopt",
            self.mounted_at.display()
        )))
    }
}

fn file(directory: &StateDirectory) -> PathBuf {
    directory.path().join("storage.json")
}

/// What is remembered of that place. Damaged, it counts for nothing: the marker on the disk says the same.
fn recorded(directory: &StateDirectory, place: &str) -> Result<Option<Option<Disk>>> {
    let text = read_private(&file(directory))?;
    let record = text.and_then(|text| serde_json::from_str::<Record>(text.reveal()).ok());
    Ok(record.filter(|record| record.place == place).map(|record| record.disk))
}

/// The disk that the place lies on now, if it may be written to.
///
/// # Errors
/// It is another one than before, or a disk that `/etc/fstab` mounts is not mounted.
pub fn check(root: &Path, directory: &StateDirectory, location: &Location) -> Result<Option<Disk>> {
    let Location::File(path) = location else { return Ok(None) };
    let now = Disk::of(root, path);
    let place = location.to_string();
    match recorded(directory, &place)?.flatten() {
        Some(disk) => disk.expect(now.as_ref(), &place)?,
        None => {
            let table = fs::read_to_string(root.join("etc/fstab")).unwrap_or_default();
            if let Some(missing) = missing(&table, path) {
                return Err(Error::new(format!(
                    "{place} is on the disk that /etc/fstab mounts at {0}, and nothing is mounted there",
                    missing.display()
                ))
                .hint(format!("plug it in and mount it: `mount {}`", missing.display())));
            }
        }
    }
    Ok(now)
}

/// Remembers the disk.
///
/// # Errors
/// The state directory cannot be written.
pub fn remember(directory: &StateDirectory, location: &Location, disk: Option<&Disk>) -> Result<()> {
    if matches!(location, Location::S3(_)) {
        return Ok(());
    }
    let record = Record { schema: 1, place: location.to_string(), disk: disk.cloned() };
    // An SD card is not written each night for nothing, nor a UUID forgotten that is not to be seen just now.
    let unseen = |known: &Disk| disk.is_some_and(|disk| disk.uuid.is_none() && known.is(Some(disk)));
    let known = recorded(directory, &record.place)?;
    if known.is_some_and(|known| known == record.disk || known.as_ref().is_some_and(unseen)) {
        return Ok(());
    }
    let text = serde_json::to_vec(&record).context(|| "write down the disk of the storage".into())?;
    write_private(&file(directory), &text)
}

/// The mount point above the path (or the path itself) that should be one, and is none just now.
fn missing(table: &str, path: &Path) -> Option<PathBuf> {
    let point = |line: &str| {
        let mut fields = line.split_whitespace();
        let (source, point, _, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let ordinary = !source.starts_with('#') && !options.split(',').any(|option| option.ends_with("bind"));
        // Blanks are written as octal numbers.
        (ordinary && point.starts_with('/') && point != "/").then(|| PathBuf::from(point.replace("\\040", " ")))
    };
    let points = table.lines().filter_map(point).filter(|point| path.starts_with(point));
    let nearest = points.max_by_key(|point| point.as_os_str().len())?;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    let mounted = device(&nearest).is_some() && device(&nearest) != nearest.parent().and_then(device);
    (!mounted).then_some(nearest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn disk(mounted_at: &str, uuid: Option<&str>) -> Disk {
        Disk { mounted_at: mounted_at.into(), uuid: uuid.map(str::to_owned) }
    }

    #[test]
    fn a_disk_is_recognised_by_its_uuid_and_else_by_where_it_is() {
        let usb = disk("/mnt/usb", Some("aaaa"));
        let refused = |now: Option<&Disk>| usb.expect(now, "file:///mnt/usb/pi").unwrap_err().chain();
        usb.expect(Some(&usb), "").unwrap();
        usb.expect(Some(&disk("/media/usb", Some("aaaa"))), "").unwrap();
        usb.expect(Some(&disk("/mnt/usb", None)), "").unwrap();
        assert!(refused(None).contains("(UUID aaaa), and nothing is mounted at /mnt/usb"), "{}", refused(None));
        assert!(refused(Some(&disk("/mnt/usb", Some("bbbb")))).contains("another disk is mounted there"));
        assert!(refused(Some(&disk("/mnt", None))).contains("nothing is mounted at /mnt/usb"));
    }

    #[test]
    fn a_mount_point_of_fstab_must_be_one() {
        let table = "# comment\nproc /proc proc defaults 0 0\nUUID=1 / ext4 defaults 0 1\nUUID=2 /no-such/usb ext4 nofail 0 2\n\
                     /srv /no-such/usb/bound none bind 0 0\nUUID=3 /no\\040such ext4 nofail 0 2\n";
        let of = |path: &str| missing(table, Path::new(path));
        assert_eq!(of("/no-such/usb/pi"), Some("/no-such/usb".into()));
        assert_eq!(of("/no-such/usb/bound/pi"), Some("/no-such/usb".into()));
        assert_eq!(of("/no such/pi"), Some("/no such".into()));
        assert_eq!((of("/srv/pi"), of("/proc/self"), of("/no-such/usb2")), (None, None, None));
    }

    #[test]
    fn what_was_seen_is_remembered_for_that_place_alone() {
        let directory = StateDirectory(tempfile::tempdir().unwrap().keep());
        let root = tempfile::tempdir().unwrap();
        let (usb, other) = (Location::File("/proc/pi".into()), Location::File("/proc/other".into()));
        let seen = check(root.path(), &directory, &usb).unwrap();
        assert_eq!(seen, Some(disk("/proc", None)));
        remember(&directory, &usb, Some(&disk("/mnt/usb", None))).unwrap();
        assert!(check(root.path(), &directory, &usb).unwrap_err().chain().contains("nothing is mounted at /mnt/usb"));
        check(root.path(), &directory, &other).unwrap();
        fs::remove_dir_all(directory.path()).unwrap();
    }
}
