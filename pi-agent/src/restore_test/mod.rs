//! Restoring for real, into a temporary place, to see that what comes back is what was backed up. It has what a disaster
//! leaves: the storage, and what the recovery kit holds.

mod content;
mod critical;
mod directory;
mod dump;
mod fits;
mod history;
mod place;
mod postgres;
mod server;
mod wal;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{Source, Step};
use crate::error::Result;
use crate::monitor::{Monitor, Problem};
use crate::report::words;
use crate::steps::{Figures, Job, Outcome, Requests, StepResult};
use place::Place;

pub use place::clean;

/// How long a whole restore may take.
pub const RTO: Duration = Duration::from_hours(2);

/// What a test saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// In order.
    pub checks: Vec<Check>,
    /// Bytes restored.
    pub bytes: u64,
    /// Bytes that a restore of everything has.
    pub whole: u64,
    /// The part, from 0, and of how many, where it was not everything.
    pub share: Option<(u32, u32)>,
    /// How long the restore took, in milliseconds, until all of it could be used.
    pub took: u64,
    /// How long one of everything takes by that.
    pub projected: u64,
    /// Seconds from the newest moment that came back to the beginning of the test.
    pub age: Option<u64>,
    /// Seconds that may be lost of a database, by `[alarms] rpo`.
    pub wanted_age: Option<u64>,
}

impl Tested {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "checks": self.checks,
            "bytes": self.bytes,
            "whole_bytes": self.whole,
            "share": self.share.map(|(part, of)| json!({ "part": part + 1, "of": of })),
            "rto_seconds": seconds(self.took),
            "projected_rto_seconds": seconds(self.projected),
            "wanted_rto_seconds": RTO.as_secs(),
            "rpo_seconds": self.age,
            "wanted_rpo_seconds": self.wanted_age,
        })
    }

    /// Each check on a line.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.checks.iter().map(|check| {
            let word = match check.verdict {
                Verdict::Passed => "good",
                Verdict::Missed => "too slow",
                Verdict::Untested => "not tested, because",
                Verdict::Failed => "FAILED",
            };
            format!("{}: {word}: {}", check.name, check.note)
        })
    }
}

#[allow(clippy::cast_precision_loss)] // shown to the millisecond
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What, in a few words.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, or why not.
    pub note: String,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// It came back, but slower than wanted.
    Missed,
    /// Not looked at, because.
    Untested,
    /// Not as it should be.
    Failed,
}

/// What the plan knows of earlier tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Tests that had come to a share, or of which nobody knows: which share is next.
    pub turns: u32,
    /// When the last one began.
    pub last: Option<Timestamp>,
    /// Of the last ones that restored something.
    pub paces: Vec<Pace>,
    /// Bytes of memory that the largest process had in that one of the last ones which took least.
    pub least_memory: Option<u64>,
}

/// How fast a test was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Bytes restored.
    pub bytes: u64,
    /// How long all of the test took, in milliseconds.
    pub took: u64,
}

/// Does the test of one step.
///
/// # Errors
/// Something that keeps it from being made or from coming to its end.
pub fn run(job: &Job, step: &Step, earlier: Earlier, monitor: &Monitor) -> Result<StepResult> {
    monitor.phase("making a place for the test");
    fits::in_memory(&earlier)?;
    let place = Place::make(&job.settings)?;
    let work = Work { job, step, place: &place, earlier, began: Timestamp::now(), monitor };
    let mut sheet = Sheet::default();
    let ended = match &step.source {
        Source::Postgres(postgres) => postgres::test(&work, postgres, &mut sheet),
        Source::Directory(_) | Source::Agent(_) => directory::test(&work, &mut sheet),
    };
    if let Err(error) = &ended {
        sheet.problem("restore", Problem::from(error));
    }
    Ok(sheet.result())
}

/// What every part of a test needs.
struct Work<'a> {
    job: &'a Job,
    step: &'a Step,
    place: &'a Place,
    earlier: Earlier,
    began: Timestamp,
    monitor: &'a Monitor,
}

/// What is noted down while a test goes on.
#[derive(Default)]
struct Sheet {
    tested: Tested,
    problems: Vec<Problem>,
    restore_point: Option<String>,
    files: Option<u64>,
    requests: Requests,
}

impl Sheet {
    fn note(&mut self, name: &str, verdict: Verdict, note: impl Into<String>) {
        self.tested.checks.push(Check { name: name.into(), verdict, note: note.into() });
    }

    fn passed(&mut self, name: &str, note: impl Into<String>) {
        self.note(name, Verdict::Passed, note);
    }

    /// "Not tested, because" is never a pass.
    fn untested(&mut self, name: &str, because: impl Into<String>) {
        let because = because.into();
        self.problems.push(Problem { message: format!("{name}: not tested, because {because}"), hint: None });
        self.note(name, Verdict::Untested, because);
    }

