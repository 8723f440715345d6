//! The recovery kit: made, of the keys that are in use, and saved somewhere else.

use super::Finding;
use crate::config::{Settings, StateDirectory};
use crate::kit::Marks;
use crate::kit::record::{self, Standing, standing};

const SUBJECT: &str = "recovery kit";

/// Nothing while the secrets cannot be read: their own findings come first.
pub(super) fn examine(settings: &Settings, directory: &StateDirectory) -> Option<Finding> {
    let marks = Marks::of(settings).ok()?;
    let record = match record::read(directory) {
        Ok(record) => record,
        Err(error) => return Some(Finding::error(SUBJECT, &error, "look at the file")),
    };
    let make = "pi-agent recovery-kit --to FILE, save it away from this machine, then pi-agent setup --kit-saved";
    Some(match (standing(record.as_ref(), &marks), record) {
        (Standing::Saved, Some(record)) => {
            Finding::ok(SUBJECT, format!("saved somewhere else; made {:.0}, keys {}", record.made_at, record.keys))
        }
        (Standing::NotSaved, Some(record)) => Finding::note(
            SUBJECT,
            format!("made {:.0}, and not known to be saved away from this machine", record.made_at),
            "save it somewhere else, then pi-agent setup --kit-saved",
        ),
        (Standing::OtherKeys, Some(record)) => {
            let message = format!("it holds other keys ({}) than are in use ({})", record.keys, marks.keys);
            Finding::warning(SUBJECT, message, make)
        }
        (Standing::OtherAccess, _) => {
            Finding::note(SUBJECT, "it was made for another place or other credentials of the storage", make)
        }
        _ => Finding::note(SUBJECT, "none was made: the only keys lie on the disk that the backups protect", make),
    })
}
