//! Getting directories and files back.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{At, Point, Request, Restored, Unfinished, spared};
use crate::config::{Settings, Source, Step};
use crate::error::Kind;
use crate::monitor::{Monitor, Problem};
use crate::repository::{Purpose, REPAIRED, Repository, Selection, Snapshot, Written};
use crate::secrets::Secrets;
use crate::shown::{shown, typed};
use crate::steps::directory::{complete, newest};
use crate::steps::points::other_host;
use crate::storage::Store;
use crate::{Error, Result};

/// Every snapshot of a step, oldest first; with `path`, those that hold it, with its own size. Also what of the repository is
/// damaged.
///
/// # Errors
/// The repository cannot be read.
pub fn points(settings: &Settings, step: &Step, path: Option<&Path>) -> Result<(Vec<Point>, Vec<Problem>)> {
    let Some(repository) = open(settings, step)? else { return Ok((Vec::new(), Vec::new())) };
    let snapshots = repository.readable_snapshots()?;
    let point = |snapshot: Snapshot| Point {
        other_host: other_host(&snapshot, &step.name, &settings.host).map(str::to_owned),
        step: step.name.clone(),
        time: snapshot.time,
        kind: kind(&snapshot).into(),
        id: snapshot.id,
        bytes: snapshot.bytes,
        new_bytes: snapshot.new_bytes,
        same: false,
        postgresql: None,
    };
    let Some(path) = path else { return Ok((snapshots.into_iter().map(point).collect(), repository.damage())) };
    let mut before = None;
    let held = repository.holding(&snapshots, path)?.into_iter().map(|(snapshot, bytes, version)| {
        let same = before.replace(version) == Some(version);
        Point { bytes, new_bytes: None, same, ..point(snapshot) }
    });
    Ok((held.collect(), repository.damage()))
}

fn kind(snapshot: &Snapshot) -> &'static str {
    match () {
        () if snapshot.unfinished => "unfinished",
        () if is_repaired(snapshot) => REPAIRED,
        () => "snapshot",
    }
}

fn is_repaired(snapshot: &Snapshot) -> bool {
    snapshot.tags.iter().any(|tag| tag == REPAIRED)
}

/// Restores a snapshot, or paths of it, below a directory: `/srv/a` becomes `TO/srv/a`.
///
/// # Errors
/// There is no such snapshot or path in it; storage fails; the target cannot be written.
pub fn restore(settings: &Settings, step: &Step, request: &Request, monitor: &Monitor) -> Result<Restored> {
    monitor.phase("opening the repository");
    let repository = open(settings, step)?.ok_or_else(|| nothing(step, "nothing was ever backed up there"))?;
    let _lock = repository.lock(Purpose::Restore, true, None, monitor)?;
    let snapshots = repository.readable_snapshots()?;
    let (snapshot, passed_over) = choose(&snapshots, step, &request.at, repository.store())?;
    let snapshot = snapshot.clone();
    // As they were configured then.
    let paths = if request.paths.is_empty() { snapshot.paths.clone() } else { request.paths.clone() };
    spared::check_paths(settings, &request.to, &paths)?;
    let fresh = request.to.read_dir().map_or(true, |mut entries| entries.next().is_none());
    Unfinished::begin(&step.name, request, Some(&snapshot.id))?;
    let selection = Selection::new(snapshot, request.to.clone(), request.paths.clone(), fresh, request.privileges);
    let Written { bytes, mut problems, full } = repository.restore(&selection, monitor)?;
    if is_repaired(&selection.snapshot) {
        let message = "this restore point was repaired: what it had lost is not in it".into();
        problems.push(Problem { message, hint: Some("an earlier or later one may have it: pi-agent points".into()) });
    }
    let Selection { snapshot, .. } = selection;
    let mut remarks = repository.damage();
    if snapshot.lacks_files {
        let message = "files that could not be read when this restore point was made are not in it".into();
        let hint = format!(
            "what its run said names them; an earlier or later one may have them: pi-agent points {}",
            step.name
        );
        remarks.push(Problem { message, hint: Some(hint) });
    }
    let next = match &step.source {
        Source::Agent(_) => Vec::new(),
        _ => next(&paths, request, problems.is_empty()),
    };
    Ok(Restored {
        restore_point: snapshot.id,
        time: snapshot.time,
        bytes: Some(bytes),
        last_commit: None,
        hole: false,
        problems,
        remarks,
        passed_over,
        unfinished: full,
        next,
    })
}

