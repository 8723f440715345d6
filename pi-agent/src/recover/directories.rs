//! The files of a directory step back to where they were, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::note::{Notebook, Part};
use super::{Back, Order};
use crate::config::{Directory, Step};
use crate::error::Result;
use crate::monitor::{Monitor, Problem};
use crate::restore;
use crate::restore::beside::Beside;
use crate::restore::users::{self, Stopped};

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
        return Back::before(part.clone(), Beside::of_path(&part.to, path).ok().as_ref());
    }
    let (place, elsewhere) = place_of(order, step, path)?;
    let beside = Beside::of_path(&place, path)?;

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
    let part = Part { elsewhere, ..Part::new(&restored, &place, aside) };
    notes.keep(&name, part.clone())?;
    beside.end()?;
    let stage = beside.stage.display().to_string();
    let mut problems = restored.problems;
    problems.iter_mut().for_each(|problem| problem.message = problem.message.replace(&stage, ""));
    problems.extend(stopped.end().err().map(|error| Problem::from(&error)));
    Ok(Back { part, problems, was_there: false })
}

/// As what it is noted.
pub fn name(step: &Step, path: &Path) -> String {
    format!("{}:{}", step.name, path.display())
}

/// Where a path comes back to; whether that is elsewhere, because its own place is the system's.
pub fn place_of(order: &Order<'_>, step: &Step, path: &Path) -> Result<(PathBuf, bool)> {
    let systems = THE_SYSTEMS.iter().any(|systems| path == Path::new(systems)) && !restore::is_empty(path)?;
    // What came back there a moment ago is not the system's.
    if systems && Beside::of_path(path, path).ok().and_then(|beside| beside.cut_off()).is_none() {
        let below = order.directory.path().join("recovered").join(&step.name);
        return Ok((below.join(path.strip_prefix("/").unwrap_or(path)), true));
    }
    Ok((path.to_owned(), false))
}
