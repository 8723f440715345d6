//! The live part of a directory step: copied while its writer is quiet, so that no file in it is torn.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Job, Outcome, StepResult};
use crate::config::{Live, Settings, Step};
use crate::error::{Error, Kind, Result};
use crate::live::Quiet;
use crate::monitor::{Monitor, Problem};
use crate::report::words;
use crate::repository::{Hold, Sources};

/// What copies must leave free: other things live on that disk, too.
const RESERVE: u64 = 256 << 20;

/// Where copies of live parts lie while a step runs; empty between runs.
pub fn staging(settings: &Settings) -> PathBuf {
    settings.local.cache.join("staging")
}

/// How the live part was read.
pub(super) struct Quieted {
    quiet: Option<Duration>,
    /// It may be torn.
    problem: Option<Problem>,
    remark: Option<Problem>,
}

/// Puts the live part into `sources` as it is at one moment.
///
/// # Errors
/// The writer does not become quiet, or does not go on; the live part cannot be looked at.
pub(super) fn hold(job: &Job, step: &Step, live: &Live, sources: &mut Sources, monitor: &Monitor) -> Result<Quieted> {
    // 1. Room, and everything copied once, before anybody has to wait.
    monitor.phase("looking at the live part");
    let mut hold = Hold::prepare(sources, &live.paths, staging(&job.settings).join(&step.name))?;
    let (needed, free) = hold.room()?;
    if free < needed + RESERVE {
        let message = format!(
            "no room to copy the live part: it takes {}, and {} are free below {}",
            words::size(needed),
            words::size(free),
            job.settings.local.cache.display()
        );
        let hint =
            format!("free {} there, or put [local] cache on a larger disk", words::size(needed + RESERVE - free));
        return Ok(Quieted::torn(None, &Error::new(message).hint(hint)));
    }
    if let Err(error) = hold.copy_ahead(monitor) {
        return Ok(Quieted::torn(None, &error));
    }

    // 2. Quiet; what has changed since, once more; and on.
    let begun = Instant::now();
    let quiet = Quiet::begin(&job.state_directory, &step.name, live)?;
    let remark = quiet.already.clone().map(|message| Problem { message, hint: None });
    let until = quiet.already.is_none().then(|| begun + live.at_most);
    let held = hold.hold(until, monitor);
    let resumed = quiet.end()?;

    // 3. Was it quiet all the time?
    let too_long = || {
        let limit = words::duration(live.at_most);
        Error::new(format!("it was not copied within the time its writer may be quiet ({limit})"))
            .hint("raise at-most, or name fewer paths in `live`")
    };
    match held {
        Ok(_) if resumed.early && resumed.quiet.is_none() => {
            Ok(Quieted::torn(None, &Error::new("the writer was started while the live part was copied")))
        }
        Ok(held) if !resumed.early => {
            let problem = held.trouble().and_then(|trouble| Quieted::torn(None, &trouble).problem);
            sources.held = Some(std::sync::Arc::new(held));
            Ok(Quieted { quiet: resumed.quiet, problem, remark })
        }
        Err(error) if error.kind() != Kind::OutOfTime => Ok(Quieted::torn(resumed.quiet, &error)),
        _ => Ok(Quieted::torn(resumed.quiet, &too_long())),
    }
}

impl Quieted {
    /// A backup that may have torn files is better than none, but not good.
    fn torn(quiet: Option<Duration>, error: &Error) -> Self {
        let Problem { message, hint } = error.into();
        let message = format!("the live part was read while it was written to: {message}");
        Self { quiet, problem: Some(Problem { message, hint }), remark: None }
    }

    /// Notes it in the result of the backup.
    pub(super) fn note(self, result: &mut StepResult) {
        result.figures.quiet_milliseconds =
            self.quiet.map(|quiet| u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX));
        result.problems.extend(self.remark);
        let Some(problem) = self.problem else { return };
        if result.outcome == Outcome::Succeeded {
            result.outcome = Outcome::Degraded;
        }
        match &result.error {
            None => result.error = Some(problem),
            Some(_) => result.problems.push(problem),
        }
    }
}
