//! What a recovery has done already: `STATE/recovery.json`. It is written after each part, so that whatever ends a recovery,
//! the next one goes on from there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::StateDirectory;
use crate::error::{Context, Error, Result};
use crate::restore::Restored;
use crate::secrets::{read_private, write_private};

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Version of this record: 1.
    schema: u32,
    /// Which recovery: that of a kit with these keys.
    keys: String,
    /// To which moment, as it was asked for.
    at: String,
    /// What is back in its place, by what that is.
    parts: BTreeMap<String, Part>,
}

/// One part that is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The point used.
    pub restore_point: String,
    /// Its time.
    pub time: Timestamp,
    /// Bytes, when known.
    pub bytes: Option<u64>,
    /// Its place.
    pub to: PathBuf,
    /// Its place is not its own, which something of the system's has.
    pub elsewhere: bool,
    /// What was there before, moved aside.
    pub aside: Option<PathBuf>,
    /// What its point holds and was not brought back, since what is there belongs there.
    #[serde(default)]
    pub stays: Vec<PathBuf>,
    /// What is left for a person to do.
    pub left: Vec<String>,
}

impl Part {
    /// In its place, which is `to`.
    pub fn new(restored: &Restored, to: &Path, aside: Option<PathBuf>) -> Self {
        Self {
            restore_point: restored.restore_point.clone(),
            time: restored.time,
            bytes: restored.bytes,
            to: to.to_owned(),
            elsewhere: false,
            aside,
            stays: Vec::new(),
            left: restored.passed_over.iter().cloned().collect(),
        }
    }
}

/// How the newest state is asked for.
pub const LATEST: &str = "latest";

impl Note {
    /// Something is back as it was then.
    fn is_of_a_moment(&self) -> bool {
        self.parts.values().any(|part| fs::symlink_metadata(&part.to).is_ok())
    }

    /// It would replace a state that somebody chose, or be refused by each place with the advice to overwrite it.
    fn refuses(&self, at: &str) -> Error {
        let flag = |at: &str| if at == LATEST { "without --at".into() } else { format!("with --at {at}") };
        Error::new(format!("this host was recovered {} before, and now {}", flag(&self.at), flag(at))).hint(format!(
            "nothing was changed; to go on with that recovery, repeat it {}; to begin this one instead: --overwrite, which keeps what is back now as \
             *.before-restore-TIME",
            flag(&self.at)
        ))
    }
}

/// The note of one recovery, in its file.
pub struct Notebook<'a> {
    directory: &'a StateDirectory,
    note: Note,
}

impl<'a> Notebook<'a> {
    /// That of this recovery; another one's is forgotten with the first word that is written.
    ///
    /// # Errors
    /// It cannot be read; or, unless this recovery may `overwrite`, another one has brought the host back as of another moment.
    pub fn open(directory: &'a StateDirectory, keys: &str, at: &str, overwrite: bool) -> Result<Self> {
        let known = read_private(&file(directory))?.and_then(|text| serde_json::from_str::<Note>(text.reveal()).ok());
        let note = match known.filter(|note| note.keys == keys) {
            Some(note) if note.at == at => Some(note),
            Some(other) if !overwrite && other.is_of_a_moment() => return Err(other.refuses(at)),
            _ => None,
        };
        let new = || Note { schema: 1, keys: keys.into(), at: at.into(), parts: BTreeMap::new() };
        Ok(Self { directory, note: note.unwrap_or_else(new) })
    }

    /// That part, when it is back.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.note.parts.get(name)
    }

    /// The part that came back to that place.
    pub fn at(&self, place: &Path) -> Option<&Part> {
        self.note.parts.values().find(|part| part.to == place && fs::symlink_metadata(place).is_ok())
    }

    /// Where parts are back.
    pub fn places(&self) -> impl Iterator<Item = &PathBuf> {
        self.note.parts.values().map(|part| &part.to)
    }

    /// It is back.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&mut self, name: &str, part: Part) -> Result<()> {
        self.note.parts.insert(name.into(), part);
        let text = serde_json::to_vec_pretty(&self.note).context(|| "write down what is recovered".into())?;
        write_private(&file(self.directory), &text)
    }
}

fn file(directory: &StateDirectory) -> PathBuf {
    directory.path().join("recovery.json")
}