    fn failed(&mut self, name: &str, what: impl Into<String>) {
        self.problem(name, Problem { message: what.into(), hint: None });
    }

    fn problem(&mut self, name: &str, problem: Problem) {
        self.note(name, Verdict::Failed, problem.message.clone());
        let message = format!("{name}: {}", problem.message);
        self.problems.push(Problem { message, hint: problem.hint });
    }

    /// Something else that needs a look.
    fn remark(&mut self, remark: Option<String>) {
        self.problems.extend(remark.map(|message| Problem { message, hint: None }));
    }

    /// How long it took, for so many bytes of all.
    fn timed(&mut self, took: Duration, bytes: u64, whole: u64) {
        let milliseconds = took.as_millis();
        let projected = milliseconds * u128::from(whole.max(1)) / u128::from(bytes.clamp(1, whole.max(1)));
        self.tested.bytes = bytes;
        self.tested.whole = whole;
        self.tested.took = u64::try_from(milliseconds).unwrap_or(u64::MAX);
        self.tested.projected = u64::try_from(projected).unwrap_or(u64::MAX);
        let projected = Duration::from_millis(self.tested.projected);
        let note = format!(
            "{} of {} came back in {}; everything would in {}",
            words::size(bytes),
            words::size(whole),
            words::duration(took),
            words::duration(projected)
        );
        if projected <= RTO {
            self.passed("time", note);
        } else {
            let message = format!("time: {note}, and {} is wanted", words::duration(RTO));
            let hint = Some("a faster line, [limits] download, or less to restore".into());
            self.problems.push(Problem { message, hint });
            self.note("time", Verdict::Missed, note);
        }
    }

    /// Up to which moment things came back, and how much may be lost. An idle server has written nothing since: that its
    /// newest moment is older is no fault in itself.
    fn newest(&mut self, newest: Timestamp, began: Timestamp, wanted: Option<Duration>) {
        let age = words::between(newest, began);
        self.tested.age = Some(age.as_secs());
        self.tested.wanted_age = wanted.map(|wanted| wanted.as_secs());
        let wanted = wanted.map_or_else(String::new, |wanted| format!("; {} may be lost", words::duration(wanted)));
        let note = format!("{}, {} before the test{wanted}", words::time(newest), words::duration(age));
        self.passed("newest moment", note);
    }

    fn result(self) -> StepResult {
        let Self { tested, mut problems, restore_point, files, requests } = self;
        let has = |verdict| tested.checks.iter().any(|check| check.verdict == verdict);
        let outcome = match (has(Verdict::Failed), has(Verdict::Passed), problems.is_empty()) {
            (true, ..) => Outcome::Failed,
            (false, false, _) => Outcome::Failed,
            (false, true, false) => Outcome::Degraded,
            (false, true, true) => Outcome::Succeeded,
        };
        // The worst is what is told first.
        let worst = tested.checks.iter().find(|check| check.verdict == Verdict::Failed);
        let first = worst.and_then(|worst| {
            let begins = format!("{}: ", worst.name);
            problems.iter().position(|problem| problem.message.starts_with(&begins))
        });
        if let Some(first) = first {
            problems.swap(0, first);
        }
        let figures = Figures { files, ..Figures::default() };
        StepResult {
            error: problems.first().cloned(),
            problems: problems.into_iter().skip(1).collect(),
            restore_point,
            figures,
            requests,
            tested: Some(tested),
            ..StepResult::of(outcome)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tested_is_no_pass() {
        let mut sheet = Sheet::default();
        sheet.passed("content", "all");
        assert_eq!(sheet.result().outcome, Outcome::Succeeded);
        let mut sheet = Sheet::default();
        sheet.untested("server", "there is none");
        assert_eq!(sheet.result().outcome, Outcome::Failed, "nothing was tested at all");
        let mut sheet = Sheet::default();
        sheet.untested("postgis", "the server lacks it");
        sheet.passed("content", "all");
        sheet.failed("tables", "app.users is missing");
        let result = sheet.result();
        assert_eq!(result.outcome, Outcome::Failed);
        assert_eq!(result.error.map(|error| error.message).as_deref(), Some("tables: app.users is missing"));
        assert_eq!(result.problems.len(), 1);
    }

    #[test]
    fn a_share_projects_the_whole() {
        let mut sheet = Sheet::default();
        sheet.timed(Duration::from_mins(10), 1 << 30, 20 << 30);
        assert_eq!(sheet.tested.projected, 200 * 60_000);
        assert_eq!(sheet.result().outcome, Outcome::Failed, "too slow, and nothing passed");
    }
}
