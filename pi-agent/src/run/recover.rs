//! History that is gone or damaged: set aside, and fetched back from the `agent` snapshot. A backup never waits for it in vain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};

use crate::config::{AGENT, Settings, Source, StateDirectory};
use crate::error::{Context, Error, Result};
use crate::monitor::{Monitor, Problem};
use crate::run::supervise::{Ended, OVERTIME, Signals, supervise};
use crate::run::{Watcher, make_private};
use crate::state::{Opened, State};
use crate::steps::{self, Job, Task};

/// Where the copy of the state database lies while the `agent` step saves it: in memory on most machines, since years of
/// history are too much to write to an SD card each night.
pub fn saved_state(settings: &Settings) -> PathBuf {
    settings.local.runtime.join("agent-state/state.db")
}

/// Fetching history is worth this long before the night's work starts without it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Opens the state database; brings a lost or damaged one back from storage when it can.
///
/// # Errors
/// Not even a database in memory can be made.
pub fn open_state(
    settings: &Settings,
    directory: &StateDirectory,
    signals: &mut Signals,
    watcher: &mut dyn Watcher,
    problems: &mut Vec<Problem>,
) -> Result<State> {
    let path = directory.database();
    let damaged = match State::open(&path) {
        Ok(Opened::Ready(state)) => return Ok(state),
        Ok(Opened::Fresh(_, aside)) => aside,
        Err(error) => {
            let problem = Problem::from(&error);
            warn!("{}: this run is not remembered", problem.message);
            problems.push(problem);
            return State::in_memory();
        }
    };
    let fetched = fetch(settings, directory, signals, watcher);
    if let Some(aside) = damaged {
        let found = if fetched.is_ok() { "history was brought back from storage" } else { "history starts anew" };
        let problem = Problem {
            message: format!("the state database was damaged and is set aside as {}; {found}", aside.display()),
            hint: Some("look at the disk: `dmesg`, and `smartctl` where it is no SD card".into()),
        };
        warn!("{}", problem.message);
        problems.push(problem);
    }
    match fetched {
        Ok(()) => info!("history was brought back from storage"),
        Err(reason) => info!("no earlier history in storage: {reason}"),
    }
    match State::open(&path) {
        Ok(Opened::Ready(state) | Opened::Fresh(state, _)) => Ok(state),
        Err(error) => {
            problems.push(Problem::from(&error));
            State::in_memory()
        }
    }
}

/// Replaces the fresh database by the saved one.
fn fetch(
    settings: &Settings,
    directory: &StateDirectory,
    signals: &mut Signals,
    watcher: &mut dyn Watcher,
) -> Result<(), String> {
    let fetched = directory.path().join(FETCHED);
    let job = job(settings, directory);
    let ended =
        supervise(&job, Some(PATIENCE + OVERTIME), PATIENCE, signals, watcher, None).map_err(|error| error.chain())?;
    let outcome = match ended {
        Ended::Answered(result) if result.outcome.is_usable() => {
            install(&fetched, &directory.database()).map_err(|error| error.chain())
        }
        Ended::Answered(result) => Err(result.error.map_or_else(|| "no answer".into(), |problem| problem.message)),
        Ended::Unanswered(error) | Ended::Overran(error) => Err(error.chain()),
        Ended::Stopped(signal) => Err(format!("stopped by {signal}")),
    };
    // Left over only when it could not be used.
    let _ = std::fs::remove_file(&fetched);
    outcome
}

/// Gets history back onto a machine that has none, in this process; `false`: it has some.
///
/// # Errors
/// There is none in storage, or it cannot be read.
pub fn bring_back(settings: &Settings, directory: &StateDirectory, monitor: &Monitor) -> Result<bool> {
    if directory.database().exists() {
        return Ok(false);
    }
    let result = steps::perform(&job(settings, directory), monitor);
    if let Some(problem) = result.error {
        let error = Error::new(problem.message);
        return Err(match problem.hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
    install(&directory.path().join(FETCHED), &directory.database()).map(|()| true)
}

const FETCHED: &str = "state.db.fetched";

/// What fetches the saved database.
fn job(settings: &Settings, directory: &StateDirectory) -> Job {
    let fetched = directory.path().join(FETCHED);
    let mut settings = settings.clone();
    let saved = saved_state(&settings);
    for step in &mut settings.steps {
        if let Source::Agent(own) = &mut step.source {
            own.paths.push(saved.clone());
        }
    }
    Job {
        run_id: "recover".into(),
        settings,
        state_directory: directory.clone(),
        step: AGENT.into(),
        task: Task::FetchState { to: fetched },
        deadline: None,
        place_verified: true, // Restores may look into another machine's place.
        by_record: false,
        place_known: false,
        facts: BTreeMap::new(),
        status: None,
    }
}

fn install(fetched: &Path, path: &Path) -> Result<()> {
    make_private(path.parent().expect("it lies in the state directory"))?;
    // Proves that it is one of ours, and takes it to this version's schema.
    let Opened::Ready(state) = State::open(fetched)? else {
        return Err(Error::new("the saved state database is damaged"));
    };
    state.settle_copy()?;
    drop(state);
    for suffix in ["-wal", "-shm"] {
        // Those of the fresh database must not be applied to the saved one.
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    std::fs::rename(fetched, path).context(|| format!("put {} in place", path.display()))
}
