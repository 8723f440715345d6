//! What was wrong with the machine while something was done: kept with its result, in words wherever that is told.

use std::path::PathBuf;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::report::words;

/// What may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// The power supply gives too little.
    UnderVoltage,
    /// The firmware holds the processor back.
    Slowed,
    /// The processor is too hot.
    Heat {
        /// Degrees at the hottest moment.
        celsius: u32,
    },
    /// There is hardly any memory left.
    LittleMemory {
        /// Bytes at the worst moment.
        left: u64,
    },
    /// A disk that we write to is mounted read-only.
    ReadOnly {
        /// Where it is mounted.
        volume: PathBuf,
    },
    /// A disk that we write to is full, or has no room for more files.
    Full {
        /// Where it is mounted.
        volume: PathBuf,
    },
    /// The clock is not trusted.
    Clock {
        /// Why.
        why: String,
    },
    /// The work was held back until the machine was well again.
    Held {
        /// How long, in all.
        seconds: u64,
    },
}

/// One of them, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// Seen first.
    pub from: Timestamp,
    /// Seen last.
    pub to: Timestamp,
}

/// What goes and comes within this time is one trouble.
const ONE: SignedDuration = SignedDuration::from_mins(2);
/// A night of blinking under-voltage is told as so many troubles; the last of them then lasts.
const MOST: usize = 24;

/// Notes that something was seen.
pub(super) fn note(record: &mut Vec<Trouble>, what: What, at: Timestamp) {
    let full = record.len() >= MOST;
    let same = record.iter_mut().rev().find(|known| known.what.is_like(&what));
    match same.filter(|known| full || at.duration_since(known.to) <= ONE) {
        Some(known) => {
            known.what = known.what.worse(what);
            known.to = known.to.max(at);
        }
        None if full => {}
        None => record.push(Trouble { what, from: at, to: at }),
    }
}

impl What {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ReadOnly { volume: one }, Self::ReadOnly { volume: two })
            | (Self::Full { volume: one }, Self::Full { volume: two }) => one == two,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// The worse of two that are alike.
    fn worse(&self, other: Self) -> Self {
        match (self, other) {
            (Self::Heat { celsius: one }, Self::Heat { celsius: two }) => Self::Heat { celsius: two.max(*one) },
            (Self::LittleMemory { left: one }, Self::LittleMemory { left: two }) => {
                Self::LittleMemory { left: two.min(*one) }
            }
            (Self::Held { seconds: one }, Self::Held { seconds: two }) => Self::Held { seconds: one + two },
            (_, other) => other,
        }
    }
}

impl Trouble {
    /// "under-voltage 03:12–03:14"
    pub fn in_words(&self) -> String {
        let clock = |moment: Timestamp| moment.to_zoned(TimeZone::system()).strftime("%H:%M").to_string();
        let (from, to) = (clock(self.from), clock(self.to));
        let when = if from == to { from } else { format!("{from}–{to}") };
        let what = match &self.what {
            What::UnderVoltage => "under-voltage".to_owned(),
            What::Slowed => "processor held back by the firmware".to_owned(),
            What::Heat { celsius } => format!("{celsius} °C"),
            What::LittleMemory { left } => format!("only {} of memory left", words::size(*left)),
            What::ReadOnly { volume } => format!("{} read-only", volume.display()),
            What::Full { volume } => format!("{} full", volume.display()),
            // It says when by itself.
            What::Clock { why } => return why.clone(),
            What::Held { seconds } => {
                format!("held back for {}", words::duration(std::time::Duration::from_secs(*seconds)))
            }
        };
        format!("{what} {when}")
    }
}

/// All of them on one line; nothing, when nothing was wrong.
pub fn in_words(record: &[Trouble]) -> Option<String> {
    let told: Vec<String> = record.iter().map(Trouble::in_words).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Of a day on the machine's own clock, whatever zone that has.
    fn at(time: &str) -> Timestamp {
        let civil: jiff::civil::DateTime = format!("2026-11-21T{time}").parse().unwrap();
        civil.to_zoned(TimeZone::system()).unwrap().timestamp()
    }

    #[test]
    fn what_was_wrong_is_told_with_its_worst_moment() {
        let mut record = Vec::new();
        note(&mut record, What::UnderVoltage, at("03:12:10"));
        note(&mut record, What::Heat { celsius: 81 }, at("03:12:20"));
        note(&mut record, What::UnderVoltage, at("03:14:00"));
        note(&mut record, What::Heat { celsius: 83 }, at("03:12:30"));
        note(&mut record, What::Heat { celsius: 82 }, at("03:12:40"));
        assert_eq!(in_words(&record).unwrap(), "under-voltage 03:12–03:14; 83 °C 03:12");
        note(&mut record, What::UnderVoltage, at("03:20:00"));
        assert_eq!(in_words(&record).unwrap(), "under-voltage 03:12–03:14; 83 °C 03:12; under-voltage 03:20");
        assert_eq!(in_words(&[]), None);
    }

    #[test]
    fn volumes_are_told_apart_and_memory_is_told_at_its_least() {
        let mut record = Vec::new();
        let full = |volume: &str| What::Full { volume: volume.into() };
        for what in [full("/"), full("/mnt/usb"), full("/"), What::ReadOnly { volume: "/".into() }] {
            note(&mut record, what, at("04:00:00"));
        }
        for left in [5 << 20, 3 << 20, 4 << 20] {
            note(&mut record, What::LittleMemory { left }, at("04:00:00"));
        }
        assert_eq!(
            in_words(&record).unwrap(),
            "/ full 04:00; /mnt/usb full 04:00; / read-only 04:00; only 3.0 MiB of memory left 04:00"
        );
    }

    #[test]
    fn a_night_of_blinking_stays_short() {
        let mut record = Vec::new();
        for minute in 0..300 {
            note(&mut record, What::UnderVoltage, at("00:00:00") + SignedDuration::from_mins(3 * minute));
        }
        assert_eq!(record.len(), MOST);
        assert_eq!(record.last().unwrap().to, at("00:00:00") + SignedDuration::from_mins(3 * 299));
    }

    #[test]
    fn a_record_outlives_the_database() {
        let one = Trouble { what: What::Heat { celsius: 83 }, from: at("03:00:00"), to: at("03:10:00") };
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.starts_with("{\"what\":\"heat\",\"celsius\":83,\"from\":"), "{text}");
        assert_eq!(serde_json::from_str::<Trouble>(&text).unwrap(), one);
    }
}
