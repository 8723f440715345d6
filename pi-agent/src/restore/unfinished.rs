//! `TO.unfinished`: what is being restored into `TO`, until all of it is there. With it the same command goes on where a
//! killed one stopped; without it, what lies in `TO` is somebody's.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::beside::stamp;
use super::{At, Request, Restored};
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::secrets::write_private;

/// The note's content.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unfinished {
    step: String,
    /// When, for names.
    pub begun: String,
    /// As it was asked for.
    at: At,
    /// What that meant then: a newer snapshot may have come since. Databases have none, their restore puts right what differs.
    point: Option<String>,
    paths: Vec<PathBuf>,
    /// What is there is all of it, and has yet to come into its place.
    pub whole: Option<Whole>,
}

/// What was restored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Whole {
    /// As it was told.
    pub restored: Restored,
    /// Of what changes places with the old: they stay the same, whatever its names.
    pub inodes: Vec<u64>,
}

impl Unfinished {
    /// The one of that directory.
    pub fn of(to: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(note(to)).ok()?).ok()
    }

    /// Says that this restore has begun; one that goes on has said so before, and one that may overwrite needs no such leave.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn begin(step: &str, request: &Request, point: Option<&str>) -> Result<()> {
        let note = note(&request.to);
        let is_this = |begun: &Self| begun.is_of(step, request) && begun.point.as_deref() == point;
        if request.overwrite || Self::of(&request.to).as_ref().is_some_and(is_this) {
            return Ok(());
        }
        let this = Self {
            step: step.into(),
            begun: stamp(),
            at: request.at.clone(),
            point: point.map(str::to_owned),
            paths: request.paths.clone(),
            whole: None,
        };
        if let Some(parent) = note.parent() {
            fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
        }
        this.write(&note)
    }

    /// Says that all of it is there, once it is on the disk.
    ///
    /// # Errors
    /// The disk did not take it; the note is gone, or cannot be written.
    pub fn is_whole(to: &Path, whole: Whole) -> Result<()> {
        durable(to)?;
        let begun = Self::of(to).ok_or_else(|| Error::new(format!("read {}", note(to).display())))?;
        Self { whole: Some(whole), ..begun }.write(&note(to))
    }

    fn write(&self, note: &Path) -> Result<()> {
        write_private(note, &serde_json::to_vec(self).context(|| format!("write {}", note.display()))?)
    }

    /// All is there: the note is removed, once everything is on the disk.
    ///
    /// # Errors
    /// The disk did not take it, or the note cannot be removed.
    pub fn end(to: &Path) -> Result<()> {
        durable(to)?;
        let note = note(to);
        match fs::remove_file(&note) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", note.display()))
            }
            _ => Ok(()),
        }
    }

    /// It is the note of that restore.
    pub fn is_of(&self, step: &str, request: &Request) -> bool {
        let same_point = self.at == request.at
            || self.point.as_ref().is_some_and(|point| match &request.at {
                At::Id(id) => point.starts_with(id),
                _ => false,
            });
        self.step == step && self.paths == request.paths && same_point
    }

    /// What goes on, when it is what is asked for now; and what is all there already. Of a database nobody knows: it may
    /// have gone on since.
    pub fn continues(self, step: &str, request: &Request) -> Option<(Request, Option<Whole>)> {
        let is_of = self.is_of(step, request);
        let whole = self.whole.filter(|whole| self.point.is_some() && whole.restored.problems.is_empty());
        is_of.then(|| (Request { at: self.point.map_or(self.at, At::Id), ..request.clone() }, whole))
    }

    /// What a person who wants something else there must know.
    pub fn in_the_way(&self, to: &Path) -> Error {
        let hint = "the command that was begun goes on; for another one choose a new directory";
        Error::usage(format!("restore into {}: an unfinished restore of {} is there", to.display(), self.step))
            .hint(hint)
    }
}

/// What a restore wrote: the target, and a database's tablespaces beside it.
fn durable(to: &Path) -> Result<()> {
    make_durable(to)?;
    make_durable(&super::beside(to, ".tablespaces"))
}

fn note(to: &Path) -> PathBuf {
    super::beside(to, ".unfinished")
}
