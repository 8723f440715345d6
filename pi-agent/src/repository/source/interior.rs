//! What is mounted below the configured paths: which of it is read, which is left out, and which is no data at all.
//!
//! All of it is told by the table of mounts, which touches none of them. (btrfs subvolumes that are mounted nowhere stand in no
//! table; the walk finds them: [`super::crossing`].)

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::health::{Mount, MountTable};

/// File systems that the kernel or a program makes up as they are read.
const MADE_UP: [&str; 27] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "cpuset",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "sysfs",
    "tracefs",
];
/// Directories that the system makes anew at each start. A disk that is mounted in one, such as a desktop's in `/run/media`, is data.
const OF_THE_SYSTEM: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Where containers and snaps have their file systems put together, of what lies elsewhere,
const PUT_TOGETHER_IN: [&str; 6] =
    ["/snap", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/machines", "/var/lib/snapd"];
/// as these.
const PUT_TOGETHER: [&str; 5] = ["fuse.fuse-overlayfs", "fuse.snapfuse", "overlay", "squashfs", "tmpfs"];

/// Something mounted below a configured path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where, below the path as it is configured.
    pub at: PathBuf,
    /// What, for a person: `ext4 of /dev/sda1`.
    pub what: String,
    /// It stands for what is mounted there once somebody looks into it.
    pub on_demand: bool,
    /// A single file, which is read as the file that it is.
    pub is_file: bool,
}

/// What is mounted below the configured paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Interior {
    /// Read with the paths.
    pub entered: Vec<Inside>,
    /// Not read, though it may hold data.
    pub left_out: Vec<Inside>,
    /// Directories of which nothing is read but that they are there: those left out, and what is no data.
    pub closed: HashSet<PathBuf>,
}

impl Interior {
    /// Finds it below `paths`. With `one_file_system` only parts of those are entered that the paths lie on.
    pub fn find(table: &MountTable, paths: &[PathBuf], one_file_system: bool) -> Self {
        // The table knows no symbolic links, which may lead to a path.
        let real: Vec<_> = paths.iter().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())).collect();
        let disks: Vec<_> = real.iter().filter_map(|path| table.above(path)).collect();
        let mut this = Self::default();
        let mut seen = HashSet::new();
        for (path, real) in paths.iter().zip(&real) {
            let mut mounts: Vec<_> = table.below(real).collect();
            mounts.sort_by(|a, b| a.at.cmp(&b.at));
            for mount in mounts {
                let nearer = |other: &&PathBuf| *other != path && other.starts_with(path);
                let at = path.join(mount.at.strip_prefix(real).unwrap_or(&mount.at));
                // What is named itself, or lies in a path inside this one, is that one's affair.
                if paths.iter().filter(nearer).any(|other| at.starts_with(other)) || !seen.insert(at.clone()) {
                    continue;
                }
                let same = disks.iter().any(|disk| disk.is_of_the_same(mount));
                let inside =
                    Inside { what: mount.in_words(), at, on_demand: mount.kind == "autofs", is_file: is_file(mount) };
                let enters = !one_file_system || same || inside.is_file;
                this.add(mount, inside, path, enters);
            }
        }
        this
    }

    fn add(&mut self, mount: &Mount, inside: Inside, path: &Path, enters: bool) {
        let at = inside.at.clone();
        let around = |other: &&PathBuf| at.starts_with(other) && other.starts_with(path);
        let within_closed = self.closed.iter().any(|closed| around(&closed));
        let within_left_out = self.left_out.iter().any(|other| around(&&other.at));
        if !holds_data(mount, path) {
            self.closed.insert(at);
        } else if enters && !within_closed {
            self.entered.push(inside);
        } else {
            self.closed.insert(at);
            // One word for a disk and all that is mounted on it.
            if !within_left_out {
                self.left_out.push(inside);
            }
        }
    }

    /// Whether the walk from the nearest of `paths` gets to `place`, as far as mounts are concerned.
    pub fn leads_to(&self, place: &Path, paths: &[PathBuf]) -> bool {
        let nearest = paths.iter().filter(|path| place.starts_with(path)).max_by_key(|path| path.as_os_str().len());
        nearest.is_some_and(|path| {
            let mut on_the_way = place.ancestors().take_while(|directory| *directory != path);
            !on_the_way.any(|directory| self.closed.contains(directory))
        })
    }
}

/// Whether what is mounted there is worth a word to those who back up `path`. One who names such a place itself means it.
fn holds_data(mount: &Mount, path: &Path) -> bool {
    let is_in = |places: &[&str]| is_in(places, &mount.at, path);
    let kind = mount.kind.as_str();
    let temporary = TEMPORARY.iter().any(|place| mount.at == Path::new(place));
    !(MADE_UP.contains(&kind)
        || temporary
        || (is_in(&OF_THE_SYSTEM) && !mount.source.starts_with("/dev/"))
        || (is_in(&PUT_TOGETHER_IN) && PUT_TOGETHER.contains(&kind)))
}

