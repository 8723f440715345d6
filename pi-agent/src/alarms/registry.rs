//! Every alarm by name, and what each may say. To add one: a function in `rules/`, a line here, a row in docs/monitoring.md.

use std::time::Duration;

use jiff::Timestamp;

use super::evidence::Evidence;
use super::rules::{backups, history, keys, machine, restores, wal};
use crate::config;
use crate::notify::Tone;

/// What a rule finds about one subject: a step, a volume, a unit; `None` is the whole host.
pub type Found = (Option<String>, Verdict);

/// One alarm.
#[derive(Debug)]
pub struct Rule {
    /// As the documentation and `status` call it.
    pub name: &'static str,
    /// It compares the clock with something: while the clock is not trusted, nothing is known.
    pub by_clock: bool,
    /// What is true once it is over: "the last backup is good".
    pub well: &'static str,
    /// Looks, and judges every subject there is. One that is no longer mentioned is no longer watched.
    pub look: fn(&Evidence, &config::Alarms) -> Vec<Found>,
}

/// What is to be said of one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Something is wrong.
    Bad(Bad),
    /// All is well. `as_of`: the age of the evidence; none: it was seen just now.
    Fine {
        /// When what this rests on happened.
        as_of: Option<Timestamp>,
    },
    /// Something was wrong, somebody else told it, and it is over.
    Over(Bad),
    /// Nobody can tell now: what was, stays.
    Unknown,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// How bad.
    pub tone: Tone,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
    /// In a few words: "the backup failed".
    pub title: String,
    /// The rest; may be empty.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
    /// When what this rests on happened; none: it was seen just now.
    pub as_of: Option<Timestamp>,
    /// When it is told.
    pub telling: Telling,
}

/// When a person is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// At once.
    Now,
    /// Once it has lasted so long; `status` shows it from the start.
    After(Duration),
    /// The failure script has told it.
    Elsewhere,
}

impl Bad {
    /// Something seen just now, to be told at once.
    pub fn new(tone: Tone, title: impl Into<String>) -> Self {
        let (title, text) = (title.into(), String::new());
        Self { tone, since: None, title, text, hint: None, as_of: None, telling: Telling::Now }
    }

    /// Adds the rest of it.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Since when, and when what this rests on happened.
    #[must_use]
    pub fn dated(self, since: Option<Timestamp>, as_of: Option<Timestamp>) -> Self {
        Self { since, as_of, ..self }
    }
}

impl From<Bad> for Verdict {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

const fn rule(
    name: &'static str,
    by_clock: bool,
    well: &'static str,
    look: fn(&Evidence, &config::Alarms) -> Vec<Found>,
) -> Rule {
    Rule { name, by_clock, well, look }
}

/// All of them, in the order in which they are shown.
pub const RULES: &[Rule] = &[
    rule("backup", false, "the last backup is good", backups::outcome),
    rule("backup-age", true, "there is a recent backup again", backups::age),
    rule("backup-size", false, "the size is as usual, or the new one has held for three backups", backups::size),
    rule("success-rate", true, "enough of the last seven days' backups are good", backups::success_rate),
    rule("cut-off", false, "the last backup was not cut off", backups::cut_off),
    rule("check", false, "the last check of the repository was good", backups::check),
    rule("check-age", true, "the repository was checked", backups::check_age),
    rule("restore-test", false, "what is restored is what was backed up", restores::outcome),
    rule("restore-test-age", true, "a restore was tested", restores::age),
    rule("wal-age", true, "WAL reaches the repository in time", wal::age),
    rule("wal-hole", true, "a new backup is behind the hole in the WAL", wal::hole),
    rule("wal-room", true, "WAL has room for a day", wal::room),
    rule("disk-space", false, "there is room again", machine::disk_space),
    rule("inodes", false, "there is room for files again", machine::inodes),
    rule("power", false, "the voltage is as it should be", machine::power),
    rule("temperature", false, "the processor is cool again", machine::temperature),
    rule("clock", false, "the clock is right", machine::clock),
    rule("unit", false, "the unit does its work again", machine::unit),
    rule("secrets", false, "the secrets can be read, and by nobody else", keys::secrets),
    rule("certificate", true, "the certificate is good for long enough", keys::certificate),
    rule("recovery-kit", false, "there is a kit of the keys in use", keys::recovery_kit),
    rule("history", false, "the history can be read", history::readable),
    rule("run", false, "the last run had no problems outside its steps", history::run),
];
