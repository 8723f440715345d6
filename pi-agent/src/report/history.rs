//! What charts, calendars and timelines are drawn from: the last months' backups, and which points are kept.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::{Settings, Source};
use crate::error::Result;
use crate::retention::{self, Family, Kept};
use crate::state::{Night, State};
use crate::steps::points::{POINTS, understood};

/// Charts show so much.
const SHOWN: SignedDuration = SignedDuration::from_hours(24 * 90);

/// The past of the whole host.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Every step's backups, oldest first.
    pub nights: Vec<Night>,
    /// By step: what its repository held after its last backup, oldest first. A step that never told is not there.
    pub points: BTreeMap<String, Vec<Kept>>,
}

impl History {
    /// Reads it; without a database it is empty.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn gather(settings: &Settings, state: Option<&State>, now: Timestamp) -> Result<Self> {
        let Some(state) = state else { return Ok(Self::default()) };
        let mut points = BTreeMap::new();
        for step in &settings.steps {
            if let Some(fact) = state.facts(&step.name)?.get(POINTS) {
                let family = match step.source {
                    Source::Postgres(_) => Family::Backups,
                    Source::Directory(_) | Source::Agent(_) => Family::Snapshots,
                };
                let there = understood(fact, family);
                let kept = retention::explained(&there, &step.keep, family, now, &TimeZone::system());
                points.insert(step.name.clone(), kept);
            }
        }
        let since = now.checked_sub(SHOWN).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Self { nights: state.nights(since)?, points })
    }
}
