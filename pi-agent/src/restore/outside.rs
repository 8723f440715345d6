//! What a cluster has outside of its data directory, behind links: tablespaces, and perhaps its WAL. In the place of the original
//! they come back into the directories where they were, on those disks; the old is kept in there, too.
//!
//! Each is restored into a directory of our own below the one where it belongs, so that it is on the right disk even where that
//! is a mount point. The link leads there until the data directory is in its place: so the new and the old are whole at each
//! moment but one, between the rename of a directory and that of its link. All of it is done as the server's user: the
//! directories are that user's, and so are the links.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use super::KEPT;
use super::rename::rename;
use crate::docker::{Container, Docker};
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::pgbackrest::Linked;
use crate::process::{User, acting_as};
use crate::shown;

/// Where it is restored, below the directory where it belongs.
const STAGE: &str = ".pi-agent-restoring";
const WAL: &str = "pg_wal";
/// Of a directory of WAL that is moved name by name, this is moved last: where it is tells how far that came.
const LAST: &str = "archive_status";

/// A directory that the data directory leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The link's path below the data directory.
    link: PathBuf,
    /// Where it belongs, on this machine.
    pub place: PathBuf,
    /// What the backup holds of it.
    pub bytes: u64,
}

impl Outside {
    /// Where it is restored.
    pub fn stage(&self) -> PathBuf {
        self.place.join(STAGE)
    }

    /// The tablespace's number; `None`: it is the WAL.
    pub fn oid(&self) -> Option<&str> {
        self.link.strip_prefix("pg_tblspc").ok()?.to_str()
    }

    /// Makes the directory where it is restored; `again`: one that was cut off goes on.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn prepare(&self, user: &User, again: bool) -> Result<()> {
        let (door, is_wal) = (Door::open(&self.place, user)?, self.oid().is_none());
        let doing = || format!("make {}", shown(&self.stage()));
        acting_as(user, || make_stage(&door.inside(STAGE), again && !is_wal).context(doing))
    }

    /// Lets the WAL of a restored cluster that has not recovered yet be written where it belongs.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn lead_wal(&self, data: &Path, user: &User) -> Result<()> {
        let (door, data) = (Door::open(&self.place, user)?, Door::open(data, user)?);
        let (link, stage) = (data.inside(WAL), door.inside(STAGE));
        let lead = || {
            if fs::symlink_metadata(&link)?.is_dir() {
                for name in names(&link)? {
                    // pgBackRest restores no WAL, but the directories in there.
                    fs::remove_dir(link.join(&name))?;
                    DirBuilder::new().mode(0o700).create(stage.join(&name))?;
                }
                fs::remove_dir(&link)?;
            }
            relink(&data, Path::new(WAL), &self.stage())
        };
        acting_as(user, || lead().context(|| format!("put its WAL into {}", shown(&self.stage()))))
    }
}

/// The place of a cluster that something is restored for.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    /// Its data directory; perhaps nothing is there.
    pub data: &'a Path,
    /// Where tablespaces come that have no directory of their own.
    pub tablespaces: &'a Path,
    /// The container whose server it is.
    pub container: Option<&'a String>,
}

