//! What needs a person: each alarm is one pure function of the evidence, and an incident while it lasts.

use jiff::Timestamp;

use crate::notify::Tone;

/// Something that needs attention, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Which of them: `backup-age`.
    pub name: &'static str,
    /// Which step (or volume, or unit); none: the whole host.
    pub step: Option<String>,
    /// How bad.
    pub tone: Tone,
    /// Since when.
    pub since: Timestamp,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}
