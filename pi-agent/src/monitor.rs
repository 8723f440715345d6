//! What a step tells while it works: progress, survivable problems, and its final result, as [`Event`]s.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::steps::StepResult;

/// One line from a step's process to the supervisor (JSON).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How far it is; also the sign of life that keeps it from being called stalled.
    Progress(Progress),
    /// The end: exactly one, last.
    Finished(Box<StepResult>),
}

/// How far a phase is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, as a person would say it: "reading files", "waiting for WAL".
    pub phase: String,
    /// Done, in `unit`.
    pub done: u64,
    /// Of how many, once known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: Unit,
}

/// What a progress counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    #[default]
    Bytes,
    /// Pieces of something.
    Items,
}

/// Something survivable that went wrong, or the error that ended a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Operation, object, cause.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl From<&crate::Error> for Problem {
    fn from(error: &crate::Error) -> Self {
        Self { message: error.chain(), hint: error.advice().map(str::to_owned) }
    }
}

type Sink = Box<dyn FnMut(Event) + Send>;

/// Where work reports to. Cheap to call often: progress passes at most four times a second, phase changes always.
pub struct Monitor {
    inner: Mutex<Inner>,
}

struct Inner {
    sink: Sink,
    last: Option<(Instant, Progress)>,
}

impl Monitor {
    const INTERVAL: Duration = Duration::from_millis(250);

    /// A monitor that gives its events to `sink`.
    pub fn new(sink: impl FnMut(Event) + Send + 'static) -> Self {
        Self { inner: Mutex::new(Inner { sink: Box::new(sink), last: None }) }
    }

    /// A monitor nobody listens to.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Begins a phase.
    pub fn phase(&self, phase: &str) {
        self.progress(Progress { phase: phase.into(), ..Progress::default() });
    }

    /// Reports how far the work is.
    pub fn progress(&self, progress: Progress) {
        let mut inner = self.lock();
        let now = Instant::now();
        let due = match &inner.last {
            None => true,
            Some((at, last)) => last.phase != progress.phase || (now - *at >= Self::INTERVAL && *last != progress),
        };
        if due {
            (inner.sink)(Event::Progress(progress.clone()));
            inner.last = Some((now, progress));
        }
    }

    /// Says again how far it is, at most every five seconds: a sign of life when nothing countable moves, but something
    /// does (a slow upload, a request that is tried again).
    pub fn alive(&self) {
        const INTERVAL: Duration = Duration::from_secs(5);
        let mut inner = self.lock();
        let now = Instant::now();
        if let Some((at, progress)) = inner.last.clone()
            && now - at >= INTERVAL
        {
            (inner.sink)(Event::Progress(progress.clone()));
            inner.last = Some((now, progress));
        }
    }

    /// Sends an event as it is.
    pub fn send(&self, event: Event) {
        (self.lock().sink)(event);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // A panic in a sink leaves nothing half-done that matters here.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
