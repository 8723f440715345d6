//! What is remembered of kits: `STATE/recovery-kit.json`. Not in the database, which may be lost and fetched back older.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Marks;
use crate::config::StateDirectory;
use crate::error::{Context, Error, Result};
use crate::secrets::{read_private, write_private};

/// The last kit that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this record: 1.
    pub schema: u32,
    /// Which keys it holds.
    pub keys: String,
    /// Which access to the storage it holds.
    pub access: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// When a person said that it is saved somewhere else.
    pub saved_at: Option<Timestamp>,
}

/// How a record stands to what is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No kit was ever made.
    Missing,
    /// One was made, of other keys.
    OtherKeys,
    /// One was made, with another place or other credentials; its keys are right.
    OtherAccess,
    /// One was made, and nobody said that it is saved.
    NotSaved,
    /// It is saved somewhere else.
    Saved,
}

/// The standing of what was recorded.
pub fn standing(record: Option<&Record>, marks: &Marks) -> Standing {
    match record {
        None => Standing::Missing,
        Some(record) if record.keys != marks.keys => Standing::OtherKeys,
        Some(record) if record.access != marks.access => Standing::OtherAccess,
        Some(Record { saved_at: None, .. }) => Standing::NotSaved,
        Some(_) => Standing::Saved,
    }
}

fn file(directory: &StateDirectory) -> PathBuf {
    directory.path().join("recovery-kit.json")
}

/// The record, if there is one. A damaged one counts as none: the remedy is the same.
///
/// # Errors
/// It cannot be read, or belongs to somebody else.
pub fn read(directory: &StateDirectory) -> Result<Option<Record>> {
    Ok(read_private(&file(directory))?.and_then(|text| serde_json::from_str(text.reveal()).ok()))
}

impl Record {
    /// A kit of these was made; one that is saved with the same keys and access stays so.
    pub(super) fn made(marks: &Marks, made_at: Timestamp, before: Option<&Self>) -> Self {
        let same = before.filter(|before| standing(Some(before), marks) == Standing::Saved);
        let saved_at = same.and_then(|before| before.saved_at);
        Self { schema: 1, keys: marks.keys.clone(), access: marks.access.clone(), made_at, saved_at }
    }

    /// Keeps it.
    pub(super) fn write(&self, directory: &StateDirectory) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context(|| "write down the recovery kit".into())?;
        write_private(&file(directory), &text)
    }
}

/// This machine was recovered with a kit of these: it is saved, or it could not have been had.
///
/// # Errors
/// The state directory cannot be written.
pub fn recovered(directory: &StateDirectory, marks: &Marks, made_at: Option<Timestamp>) -> Result<()> {
    let now = Timestamp::now();
    Record { saved_at: Some(now), ..Record::made(marks, made_at.unwrap_or(now), None) }.write(directory)
}

/// A person says that the kit of these keys lies somewhere else.
///
/// # Errors
/// None was made of these keys and this access.
pub fn saved(directory: &StateDirectory, marks: &Marks) -> Result<()> {
    let record = read(directory)?;
    match (standing(record.as_ref(), marks), record) {
        (Standing::Saved, _) => Ok(()),
        (Standing::NotSaved, Some(record)) => Record { saved_at: Some(Timestamp::now()), ..record }.write(directory),
        _ => Err(Error::usage("no recovery kit was made of the keys that are in use, so none can be saved")
            .hint("pi-agent recovery-kit --to FILE, save it somewhere else, then pi-agent setup --kit-saved")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kit_is_saved_only_as_long_as_it_holds_what_is_used() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = StateDirectory(scratch.path().join("state"));
        let marks = |keys: &str, access: &str| Marks { keys: keys.into(), access: access.into() };
        let now = |marks: &Marks| standing(read(&directory).unwrap().as_ref(), marks);
        let one = marks("k1", "a1");
        assert_eq!(now(&one), Standing::Missing);
        assert!(saved(&directory, &one).unwrap_err().to_string().contains("no recovery kit was made"));

        let make = |marks: &Marks| {
            Record::made(marks, Timestamp::now(), read(&directory).unwrap().as_ref()).write(&directory).unwrap();
        };
        make(&one);
        assert_eq!(now(&one), Standing::NotSaved);
        saved(&directory, &one).unwrap();
        make(&one);
        assert_eq!(now(&one), Standing::Saved, "another copy of a saved kit");
        assert_eq!(now(&marks("k2", "a1")), Standing::OtherKeys);
        assert_eq!(now(&marks("k1", "a2")), Standing::OtherAccess);
        make(&marks("k1", "a2"));
        assert_eq!(now(&marks("k1", "a2")), Standing::NotSaved, "a new kit has to be saved anew");

        std::fs::write(directory.path().join("recovery-kit.json"), "{").unwrap();
        assert_eq!(now(&one), Standing::Missing);
    }
}
