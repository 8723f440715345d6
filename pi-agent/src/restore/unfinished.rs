//! `TO.unfinished`: what is being restored into `TO`, until all of it is there. With it the same command goes on where a
//! killed one stopped; without it, what lies in `TO` is somebody's. So is a file of that name that holds no note of ours.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::beside::stamp;
use super::{At, Request, Restored, beside, outside};
use crate::durable::make_durable;
use crate::error::{Context, Error, Result};
use crate::secrets::write_private;
use crate::shown;
use crate::theirs::{Held, make_private, read_ours};

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
    #[serde(with = "lossless")]
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

/// Bytes of a note: of a thousand paths, each as long as it may be.
const MOST: u64 = 8 << 20;

impl Unfinished {
    /// The one of that directory.
    pub fn of(to: &Path) -> Option<Self> {
        Self::found(to).map(|(_, this)| this)
    }

    /// Where it may lie: beside the directory; in it where nothing can be written beside it, as above the mount point of a disk.
    pub(super) fn notes(to: &Path) -> [PathBuf; 2] {
        [beside(to, ".unfinished"), to.join(".pi-agent.unfinished")]
    }

    fn found(to: &Path) -> Option<(PathBuf, Self)> {
        Self::notes(to).into_iter().find_map(|note| Self::read(&note).map(|this| (note, this)))
    }

    /// `None`: nothing is there, or something that somebody else could have written.
    fn read(note: &Path) -> Option<Self> {
        let this: Self = serde_json::from_slice(&read_ours(note, MOST).ok()?).ok()?;
        // It becomes a part of names.
        let is_stamp = this.begun.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        is_stamp.then_some(this)
    }

    /// Says that this restore has begun; one that goes on has said so before. What another one has begun stays unfinished.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn begin(step: &str, request: &Request, point: Option<&str>) -> Result<()> {
        let is_this = |begun: &Self| begun.is_of(step, request) && begun.point.as_deref() == point;
        if Self::of(&request.to).is_some_and(|begun| request.overwrite || is_this(&begun)) {
            return Ok(());
        }
        let [note, inside] = Self::notes(&request.to);
        let is_taken = |note: &Path| fs::symlink_metadata(note).is_ok() && Self::read(note).is_none();
        if is_taken(&note) && (!request.overwrite || is_taken(&inside)) {
            return Err(Error::usage(format!(
                "restore into {}: its note would be {}, and that is somebody's file",
                shown(&request.to),
                shown(&note)
            ))
            .hint("move it away, or choose another directory"));
        }
        let this = Self {
            step: step.into(),
            begun: stamp(),
            at: request.at.clone(),
            point: point.map(str::to_owned),
            paths: request.paths.clone(),
            whole: None,
        };
        if is_taken(&note) && point.is_none() {
            // A database's directory holds nothing but its own.
            return Ok(());
        }
        if is_taken(&note) {
            make_private(&request.to).context(|| format!("make {}", shown(&request.to)))?;
            return this.write(&inside);
        }
        if let Some(parent) = note.parent() {
            fs::create_dir_all(parent).context(|| format!("make {}", shown(parent)))?;
        }
        this.write(&note).or_else(|refused| match request.to.is_dir() && point.is_some() {
            true => this.write(&inside).map_err(|_| refused),
            // A database's directory holds nothing but its own.
            false => Err(refused),
        })
    }

    /// Says that all of it is there, once it is on the disk.
    ///
    /// # Errors
    /// The disk did not take it; the note is gone, or cannot be written.
    pub fn is_whole(to: &Path, whole: Whole) -> Result<()> {
        durable(to)?;
        let missing = || Error::new(format!("the note of the restore into {} is gone", shown(to)));
        let (note, begun) = Self::found(to).ok_or_else(|| missing().hint("start the same command again"))?;
        Self { whole: Some(whole), ..begun }.write(&note)
    }

    /// Takes back what [`Self::is_whole`] said: some of it is to be restored once more.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn is_not_whole(to: &Path) -> Result<()> {
        let Some((note, begun)) = Self::found(to) else { return Ok(()) };
        Self { whole: None, ..begun }.write(&note)
    }

    fn write(&self, note: &Path) -> Result<()> {
        let doing = || format!("write {}", shown(note));
        write_private(&Held::of(note).context(doing)?.path(), &serde_json::to_vec(self).context(doing)?).context(doing)
    }

    /// All is there: the note is removed, once everything is on the disk.
    ///
    /// # Errors
    /// The disk did not take it, or the note cannot be removed.
    pub fn end(to: &Path) -> Result<()> {
        durable(to)?;
        while let Some((note, _)) = Self::found(to) {
            Held::of(&note)
                .and_then(|held| fs::remove_file(held.path()))
                .context(|| format!("remove {}", shown(&note)))?;
        }
        Ok(())
    }

    /// Takes back that one has begun which was refused before it wrote anything: with its note, what a person puts there would be
    /// taken for its own.
    pub fn never_was(to: &Path) {
        if super::is_empty(to).unwrap_or(false) {
            for note in Self::notes(to).iter().filter(|note| Self::read(note).is_some()) {
                let _ = Held::of(note).and_then(|held| fs::remove_file(held.path()));
            }
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
        Error::usage(format!("restore into {}: an unfinished restore of {} is there", shown(to), self.step)).hint(hint)
    }
}

/// What a restore wrote: the target, a database's tablespaces beside it, and what else it leads to.
fn durable(to: &Path) -> Result<()> {
    make_durable(to)?;
    outside::durable(to)?;
    make_durable(&beside(to, ".tablespaces"))
}

/// Paths in JSON: as text, and as bytes where they are none.
mod lossless {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| match path.to_str() {
            Some(text) => Written::Text(text.into()),
            None => Written::Bytes(path.as_os_str().as_bytes().into()),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<Written>::deserialize(deserializer)?.into_iter().map(|path| match path {
            Written::Text(text) => text.into(),
            Written::Bytes(bytes) => OsString::from_vec(bytes).into(),
        });
        Ok(paths.collect())
    }
}
