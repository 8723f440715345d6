//! What a cluster has outside of its data directory, behind links: tablespaces, and perhaps its WAL. In the place of the original
//! they come back into the directories where they were, on those disks; the old is kept in there, too.
//!
//! Each is restored into a directory of our own below the one where it belongs, so that it is on the right disk even where that
//! is a mount point. The links lead there until the data directory is in its place. Then the old goes aside and its link with it, and
//! the new comes in and its link with it; names are durable before a link leads to them, and nothing is removed before its link is
//! durable. All of it is done as the server's user: the directories are that user's, and so are the links.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::rename::rename;
use super::tablespaces;
use crate::docker::{Container, Docker};
use crate::error::{Context, Error, Kind, Result};
use crate::pgbackrest::Linked;
use crate::process::{Program, User};
use crate::shown;
use crate::steps::postgres::links::{WAL, is_of_a_restore, is_stage, links, names, stage};
use crate::theirs::Theirs;

/// Of a directory of WAL, which is moved name by name, this is moved last: where it is tells how far that came.
const LAST: &str = "archive_status";

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

/// A directory that the data directory leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The link's path below the data directory.
    link: PathBuf,
    /// Where it belongs, on this machine.
    pub place: PathBuf,
    /// Where it is restored.
    pub stage: PathBuf,
    /// What the backup holds of it.
    pub bytes: u64,
}

impl Original<'_> {
    /// What of a backup comes back outside of the data directory, and where: where the links of the old lead, if there is an old one,
    /// else where those of the backup did, if such a directory is there, belongs to the server, and is empty.
    ///
    /// # Errors
    /// Docker does not answer; the old still leads to what another restore left.
    pub fn takes_outside(&self, mut backup: Vec<Linked>, user: &User) -> Result<Vec<Outside>> {
        if self.data.join("PG_VERSION").exists() {
            // Where the WAL is has nothing to do with the backup.
            backup.retain(|linked| linked.link != Path::new(WAL));
            backup.push(Linked { link: WAL.into(), led_to: PathBuf::new(), bytes: 0 });
        }
        let (mut found, mut eyes) = (Vec::new(), Eyes::of(self.container));
        for Linked { link, led_to, bytes } in backup {
            let of_old = fs::read_link(self.data.join(&link)).ok();
            let Some(place) = eyes.on_this_machine(self.data, &link, of_old.as_ref().unwrap_or(&led_to))? else {
                continue;
            };
            let is_free = of_old.is_some() || is_empty(&place);
            let goes_along = place.starts_with(self.data) || place.starts_with(self.tablespaces);
            if is_free && !goes_along && is_the_servers(&place, user) {
                let stage = stage(&place, self.data);
                found.push(Outside { link, place, stage, bytes });
            }
        }
        Ok(found)
    }

    /// The directories outside of the data directory that are there, and how many tablespaces have none.
    ///
    /// # Errors
    /// Docker does not answer.
    pub fn outside(&self) -> Result<(Vec<Outside>, usize)> {
        let linked = links(self.data);
        if linked.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let spaces = linked.iter().filter(|(link, _)| link != Path::new(WAL)).count();
        let linked = linked.into_iter().map(|(link, led_to)| Linked { link, led_to, bytes: 0 });
        let found = self.takes_outside(linked.collect(), &User::in_container_owning(self.data)?)?;
        let none = spaces - found.iter().filter(|outside| outside.oid().is_some()).count();
        Ok((found, none))
    }
}

impl Outside {
    /// The tablespace's number; `None`: it is the WAL.
    pub fn oid(&self) -> Option<&str> {
        self.link.strip_prefix("pg_tblspc").ok()?.to_str()
    }

    /// Makes the directory where it is restored; `again`: one that was cut off goes on. `old` is the data directory that is there.
    ///
    /// # Errors
    /// It cannot be made, or the old one still leads there.
    pub fn prepare(&self, user: &User, again: bool, old: &Path) -> Result<()> {
        let doing = || format!("make {}", shown(&self.stage));
        if links(old).iter().any(|(_, led_to)| *led_to == self.stage) {
            return Err(Error::new(doing()).hint(format!(
                "the database in {} still uses it: an earlier restore was cut off; start that one again, as it was",
                shown(old)
            )));
        }
        let place = Theirs::open(&self.place, user)?;
        let stage = place.inside(self.stage.file_name().unwrap_or_default());
        place.act(|| make_stage(&stage, again && self.oid().is_some()).context(doing))
    }