impl Original<'_> {
    /// What of a backup comes back outside of the data directory, and where: where the links of the old lead, if there is an old one,
    /// else where those of the backup did, if such a directory is there, belongs to the server, and is empty.
    ///
    /// # Errors
    /// Docker does not answer.
    pub fn takes_outside(&self, mut backup: Vec<Linked>, user: &User) -> Result<Vec<Outside>> {
        if self.data.join("PG_VERSION").exists() {
            // Where the WAL is has nothing to do with the backup.
            backup.retain(|linked| linked.link != Path::new(WAL));
            backup.push(Linked { link: WAL.into(), led_to: PathBuf::new(), bytes: 0 });
        }
        let (mut found, mut eyes) = (Vec::new(), Eyes::of(self.container));
        for Linked { link, led_to, bytes } in backup {
            let of_old = fs::read_link(self.data.join(&link)).ok();
            let led_to = of_old.as_ref().unwrap_or(&led_to);
            let Some(place) = eyes.on_this_machine(led_to)? else { continue };
            if !eyes.sees(&place, led_to)? {
                continue;
            }
            let is_free = of_old.is_some() || is_empty(&place);
            let goes_along = place.starts_with(self.data) || place.starts_with(self.tablespaces);
            if is_free && !goes_along && is_the_servers(&place, user) {
                found.push(Outside { link, place, bytes });
            }
        }
        Ok(found)
    }

    /// The directories outside of the data directory that are there, and how many tablespaces have none.
    ///
    /// # Errors
    /// Docker does not answer.
    pub fn outside(&self) -> Result<(Vec<Outside>, usize)> {
        let spaces = names(&self.data.join("pg_tblspc")).unwrap_or_default();
        let spaces: Vec<_> = spaces.iter().map(|oid| Path::new("pg_tblspc").join(oid)).collect();
        if spaces.is_empty() && !self.data.join(WAL).is_symlink() {
            return Ok((Vec::new(), 0));
        }
        let linked = |link: &PathBuf| Linked { link: link.clone(), led_to: PathBuf::new(), bytes: 0 };
        let found = self.takes_outside(spaces.iter().map(linked).collect(), &User::in_container_owning(self.data)?)?;
        let none = spaces.len() - found.iter().filter(|outside| outside.oid().is_some()).count();
        Ok((found, none))
    }
}

/// Brings what lies in stages into its place, and what of the old was there out of the way; `kept` is the old data directory. The same
/// again goes on wherever the first was cut off. What of the old is kept besides its data directory.
///
/// # Errors
/// Something cannot be renamed, or Docker does not answer.
pub fn settle(data: &Path, kept: Option<&Path>, container: Option<&String>) -> Result<Vec<PathBuf>> {
    let mut asides = Vec::new();
    let user = User::in_container_owning(data)?;
    let doors = (Door::open(data, &user)?, kept.map(|kept| Door::open(kept, &user)).transpose()?);
    let mut eyes = Eyes::of(container);
    for (link, led_to) in links(data) {
        let stage = is_stage(&led_to).then_some(&led_to);
        let place = match stage.and_then(|stage| stage.parent()) {
            Some(place) => Some(place.to_owned()),
            None => eyes.on_this_machine(&led_to)?,
        };
        let Some(place) = place else { continue };
        let aside = kept.and_then(Path::file_name).map(|name| place.join(name));
        if stage.is_some() {
            let seen = eyes.of_the_server(&place)?;
            let door = Door::open(&place, &user)?;
            let (stage, aside) = (door.inside(STAGE), aside.as_ref().and_then(|aside| aside.file_name()));
            let moved = Moved { link: &link, stage: &stage, place: &door.inside(""), aside, seen: &seen };
            let doing = || format!("put what {} leads to into {}", shown(&data.join(&link)), shown(&place));
            acting_as(&user, || moved.settle(&doors.0, doors.1.as_ref()).context(doing))?;
            make_durable(&place)?;
        }
        asides.extend(aside.filter(|aside| aside.symlink_metadata().is_ok()));
    }
    make_durable(data)?;
    Ok(asides)
}

/// Removes what an unwanted restore into that data directory has outside of it.
///
/// # Errors
/// It cannot be removed.
pub fn forget(data: &Path) -> Result<()> {
    let user = match User::in_container_owning(data) {
        Ok(user) if user.uid != 0 => user,
        // It is no database's.
        _ => return Ok(()),
    };
    stages(data).try_for_each(|stage| {
        let doing = || format!("remove {}", shown(&stage));
        let Some(place) = stage.parent().filter(|place| exists(place)) else { return Ok(()) };
        let door = Door::open(place, &user).context(doing)?;
        acting_as(&user, || remove(&door.inside(STAGE)).context(doing))
    })
}

/// Waits until what a restore wrote outside of that data directory is on its disks.
///
/// # Errors
/// A disk did not take it.
pub fn durable(data: &Path) -> Result<()> {
    stages(data).try_for_each(|stage| make_durable(&stage))
}

