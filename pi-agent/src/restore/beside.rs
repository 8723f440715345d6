//! What is put back is restored beside its place, on the same disk, while everything goes on; when it is whole, the two
//! change places. The old stays beside it, as `PLACE.before-restore-TIME`, until a person removes it.
//!
//! Whatever cuts this off, the same command goes on. The note beside the stage ([`Unfinished`]) knows the new by its inodes,
//! so that new and old are never taken for each other, whichever names they have at that moment.

mod around;
mod renames;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use jiff::Zoned;

use self::renames::{exists, inode, keep};
use super::unfinished::{Unfinished, Whole};
use super::{At, Request, Restored, beside, is_empty};
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::health::MountTable;

/// Endings of names.
const STAGE: &str = ".restoring";
const KEPT: &str = ".before-restore-";

/// Where something is restored, and what it changes places with.
#[derive(Debug)]
pub struct Beside {
    /// What is put back.
    pub place: PathBuf,
    /// It is restored into this directory,
    pub stage: PathBuf,
    /// and lies there as this.
    new: PathBuf,
    /// What all names of ours begin with.
    base: PathBuf,
    /// A disk of its own is mounted at the place and cannot be renamed: what is in it changes places.
    within: bool,
    /// Paths below the place that stay where they are, by their names from there: what is around them changes places.
    stays: Vec<PathBuf>,
}

impl Beside {
    /// For a path that a snapshot holds as `path`.
    ///
    /// # Errors
    /// It cannot be exchanged: a disk is mounted below it, which would go with the old.
    pub fn of_path(place: &Path, path: &Path) -> Result<Self> {
        let this = Self::of_place(place)?;
        Ok(Self { new: this.stage.join(path.strip_prefix("/").unwrap_or(path)), ..this })
    }

    /// For a data directory, which is restored as the stage itself. One that is a link, mostly onto a larger disk, comes back where
    /// that leads, and the link stays.
    ///
    /// # Errors
    /// As of [`Self::of_path`]; the link does not lead to a data directory, and nothing is made or given away elsewhere.
    pub fn of_database(place: &Path) -> Result<Self> {
        if !fs::symlink_metadata(place).is_ok_and(|found| found.is_symlink()) {
            return Self::of_place(place);
        }
        let led_to = place.canonicalize().ok().filter(|led_to| {
            let owned = led_to.metadata().is_ok_and(|found| found.is_dir() && found.uid() != 0);
            owned && fs::symlink_metadata(led_to.join("PG_VERSION")).is_ok_and(|found| found.is_file())
        });
        let led_to = led_to.ok_or_else(|| {
            Error::usage(format!("put {} back: it is a link, and does not lead to a data directory", place.display()))
                .hint("remove the link, and the database comes there; or restore with --to where it is to lie, and lead the link there")
        })?;
        Self::of_place(&led_to)
    }

    fn of_place(place: &Path) -> Result<Self> {
        let name = place.file_name().ok_or_else(|| Error::usage(format!("{} cannot be replaced", place.display())))?;
        let mut within = false;
        for point in mount_points()?.into_iter().filter(|point| point.starts_with(place)) {
            if point != place {
                return Err(Error::usage(format!(
                    "put {} back: {} is a mounted disk",
                    place.display(),
                    point.display()
                ))
                .hint("unmount it first; or restore into a directory with --to, and move what is in it"));
            }
            within = true;
        }
        let base = if within { place.join(name) } else { place.to_owned() };
        let stage = beside(&base, STAGE);
        Ok(Self { place: place.into(), new: stage.clone(), stage, base, within, stays: Vec::new() })
    }