    /// Lets the WAL of a restored cluster that has not recovered yet be written where it is restored. Not for a tablespace.
    ///
    /// # Errors
    /// What is there already cannot be moved.
    pub fn take_wal(&self, data: &Path, user: &User) -> Result<()> {
        let doing = || format!("put its WAL into {}", shown(&self.stage));
        let (there, from) = (Theirs::open(data, user)?, data.join(WAL));
        if from.symlink_metadata().context(doing)?.is_dir() {
            // No segments, but whatever else was in there.
            let arguments =
                ["-a".into(), "--".into(), from.join(".").into_os_string(), self.stage.clone().into_os_string()];
            let copied = Program::new("cp", arguments).as_user(user).run(&mut |_, _| ())?;
            if !copied.status.success() {
                return Err(Error::new(format!("{}: {}", doing(), copied.stderr.trim())));
            }
            there.act(|| fs::remove_dir_all(there.inside(WAL)).context(doing))?;
        }
        there.act(|| relink(&there, WAL.as_ref(), &self.stage).context(doing))
    }
}

/// Brings what lies in stages into its place, and what of the old was there out of the way; `kept` is the old data directory. The same
/// again goes on wherever the first was cut off. What of the old is kept besides its data directory.
///
/// # Errors
/// Something cannot be renamed, or Docker does not answer; then [`unsettle`] goes back.
pub fn settle(data: &Path, kept: Option<&Path>, container: Option<&String>) -> Result<Vec<PathBuf>> {
    let each = |moved: &Moved<'_>| moved.settle();
    for_each(data, kept, container, &each)
}

/// The way back: the new in its stages, and the old where it was.
///
/// # Errors
/// Something cannot be renamed.
pub fn unsettle(data: &Path, kept: Option<&Path>, container: Option<&String>) -> Result<()> {
    for_each(data, kept, container, &|moved| moved.unsettle()).map(drop)
}

fn for_each(
    data: &Path,
    kept: Option<&Path>,
    container: Option<&String>,
    work: &(dyn Fn(&Moved<'_>) -> io::Result<()> + Sync),
) -> Result<Vec<PathBuf>> {
    let mut asides = Vec::new();
    if links(data).is_empty() {
        return Ok(asides);
    }
    let user = User::in_container_owning(data)?;
    let (new, old) = (Theirs::open(data, &user)?, kept.map(|kept| Theirs::open(kept, &user)).transpose()?);
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
    let mut eyes = Eyes::of(container);
    for (link, led_to) in links(data) {
        let Some(place) = eyes.on_this_machine(data, &link, &led_to)? else { continue };
        let stage = stage(&place, data);
        let goes_along = place.starts_with(super::beside(data, tablespaces::SUFFIX));
        if goes_along || !is_the_servers(&place, &user) || (led_to != stage && kept.is_none()) {
            continue;
        }
        let moved = Moved {
            new: &new,
            old: old.as_ref(),
            place: &Theirs::open(&place, &user)?,
            stage: stage.file_name().unwrap_or_default(),
            aside: kept.and_then(Path::file_name),
            to_stage: &stage,
            to_place: &eyes.of_the_server(&place)?,
            tablespace: (link != Path::new(WAL)).then(|| format!("PG_{}_", version.trim())),
            link: &link,
        };
        let doing = || format!("exchange what is in {}", shown(&place));
        new.act(|| work(&moved).context(doing))?;
        let aside = kept.and_then(Path::file_name).map(|name| place.join(name));
        asides.extend(aside.filter(|aside| exists(aside)));
    }
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
        let place = Theirs::open(place, &user).context(doing)?;
        place.act(|| remove(&place.inside(stage.file_name().unwrap_or_default())).context(doing))
    })
}

