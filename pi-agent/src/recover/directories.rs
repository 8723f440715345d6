//! The files of a directory step back to where they were, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::note::{Notebook, Part};
use super::{Back, Order};
use crate::config::{Directory, Step};
use crate::error::{Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::report::short;
use crate::restore::beside::Beside;
use crate::restore::users::{self, Stopped};
use crate::restore::{self, Restored};

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
    source: &Directory,
    path: &Path,
    monitor: &Monitor,
) -> Result<Back> {
    let name = name(step, path);
    // Before its place is looked for: what came back there makes it the system's.
    if let Some(part) = notes.part(&name).filter(|part| fs::symlink_metadata(&part.to).is_ok()) {
        return Back::before(part.clone(), beside(order, notes, &part.to, path).ok().as_ref());
    }
    // Two steps that have one path: the first brings it back.
    if let Some(part) = notes.at(path) {
        return Back::before(part.clone(), None);
    }
    let (place, elsewhere) = place_of(order, notes, step, path)?;
    let beside = beside(order, notes, &place, path)?;

    // 1. Whole, beside its place.
    let restored = match beside.cut_off() {
        Some(restored) => restored,
        None => {
            order.may_replace(&beside)?;
            beside.restore(&step.name, &order.at, &[path.to_owned()], &mut |request| {
                restore::directory::restore(order.settings, step, request, monitor)
            })?
        }
    };

    // 2. Into its place. What runs here may have that open already, though it is empty.
    let users = match beside.is_taken()? {
        true => users::of_directory(source, std::slice::from_ref(&place))?,
        false => users::containers(None, std::slice::from_ref(&place))?,
    };
    let stopped = Stopped::begin(order.directory, &step.name, &users)?;
    let aside = beside.exchange()?;
    let (stays, others) = order.own.left_out(&beside, notes);
    let mut part = Part { elsewhere, stays, ..Part::new(&restored, &place, aside) };
    part.left.extend(others.iter().map(|file| compare(step, path, file, &restored)));
    notes.keep(&name, part.clone())?;
    beside.end()?;
    let stage = beside.stage.display().to_string();
    let mut problems: Vec<_> = restored.told().cloned().collect();
    problems.iter_mut().for_each(|problem| problem.message = problem.message.replace(&stage, ""));
    problems.extend(stopped.end().err().map(|error| Problem::from(&error)));
    Ok(Back { part, problems, was_there: false })
}

/// How a path comes to its place.
///
/// # Errors
/// See [`Beside::of_path`].
pub fn beside(order: &Order<'_>, notes: &Notebook<'_>, place: &Path, path: &Path) -> Result<Beside> {
    Ok(order.own.around(Beside::of_path(place, path)?, notes))
}

/// The kit's file is in use, and the backup holds another: a webhook of before it was changed, say. A person knows which is right.
fn compare(step: &Step, path: &Path, file: &Path, restored: &Restored) -> String {
    let (name, file, point) = (&step.name, file.display(), short(&restored.restore_point));
    format!(
        "{file} is the kit's, and the backup of {} holds another; to compare: pi-agent restore {name} --to DIR --at {point} --path {file}",
        path.display()
    )
}

/// As what it is noted.
pub fn name(step: &Step, path: &Path) -> String {
    format!("{}:{}", step.name, path.display())
}

/// Where a path comes back to; whether that is elsewhere, because its own place is the system's.
pub fn place_of(order: &Order<'_>, notes: &Notebook<'_>, step: &Step, path: &Path) -> Result<(PathBuf, bool)> {
    let systems = THE_SYSTEMS.iter().any(|systems| path == Path::new(systems));
    // What the kit put there, or came back there a moment ago, is not the system's. A disk that is mounted below is.
    let free = |beside: Beside| Ok::<_, Error>(!beside.is_taken()? || beside.cut_off().is_some());
    if systems && !beside(order, notes, path, path).and_then(free).unwrap_or(false) {
        let below = order.directory.path().join("recovered").join(&step.name);
        return Ok((below.join(path.strip_prefix("/").unwrap_or(path)), true));
    }
    Ok((path.to_owned(), false))
}
