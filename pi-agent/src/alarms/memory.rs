//! What is remembered between two looks: `STATE/incidents.json`. Not in the database, whose damage is an alarm too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use log::warn;
use serde::{Deserialize, Serialize};

use super::clock::Moment;
use super::incidents::Incident;
use crate::config::StateDirectory;
use crate::error::{Context, Result};
use crate::notify::Notice;
use crate::secrets::{read_private, write_private};

/// Milliseconds, when nothing happens.
const WRITTEN_EVERY: u64 = 3_600_000;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Version of this record: 1.
    pub schema: u32,
    /// The last look.
    pub seen: Option<Moment>,
    /// The last look at which the clock was trusted.
    pub anchor: Option<Moment>,
    /// What is wrong.
    pub incidents: Vec<Incident>,
    /// What somebody else told and is over, by unit: when it was told.
    pub settled: BTreeMap<String, Timestamp>,
    /// Messages that are not known to be in the outbox.
    pub untold: Vec<Notice>,
}

fn file(directory: &StateDirectory) -> PathBuf {
    directory.path().join("incidents.json")
}

impl Memory {
    /// What was remembered; nothing at first. With `repair` a damaged file is set aside, else it only counts as empty.
    ///
    /// # Errors
    /// It cannot be read, belongs to somebody else, or cannot be set aside.
    pub(super) fn read(directory: &StateDirectory, repair: bool) -> Result<Self> {
        let file = file(directory);
        let Some(text) = read_private(&file)? else { return Ok(Self::default()) };
        match serde_json::from_str(text.reveal()) {
            Ok(memory) => Ok(memory),
            Err(error) if repair => {
                let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
                let aside = PathBuf::from(format!("{}.damaged-{stamp}", file.display()));
                std::fs::rename(&file, &aside).context(|| format!("set {} aside", file.display()))?;
                warn!("the alarms' memory was damaged ({error}) and is set aside as {}", aside.display());
                Ok(Self::default())
            }
            Err(_) => Ok(Self::default()),
        }
    }

    /// Whether it has to be written down. How long nothing was said can be worked out from the last look that was, and an
    /// SD card is not written every ten minutes for that.
    pub(super) fn is_news_to(&self, before: &Self) -> bool {
        let lasting = |memory: &Self| {
            let quiet = |incident: &Incident| Incident { quiet: 0, ..incident.clone() };
            let incidents = memory.incidents.iter().map(quiet).collect();
            Self { schema: 1, seen: None, anchor: None, incidents, ..memory.clone() }
        };
        let old = |before: &Option<Moment>, now: &Option<Moment>| match (before, now) {
            (Some(before), Some(now)) => {
                before.boot != now.boot || now.since_boot.saturating_sub(before.since_boot) >= WRITTEN_EVERY
            }
            _ => before != now,
        };
        old(&before.seen, &self.seen) || old(&before.anchor, &self.anchor) || lasting(before) != lasting(self)
    }

    /// Keeps it.
    pub(super) fn write(&self, directory: &StateDirectory) -> Result<()> {
        let text =
            serde_json::to_vec(&Self { schema: 1, ..self.clone() }).context(|| "write down the alarms".into())?;
        write_private(&file(directory), &text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_only_grows_older_is_written_once_an_hour() {
        let at = |minutes: u64| {
            Some(Moment {
                boot: "a".into(),
                since_boot: minutes * 60_000,
                wall: Timestamp::UNIX_EPOCH + std::time::Duration::from_mins(minutes),
            })
        };
        let memory = |minutes| Memory { schema: 1, seen: at(minutes), anchor: at(minutes), ..Memory::default() };
        assert!(memory(10).is_news_to(&Memory::default()));
        assert!(!memory(20).is_news_to(&memory(10)) && !memory(69).is_news_to(&memory(10)));
        assert!(memory(70).is_news_to(&memory(10)));
        let told = Memory { settled: BTreeMap::from([("a.service".into(), Timestamp::UNIX_EPOCH)]), ..memory(20) };
        assert!(told.is_news_to(&memory(10)));
        let doubted = Memory { anchor: at(10), ..memory(20) };
        assert!(!doubted.is_news_to(&memory(10)));
    }

    #[test]
    fn a_damaged_memory_is_set_aside_and_only_when_asked() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = StateDirectory(scratch.path().join("state"));
        assert_eq!(Memory::read(&directory, true).unwrap(), Memory::default());
        let anchor = Some(Moment::of(Path::new("/"), Timestamp::UNIX_EPOCH));
        let memory = Memory { schema: 1, anchor, ..Memory::default() };
        memory.write(&directory).unwrap();
        assert_eq!(Memory::read(&directory, true).unwrap(), memory);

        write_private(&file(&directory), b"{\"schema\": 1, \"incid").unwrap();
        assert_eq!(Memory::read(&directory, false).unwrap(), Memory::default());
        assert!(file(&directory).exists());
        assert_eq!(Memory::read(&directory, true).unwrap(), Memory::default());
        let names: Vec<_> =
            directory.path().read_dir().unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.len() == 1 && names[0].starts_with("incidents.json.damaged-"), "{names:?}");
    }
}