/// Waits until what a restore wrote outside of that data directory is on its disks.
///
/// # Errors
/// A disk did not take it.
pub fn durable(data: &Path) -> Result<()> {
    stages(data).try_for_each(|stage| {
        let user = User::in_container_owning(data)?;
        let opened = Theirs::open(&stage, &user)?;
        opened.act(|| opened.sync().context(|| format!("bring what is in {} onto the disk", shown(&stage))))
    })
}

fn stages(data: &Path) -> impl Iterator<Item = PathBuf> {
    links(data).into_iter().map(|(_, led_to)| led_to).filter(|led_to| is_stage(led_to))
}

/// A directory whose content changes places.
struct Moved<'a> {
    /// The new data directory.
    new: &'a Theirs<'a>,
    /// The old one, which is kept.
    old: Option<&'a Theirs<'a>>,
    /// Where it belongs.
    place: &'a Theirs<'a>,
    /// The name in there of where it was restored,
    stage: &'a OsStr,
    /// and of where the old goes, if there is an old one.
    aside: Option<&'a OsStr>,
    link: &'a Path,
    /// What the link leads to before,
    to_stage: &'a Path,
    /// and behind: the place, as the server sees it.
    to_place: &'a Path,
    /// How its directories begin in a tablespace, which other versions of PostgreSQL may share; `None`: it is the WAL.
    tablespace: Option<String>,
}

impl Moved<'_> {
    fn settle(&self) -> io::Result<()> {
        let stage = self.place.inside(self.stage);
        if self.leads(self.new, self.to_stage) {
            self.exchange(&stage)?;
        }
        // What else is in there came with the WAL, and is not PostgreSQL's.
        match fs::remove_dir(&stage) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => Ok(()),
            removed => removed,
        }
    }

    fn exchange(&self, stage: &Path) -> io::Result<()> {
        let place = self.place.inside("");
        // 1. The old out of the way, and its link with it.
        if let (Some(old), Some(name)) = (self.old, self.aside) {
            let aside = self.place.inside(name);
            if !self.is_new_inside()? {
                self.move_all(&place, &aside)?;
            }
            if exists(&aside) && self.leads(old, self.to_place) {
                self.place.sync()?;
                relink(old, self.link, &self.to_place.join(name))?;
            }
        }
        // 2. The new into its place, and its link with it.
        self.move_all(stage, &place)?;
        self.place.sync()?;
        relink(self.new, self.link, self.to_place)?;
        self.new.sync()
    }

    fn unsettle(&self) -> io::Result<()> {
        let stage = self.place.inside(self.stage);
        if self.leads(self.new, self.to_place) || self.is_new_inside()? {
            self.move_all(&self.place.inside(""), &stage)?;
            self.place.sync()?;
            relink(self.new, self.link, self.to_stage)?;
            self.new.sync()?;
        }
        let (Some(old), Some(name)) = (self.old, self.aside) else { return Ok(()) };
        let aside = self.place.inside(name);
        if exists(&aside) {
            self.move_all(&aside, &self.place.inside(""))?;
            self.place.sync()?;
            if self.leads(old, &self.to_place.join(name)) {
                relink(old, self.link, self.to_place)?;
                old.sync()?;
            }
            fs::remove_dir(&aside)?;
        }
        Ok(())
    }

    /// What is in the place is new, or some of it: all of the old is out of the way.
    fn is_new_inside(&self) -> io::Result<bool> {
        let (stage, place) = (self.place.inside(self.stage), self.place.inside(""));
        let there = |directory: &Path| Ok::<_, io::Error>(exists(directory) && !self.of_cluster(directory)?.is_empty());
        Ok(match &self.tablespace {
            // It has one name only, or none.
            Some(_) => !there(&stage)? && there(&place)?,
            None => !exists(&place.join(LAST)) || !exists(&stage.join(LAST)),
        })
    }

    /// The names in a directory that are the cluster's, in the order in which they are moved.
    fn of_cluster(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let is_its = |name: &OsString| match &self.tablespace {
            Some(begins) => name.to_string_lossy().starts_with(begins),
            None => is_of_wal(&name.to_string_lossy()),
        };
        let mut names: Vec<_> = names(directory)?.into_iter().filter(is_its).collect();
        names.sort_by_key(|name| name == LAST);
        Ok(names)
    }

    fn move_all(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !exists(from) {
            return Ok(());
        }
        let names = self.of_cluster(from)?;
        if !names.is_empty() && !exists(to) {
            DirBuilder::new().mode(0o700).create(to)?;
        }
        names.iter().try_for_each(|name| rename(&from.join(name), &to.join(name)))
    }

    fn leads(&self, data: &Theirs<'_>, to: &Path) -> bool {
        fs::read_link(data.inside(self.link)).is_ok_and(|led_to| led_to == to)
    }
}