/// The links of a data directory that lead outside of it, and where to.
fn links(data: &Path) -> impl Iterator<Item = (PathBuf, PathBuf)> + use<> {
    let data = data.to_owned();
    let spaces = names(&data.join("pg_tblspc")).unwrap_or_default();
    let links = spaces.into_iter().map(|name| Path::new("pg_tblspc").join(name)).chain([WAL.into()]);
    links
        .filter_map(move |link| Some((fs::read_link(data.join(&link)).ok()?, link)))
        .map(|(led_to, link)| (link, led_to))
}

fn stages(data: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    links(data).map(|(_, led_to)| led_to).filter(|led_to| is_stage(led_to))
}

fn is_stage(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(STAGE))
}

/// A directory that comes into its place.
struct Moved<'a> {
    link: &'a Path,
    stage: &'a Path,
    place: &'a Path,
    /// The name in there for the old, if there may be one.
    aside: Option<&'a OsStr>,
    /// The place, as the server sees it.
    seen: &'a Path,
}

impl Moved<'_> {
    fn settle(&self, data: &Door, kept: Option<&Door>) -> io::Result<()> {
        if let (Some(kept), Some(name)) = (kept, self.aside) {
            let aside = self.place.join(name);
            self.put_aside(&aside)?;
            if exists(&aside) && kept.inside(self.link).is_symlink() {
                relink(kept, self.link, &self.seen.join(name))?;
            }
        }
        for name in in_order(names(self.stage)?) {
            rename(&self.stage.join(&name), &self.place.join(&name))?;
        }
        relink(data, self.link, self.seen)?;
        fs::remove_dir(self.stage)
    }

    /// Takes out of the way what has the names of the new; of WAL everything.
    fn put_aside(&self, aside: &Path) -> io::Result<()> {
        let new = names(self.stage)?;
        let old = if self.link == Path::new(WAL) {
            // Once the last of the old is out of the way, what is there is new.
            let is_old = exists(&self.place.join(LAST)) || !exists(aside);
            if is_old && new.iter().any(|name| name == LAST) { names(self.place)? } else { Vec::new() }
        } else {
            new
        };
        let stays = |name: &OsString| name == STAGE || name == "lost+found" || name.to_string_lossy().contains(KEPT);
        let old: Vec<_> = old.into_iter().filter(|name| !stays(name) && exists(&self.place.join(name))).collect();
        if !old.is_empty() && !exists(aside) {
            DirBuilder::new().mode(0o700).create(aside)?;
        }
        in_order(old).iter().try_for_each(|name| rename(&self.place.join(name), &aside.join(name)))
    }
}

fn in_order(mut names: Vec<OsString>) -> Vec<OsString> {
    names.sort_by_key(|name| name == LAST);
    names
}

fn make_stage(stage: &Path, again: bool) -> io::Result<()> {
    if !again {
        remove(stage)?;
    }
    match DirBuilder::new().mode(0o700).create(stage) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove(stage: &Path) -> io::Result<()> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// In one moment: without its link a tablespace would be forgotten.
fn relink(data: &Door, link: &Path, to: &Path) -> io::Result<()> {
    let new = data.inside("pi-agent.link");
    let _ = fs::remove_file(&new);
    symlink(to, &new)?;
    fs::rename(&new, data.inside(link))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn is_empty(place: &Path) -> bool {
    names(place).is_ok_and(|names| names.iter().all(|name| name == STAGE || name == "lost+found"))
}

fn is_the_servers(place: &Path, user: &User) -> bool {
    user.uid != 0 && place.metadata().is_ok_and(|found| found.is_dir() && found.uid() == user.uid)
}

/// An open directory of the server's user. Who acts as that user may not pass through what is above it, such as `/var/lib/docker`.
struct Door(OwnedFd);

impl Door {
    fn open(path: &Path, user: &User) -> Result<Self> {
        let doing = || format!("open {}", shown(path));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(path, flags, Mode::empty()).context(doing)?;
        if fstat(&opened).context(doing)?.st_uid != user.uid {
            return Err(Error::new(format!(
                "{}: it does not belong to {}, as whom the server runs",
                doing(),
                user.name
            )));
        }
        Ok(Self(opened))
    }

    fn inside(&self, name: impl AsRef<Path>) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string()).join(name)
    }
}

/// Paths as the server sees them and as they are here.
struct Eyes<'a> {
    name: Option<&'a String>,
    container: Option<Container>,
}

