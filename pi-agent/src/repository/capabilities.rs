//! What the disk of a restore test can hold. What it cannot says nothing of the backup; what it can must come back. So each
//! thing is tried with a file of the test's own, before anything is restored there: some file systems refuse, others agree and
//! keep what they had.

use std::fmt;
use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use xattr::FileExt;

use super::target::Target;

/// The names of the file that is tried with.
const NAMES: [&str; 2] = [".pi-agent-trial", ".pi-agent-trial-link"];

/// Modes and owners that are tried: no file system has all of them by itself.
const MODES: [u32; 2] = [0o4640, 0o604];
const OWNERS: [(u32, u32); 2] = [(1, 2), (2, 1)];

/// An odd second, and nanoseconds behind it.
const TIME: Duration = Duration::new(1_000_000_001, 123_456_789);

/// Lengths of an attribute that are tried, the longest first: the kernel takes none that is longer, ext4 holds one block.
const LENGTHS: [usize; 7] = [64 << 10, 32 << 10, 16 << 10, 8 << 10, 4 << 10, 2 << 10, 1 << 10];

/// Seconds before and after 1970 that are tried: about the first and the last that a restore can be asked to set. The kernel sets
/// the nearest that the file system holds.
const EXTREMES: [i64; 2] = [-377_705_000_000, 253_402_000_000];

/// What the disk holds of what this process sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub owners: bool,
    pub modes: bool,
    /// To the nanosecond.
    pub times: bool,
    /// The earliest and the latest second.
    pub between: [i64; 2],
    pub links: bool,
    /// Bytes of attributes that a file has room for.
    pub attributes: usize,
}

impl Capabilities {
    /// Tries it, and leaves nothing behind.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn of(target: &Target) -> io::Result<Self> {
        let (mut walk, mut beside) = (target.walk(), target.walk());
        let [first, second] = NAMES.map(Path::new);
        let (first, second) = (walk.place(first)?, beside.place(second)?);
        let file = first.create()?;
        let links = second.link(&first).is_ok();
        let held = Self::tried(&file, links);
        if links {
            second.remove()?;
        }
        first.remove()?;
        held
    }

    fn tried(file: &File, links: bool) -> io::Result<Self> {
        let (mut owners, mut modes) = (true, true);
        for mode in MODES {
            let set = file.set_permissions(Permissions::from_mode(mode)).is_ok();
            modes &= set && file.metadata()?.mode() & 0o7777 == mode;
        }
        for (uid, gid) in OWNERS {
            let set = fchown(file, Some(uid), Some(gid)).is_ok();
            let found = file.metadata()?;
            owners &= set && (found.uid(), found.gid()) == (uid, gid);
        }
        let time = SystemTime::UNIX_EPOCH + TIME;
        let set = file.set_times(FileTimes::new().set_modified(time)).is_ok();
        let times = set && file.metadata()?.modified()? == time;
        let mut between = EXTREMES;
        for end in &mut between {
            let time = TimeSpec::new(*end, 0);
            if futimens(file, &time, &time).is_ok() {
                *end = file.metadata()?.mtime();
            }
        }
        let fits = |length: &usize| file.set_xattr("user.trial", &vec![0; *length]).is_ok();
        let attributes = LENGTHS.into_iter().find(fits).unwrap_or(0);
        Ok(Self { owners, modes, times, between, links, attributes })
    }

    /// The second is beyond those that the disk holds, and became the nearest of them.
    pub fn cut(&self, recorded: i128, found: i128) -> bool {
        let [earliest, latest] = self.between.map(i128::from);
        (recorded < earliest && found == earliest) || (recorded > latest && found == latest)
    }
}

/// How much was not compared, because the disk of the test does not hold it or the test may not set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotHeld {
    pub(super) owners: u64,
    pub(super) modes: u64,
    pub(super) times: u64,
    pub(super) attributes: u64,
    pub(super) links: u64,
}

impl NotHeld {
    /// All was compared.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owners, modes, times, attributes, links } = *self;
        let counts =
            [(owners, "owners"), (modes, "modes"), (times, "times"), (attributes, "attributes"), (links, "hard links")];
        let words: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_this_machine_holds_everything_and_nothing_is_left_there() {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        let held = Capabilities::of(&target).unwrap();
        assert!(held.owners && held.modes && held.times && held.links, "{held:?}");
        assert!(held.between[0] < 0 && held.between[1] > 1 << 31, "{held:?}");
        assert!(held.cut(i128::MIN, held.between[0].into()) && !held.cut(0, held.between[0].into()), "{held:?}");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_was_not_held_is_counted_in_words() {
        let nothing = NotHeld::default();
        assert!(nothing.is_nothing());
        let some = NotHeld { owners: 2, links: 1, ..nothing };
        assert!(!some.is_nothing());
        assert_eq!(some.to_string(), "2 owners, 1 hard links");
    }
}