/// PostgreSQL makes such names in its directory of WAL.
fn is_of_wal(name: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.split_once('.') {
        Some((name, _)) if name.len() >= 8 && digits(name) => true,
        Some((name, _)) => name == "xlogtemp",
        None => {
            (name.len() == 24 && digits(name))
                || matches!(name, LAST | "summaries" | "RECOVERYXLOG" | "RECOVERYHISTORY")
        }
    }
}

fn make_stage(stage: &Path, again: bool) -> io::Result<()> {
    if !again {
        remove(stage)?;
    }
    match DirBuilder::new().mode(0o700).create(stage) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn remove(stage: &Path) -> io::Result<()> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// In one moment: without its link a tablespace would be forgotten.
pub(super) fn relink(data: &Theirs<'_>, link: &Path, to: &Path) -> io::Result<()> {
    let new = data.inside("pi-agent.link");
    let _ = fs::remove_file(&new);
    symlink(to, &new)?;
    fs::rename(&new, data.inside(link))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_empty(place: &Path) -> bool {
    names(place).is_ok_and(|names| names.iter().all(|name| is_of_a_restore(name) || name == "lost+found"))
}

fn is_the_servers(place: &Path, user: &User) -> bool {
    user.uid != 0 && place.metadata().is_ok_and(|found| found.is_dir() && found.uid() == user.uid)
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

    /// `None`: it is gone, or still to be made.
    fn container(&mut self, name: &str) -> Result<Option<&Container>> {
        if self.container.is_none() {
            match Docker::open()?.container(name) {
                Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                found => self.container = Some(found?),
            }
        }
        Ok(self.container.as_ref())
    }

    /// The place that a link of a data directory stands for; `None`: it is none of this machine, or a link in a volume leads elsewhere.
    fn on_this_machine(&mut self, data: &Path, link: &Path, led_to: &Path) -> Result<Option<PathBuf>> {
        if is_stage(led_to) {
            return Ok(led_to.parent().map(Path::to_owned));
        }
        let Some(name) = self.name else {
            let above = data.join(link).parent().map(Path::to_owned).unwrap_or_default();
            let place =
                if led_to.is_absolute() { Some(led_to.to_owned()) } else { above.join(led_to).canonicalize().ok() };
            return Ok(place.filter(|_| !led_to.as_os_str().is_empty()));
        };
        let Some(container) = self.container(name)? else { return Ok(None) };
        let place = container.on_this_machine(led_to);
        Ok(place.filter(|place| container.sees(place).is_some_and(|seen| seen == led_to)))
    }

    fn of_the_server(&mut self, place: &Path) -> Result<PathBuf> {
        let Some(name) = self.name else { return Ok(place.to_owned()) };
        let seen = self.container(name)?.and_then(|container| container.sees(place));
        seen.ok_or_else(|| Error::new(format!("the container {name} does not see {} any more", shown(place))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
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
                fs::write(data.join("PG_VERSION"), "15\n").unwrap();
            }
            for (place, content) in [(house.path("space"), "old"), (house.stage("space"), "new")] {
                fs::create_dir_all(place.join("PG_15_1")).unwrap();
                fs::write(place.join("PG_15_1/file"), content).unwrap();
            }
            for (place, content) in [(house.path("wal"), "old"), (house.stage("wal"), "new")] {
                fs::create_dir_all(place.join(LAST)).unwrap();
                for name in ["000000010000000000000001", "00000002.history", content] {
                    fs::write(place.join(name), content).unwrap();
                }
            }
            for (data, at) in [(&new, &Self::stage as &dyn Fn(&Self, &str) -> PathBuf), (&old, &Self::path)] {
                symlink(at(&house, "space"), data.join("pg_tblspc/16384")).unwrap();
                symlink(at(&house, "wal"), data.join(WAL)).unwrap();
            }
            // Of another version's cluster, and of an earlier restore.
            fs::create_dir(house.path("space/PG_17_2")).unwrap();
            fs::create_dir(house.path("wal/data.before-restore-20260101-030000-000")).unwrap();
            assert!(
                Command::new("chown").args(["-hR", "4711:4711"]).arg(house.root.path()).status().unwrap().success()
            );
            // Nothing of PostgreSQL's, and root's alone.
            fs::create_dir(house.path("wal/lost+found")).unwrap();
            house
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn stage(&self, place: &str) -> PathBuf {
            stage(&self.path(place), &self.path("data"))
        }

        fn settle(&self) -> Result<Vec<PathBuf>> {
            settle(&self.path("data"), Some(&self.path(KEPT_AS)), None)
        }

        fn unsettle(&self) {
            unsettle(&self.path("data"), Some(&self.path(KEPT_AS)), None).unwrap();
        }

        /// Does the first so many steps of what [`settle`] does with one of them, by hand.
        fn cut(&self, place: &str, steps: usize) -> usize {
            let names: &[&str] = match place {
                "wal" => &["000000010000000000000001", "00000002.history", LAST],
                _ => &["PG_15_1"],
            };
            let (there, stage) = (self.path(place), self.stage(place));
            let aside = there.join(KEPT_AS);
            let link = if place == "wal" { WAL } else { "pg_tblspc/16384" };
            let lead = |data: &str, to: &Path| {
                let link = self.path(data).join(link);
                fs::remove_file(&link).unwrap();
                symlink(to, &link).unwrap();
                lchown(&link, Some(4711), Some(4711)).unwrap();
            };
            let mut all: Vec<Box<dyn Fn() + '_>> = vec![Box::new(|| {
                fs::create_dir(&aside).unwrap();
                chown(&aside, Some(4711), Some(4711)).unwrap();
            })];
            for name in names {
                let (from, to) = (&there, &aside);
                all.push(Box::new(move || fs::rename(from.join(name), to.join(name)).unwrap()));
            }
            all.push(Box::new(|| lead(KEPT_AS, &aside)));
            for name in names {
                let (from, to) = (&stage, &there);
                all.push(Box::new(move || fs::rename(from.join(name), to.join(name)).unwrap()));
            }
            all.push(Box::new(|| lead("data", &there)));
            all.iter().take(steps).for_each(|step| step());
            all.len()
        }

        fn content(&self, place: &Path) -> BTreeMap<String, String> {
            let files = ["PG_15_1/file", "000000010000000000000001", "00000002.history", LAST];
            let read = |file: &&str| {
                let path = place.join(file);
                let text = if path.is_dir() { "directory".into() } else { fs::read_to_string(path).ok()? };
                Some(((*file).to_owned(), text))
            };
            files.iter().filter_map(read).collect()
        }

        fn leads(&self, data: &str) -> [PathBuf; 2] {
            ["pg_tblspc/16384", WAL].map(|link| fs::read_link(self.path(data).join(link)).unwrap())
        }

        /// Both are whole: the new in its places, or not yet.
        fn check(&self, is_settled: bool, what: &str) {
            let (places, stages) =
                (["space", "wal"].map(|place| self.path(place)), ["space", "wal"].map(|place| self.stage(place)));
            let asides = places.clone().map(|place| place.join(KEPT_AS));
            let (new, old) =
                if is_settled { (places.clone(), asides.clone()) } else { (stages.clone(), places.clone()) };
            assert_eq!((self.leads("data"), self.leads(KEPT_AS)), (new.clone(), old.clone()), "{what}");
            for (places, content) in [(&new, "new"), (&old, "old")] {
                let [space, wal] = places.clone().map(|place| self.content(&place));
                let file = |name: &str| (name.to_owned(), content.to_owned());
                assert_eq!(space, BTreeMap::from([file("PG_15_1/file")]), "{what}");
                let directory = (LAST.to_owned(), "directory".to_owned());
                let segment = file("000000010000000000000001");
                assert_eq!(wal, BTreeMap::from([segment, file("00000002.history"), directory]), "{what}");
            }
            let gone = if is_settled { &stages[..1] } else { &asides };
            assert!(gone.iter().all(|gone| !gone.exists()), "{what}");
            for stays in ["space/PG_17_2", "wal/lost+found", "wal/data.before-restore-20260101-030000-000"] {
                assert!(self.path(stays).is_dir(), "{what}: {stays}");
            }
        }
    }

    #[test]
    fn new_and_old_are_whole_wherever_it_was_cut_off() {
        for place in ["space", "wal"] {
            let steps = House::new().cut(place, 0);
            for cut in 0..=steps {
                let house = House::new();
                house.cut(place, cut);
                let asides = ["space", "wal"].map(|place| house.path(place).join(KEPT_AS));
                assert_eq!(house.settle().unwrap(), asides, "{place} {cut}");
                house.check(true, &format!("{place} {cut}"));
                // The same again changes nothing.
                assert_eq!(house.settle().unwrap(), asides, "{place} {cut}");
                house.check(true, &format!("{place} {cut}, again"));
                // There is a way back, and forth.
                house.unsettle();
                house.check(false, &format!("{place} {cut}, back"));
                house.settle().unwrap();
                house.check(true, &format!("{place} {cut}, forth"));

                let house = House::new();
                house.cut(place, cut);
                house.unsettle();
                house.check(false, &format!("{place} {cut}, back at once"));
            }
        }
    }

    #[test]
    fn what_fails_half_way_goes_back_and_later_on() {
        let house = House::new();
        // A segment that cannot be renamed.
        let attribute = |how: &str| {
            let file = house.path("wal/00000002.history");
            assert!(Command::new("chattr").arg(how).arg(file).status().unwrap().success());
        };
        attribute("+i");
        house.settle().unwrap_err();
        house.unsettle();
        house.check(false, "back");
        attribute("-i");
        house.settle().unwrap();
        house.check(true, "forth");
    }

    #[test]
    fn nothing_is_done_that_the_owner_of_the_data_may_not() {
        let house = House::new();
        chown(house.path("space"), Some(0), Some(0)).unwrap();
        // Somebody else's place is none for the server.
        house.settle().unwrap();
        assert_eq!(house.leads("data")[0], house.stage("space"));
        // A link into somebody else's directory: what is in there is not the server's to remove.
        let theirs = stage(&house.path("theirs"), &house.path("data"));
        fs::create_dir_all(&theirs).unwrap();
        fs::remove_file(house.path("data/pg_wal")).unwrap();
        symlink(&theirs, house.path("data/pg_wal")).unwrap();
        lchown(house.path("data/pg_wal"), Some(4711), Some(4711)).unwrap();
        forget(&house.path("data")).unwrap_err();
        assert!(theirs.exists());
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
        // A relative link leads from where it lies.
        fs::remove_file(data.join(WAL)).unwrap();
        symlink("../wal", data.join(WAL)).unwrap();
        assert_eq!(takes(&data, Vec::new()), [(WAL.into(), house.path("wal").canonicalize().unwrap(), 0)]);
    }

    #[test]
    fn a_stage_that_is_in_use_is_not_made_anew() {
        let house = House::new();
        let user = User { name: "4711".into(), uid: 4711, gid: 4711, groups: vec![4711] };
        let data = house.path("data");
        let there = Original { data: &data, tablespaces: &house.path("data.tablespaces"), container: None };
        let (found, none) = there.outside().unwrap();
        assert_eq!((found.len(), none), (2, 0));
        assert!(found.iter().all(|outside| outside.prepare(&user, false, &data).is_err()));
        house.check(false, "untouched");
    }

    #[test]
    fn only_what_postgresql_makes_is_its_wal() {
        for name in [
            "000000010000000000000001",
            "00000002.history",
            "000000010000000000000001.partial",
            "xlogtemp.7",
            "summaries",
            "000000010000000000000001.00000028.backup",
            LAST,
        ] {
            assert!(is_of_wal(name), "{name}");
        }
        for name in
            ["lost+found", "photo.jpg", "a.before-restore-20260101-030000-000", ".pi-agent-restoring-1", "1.txt"]
        {
            assert!(!is_of_wal(name), "{name}");
        }
    }
}
