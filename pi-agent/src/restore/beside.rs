//! What is put back is restored beside its place, on the same disk, while everything goes on; when it is whole, the two
//! change places. The old stays beside it, as `PLACE.before-restore-TIME`, until a person removes it; one whose name gets too long
//! by that, in a directory of such a name.
//!
//! Whatever cuts this off, the same command goes on. The note beside the stage ([`Unfinished`]) knows the new by its inodes,
//! so that new and old are never taken for each other, whichever names they have at that moment.

mod around;
mod renames;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use jiff::Zoned;

use self::renames::{inode, keep, remove_empty};
use super::rename::exists;
use super::unfinished::{Unfinished, Whole};
use super::{At, KEPT, Request, Restored, beside, is_empty, outside};
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::health::MountTable;
use crate::monitor::Problem;
use crate::report::short;
use crate::shown;
use crate::theirs::{self, Held};

/// The ending of a stage's name.
const STAGE: &str = ".restoring";

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
        let above = place.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/"));
        theirs::open_path(above).context(|| format!("put {} back", shown(place)))?;
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
        shown(&beside(&self.base, &format!("{KEPT}…"))).to_string()
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
        let mut request =
            Request { to: stage.clone(), at: at.clone(), paths: paths.into(), overwrite: false, privileges: true };
        match Unfinished::of(stage) {
            None => {
                for theirs in self.staged() {
                    if !is_empty(&theirs)? {
                        return Err(Error::usage(format!("{} is in the way", shown(&theirs))).hint("move it away"));
                    }
                }
            }
            Some(_) if is_empty(stage)? => Unfinished::end(stage)?,
            Some(begun) => {
                self.keep_the_old()?;
                match begun.continues(step, &request) {
                    Some((_, Some(whole)))
                        if self.parts(&self.new).context(doing)?.iter().all(|part| whole.has(part)) =>
                    {
                        return Ok(whole.restored);
                    }
                    Some((begun, _)) => request = begun,
                    None => self.end()?,
                }
            }
        }
        let made = self.make_above()?;
        let mut restored = work(&request).inspect_err(|_| Unfinished::never_was(stage))?;
        if restored.unfinished {
            return Err(Error::new(format!("{}: the disk is full", doing()))
                .hint("nothing was replaced; make room, and the same command goes on from here"));
        }
        for above in made {
            // A snapshot holds what they were like, the backup of a database does not.
            let _ = copy_manners(&self.stage.join(above.strip_prefix("/").unwrap_or(&above)), &above);
        }
        restored.remarks.extend(self.unplaced().iter().map(|name| Problem {
            message: format!(
                "{} was not put back: a restore keeps its own files under that name; with --to it comes back",
                shown(&self.place.join(name))
            ),
            hint: None,
        }));
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
        Ok(exists(&kept).context(doing)?.then_some(kept))
    }

    /// The old again, and the new beside it, as if nothing had been.
    ///
    /// # Errors
    /// Something of it cannot be renamed; everything else is back.
    pub fn undo(&self) -> Result<()> {
        let doing = || format!("put what was in {} back", shown(&self.place));
        let Some((whole, kept)) = self.noted() else { return Ok(()) };
        let mut failed = None;
        for (from, to, old) in self.moves(&kept).context(doing)? {
            failed = whole.take_back(&from, &to, &old).err().or(failed);
            for folder in old.ancestors().skip(1).take_while(|folder| folder.starts_with(&kept)) {
                // One that is not empty stays.
                let _ = remove_empty(folder);
            }
        }
        failed.map_or(Ok(()), |error| {
            let (kept, stage) = (shown(&kept), shown(&self.stage));
            Err(Error::new(doing()).caused_by(error).hint(format!(
                "nothing is lost: what is not in its place is in {kept} or {stage}, and the same command goes on from there"
            )))
        })
    }

    /// Where the old is while it is kept, if there was one: itself, not a directory around it.
    pub fn kept(&self) -> Option<PathBuf> {
        let (_, kept) = self.noted()?;
        let (_, _, kept) = self.moves(&kept).ok()?.into_iter().next()?;
        kept.is_dir().then_some(kept)
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
        if Unfinished::of(&self.stage).is_none() {
            // Without its note it is not ours.
            return Ok(());
        }
        outside::forget(&self.stage)?;
        for left in self.staged() {
            match Held::of(&left).and_then(|held| fs::remove_dir_all(held.path())) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).context(|| format!("remove {}", shown(&left)));
                }
                _ => {}
            }
        }
        Unfinished::end(&self.stage)
    }

    /// What a restore makes beside the place, besides its note.
    fn staged(&self) -> [PathBuf; 2] {
        [self.stage.clone(), beside(&self.stage, ".tablespaces")]
    }

    /// Keeps what lies in the stage and was not restored there: an exchange was cut off between its two renames, and what it had put into
    /// the place has another inode since, as a file that an editor wrote anew.
    fn keep_the_old(&self) -> Result<()> {
        let doing = || format!("keep what was in {}", shown(&self.place));
        let Some((whole, kept)) = self.noted() else { return Ok(()) };
        for (from, _, kept) in self.moves(&kept).context(doing)? {
            let mut above = from.ancestors().take_while(|above| above.starts_with(&self.new));
            if exists(&from).context(doing)? && !above.any(|path| whole.has(path)) {
                keep(&from, &kept).context(doing)?;
                Unfinished::is_not_whole(&self.stage)?;
            }
        }
        Ok(())
    }

    /// What is known of the new, and the name for the old.
    fn noted(&self) -> Option<(Whole, PathBuf)> {
        let note = Unfinished::of(&self.stage)?;
        Some((note.whole?, beside(&self.base, &format!("{KEPT}{}", note.begun))))
    }

    /// What changes places: from, to, and where that goes which was there.
    fn moves(&self, kept: &Path) -> io::Result<Vec<(PathBuf, PathBuf, PathBuf)>> {
        if self.goes_whole() {
            let name = self.base.file_name().unwrap_or_default();
            let cut = kept.file_name().is_some_and(|kept| !kept.as_bytes().starts_with(name.as_bytes()));
            // The old keeps its name: a person will look for that.
            let kept = if cut { kept.join(name) } else { kept.into() };
            return Ok(vec![(self.new.clone(), self.place.clone(), kept)]);
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
            make_passable(above).context(|| format!("make {}", above.display()))?;
        }
        Ok(missing.into_iter().map(Path::to_owned).collect())
    }
}

