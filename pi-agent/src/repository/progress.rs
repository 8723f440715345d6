//! rustic's progress bars, as our monitor's progress.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustic_core::{Progress as RusticProgressBar, ProgressBars, ProgressType, RusticProgress};

use crate::monitor::{Monitor, Progress, Unit};
use crate::storage::Meter;

/// How far the running operation is. rustic's bars outlive any borrow, so they write here and [`Gauge::watch`] reads.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    progress: Mutex<Progress>,
    patient: AtomicBool,
}

impl Gauge {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Plain numbers: a panic elsewhere leaves nothing half-done here.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase(&self, phase: &str, unit: Unit) {
        *self.lock() = Progress { phase: phase.into(), unit, ..Progress::default() };
    }

    /// How much there is to do.
    pub(super) fn total(&self, total: u64) {
        self.lock().total = Some(total);
    }

    /// So much more is done.
    pub(super) fn add(&self, count: u64) {
        let mut progress = self.lock();
        progress.done = progress.done.saturating_add(count);
    }

    /// As long as this is held, all is well also when nothing moves: whatever is waited for has a limit of its own.
    pub(super) fn patience(&self) -> Patience<'_> {
        self.patient.store(true, Ordering::Relaxed);
        Patience(self)
    }

    /// Does `work` while a thread tells `monitor` how far it is; bytes that pass to or from storage count as life.
    pub(super) fn watch<T>(&self, monitor: &Monitor, meter: &Meter, work: impl FnOnce() -> T) -> T {
        const INTERVAL: Duration = Duration::from_millis(250);
        thread::scope(|scope| {
            let (done, over) = mpsc::channel::<()>();
            scope.spawn(move || {
                let mut seen = meter.requests();
                while over.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                    monitor.progress(self.lock().clone());
                    let now = meter.requests();
                    if now != seen || self.patient.load(Ordering::Relaxed) {
                        monitor.alive();
                        seen = now;
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }
}

/// See [`Gauge::patience`].
pub(super) struct Patience<'a>(&'a Gauge);

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.0.patient.store(false, Ordering::Relaxed);
    }
}

/// Gives rustic bars that move a gauge.
#[derive(Clone, Debug)]
pub(super) struct Bars(pub(super) Arc<Gauge>);

impl ProgressBars for Bars {
    fn progress(&self, kind: ProgressType, title: &str) -> RusticProgressBar {
        let unit = if matches!(kind, ProgressType::Bytes) { Unit::Bytes } else { Unit::Items };
        let bar = Bar { gauge: self.0.clone(), unit };
        bar.set_title(title);
        RusticProgressBar::new(bar)
    }
}

#[derive(Debug)]
struct Bar {
    gauge: Arc<Gauge>,
    unit: Unit,
}

impl RusticProgress for Bar {
    fn is_hidden(&self) -> bool {
        false
    }

    fn set_length(&self, length: u64) {
        self.gauge.total(length);
    }

    fn set_title(&self, title: &str) {
        let title = title.trim_end_matches('.');
        if !title.is_empty() {
            self.gauge.phase(title, self.unit);
        }
    }

    fn inc(&self, count: u64) {
        self.gauge.add(count);
    }

    fn finish(&self) {}
}
