//! What the alarms judge: plain values, gathered in one place. Whatever touches the system takes a root.
//!
//! It is gathered every ten minutes on the smallest of machines: a few files, one database, no program as a rule.

mod machine;
mod steps;

use std::path::Path;

use jiff::Timestamp;

use super::clock::{Moment, Trust, judge};
use super::memory::Memory;
use crate::config::{Settings, StateDirectory};
use crate::health::{Reading, Sensors, Volume, volumes};
use crate::kit::record::Standing;
use crate::monitor::Problem;
use crate::state::{RunEnd, State};
use crate::systemd::time_service;

pub use machine::Unit;
pub use steps::StepEvidence;

/// Everything an alarm may look at.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// When it was gathered.
    pub now: Timestamp,
    /// Whether that is right.
    pub clock: Trust,
    /// In run order.
    pub steps: Vec<StepEvidence>,
    /// Why the history cannot be read; what rests on it is then unknown.
    pub unreadable: Option<Problem>,
    /// How many of the newest backups were cut off in a row, as far as that is counted.
    pub cut_off: u32,
    /// The end of the last run that had one.
    pub run: Option<RunEnd>,
    /// Until when the storage server's certificate is good, as the last run saw it.
    pub certificate_end: Option<Timestamp>,
    /// Why the last run did not trust the clock, which the storage's server or the restore points contradict; and when.
    pub contradicted: Option<(String, Timestamp)>,
    /// Voltage and temperature.
    pub reading: Reading,
    /// Each file system that the agent writes to.
    pub volumes: Vec<Volume>,
    /// What is wrong with the secrets.
    pub secrets: Option<Problem>,
    /// How the last recovery kit stands to the keys in use; `None`: nobody can tell.
    pub kit: Option<Standing>,
    /// Units whose failure was told.
    pub units: Vec<Unit>,
}

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `/` but in tests.
    pub root: &'a Path,
    /// What is watched.
    pub settings: &'a Settings,
    /// Where history is.
    pub directory: &'a StateDirectory,
}

impl Evidence {
    /// Looks. `state` and `moving` are those of a run that asks about itself.
    pub fn gather(
        place: Place<'_>,
        state: Option<&State>,
        moving: Option<&str>,
        now: &Moment,
        memory: &Memory,
    ) -> Self {
        let history = steps::History::read(place, state, moving, now.wall);
        let newest = || state.map_or_else(|| steps::newest_moment(place), |state| state.newest_moment().ok().flatten());
        Self {
            now: now.wall,
            clock: judge(now, memory.anchor.as_ref(), time_service, newest),
            steps: history.steps,
            unreadable: history.unreadable,
            cut_off: history.cut_off,
            run: history.run,
            certificate_end: history.certificate_end,
            contradicted: history.contradicted,
            reading: Sensors::below(place.root).look(),
            volumes: volumes(place.root, place.settings, place.directory),
            secrets: machine::secrets(place.settings),
            kit: machine::kit(place),
            units: machine::units(place.root, memory),
        }
    }

    /// The step of that name.
    pub fn step(&self, name: &str) -> Option<&StepEvidence> {
        self.steps.iter().find(|step| step.name == name)
    }
}