    /// Where in the stage lies what belongs to that path, which is the place or below it.
    pub fn restored(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.place) {
            Ok(below) if !below.as_os_str().is_empty() => self.new.join(below),
            _ => self.new.clone(),
        }
    }

    /// What the names of all that lies beside it begin with.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A database may come there.
    ///
    /// # Errors
    /// It is a disk of its own with something on it: kept in there, the old would be in each backup of the new.
    pub fn may_take_a_database(&self) -> Result<()> {
        if !self.within || !self.is_taken()? {
            return Ok(());
        }
        Err(Error::usage(format!("put {} back: it is a disk of its own, with something on it", self.place.display()))
            .hint("move all that is on it into one directory on another disk, and start again"))
    }

    /// The name of the old, in words.
    pub fn kept_as(&self) -> String {
        format!("{}{KEPT}…", self.base.display())
    }

    /// Something is in the place; an empty directory is nothing.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn is_taken(&self) -> Result<bool> {
        let doing = || format!("look at {}", self.place.display());
        match fs::symlink_metadata(&self.place) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Ok(found) if found.is_dir() || self.stays_itself() => {
                Ok(!self.names_in(&self.place).context(doing)?.is_empty())
            }
            found => found.context(doing).map(|_| true),
        }
    }

    /// One was cut off when some of it was in its place already: what it restored. [`Self::exchange`] goes on.
    pub fn cut_off(&self) -> Option<Restored> {
        let whole = Unfinished::of(&self.stage)?.whole?;
        let there = self.parts(&self.place).is_ok_and(|parts| parts.iter().any(|part| whole.has(part)));
        // When all of it stays as it is, nothing comes into the place.
        let all_stays = whole.inodes.is_empty() && !self.stays.is_empty();
        (there || all_stays).then_some(whole.restored)
    }

    /// Restores into the stage, by `work`; goes on with what a killed one left there, or removes it: it was ours. Not for one
    /// that was [cut off](Self::cut_off) in the exchange, which comes first.
    ///
    /// # Errors
    /// What `work` returns, or something of another's is in the way.
    pub fn restore(
        &self,
        step: &str,
        at: &At,
        paths: &[PathBuf],
        work: &mut dyn FnMut(&Request) -> Result<Restored>,
    ) -> Result<Restored> {
        let (stage, doing) = (&self.stage, || format!("restore into {}", self.stage.display()));
        let mut request = Request { to: stage.clone(), at: at.clone(), paths: paths.into(), overwrite: false };
        if is_empty(stage)? {
            Unfinished::end(stage)?;
        } else {
            let begun = Unfinished::of(stage)
                .ok_or_else(|| Error::usage(format!("{} is in the way", stage.display())).hint("move it away"))?;
            match begun.continues(step, &request) {
                Some((_, Some(whole))) if self.parts(&self.new).context(doing)?.iter().all(|part| whole.has(part)) => {
                    return Ok(whole.restored);
                }
                Some((begun, _)) => request = begun,
                None => self.end()?,
            }
        }
        let made = self.make_above()?;
        let restored = work(&request)?;
        if restored.unfinished {
            return Err(Error::new(format!("{}: the disk is full", doing()))
                .hint("nothing was replaced; make room, and the same command goes on from here"));
        }
        for above in made {
            // A snapshot holds what they were like, the backup of a database does not.
            let _ = copy_manners(&self.stage.join(above.strip_prefix("/").unwrap_or(&above)), &above);
        }
        let inodes = self.parts(&self.new).context(doing)?.iter().filter_map(|path| inode(path)).collect();
        Unfinished::is_whole(stage, Whole { restored: restored.clone(), inodes })?;
        Ok(restored)
    }

    /// The new into the place, the old beside it: where that is now, if there was any. Whoever looks finds all of the old or
    /// all of the new, unless the place is a disk of its own.
    ///
    /// # Errors
    /// It cannot be renamed; the same goes on where it stopped, [`Self::undo`] goes back.
    pub fn exchange(&self) -> Result<Option<PathBuf>> {
        let doing = || format!("put {} into its place", self.place.display());
        let Some((whole, kept)) = self.noted() else { return Err(Error::new(doing())) };
        if self.within {
            copy_manners(&self.new, &self.place).context(doing)?;
        }
        self.make_ways()?;
        for (from, to, kept) in self.moves(&kept).context(doing)? {
            whole.put(&from, &to, &kept).context(doing)?;
        }
        self.settle()?;
        Ok(exists(&kept).then_some(kept))
    }

    /// The old again, and the new beside it, as if nothing had been.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn undo(&self) -> Result<()> {
        let doing = || format!("put the old {} back", self.place.display());
        let Some((whole, kept)) = self.noted() else { return Ok(()) };
        for (from, to, kept) in self.moves(&kept).context(doing)? {
            if whole.has(&to) {
                fs::rename(&to, &from).context(doing)?;
            }
            if exists(&kept) {
                fs::rename(&kept, &to).context(doing)?;
            }
        }
        Ok(())
    }

    /// Waits until what changed places has done so on the disk.
    fn settle(&self) -> Result<()> {
        self.base.parent().map_or(Ok(()), make_durable)
    }

    /// It is done, or not wanted any more: nothing of the stage is left.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn end(&self) -> Result<()> {
        self.settle()?;
        for left in [&self.stage, &beside(&self.stage, ".tablespaces")] {
            match fs::remove_dir_all(left) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove {}", left.display()));
                }
                _ => {}
            }
        }
        Unfinished::end(&self.stage)
    }

    /// What is known of the new, and the name for the old.
    fn noted(&self) -> Option<(Whole, PathBuf)> {
        let note = Unfinished::of(&self.stage)?;
        Some((note.whole?, beside(&self.base, &format!("{KEPT}{}", note.begun))))
    }

    /// What changes places: from, to, and where that goes which was there.
    fn moves(&self, kept: &Path) -> io::Result<Vec<(PathBuf, PathBuf, PathBuf)>> {
        if self.goes_whole() {
            return Ok(vec![(self.new.clone(), self.place.clone(), kept.into())]);
        }
        let mut names = BTreeSet::new();
        for folder in [&self.new, &self.place, kept] {
            names.extend(self.names_in(folder)?);
        }
        Ok(names.iter().map(|name| (self.new.join(name), self.place.join(name), kept.join(name))).collect())
    }

    /// What of it is renamed.
    fn parts(&self, root: &Path) -> io::Result<Vec<PathBuf>> {
        match self.goes_whole() {
            false => Ok(self.names_in(root)?.iter().map(|name| root.join(name)).collect()),
            true => Ok(vec![root.into()]),
        }
    }

    fn goes_whole(&self) -> bool {
        !self.within && self.stays.is_empty()
    }

    /// The directories above that are missing, as others may pass through them; those that were made.
    fn make_above(&self) -> Result<Vec<PathBuf>> {
        let missing: Vec<_> = self.place.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        for above in missing.iter().rev() {
            let made = fs::create_dir(above).and_then(|()| fs::set_permissions(above, Permissions::from_mode(0o755)));
            made.context(|| format!("make {}", above.display()))?;
        }
        Ok(missing.into_iter().map(Path::to_owned).collect())
    }
}

