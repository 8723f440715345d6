//! Room on the disks, looked at before anything is changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::databases::Home;
use super::note::Notebook;
use super::{Order, directories};
use crate::config::{Settings, Source, Step};
use crate::error::{Error, Result};
use crate::health::room;
use crate::report::words;
use crate::restore::beside::Beside;
use crate::restore::{At, directory, postgres};

/// What one disk is to take.
#[derive(Default)]
struct Load {
    places: Vec<PathBuf>,
    bytes: u64,
}

/// Whether all that is still to come back fits. `trial` are settings that reach the storage. What is not known beforehand is
/// left to the restores, which look themselves.
///
/// # Errors
/// A disk is too small for what it is to take.
pub fn check(order: &Order<'_>, trial: &Settings, notes: &Notebook<'_>) -> Result<()> {
    // Holes of sparse files count in what a point says of itself. Without them takes longer to know.
    check_with(order, trial, notes, false).or_else(|_| check_with(order, trial, notes, true))
}

fn check_with(order: &Order<'_>, trial: &Settings, notes: &Notebook<'_>, exactly: bool) -> Result<()> {
    let mut disks: BTreeMap<u64, Load> = BTreeMap::new();
    for step in &trial.steps {
        let Some(places) = places(order, step, notes) else { continue };
        let Some(bytes) = size(trial, step, &order.at, exactly) else { continue };
        // Of a step that is spread over disks nobody knows how much goes where.
        let mut on = places.iter().map(|place| disk(&place.place));
        let Some(Some(first)) = on.next() else { continue };
        if on.all(|other| other == Some(first)) {
            let there: u64 = places.iter().map(|place| postgres::bytes_below(&place.stage)).sum();
            let load = disks.entry(first).or_default();
            load.bytes += bytes.saturating_sub(there);
            load.places.extend(places.into_iter().map(|place| place.place));
        }
    }
    for Load { places, bytes } in disks.values() {
        let free = room(&places[0])?.free;
        if free < *bytes {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            let (needed, free) = (words::size(*bytes), words::size(free));
            return Err(Error::new(format!("{}: {needed} are needed, and {free} are free there", places.join(", ")))
                .hint("nothing was changed; make room, or use a larger disk. Some of it alone: --only-files, then pi-agent restore"));
        }
    }
    Ok(())
}

/// Where all of a step comes to; `None`: some of it does not, or is there already.
fn places(order: &Order<'_>, step: &Step, notes: &Notebook<'_>) -> Option<Vec<Beside>> {
    match &step.source {
        Source::Directory(source) => {
            let place = |path: &PathBuf| {
                let place = directories::place_of(order, notes, step, path).ok()?.0;
                let beside = directories::beside(order, notes, &place, path).ok()?;
                let comes = notes.part(&directories::name(step, path)).is_none() && order.may_replace(&beside).is_ok();
                (comes && beside.cut_off().is_none()).then_some(beside)
            };
            source.paths.iter().map(place).collect()
        }
        Source::Postgres(database) => {
            let home = Home::of(order, step, database).ok()?;
            let comes = notes.part(&step.name).is_none() && home.is_free(order).is_ok();
            (comes && home.beside.cut_off().is_none()).then(|| vec![home.beside])
        }
        Source::Agent(_) => None,
    }
}

/// Bytes of the point that is meant.
fn size(trial: &Settings, step: &Step, at: &At, exactly: bool) -> Option<u64> {
    let points = match &step.source {
        Source::Directory(_) | Source::Agent(_) if exactly => return directory::takes(trial, step, at).ok(),
        Source::Postgres(database) => postgres::points(trial, step, database).ok()?.0,
        _ => directory::points(trial, step, None).ok()?.0,
    };
    at.of(&points)?.bytes
}

/// The file system that a path is on, or would be.
fn disk(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|above| above.metadata().ok()).map(|found| found.dev())
}
