//! What is told, before it takes the form of any one service.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One message. Plain text throughout, as long as it is: each service shortens and escapes for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about, for all messages about the same thing: `foundry-backup-3f9c21aa`, `heartbeat-2026-11`.
    pub incident: String,
    /// Unique for the message: `foundry-backup-3f9c21aa.raised`. What is posted twice under one key is told once.
    pub key: String,
    /// What it is for.
    pub kind: Kind,
    /// How bad it is.
    pub tone: Tone,
    /// When what it tells of was noticed.
    pub at: Timestamp,
    /// `[host] name`.
    pub host: String,
    /// One line: "foundry: the backup failed".
    pub title: String,
    /// What is the matter.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Names and values: ("last good restore point", "2026-11-20 03:12, 1 d 2 h old").
    pub facts: Vec<(String, String)>,
}

/// What a notice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An incident begins.
    Raised,
    /// It got worse.
    Worse,
    /// It is still there, a day later.
    Reminder,
    /// It is over.
    Cleared,
    /// The monthly figures.
    Heartbeat,
    /// The daily figures.
    Summary,
    /// Sent by hand, to see that it arrives.
    Test,
    /// A run starts: for services that miss it when nothing comes.
    RunStarted,
    /// A run ended.
    RunEnded,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tone {
    /// All is well (again).
    Good,
    /// Needs a look in the next days.
    Warning,
    /// Needs a person today.
    Critical,
}