impl<'a> Eyes<'a> {
    fn of(name: Option<&'a String>) -> Self {
        Self { name, container: None }
    }

    fn container(&mut self) -> Result<Option<&Container>> {
        if let (Some(name), None) = (self.name, &self.container) {
            self.container = Some(Docker::open()?.container(name)?);
        }
        Ok(self.container.as_ref())
    }

    fn on_this_machine(&mut self, inside: &Path) -> Result<Option<PathBuf>> {
        match self.container()? {
            Some(container) => Ok(container.on_this_machine(inside)),
            None => Ok(inside.is_absolute().then(|| inside.to_owned())),
        }
    }

    /// No link of the container's leads to another place of this machine.
    fn sees(&mut self, place: &Path, inside: &Path) -> Result<bool> {
        Ok(self.container()?.is_none_or(|container| container.sees(place).is_some_and(|seen| seen == inside)))
    }

    fn of_the_server(&mut self, place: &Path) -> Result<PathBuf> {
        match self.container()? {
            None => Ok(place.to_owned()),
            Some(container) => container.sees(place).ok_or_else(|| {
                Error::new(format!("the container {} does not see {} any more", container.name, shown(place)))
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{chown, lchown};
    use std::process::Command;

    use super::*;

    const KEPT_AS: &str = "data.before-restore-20261130-030000-000";

    struct House {
        root: tempfile::TempDir,
    }

    impl House {
        /// A data directory in its place, that leads to what is restored, and the old one, that leads to what was there.
        fn new() -> Self {
            let house = Self { root: tempfile::tempdir().unwrap() };
            let [new, old] = ["data", KEPT_AS].map(|name| house.path(name));
            for data in [&new, &old] {
                fs::create_dir_all(data.join("pg_tblspc")).unwrap();
            }
            for (place, content) in [("space", "PG_15"), ("space/.pi-agent-restoring", "PG_15")] {
                fs::create_dir_all(house.path(place).join(content)).unwrap();
                fs::write(house.path(place).join(content).join("file"), place).unwrap();
            }
            for (place, segment) in [("wal", "0001"), ("wal/.pi-agent-restoring", "0001")] {
                fs::create_dir_all(house.path(place).join(LAST)).unwrap();
                fs::write(house.path(place).join(segment), place).unwrap();
            }
            fs::create_dir(house.path("wal/data.before-restore-20260101-030000-000")).unwrap();
            for (data, below) in [(&new, STAGE), (&old, "")] {
                symlink(house.path("space").join(below), data.join("pg_tblspc/16384")).unwrap();
                symlink(house.path("wal").join(below), data.join(WAL)).unwrap();
            }
            assert!(
                Command::new("chown").args(["-hR", "4711:4711"]).arg(house.root.path()).status().unwrap().success()
            );
            house
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn settle(&self) -> Vec<PathBuf> {
            settle(&self.path("data"), Some(&self.path(KEPT_AS)), None).unwrap()
        }

        fn check(&self, what: &str) {
            for (data, below) in [("data", ""), (KEPT_AS, KEPT_AS)] {
                let led = ["pg_tblspc/16384", WAL].map(|link| fs::read_link(self.path(data).join(link)).unwrap());
                assert_eq!(led, ["space", "wal"].map(|place| self.path(place).join(below)), "{what}");
            }
            let read = |path: String| fs::read_to_string(self.path(&path)).unwrap();
            for (place, file) in [("space", "PG_15/file"), ("wal", "0001")] {
                assert_eq!(read(format!("{place}/{file}")), format!("{place}/{STAGE}"), "{what}");
                assert_eq!(read(format!("{place}/{KEPT_AS}/{file}")), place, "{what}");
            }
            let mut names = names(&self.path("wal")).unwrap();
            names.sort();
            assert_eq!(names, ["0001", "archive_status", "data.before-restore-20260101-030000-000", KEPT_AS], "{what}");
        }
    }

    #[test]
    fn new_and_old_are_whole_wherever_it_was_cut_off() {
        let steps = |house: &House| {
            let (aside, staged) = (format!("wal/{KEPT_AS}"), format!("wal/{STAGE}"));
            let moved = |from: &str, to: String| (house.path(from), house.path(&to));
            [
                moved("wal/0001", format!("{aside}/0001")),
                moved("wal/archive_status", format!("{aside}/archive_status")),
                moved(&format!("{staged}/0001"), "wal/0001".into()),
                moved(&format!("{staged}/archive_status"), "wal/archive_status".into()),
            ]
        };
        for cut in 0..=4 {
            let house = House::new();
            if cut > 0 {
                fs::create_dir(house.path("wal").join(KEPT_AS)).unwrap();
                chown(house.path("wal").join(KEPT_AS), Some(4711), Some(4711)).unwrap();
            }
            for (from, to) in &steps(&house)[..cut] {
                fs::rename(from, to).unwrap();
            }
            let asides = ["space", "wal"].map(|place| house.path(place).join(KEPT_AS));
            assert_eq!(house.settle(), asides, "{cut}");
            house.check(&format!("wal, {cut}"));
            // The same again changes nothing.
            assert_eq!(house.settle(), asides);
            house.check(&format!("wal, {cut}, again"));
        }
        for cut in 0..=2 {
            let house = House::new();
            let (aside, place) = (house.path("space").join(KEPT_AS), house.path("space/PG_15"));
            fs::create_dir(&aside).unwrap();
            chown(&aside, Some(4711), Some(4711)).unwrap();
            let staged = house.path("space").join(STAGE).join("PG_15");
            for (from, to) in &[(&place, &aside.join("PG_15")), (&staged, &place)][..cut] {
                fs::rename(from, to).unwrap();
            }
            house.settle();
            house.check(&format!("space, {cut}"));
        }
    }

    #[test]
    fn nothing_is_done_that_the_owner_of_the_data_may_not() {
        let house = House::new();
        chown(house.path("space"), Some(0), Some(0)).unwrap();
        settle(&house.path("data"), Some(&house.path(KEPT_AS)), None).unwrap_err();
        // A link into somebody else's directory: what is in there is not the server's to remove.
        let theirs = house.path("theirs");
        fs::create_dir_all(theirs.join(STAGE)).unwrap();
        fs::remove_file(house.path("data/pg_wal")).unwrap();
        symlink(theirs.join(STAGE), house.path("data/pg_wal")).unwrap();
        lchown(house.path("data/pg_wal"), Some(4711), Some(4711)).unwrap();
        forget(&house.path("data")).unwrap_err();
        assert!(theirs.join(STAGE).exists());
    }

    #[test]
    fn what_is_not_the_servers_or_holds_something_comes_back_beside_the_data() {
        let house = House::new();
        let user = User { name: "4711".into(), uid: 4711, gid: 4711, groups: vec![4711] };
        let (data, tablespaces, gone) = (house.path(KEPT_AS), house.path("data.tablespaces"), house.path("gone"));
        let backup = |link: &str, led_to: PathBuf| Linked { link: link.into(), led_to, bytes: 7 };
        let takes = |data: &Path, backup: Vec<Linked>| {
            let found = Original { data, tablespaces: &tablespaces, container: None }.takes_outside(backup, &user);
            found.unwrap().into_iter().map(|outside| (outside.link, outside.place, outside.bytes)).collect::<Vec<_>>()
        };
        let space = (PathBuf::from("pg_tblspc/16384"), house.path("space"), 7);
        // Where the old one's links lead, whatever the backup says.
        fs::write(data.join("PG_VERSION"), "15").unwrap();
        let old = takes(&data, vec![backup("pg_tblspc/16384", gone.clone()), backup(WAL, gone.clone())]);
        assert_eq!(old, [space, (WAL.into(), house.path("wal"), 0)]);
        // Without an old one, where the backup's did: if that is empty, and the server's.
        let of_backup = |place: &str| takes(&gone, vec![backup("pg_tblspc/1", house.path(place))]).len();
        fs::create_dir(house.path("free")).unwrap();
        assert_eq!(["space", "free", "gone"].map(of_backup), [0, 0, 0]);
        chown(house.path("free"), Some(4711), None).unwrap();
        assert_eq!(of_backup("free"), 1);
        fs::write(house.path("free/PG_15"), "").unwrap();
        assert_eq!(of_backup("free"), 0);
    }
}