/// Whether a directory is one of those of which containers and snaps put their file systems together. One who names such a place
/// itself, or a path in it, means it.
pub(super) fn is_put_together(directory: &Path, path: &Path) -> bool {
    is_in(&PUT_TOGETHER_IN, directory, path)
}

/// Whether one who names `path`, and what lies there is in one of these places, cannot mean that.
fn is_in(places: &[&str], at: &Path, path: &Path) -> bool {
    places.iter().any(|place| at.starts_with(place) && (path == Path::new(place) || !path.starts_with(place)))
}

/// A single file is mounted there. Nobody is asked who may not answer.
fn is_file(mount: &Mount) -> bool {
    let local = mount.source.starts_with("/dev/") || ["tmpfs", "overlay"].contains(&mount.kind.as_str());
    mount.is_part() && local && fs::symlink_metadata(&mount.at).is_ok_and(|found| !found.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Pi with the desktop's stick, a container, a snap and what systemd and the kernel mount anyway.
    const PI: &str = "\
        1 0 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n\
        2 1 0:5 / /proc rw - proc proc rw\n\
        3 2 0:6 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
        4 1 0:7 / /sys rw - sysfs sysfs rw\n\
        5 4 0:8 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
        6 1 0:9 / /dev rw - devtmpfs udev rw\n\
        7 6 0:10 / /dev/shm rw - tmpfs tmpfs rw\n\
        8 1 0:11 / /run rw - tmpfs tmpfs rw\n\
        9 8 0:12 / /run/user/1000 rw - tmpfs tmpfs rw\n\
        10 9 0:13 / /run/user/1000/doc rw - fuse.portal portal rw\n\
        11 8 8:1 / /run/media/pi/STICK rw - exfat /dev/sda1 rw\n\
        12 1 179:1 / /boot/firmware rw - vfat /dev/mmcblk0p1 rw\n\
        13 1 0:14 / /tmp rw - tmpfs tmpfs rw\n\
        14 1 0:15 / /var/lib/docker/overlay2/a/merged rw - overlay overlay rw\n\
        15 1 0:16 / /var/lib/docker/volumes/nas/_data rw - nfs4 nas:/data rw\n\
        16 1 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro\n\
        17 1 8:17 / /srv/usb rw - ext4 /dev/sdb1 rw\n\
        18 17 8:18 / /srv/usb/more rw - ext4 /dev/sdb2 rw\n\
        19 1 179:2 /home/pi/www /srv/www rw - ext4 /dev/mmcblk0p2 rw\n\
        20 1 0:17 / /srv/auto rw - autofs systemd-1 rw\n";

    fn found(paths: &[&str], one_file_system: bool) -> (Vec<String>, Vec<String>) {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        let interior = Interior::find(&MountTable::parse(PI.as_bytes()), &paths, one_file_system);
        let names = |found: &[Inside]| found.iter().map(|inside| inside.at.display().to_string()).collect();
        (names(&interior.left_out), names(&interior.entered))
    }

    #[test]
    fn of_a_whole_pi_what_may_hold_data_is_told() {
        let stick = "/run/media/pi/STICK";
        let disks = ["/boot/firmware", "/srv/auto", "/srv/usb", "/var/lib/docker/volumes/nas/_data"];
        let (left_out, entered) = found(&["/"], true);
        assert_eq!(left_out, ["/boot/firmware", stick, "/srv/auto", "/srv/usb", "/var/lib/docker/volumes/nas/_data"]);
        assert_eq!(entered, ["/srv/www"], "of the same file system");
        // Below /run nothing is read, so the stick is not either.
        let (left_out, entered) = found(&["/"], false);
        assert_eq!(left_out, [stick]);
        assert!(disks.iter().all(|disk| entered.iter().any(|place| place == disk)), "{entered:?}");
        assert!(entered.iter().any(|place| place == "/srv/usb/more") && entered.len() == 6, "{entered:?}");
    }

    #[test]
    fn a_path_of_its_own_is_nobody_elses() {
        let none: [&str; 0] = [];
        assert_eq!(
            found(&["/srv", "/srv/usb"], true),
            (vec!["/srv/auto".into(), "/srv/usb/more".into()], vec!["/srv/www".into()])
        );
        assert_eq!(found(&["/srv/usb/more"], true).0, none);
        // Who names such a place means it.
        assert_eq!(found(&["/run/user"], true).0, ["/run/user/1000"]);
        assert_eq!(found(&["/var/lib/docker/overlay2/a"], true).0, ["/var/lib/docker/overlay2/a/merged"]);
        assert_eq!(found(&["/var/lib/docker"], true).0, ["/var/lib/docker/volumes/nas/_data"]);
    }

    #[test]
    fn what_is_left_out_is_on_no_way() {
        let paths = ["/", "/srv/usb/more/deep"].map(PathBuf::from);
        let interior = Interior::find(&MountTable::parse(PI.as_bytes()), &paths, true);
        let leads = |place: &str| interior.leads_to(Path::new(place), &paths);
        assert!(leads("/home/pi") && leads("/srv/www/x") && leads("/srv/usb/more/deep/x"));
        assert!(!leads("/srv/usb/x") && !leads("/proc/1") && !leads("/srv/usb"));
    }
}