/// What is said of a path while a restore of it is cut off in the exchange: some of it may be old and some new.
pub fn half_way(path: &Path) -> Option<Problem> {
    let beside = Beside::of_path(path, path).ok()?;
    beside.cut_off().map(|restored| Problem {
        message: format!(
            "a restore of {} in its place was cut off while old and new changed places: it may hold some of both",
            shown(path)
        ),
        hint: Some(format!(
            "the same command goes on; it restored the point {}, and what was there before is kept",
            short(&restored.restore_point)
        )),
    })
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

/// Makes a directory through which others may pass.
fn make_passable(directory: &Path) -> io::Result<()> {
    fs::create_dir(Held::of(directory)?.path())?;
    fs::set_permissions(Held::directory(directory)?.path(), Permissions::from_mode(0o755))
}

/// Owner, access lists and other attributes, and mode of a directory.
fn copy_manners(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (Held::directory(from)?, Held::directory(to)?);
    let (from, to) = (&*from.path(), &*to.path());
    let found = from.metadata()?;
    if nix::unistd::geteuid().is_root() {
        lchown(to, Some(found.uid()), Some(found.gid()))?;
    }
    let names = |path: &Path| xattr::list(path).map(Vec::from_iter).unwrap_or_default();
    let wanted = names(from);
    for name in names(to).iter().filter(|name| !wanted.contains(name)) {
        xattr::remove(to, name)?;
    }
    for name in wanted {
        if let Some(value) = xattr::get(from, &name)?
            && xattr::get(to, &name)?.as_ref() != Some(&value)
        {
            xattr::set(to, &name, &value)?;
        }
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

    fn run(program: &str, arguments: &[&str]) {
        let output = Program::new(program, arguments.iter().copied()).run(&mut |_, _| ()).unwrap();
        assert!(output.status.success(), "{program}: {}", output.stderr);
    }

    #[test]
    fn an_exchange_that_fails_half_way_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "nr_inodes=40", "tmpfs", disk.to_str().unwrap()]);
        fs::write(disk.join("new"), "old").unwrap();
        let beside = restore(&disk, "now");
        // No room for the directory of the old.
        let filled = (0..40).take_while(|number| fs::write(disk.join(format!("fill-{number}")), "old").is_ok()).count();
        assert!((1..40).contains(&filled), "{filled}");
        beside.exchange().unwrap_err();
        beside.undo().unwrap();
        let old = |name: &str| fs::read_to_string(disk.join(name)).unwrap() == "old";
        assert!(old("new") && (0..filled).all(|number| old(&format!("fill-{number}"))));
        fs::remove_file(disk.join("fill-0")).unwrap();
        let kept = beside.exchange().unwrap().unwrap();
        assert_eq!(fs::read_to_string(disk.join("new")).unwrap(), "");
        assert_eq!(kept.read_dir().unwrap().count(), filled);
        run("umount", &[disk.to_str().unwrap()]);
    }

    #[test]
    fn the_old_that_has_the_name_of_the_new_is_kept_whatever_became_of_the_new() {
        for point in ["now", "another"] {
            let root = tempfile::tempdir().unwrap();
            let beside = restored(root.path());
            renameat2(AT_FDCWD, &beside.new, AT_FDCWD, &beside.place, RenameFlags::RENAME_EXCHANGE).unwrap();
            let (_, kept) = beside.noted().unwrap();
            fs::rename(&beside.place, root.path().join("elsewhere")).unwrap();
            assert!(beside.cut_off().is_none());
            let beside = restore(&beside.place, point);
            assert!(kept.join("old").exists(), "{point}");
            beside.exchange().unwrap();
            beside.end().unwrap();
            assert!(kept.join("old").exists() && beside.place.join("new").exists(), "{point}");
        }
    }

    #[test]
    fn on_a_disk_of_its_own_names_change_places_wherever_it_was_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("disk");
        fs::create_dir(&disk).unwrap();
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
    fn a_note_or_a_link_of_somebody_elses_leads_nowhere() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let beside = restored(root.path());
        let note = Unfinished::notes(&beside.stage).into_iter().find(|note| note.exists()).unwrap();
        assert!(Unfinished::of(&beside.stage).is_some());
        lchown(&note, Some(65534), None).unwrap();
        assert!(Unfinished::of(&beside.stage).is_none());

        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path().join("srv"), &link).unwrap();
        assert!(Beside::of_path(&link.join("place"), Path::new("/house/place")).is_ok());
        lchown(&link, Some(65534), None).unwrap();
        let refused = Beside::of_path(&link.join("place"), Path::new("/house/place")).unwrap_err();
        assert!(refused.chain().contains("a link of somebody else's"), "{refused}");
        // Also when it comes later.
        let moved = super::super::rename::rename_held(&link.join("place/old"), &root.path().join("moved"));
        assert!(moved.is_err() && root.path().join("srv/place/old").exists());
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
