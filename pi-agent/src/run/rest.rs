//! Rest for a machine that is too hot, or whose power supply is too weak: work makes both worse, and a write during
//! under-voltage is how SD cards are ruined.

use std::time::{Duration, Instant};

use log::{info, warn};

use crate::error::{Error, Result};
use crate::health::{Watch, What};
use crate::monitor::Event;
use crate::plan::PlannedStep;
use crate::report::{StepReport, words};
use crate::run::Watcher;
use crate::run::supervise::Signals;

/// Between two looks while nothing is done.
const PAUSE: Duration = Duration::from_secs(2);

/// Waits until the machine is well, which it mostly is; the signal that ended the waiting, if one did.
///
/// # Errors
/// It is not well within `at_most`.
pub fn rest(
    watch: &mut Watch<'_>,
    at_most: Duration,
    signals: &mut Signals,
    watcher: &mut dyn Watcher,
) -> Result<Option<&'static str>> {
    let started = Instant::now();
    let mut told = false;
    let mut last = String::new();
    let signal = loop {
        let Some(why) = watch.look() else { break None };
        why.clone_into(&mut last);
        if !told {
            warn!("{why}: waiting until it is well again, for {} at most", words::duration(at_most));
            told = true;
        }
        if started.elapsed() >= at_most {
            held(watch, started);
            return Err(too_bad(&last, started.elapsed()));
        }
        watcher.waiting(&format!("the machine: {last}"));
        if let Some(signal) = pause(signals, watcher) {
            break Some(signal);
        }
    };
    if told {
        held(watch, started);
    }
    Ok(signal)
}

fn held(watch: &mut Watch<'_>, started: Instant) {
    watch.note(What::Held { seconds: started.elapsed().as_secs() });
}

/// What ends a step that waited in vain.
fn too_bad(why: &str, waited: Duration) -> Error {
    Error::new(format!("{why}, and it did not get better within {}", words::duration(waited))).hint(
        "too little voltage: use the official power supply and a short cable, and give USB disks a supply of their own; \
         heat: a heat sink or a fan, and room for air. `[alarms] temperature` and `rest-at-most` set the limits",
    )
}

fn pause(signals: &mut Signals, watcher: &mut dyn Watcher) -> Option<&'static str> {
    const TICK: Duration = Duration::from_millis(500);
    let started = Instant::now();
    while started.elapsed() < PAUSE {
        watcher.tick();
        if let Some(signal) = signals.pause(TICK) {
            return Some(signal);
        }
    }
    None
}

/// Whether a step that works may go on.
pub enum Rest {
    /// It may.
    None,
    /// It should stand still, because of this.
    Needed(String),
    /// It stood still long enough: it fails.
    InVain(Error),
}

/// Passes everything on, and looks at the machine whenever the supervisor's loop turns.
pub struct Watched<'a, 's> {
    watcher: &'a mut dyn Watcher,
    watch: &'a mut Watch<'s>,
    at_most: Duration,
    since: Option<Instant>,
}

impl<'a, 's> Watched<'a, 's> {
    /// `at_most`: how long a step may be held back at a time.
    pub fn new(watcher: &'a mut dyn Watcher, watch: &'a mut Watch<'s>, at_most: Duration) -> Self {
        Self { watcher, watch, at_most, since: None }
    }

    /// The step has ended.
    pub fn end(&mut self) {
        if let Some(since) = self.since.take() {
            held(self.watch, since);
        }
    }
}

impl Watcher for Watched<'_, '_> {
    fn waiting(&mut self, what: &str) {
        self.watcher.waiting(what);
    }

    fn tick(&mut self) {
        self.watch.glance();
        self.watcher.tick();
    }

    fn rest(&mut self) -> Rest {
        let Some(why) = self.watch.strain() else {
            if self.since.is_some() {
                info!("the machine is well again: the step goes on");
            }
            self.end();
            return Rest::None;
        };
        if self.since.is_none() {
            warn!("{why}: the step is held back until it is well again, for {} at most", words::duration(self.at_most));
        }
        let elapsed = self.since.get_or_insert_with(Instant::now).elapsed();
        if elapsed < self.at_most { Rest::Needed(why.to_owned()) } else { Rest::InVain(too_bad(why, elapsed)) }
    }

    fn started(&mut self, step: &PlannedStep) {
        self.watcher.started(step);
    }

    fn event(&mut self, event: &Event) {
        self.watcher.event(event);
    }

    fn line(&mut self, line: &str) {
        self.watcher.line(line);
    }

    fn ended(&mut self, step: &StepReport) {
        self.watcher.ended(step);
    }
}
