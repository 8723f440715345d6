//! Before a run by timer: a clock that somebody set and a way to the storage, waited for, but never for ever.
//!
//! A Pi has no clock that runs while it is off, and its Wi-Fi may come minutes after the start. systemd's own targets
//! for both can hold back everything for ever, so the waiting is done here, with a limit; then the run goes ahead.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use log::warn;

use crate::config::Settings;
use crate::run::Watcher;
use crate::run::supervise::Signals;
use crate::storage;
use crate::systemd::{TimeService, time_service};

/// How long a run waits.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(5);

/// Waits; the signal that ended the waiting, if one did.
pub fn wait(settings: &Settings, signals: &mut Signals, watcher: &mut dyn Watcher) -> Option<&'static str> {
    let started = Instant::now();
    loop {
        let look = Look::start(settings);
        let missing = loop {
            watcher.tick();
            if let Some(signal) = signals.pause(Duration::from_millis(200)) {
                return Some(signal);
            }
            if let Some(missing) = look.result() {
                break missing;
            }
        };
        // Nothing: ready.
        let missing = missing?;
        if started.elapsed() >= PATIENCE {
            warn!("waited {} s in vain for {missing}; going on without", PATIENCE.as_secs());
            return None;
        }
        watcher.waiting(&missing);
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            watcher.tick();
            if let Some(signal) = signals.pause(Duration::from_millis(500)) {
                return Some(signal);
            }
        }
    }
}

/// One look, in a thread of its own: resolving a name may block for half a minute, and a signal must not wait for it.
struct Look(Receiver<Option<String>>);

impl Look {
    fn start(settings: &Settings) -> Self {
        let (tell, told) = mpsc::channel();
        let location = settings.storage.location.clone();
        std::thread::spawn(move || {
            let clock = (time_service() == TimeService::Trying).then(|| "the network's time".to_owned());
            let missing = clock.or_else(|| storage::unreachable(&location));
            // Nobody listens any more when the run was stopped meanwhile.
            let _ = tell.send(missing);
        });
        Self(told)
    }

    /// What is missing, once that is known.
    fn result(&self) -> Option<Option<String>> {
        match self.0.try_recv() {
            Ok(missing) => Some(missing),
            Err(TryRecvError::Empty) => None,
            // The look itself failed: nothing to wait for.
            Err(TryRecvError::Disconnected) => Some(None),
        }
    }
}