/// Keeps a file that another is to take the place of, under the name that is returned.
///
/// # Errors
/// It cannot be renamed.
pub fn set_aside(file: &Path) -> Result<PathBuf> {
    keep(file, &beside(file, &format!("{KEPT}{}", stamp()))).context(|| format!("keep {}", file.display()))
}

/// The time as names have it: no two are the same.
pub fn stamp() -> String {
    Zoned::now().strftime("%Y%m%d-%H%M%S-%3f").to_string()
}

/// Owner and mode.
fn copy_manners(from: &Path, to: &Path) -> io::Result<()> {
    let found = from.metadata()?;
    if nix::unistd::geteuid().is_root() {
        lchown(to, Some(found.uid()), Some(found.gid()))?;
    }
    fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))
}

/// Where disks are mounted.
fn mount_points() -> Result<Vec<PathBuf>> {
    let table = MountTable::read(Path::new("/")).context(|| "look for mounted disks".into())?;
    Ok(table.visible().map(|mount| mount.at.clone()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    use super::renames::exchange;
    use super::*;
    use crate::process::Program;

    /// A place with something old in it; what is new, whole beside it.
    fn restored(root: &Path) -> Beside {
        let place = root.join("srv/place");
        if !place.exists() {
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("old"), "").unwrap();
        }
        restore(&place, "now")
    }

    fn restore(place: &Path, point: &str) -> Beside {
        let beside = Beside::of_path(place, Path::new("/house/place")).unwrap();
        let work = &mut |request: &Request| {
            Unfinished::begin("files", request, Some(point))?;
            let new = request.to.join("house/place");
            fs::create_dir_all(&new).unwrap();
            fs::write(new.join("new"), "").unwrap();
            Ok(whole(point))
        };
        beside.restore("files", &At::Id(point.into()), &[], work).unwrap();
        beside
    }

    /// A restore of that point, with nothing to tell.
    pub(super) fn whole(point: &str) -> Restored {
        Restored {
            restore_point: point.into(),
            time: jiff::Timestamp::UNIX_EPOCH,
            bytes: None,
            last_commit: None,
            hole: false,
            problems: Vec::new(),
            remarks: Vec::new(),
            passed_over: None,
            unfinished: false,
            next: Vec::new(),
        }
    }

    #[test]
    fn the_old_is_beside_the_new_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let beside = restored(root.path());
        assert!(beside.place.join("old").exists() && beside.cut_off().is_none());
        let kept = beside.exchange().unwrap().unwrap();
        assert!(beside.place.join("new").exists() && kept.join("old").exists());
        beside.undo().unwrap();
        assert!(beside.place.join("old").exists() && beside.new.join("new").exists() && !kept.exists());
        // What is whole is not restored again.
        let not_called = &mut |_: &Request| Err(Error::new("called"));
        beside.restore("files", &At::Id("now".into()), &[], not_called).unwrap();
        let kept = beside.exchange().unwrap().unwrap();
        beside.end().unwrap();
        assert!(kept.join("old").exists());
        assert_eq!(root.path().join("srv").read_dir().unwrap().count(), 2, "the new and the old");
    }

    #[test]
    fn nothing_is_kept_of_an_empty_place_and_what_is_above_is_made() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("not/there/place");
        let beside = restore(&missing, "now");
        assert_eq!(beside.exchange().unwrap(), None);
        assert!(missing.join("new").exists());
        let empty = root.path().join("empty");
        fs::create_dir(&empty).unwrap();
        let beside = restore(&empty, "now");
        assert!(!beside.is_taken().unwrap());
        assert_eq!(beside.exchange().unwrap(), None);
        assert!(empty.join("new").exists() && beside.is_taken().unwrap());
    }

    #[test]
    fn new_and_old_are_told_apart_wherever_it_was_cut_off() {
        for keeping in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let beside = restored(root.path());
            renameat2(AT_FDCWD, &beside.new, AT_FDCWD, &beside.place, RenameFlags::RENAME_EXCHANGE).unwrap();
            if keeping {
                let (_, kept) = beside.noted().unwrap();
                fs::rename(&beside.new, kept).unwrap();
            }
            assert_eq!(beside.cut_off().unwrap().restore_point, "now");
            let kept = beside.exchange().unwrap().unwrap();
            assert!(beside.place.join("new").exists() && kept.join("old").exists(), "{keeping}");
            assert_eq!(beside.exchange().unwrap(), Some(kept.clone()), "the same again changes nothing");
            // Then the next one begins anew.
            beside.end().unwrap();
            fs::write(beside.place.join("since"), "").unwrap();
            let again = restore(&beside.place, "later");
            assert!(kept.join("old").exists() && again.place.join("since").exists());
            let since = again.exchange().unwrap().unwrap();
            assert!(since.join("since").exists() && kept.join("old").exists(), "{keeping}");
        }
    }

    #[test]
    fn on_a_disk_of_its_own_names_change_places_wherever_it_was_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Program::new(program, arguments.iter().copied()).run(&mut |_, _| ()).unwrap();
            assert!(output.status.success(), "{program}: {}", output.stderr);
        };
        run("mount", &["-t", "tmpfs", "tmpfs", disk.to_str().unwrap()]);
        fs::write(disk.join("old"), "old").unwrap();
        fs::write(disk.join("new"), "old").unwrap();
        fs::create_dir(disk.join("lost+found")).unwrap();
        let beside = restore(&disk, "now");
        let told = |folder: &Path| -> BTreeMap<PathBuf, String> {
            let names = beside.names_in(folder).unwrap().into_iter();
            names.map(|name| (name.clone(), fs::read_to_string(folder.join(name)).unwrap())).collect()
        };
        let before = told(&disk);
        // Cut off between the two names of one of them.
        exchange(&beside.new.join("new"), &disk.join("new"), Path::new("/")).unwrap();
        assert!(beside.cut_off().is_some());
        let kept = beside.exchange().unwrap().unwrap();
        assert_eq!(told(&disk), BTreeMap::from([("new".into(), String::new())]));
        assert_eq!((told(&kept), kept.parent()), (before.clone(), Some(disk.as_path())));
        beside.undo().unwrap();
        assert_eq!(told(&disk), before);
        beside.exchange().unwrap();
        beside.end().unwrap();
        assert_eq!(disk.read_dir().unwrap().count(), 3, "the new, the old, and lost+found");
        run("umount", &[disk.to_str().unwrap()]);
    }

    #[test]
    fn what_nobody_began_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("place");
        fs::create_dir(root.path().join("place.restoring")).unwrap();
        fs::write(root.path().join("place.restoring/mine"), "").unwrap();
        let beside = Beside::of_database(&place).unwrap();
        let refused = beside.restore("files", &At::Latest, &[], &mut |_| Err(Error::new("called"))).unwrap_err();
        assert!(refused.to_string().contains("is in the way"), "{refused}");
        let kept = set_aside(&root.path().join("place.restoring/mine")).unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn a_disk_that_is_mounted_below_is_not_moved_away() {
        assert!(Beside::of_path(Path::new("/"), Path::new("/")).is_err());
        let mounted = mount_points().unwrap();
        let below = mounted.iter().find_map(|point| point.parent().filter(|above| above.parent().is_some()));
        if let Some(above) = below.filter(|above| !mounted.iter().any(|point| point == above)) {
            assert!(Beside::of_path(above, above).unwrap_err().to_string().contains("is a mounted disk"));
        }
    }
}
