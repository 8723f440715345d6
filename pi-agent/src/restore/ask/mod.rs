//! `pi-agent restore` on a terminal: what, when, where; then the plan. What a flag answered is not asked.

mod estimate;
mod when;

use std::path::{Path, PathBuf};

use super::spared::check_named;
use super::{At, InPlace, Request};
use crate::config::{Settings, Source, StateDirectory, Step};
use crate::error::{Error, Result};
use crate::setup::Dialogue;
use crate::shown;

/// What the command line said.
#[derive(Debug)]
pub struct Asked {
    /// The step.
    pub step: Option<String>,
    /// A directory, absolute.
    pub to: Option<PathBuf>,
    /// In the place of the original.
    pub in_place: bool,
    /// Which point.
    pub at: Option<At>,
    /// Only these.
    pub paths: Vec<PathBuf>,
    /// The directory may hold something.
    pub overwrite: bool,
    /// With set-id bits, capabilities and device files.
    pub privileges: bool,
    /// Nothing is asked.
    pub yes: bool,
}

/// What is to be done.
#[derive(Debug)]
pub struct Order<'a> {
    /// The step.
    pub step: String,
    /// `to` is empty with [`Self::in_place`].
    pub request: Request,
    /// In the place of the original.
    pub in_place: Option<InPlace<'a>>,
}

/// Completes what the command line said; `None`: the person thought better of it.
///
/// # Errors
/// Something is missing and nobody can be asked; the repository cannot be read; the terminal is closed.
pub fn complete<'a>(settings: &'a Settings, directory: &StateDirectory, wanted: Asked) -> Result<Option<Order<'a>>> {
    let dialogue = Dialogue::open().filter(|_| !wanted.yes);
    let missing = wanted.step.is_none() || (wanted.to.is_none() && !wanted.in_place);
    let Some(dialogue) = dialogue else {
        if missing || (wanted.in_place && !wanted.yes) {
            return Err(Error::usage("restore: nobody can be asked here")
                .hint("pi-agent restore STEP --to DIR, or: pi-agent restore STEP --in-place --yes"));
        }
        return order(settings, wanted).map(Some);
    };
    let asked = missing;
    let step = match &wanted.step {
        Some(name) => settings.step(name)?,
        None => what(&dialogue, settings)?,
    };
    let at = match wanted.at {
        Some(at) => Some(at),
        None if asked => Some(when::ask(&dialogue, settings, step)?),
        None => None,
    };
    let mut wanted = Asked { step: Some(step.name.clone()), at, ..wanted };
    if wanted.to.is_none() && !wanted.in_place {
        wanted.to = place(&dialogue, step)?;
        wanted.in_place = wanted.to.is_none();
    }
    if !asked && !wanted.in_place {
        return order(settings, wanted).map(Some);
    }
    let order = order(settings, wanted)?;
    dialogue.say("")?;
    for line in estimate::lines(settings, directory, step, &order)? {
        dialogue.say(&format!("  {line}"))?;
    }
    Ok(dialogue.yes("Go on", false)?.then_some(order))
}

fn order(settings: &Settings, wanted: Asked) -> Result<Order<'_>> {
    let Asked { step, to, in_place, at, paths, overwrite, privileges, .. } = wanted;
    let step = step.unwrap_or_default();
    let in_place = in_place.then(|| InPlace::plan(settings, &step, &paths)).transpose()?;
    let to = to.unwrap_or_default();
    if in_place.is_none() {
        check_named(settings, &to)?;
    }
    // There everything comes into its own place.
    let privileges = privileges || to.parent().is_none() && to.is_absolute();
    let request = Request { to, at: at.unwrap_or(At::Latest), paths, overwrite, privileges };
    Ok(Order { step, request, in_place })
}

fn what<'a>(dialogue: &Dialogue, settings: &'a Settings) -> Result<&'a Step> {
    dialogue.say("What is to come back?")?;
    for (number, step) in settings.steps.iter().enumerate() {
        let what = match &step.source {
            Source::Postgres(postgres) => match &postgres.container {
                Some(container) => format!("the database in the container {container}"),
                None => format!("the database in {}", postgres.data_directory.display()),
            },
            Source::Directory(directory) => listed(&directory.paths),
            Source::Agent(_) => "this program's configuration and history".into(),
        };
        dialogue.say(&format!("  {}  {}: {what}", number + 1, step.name))?;
    }
    dialogue.ask("Number or name", "", |answer| {
        let by_number = answer.parse::<usize>().ok().and_then(|number| settings.steps.get(number.checked_sub(1)?));
        by_number
            .or_else(|| settings.steps.iter().find(|step| step.name == answer))
            .ok_or_else(|| format!("wanted a number from 1 to {}", settings.steps.len()))
    })
}

/// `None`: where it was.
fn place(dialogue: &Dialogue, step: &Step) -> Result<Option<PathBuf>> {
    let default = format!("/var/tmp/restored-{}", step.name);
    dialogue.ask("Where to: a new directory, or `in place`", &default, |answer| match answer {
        "in place" | "in-place" => Ok(None),
        path if Path::new(path).is_absolute() => Ok(Some(PathBuf::from(path))),
        _ => Err("wanted a path that begins with /, or: in place".into()),
    })
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| shown(path).to_string()).collect::<Vec<_>>().join(", ")
}
