//! What changes places below a place of which some stays: a disk of its own, with our names on it, or paths that are to be left as
//! they are.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Beside, KEPT, Unfinished, beside, copy_manners};
use crate::error::{Context, Result};
use crate::theirs::Held;

/// Made by `mkfs` in the root of a file system; fsck puts into it what has lost its name.
const LOST_AND_FOUND: &str = "lost+found";

/// How [`stamp`](super::stamp) writes a time, with a zero for each digit.
const STAMP: &str = "00000000-000000-000";

impl Beside {
    /// The same, but whatever is at these paths stays there and counts for nothing, and so do the directories that lead to it.
    #[must_use]
    pub fn around(mut self, paths: &[PathBuf]) -> Self {
        self.stays.extend(paths.iter().filter_map(|path| path.strip_prefix(&self.place).ok()).map(Path::to_owned));
        self
    }

    /// What lies below `root` and changes places: names, and longer paths where only some of a directory stays.
    pub(super) fn names_in(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        let mut folders = Vec::from_iter((!self.stays_itself()).then(PathBuf::new));
        while let Some(folder) = folders.pop() {
            for name in listed(&root.join(&folder))? {
                let path = folder.join(name);
                if self.stays.contains(&path) || self.is_ours(&path) || (root == self.place && self.is_kept(&path)) {
                    continue;
                }
                match (self.leads_to_what_stays(&path), is_directory(&root.join(&path))) {
                    (true, true) => folders.push(path),
                    // A link of old, say, where there is a directory now with what stays.
                    (true, false) if root == self.new && is_directory(&self.place.join(&path)) => {}
                    _ => names.push(path),
                }
            }
        }
        Ok(names)
    }

    /// On a disk of its own the file system has a directory itself, and only what is in that changes places.
    fn leads_to_what_stays(&self, path: &Path) -> bool {
        self.stays.iter().any(|stays| stays.starts_with(path)) || (self.within && path == Path::new(LOST_AND_FOUND))
    }

    /// Names of what was restored that cannot come into the place: this restore has them there itself.
    pub(super) fn unplaced(&self) -> Vec<PathBuf> {
        let names = listed(&self.new).unwrap_or_default().into_iter().map(PathBuf::from);
        names.filter(|name| self.is_ours(name)).collect()
    }

    /// The whole place is as it should be.
    pub(super) fn stays_itself(&self) -> bool {
        self.stays.iter().any(|stays| stays.as_os_str().is_empty())
    }

    /// On a disk of its own what this restore makes lies beside what changes places. Any other name is a person's.
    fn is_ours(&self, path: &Path) -> bool {
        let path = self.place.join(path);
        self.within && (self.staged().contains(&path) || Unfinished::notes(&self.stage).contains(&path))
    }

    /// What an earlier restore kept of the old on that disk. It stays there, unless it is in what is restored, too.
    fn is_kept(&self, path: &Path) -> bool {
        let name = path.as_os_str().as_bytes();
        let Some(at) = name.windows(KEPT.len()).rposition(|found| found == KEPT.as_bytes()) else { return false };
        let Some((stamp, _)) = name[at + KEPT.len()..].split_at_checked(STAMP.len()) else { return false };
        let is_stamp = stamp.iter().zip(STAMP.as_bytes()).all(|(found, wanted)| match wanted {
            b'0' => found.is_ascii_digit(),
            wanted => found == wanted,
        });
        let kept = OsStr::from_bytes(&name[..at + KEPT.len() + STAMP.len()]);
        let stamp = String::from_utf8_lossy(stamp);
        self.within && is_stamp && self.place.join(kept) == beside(&self.base, &format!("{KEPT}{stamp}"))
    }

    /// The directories in which some stays and some is new: made where they are missing, with the owner and mode that they had.
    pub(super) fn make_ways(&self) -> Result<()> {
        let mut ways: BTreeSet<_> = self.stays.iter().flat_map(|stays| stays.ancestors().skip(1)).collect();
        ways.extend(self.within.then_some(Path::new(LOST_AND_FOUND)));
        for way in ways {
            let (new, place) = (self.new.join(way), self.place.join(way));
            if is_directory(&new) {
                let make = || fs::create_dir(Held::of(&place)?.path());
                let made = if is_directory(&place) { Ok(()) } else { make() };
                made.and_then(|()| copy_manners(&new, &place)).context(|| format!("make {}", place.display()))?;
            }
        }
        Ok(())
    }
}