/// Bytes that a snapshot takes on a disk that knows holes.
///
/// # Errors
/// There is no such snapshot, or the repository cannot be read.
pub fn takes(settings: &Settings, step: &Step, at: &At) -> Result<u64> {
    let repository = open(settings, step)?.ok_or_else(|| nothing(step, "nothing was ever backed up there"))?;
    let snapshots = repository.readable_snapshots()?;
    repository.takes(choose(&snapshots, step, at, repository.store())?.0)
}

fn open(settings: &Settings, step: &Step) -> Result<Option<Repository>> {
    let secrets = Secrets::new(&settings.secrets);
    let store = Store::open(&settings.storage, &settings.storage.location, &secrets)?.join(&step.name);
    Repository::open_what_is_left(settings, &step.name, store, &secrets)
}

/// The snapshot that is meant, and what is to be said when another might be.
fn choose<'a>(
    snapshots: &'a [Snapshot],
    step: &Step,
    at: &At,
    store: &Store,
) -> Result<(&'a Snapshot, Option<String>)> {
    match at {
        At::Latest => {
            newest(snapshots, step, store.clock_ahead()).ok_or_else(|| nothing(step, "there is no complete snapshot"))
        }
        At::Time(time) => complete(snapshots, step)
            .into_iter()
            .rfind(|snapshot| snapshot.time <= *time)
            .map(|snapshot| (snapshot, None))
            .ok_or_else(|| nothing(step, &format!("there is no snapshot at or before {time}")))
            .map_err(|error| {
                match snapshots.iter().any(|snapshot| !snapshot.is_of(&step.name) && snapshot.time <= *time) {
                    true => error
                        .hint("other programs made some of that time: pi-agent points lists them, --at ID takes one"),
                    false => error,
                }
            }),
        At::Id(id) => by_id(snapshots, step, id).map(|snapshot| (snapshot, None)),
        At::Timeline { .. } => Err(Error::usage(format!("restore of {}: --timeline is for databases", step.name))),
    }
}

/// The only snapshot whose id begins so.
pub(super) fn by_id<'a>(snapshots: &'a [Snapshot], step: &Step, id: &str) -> Result<&'a Snapshot> {
    let mut matching = snapshots.iter().filter(|snapshot| snapshot.id.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(nothing(step, &format!("there is no snapshot {id}"))),
        (Some(_), Some(_)) => Err(Error::usage(format!("restore {}: several snapshots begin with {id}", step.name))
            .hint("give more of the id")),
    }
}

/// The point asked for is not there.
pub(super) fn nothing(step: &Step, what: &str) -> Error {
    Error::new(format!("restore {}: {what}", step.name))
        .kind_of(Kind::NotFound)
        .hint(format!("see what there is: pi-agent points {}", step.name))
}

/// `whole`: everything came back as it was.
fn next(paths: &[PathBuf], request: &Request, whole: bool) -> Vec<String> {
    let from = |path: &PathBuf| request.to.join(path.strip_prefix("/").unwrap_or(path));
    let (there, elsewhere): (Vec<_>, Vec<_>) = paths.iter().partition(|path| is_same(&from(path), path));
    let mut lines: Vec<_> = there
        .iter()
        .map(|path| format!("{} was restored where it was: what was there is overwritten", shown(path)))
        .collect();
    if elsewhere.is_empty() {
        return lines;
    }
    // A target inside one of them is a change of it.
    let inside = |path: &&PathBuf| within(&request.to, path);
    let begin = if there.is_empty() && !elsewhere.iter().any(inside) {
        "nothing in the original places was changed; to put it back"
    } else {
        "to put the rest back"
    };
    if !whole {
        lines.push("not all came back as it was: copying puts what is wrong here over what is there".into());
    }
    lines.push(format!("{begin}, stop what uses it and:"));
    // What did not come back at all is named elsewhere.
    lines.extend(elsewhere.iter().filter(|path| from(path).symlink_metadata().is_ok()).map(|path| {
        let from = from(path);
        // The root is in no snapshot itself, and the target is closed to others: its mode must not become the root's.
        if path.parent().is_none() {
            return format!(
                "  find {} -mindepth 1 -maxdepth 1 -exec cp -a --remove-destination -t / {{}} +",
                typed(&from)
            );
        }
        // A directory's content goes into the directory. Nothing is written through a link, or into a file that has other names.
        let (content, slash) = if from.is_dir() { ("/.", "/") } else { ("", "") };
        format!("  cp -a --remove-destination {}{content} {}{slash}", typed(&from), typed(path))
    }));
    lines
}

/// Both are one file or directory, by whatever names.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
    identity(one).is_some_and(|found| identity(other) == Some(found))
}

fn within(path: &Path, above: &Path) -> bool {
    match (path.canonicalize(), above.canonicalize()) {
        (Ok(path), Ok(above)) => path.starts_with(above),
        _ => path.starts_with(above),
    }
}
