//! What the state database knows of each step, and how its WAL stands.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Place;
use crate::alarms::clock::MOVED;
use crate::boot::ENOUGH;
use crate::config::{AGENT, Settings, Source, Step};
use crate::error::Result;
use crate::lock;
use crate::monitor::Problem;
use crate::state::{Backup, Damaged, PastTest, RunEnd, State};
use crate::steps::directory::CERTIFICATE;
use crate::steps::{Outcome, PLACE};
use crate::wal::WalState;

/// Thirty good backups and some bad ones between: what the size of the next is held against.
const RECENT: u32 = 60;

/// Among so many restore tests there is a good one, or none for long.
const TESTS: u32 = 12;

/// What is known of one step.
#[derive(Clone, Debug, Default)]
pub struct StepEvidence {
    /// Its name.
    pub name: String,
    /// It is the implicit one.
    pub own: bool,
    /// It has WAL.
    pub postgres: bool,
    /// Its newest backups, newest first.
    pub backups: Vec<Backup>,
    /// It is at work just now.
    pub moving: bool,
    /// End of the last usable backup there is.
    pub last_good: Option<Timestamp>,
    /// Start of the first usable backup.
    pub first_good: Option<Timestamp>,
    /// The last good check of its repository.
    pub last_check: Option<Timestamp>,
    /// The last check of all, if it found damage.
    pub damaged: Option<Damaged>,
    /// Its last restore tests, newest first.
    pub tests: Vec<PastTest>,
    /// Time between two checks; `None`: it is not checked by itself.
    pub check_every: Option<Duration>,
    /// How its WAL stands; `None`: it has none, or nobody can tell.
    pub wal: Option<WalState>,
}

/// Everything from the database.
pub(super) struct History {
    pub steps: Vec<StepEvidence>,
    pub unreadable: Option<Problem>,
    pub cut_off: u32,
    pub run: Option<RunEnd>,
    pub certificate_end: Option<Timestamp>,
    pub contradicted: Option<(String, Timestamp)>,
}

impl History {
    pub(super) fn read(place: Place<'_>, state: Option<&State>, moving: Option<&str>, now: Timestamp) -> Self {
        match state {
            Some(state) => Self::of(place.settings, Some(state), moving, now),
            None => Self::from_file(place, now).or_else(|_| {
                // A run that began or ended its work on the file just now may have been in the way.
                std::thread::sleep(Duration::from_secs(1));
                Self::from_file(place, now)
            }),
        }
        .unwrap_or_else(|error| Self {
            steps: place
                .settings
                .steps
                .iter()
                .map(|step| without_history(place.settings, step, &BTreeMap::new()))
                .collect(),
            unreadable: Some((&error).into()),
            cut_off: 0,
            run: None,
            certificate_end: None,
            contradicted: None,
        })
    }

    fn from_file(place: Place<'_>, now: Timestamp) -> Result<Self> {
        let state = State::open_read_only(&place.directory.database())?;
        // A step without an end is at work only while a run is.
        let moving = match &state {
            Some(state) if lock::is_held(&place.directory.run_lock()) => state.open_step()?,
            _ => None,
        };
        Self::of(place.settings, state.as_ref(), moving.as_deref(), now)
    }

    fn of(settings: &Settings, state: Option<&State>, moving: Option<&str>, now: Timestamp) -> Result<Self> {
        let mut steps = Vec::new();
        for step in &settings.steps {
            let facts = state.map_or(Ok(BTreeMap::new()), |state| state.facts(&step.name))?;
            let mut evidence = without_history(settings, step, &facts);
            if let Some(state) = state {
                evidence.remember(state, now)?;
            }
            evidence.moving = moving == Some(&step.name);
            steps.push(evidence);
        }
        let cut_off = state.map_or(Ok(0), |state| state.interrupted_in_a_row(ENOUGH))?;
        let run = state.map_or(Ok(None), State::last_run_end)?;
        let facts = state.map_or(Ok(BTreeMap::new()), |state| state.facts(AGENT))?;
        // Of another storage than last night's nothing is known yet.
        let same = facts.get(PLACE) == Some(&settings.storage.location.to_string());
        let certificate_end = facts.get(CERTIFICATE).filter(|_| same).and_then(|end| end.parse().ok());
        let contradicted = state.map_or(Ok(None), State::clock_contradicted)?;
        Ok(Self { steps, unreadable: None, cut_off, run, certificate_end, contradicted })
    }
}

/// The newest moment on record; nothing when the database cannot be read, which is told elsewhere.
pub(super) fn newest_moment(place: Place<'_>) -> Option<Timestamp> {
    State::open_read_only(&place.directory.database()).ok()??.newest_moment().ok()?
}

/// What can be told without the database, but for the facts of the last usable backup.
fn without_history(settings: &Settings, step: &Step, facts: &BTreeMap<String, String>) -> StepEvidence {
    let check_every = match &step.source {
        Source::Directory(directory) | Source::Agent(directory) => Some(directory.check_every),
        Source::Postgres(_) => None,
    };
    let own = matches!(step.source, Source::Agent(_));
    let wal = step.postgres().and_then(|postgres| WalState::look(settings, postgres, facts));
    let postgres = step.postgres().is_some();
    StepEvidence { name: step.name.clone(), own, postgres, check_every, wal, ..StepEvidence::default() }
}

impl StepEvidence {
    fn remember(&mut self, state: &State, now: Timestamp) -> Result<()> {
        let history = state.history(&self.name)?;
        (self.first_good, self.last_check) = (history.first_success, history.last_check);
        self.damaged = state.damaged(&self.name)?;
        self.tests = state.restore_tests(&self.name, TESTS)?;
        self.backups = state.newest_backups(&self.name, RECENT)?;
        self.last_good = last_good(&self.backups, now);
        if self.last_good.is_none() {
            let last = state.last_success(&self.name)?.and_then(|record| record.finished_at);
            self.last_good = last.filter(|finished| is_past(*finished, now));
        }
        Ok(())
    }

    /// Its usable backups, newest first.
    pub fn good(&self) -> impl Iterator<Item = &Backup> {
        self.backups.iter().filter(|backup| backup.outcome.is_some_and(Outcome::is_usable))
    }
}

/// The end of the newest usable backup, by its date: one dated in the future was made while the clock was wrong, nobody
/// knows when, and one dated too far back only counts for less than it is.
fn last_good(backups: &[Backup], now: Timestamp) -> Option<Timestamp> {
    let usable = backups.iter().filter(|backup| backup.outcome.is_some_and(Outcome::is_usable));
    usable.filter_map(|backup| backup.finished_at).filter(|finished| is_past(*finished, now)).max()
}

/// Not later than now, but for what a clock may be corrected by.
fn is_past(moment: Timestamp, now: Timestamp) -> bool {
    moment.duration_since(now) <= MOVED
}
