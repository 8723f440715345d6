//! The files of a directory step back to where they were. Each path is restored beside its place and then renamed, so that it
//! is there whole or not at all.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::aside::{There, is_mount_point, move_aside, on_its_way, there};
use super::note::{Notebook, Part};
use super::{Back, Order};
use crate::config::Step;
use crate::error::{Context, Error, Result};
use crate::monitor::Monitor;
use crate::restore::{self, Request};

/// What every system has. To put another machine's in their place would be the end of this one: `fstab`, `passwd`.
const THE_SYSTEMS: [&str; 21] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/spool",
];

/// Brings one path of a step back, unless that was done before.
///
/// # Errors
/// Something else is in its place and may not be moved, there is no such point, or the restore fails.
pub fn bring_back(
    order: &Order<'_>,
    notes: &mut Notebook<'_>,
    step: &Step,
    path: &Path,
    monitor: &Monitor,
) -> Result<Back> {
    let name = format!("{}:{}", step.name, path.display());
    let known = notes.part(&name).cloned();
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    // Before its place is looked for: what came back there makes it the system's.
    if let Some(part) = known.as_ref().filter(|part| part.in_place && exists(&part.to)) {
        return Ok(Back::before(part.clone()));
    }
    let place = Place::of(order, step, path)?;
    // Cut off after it was put in place, before that was noted.
    if let Some(part) = known.as_ref().filter(|part| !part.in_place && exists(&part.to) && !exists(&place.staged)) {
        return Ok(Back::before(part.clone()));
    }
    let whole = known.filter(|part| !part.in_place && exists(&place.staged));
    // On a disk of its own a part of it may be in place.
    if whole.is_none() || !is_mount_point(&place.target) {
        place.is_free(order.overwrite)?;
    }

    // 1. Whole, beside its place: what an interrupted one left is gone on with.
    let mut problems = Vec::new();
    let part = match whole {
        Some(whole) => whole,
        None => {
            place.make_above()?;
            let to = place.stage.clone();
            let request = Request { to, at: order.at.clone(), paths: vec![path.to_owned()], overwrite: true };
            let restored = restore::restore(order.settings, &step.name, &request, monitor)?;
            let stage = place.stage.display().to_string();
            problems.clone_from(&restored.problems);
            problems.iter_mut().for_each(|problem| problem.message = problem.message.replace(&stage, ""));
            let part = Part::whole(restored, &place.target, place.elsewhere);
            notes.keep(&name, part.clone())?;
            part
        }
    };

    // 2. Into its place.
    let aside = place.settle()?;
    let part = Part { in_place: true, aside, ..part };
    notes.keep(&name, part.clone())?;
    Ok(Back { part, problems, was_there: false })
}

/// Where a path comes back to, and by which way.
struct Place {
    target: PathBuf,
    /// It is restored below this.
    stage: PathBuf,
    /// As this.
    staged: PathBuf,
    /// Not its own place, which is the system's.
    elsewhere: bool,
}

impl Place {
    fn of(order: &Order<'_>, step: &Step, path: &Path) -> Result<Self> {
        let below = |root: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let systems = THE_SYSTEMS.iter().any(|systems| path == Path::new(systems));
        let elsewhere = systems && there(path)? == There::Something;
        let target = match elsewhere {
            true => below(&order.directory.path().join("recovered").join(&step.name)),
            false => path.to_owned(),
        };
        // What is renamed must be on the same disk.
        let stage = match is_mount_point(&target) {
            true => on_its_way(&target.join(&step.name)),
            false => on_its_way(&target),
        };
        Ok(Self { staged: below(&stage), target, stage, elsewhere })
    }

    /// Nothing is in the way, or it may be moved.
    fn is_free(&self, overwrite: bool) -> Result<()> {
        let mounted = is_mount_point(&self.target);
        let own = |path: PathBuf| path == self.stage;
        let in_the_way = match mounted {
            true => self
                .target
                .read_dir()
                .context(|| format!("look into {}", self.target.display()))?
                .flatten()
                .any(|entry| !own(entry.path()) && entry.file_name() != "lost+found"),
            false => there(&self.target)? == There::Something,
        };
        if !in_the_way || (overwrite && !mounted) {
            return Ok(());
        }
        let target = self.target.display();
        let error = Error::usage(format!("bring back {target}: something is there already"));
        Err(match mounted {
            true => error.hint("it is a disk of its own: move what is on it to another place"),
            false => error.hint(format!("move it away; or --overwrite, which keeps it as {target}.before-recovery")),
        })
    }

    /// From beside its place into it; what was there before, moved aside.
    fn settle(&self) -> Result<Option<PathBuf>> {
        let doing = || format!("put {} in place", self.target.display());
        if is_mount_point(&self.target) {
            for entry in self.staged.read_dir().context(doing)? {
                let entry = entry.context(doing)?;
                fs::rename(entry.path(), self.target.join(entry.file_name())).context(doing)?;
            }
            copy_manners(&self.staged, &self.target).context(doing)?;
            fs::remove_dir(&self.staged).context(doing)?;
            self.remove_stage();
            return Ok(None);
        }
        let aside = move_aside(&self.target)?;
        if !self.staged.is_dir() {
            // An empty directory gives way to a directory only.
            let _ = fs::remove_dir(&self.target);
        }
        fs::rename(&self.staged, &self.target).context(doing)?;
        self.remove_stage();
        Ok(aside)
    }

    /// The directories above. No snapshot tells what they were like: others pass through, to what has a mode of its own.
    fn make_above(&self) -> Result<()> {
        let missing: Vec<_> = self.target.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        missing.into_iter().rev().try_for_each(|above| {
            let made = fs::create_dir(above).and_then(|()| fs::set_permissions(above, Permissions::from_mode(0o755)));
            made.context(|| format!("make {}", above.display()))
        })
    }

    /// Only empty directories are left of it.
    fn remove_stage(&self) {
        for left in self.staged.ancestors().skip(1).take_while(|left| left.starts_with(&self.stage)) {
            let _ = fs::remove_dir(left);
        }
    }
}

/// Owner and mode.
fn copy_manners(from: &Path, to: &Path) -> std::io::Result<()> {
    let found = from.metadata()?;
    if nix::unistd::geteuid().is_root() {
        lchown(to, Some(found.uid()), Some(found.gid()))?;
    }
    fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))
}