/// The names in a directory; none when there is no such directory.
fn listed(folder: &Path) -> io::Result<Vec<OsString>> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        // What was restored may be a link to anywhere.
        Ok(found) if !found.is_dir() => return Err(ErrorKind::NotADirectory.into()),
        found => found?,
    };
    folder.read_dir()?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Not a link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::tests::whole;
    use super::super::{At, Restored, Unfinished};
    use super::*;

    /// `root/place` with our own configuration in it, to which something comes back around that.
    fn around_ours(root: &Path) -> Beside {
        let place = root.join("place");
        let (config, key) = (place.join("etc/config"), place.join("etc/secrets/key"));
        fs::create_dir_all(place.join("etc/secrets")).unwrap();
        fs::write(&config, "ours").unwrap();
        fs::write(&key, "ours").unwrap();
        let later = place.join("srv/database");
        let beside = Beside::of_path(&place, Path::new("/place")).unwrap();
        beside.around(&[config, key, later, root.to_owned(), root.join("elsewhere")])
    }

    fn restore_files(beside: &Beside, files: &[&str]) -> Result<Restored> {
        beside.restore("files", &At::Id("now".into()), &[], &mut |request| {
            Unfinished::begin("files", request, Some("now"))?;
            for file in files {
                let file = request.to.join("place").join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, "restored").unwrap();
            }
            Ok(whole("now"))
        })
    }

    fn read_below(root: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for name in listed(&folder).unwrap() {
                let path = folder.join(name);
                match is_directory(&path) {
                    true => folders.push(path),
                    false => {
                        let text = fs::read_to_string(&path).unwrap();
                        found.insert(path.strip_prefix(root).unwrap().display().to_string(), text);
                    }
                }
            }
        }
        found
    }

    const RESTORED: [&str; 5] = ["etc/config", "etc/secrets/key", "etc/secrets/other", "srv/a/b", "srv/database/file"];

    #[test]
    fn what_stays_is_in_nobodys_way_and_the_rest_comes_back_around_it() {
        let root = tempfile::tempdir().unwrap();
        let beside = around_ours(root.path());
        assert!(!beside.is_taken().unwrap());
        restore_files(&beside, &RESTORED).unwrap();
        fs::set_permissions(beside.new.join("srv"), Permissions::from_mode(0o750)).unwrap();
        assert_eq!(beside.exchange().unwrap(), None);
        assert!(beside.is_taken().unwrap() && beside.cut_off().is_some());
        beside.end().unwrap();
        let expected = [
            ("etc/config", "ours"),
            ("etc/secrets/key", "ours"),
            ("etc/secrets/other", "restored"),
            ("srv/a/b", "restored"),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(read_below(&beside.place), BTreeMap::from(expected));
        assert_eq!(fs::metadata(beside.place.join("srv")).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(root.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn around_what_stays_the_old_is_kept_wherever_it_was_cut_off() {
        for moved in 0..3 {
            let root = tempfile::tempdir().unwrap();
            let beside = around_ours(root.path());
            fs::create_dir_all(beside.place.join("srv/a")).unwrap();
            fs::write(beside.place.join("srv/a/b"), "old").unwrap();
            fs::write(beside.place.join("etc/secrets/mine"), "old").unwrap();
            assert!(beside.is_taken().unwrap());
            restore_files(&beside, &RESTORED).unwrap();
            let (whole, kept) = beside.noted().unwrap();
            for (from, to, kept) in beside.moves(&kept).unwrap().into_iter().take(moved) {
                whole.put(&from, &to, &kept).unwrap();
            }
            let kept = beside.exchange().unwrap().unwrap();
            beside.end().unwrap();
            let old = [("etc/secrets/mine", "old"), ("srv/a/b", "old")];
            assert_eq!(read_below(&kept), BTreeMap::from(old.map(|(name, text)| (name.to_owned(), text.to_owned()))));
            let now = read_below(&beside.place);
            assert_eq!((now["etc/config"].as_str(), now["srv/a/b"].as_str(), now.len()), ("ours", "restored", 4));
        }
    }

    #[test]
    fn what_was_restored_is_never_taken_for_the_old() {
        let root = tempfile::tempdir().unwrap();
        let beside = around_ours(root.path());
        restore_files(&beside, &["srv/a/b"]).unwrap();
        // Something else is to stay now than when it was restored.
        let other = beside.place.join("srv/a/b");
        let beside = beside.around(&[other.with_file_name("c")]);
        assert!(beside.exchange().unwrap_err().chain().contains("is not what was restored"));
        assert!(beside.new.join("srv/a/b").exists());
        // The same command looks again at what it has.
        restore_files(&beside, &["srv/a/b"]).unwrap();
        beside.exchange().unwrap();
        assert_eq!(fs::read_to_string(other).unwrap(), "restored");
    }

    #[test]
    fn a_link_that_was_restored_leads_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let beside = around_ours(root.path());
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("theirs"), "theirs").unwrap();
        restore_files(&beside, &["file"]).unwrap();
        std::os::unix::fs::symlink(&outside, beside.new.join("etc")).unwrap();
        assert_eq!(beside.names_in(&beside.new).unwrap(), [Path::new("file")], "the directory with ours stays");
        beside.exchange().unwrap();
        assert_eq!(fs::read_to_string(beside.place.join("etc/config")).unwrap(), "ours");
        // Where there is nothing yet, the link is what was there.
        std::os::unix::fs::symlink(&outside, beside.new.join("srv")).unwrap();
        assert_eq!(beside.names_in(&beside.new).unwrap(), [Path::new("srv")]);
        assert_eq!(read_below(&outside).len(), 1);
    }

    #[test]
    fn a_place_that_stays_itself_is_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("place");
        fs::write(&place, "ours").unwrap();
        let beside = Beside::of_path(&place, Path::new("/place")).unwrap().around(std::slice::from_ref(&place));
        assert!(!beside.is_taken().unwrap());
        restore_files(&beside, &["file"]).unwrap();
        assert!(beside.cut_off().is_some());
        assert_eq!(beside.exchange().unwrap(), None);
        beside.end().unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "ours");
    }
}
