//! How a run went.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::health::{self, Trouble};
use crate::monitor::Problem;
use crate::plan::PlannedStep;
use crate::report::{SCHEMA, words};
use crate::restore_test::Tested;
use crate::shown::harmless;
use crate::steps::{Outcome, StepResult, Task};

/// A run, ended.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// `[host] name`.
    pub host: String,
    /// Identifies it.
    pub run_id: String,
    /// Start.
    pub started_at: Timestamp,
    /// End.
    pub finished_at: Timestamp,
    /// The worst of its steps'.
    pub outcome: Outcome,
    /// In order.
    pub steps: Vec<StepReport>,
    /// What went wrong outside the steps.
    pub problems: Vec<Problem>,
    /// What all of it wrote to this machine's disks; `None`: nobody can tell.
    pub bytes_written_here: Option<u64>,
    /// Why not everything that must be told could be made sure to be told.
    pub not_told: Vec<Problem>,
}

/// A step of it.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// It was a backup (not a prune or check alone).
    pub backup: bool,
    /// Start.
    pub started_at: Timestamp,
    /// End.
    pub finished_at: Timestamp,
    /// What it answered.
    pub result: StepResult,
}

impl StepReport {
    /// A planned step with its result.
    pub fn new(step: &PlannedStep, result: StepResult, started_at: Timestamp, finished_at: Timestamp) -> Self {
        let backup = matches!(step.task, Task::Backup { .. });
        Self { name: step.name.clone(), kind: step.kind, backup, started_at, finished_at, result }
    }

    /// "succeeded in 42 s: 1.2 GiB, 34.0 MiB new, restore point 1a2b3c4d"; the error, when there is one.
    pub fn in_words(&self) -> String {
        let result = &self.result;
        let mut text = result.outcome.as_str().to_owned();
        if result.outcome != Outcome::Skipped {
            let _ = write!(text, " in {}", words::duration(words::between(self.started_at, self.finished_at)));
        }
        let mut details = Vec::new();
        if let Some(error) = &result.error {
            details.push(harmless(&error.message).replace('\n', " "));
        }
        details.extend(result.figures.bytes_processed.map(words::size));
        details.extend(result.figures.bytes_added.map(|bytes| format!("{} new", words::size(bytes))));
        details.extend(result.figures.quiet_milliseconds.map(|quiet| {
            let (seconds, tenths) = (quiet.div_ceil(100) / 10, quiet.div_ceil(100) % 10);
            format!("its writer quiet for {seconds}.{tenths} s")
        }));
        details.extend(result.restore_point.as_ref().map(|id| format!("restore point {}", short(id))));
        if !details.is_empty() {
            let _ = write!(text, ": {}", details.join(", "));
        }
        if let Some(machine) = health::in_words(&result.machine) {
            let _ = write!(text, " (the machine: {machine})");
        }
        text
    }

    /// What to do about the error that ended it, on lines of its own.
    pub fn hint_in_words(&self) -> String {
        self.result.error.as_ref().map_or_else(String::new, hint_lines)
    }

    /// Each thing that went wrong, with its hint; whole lines.
    pub fn problems_in_words(&self) -> impl Iterator<Item = String> + '_ {
        let result = &self.result;
        let maintenance = result.maintenance.iter().filter_map(|entry| entry.problem.as_ref());
        let problems = result.error.iter().chain(&result.problems).chain(maintenance);
        problems.map(|problem| problem_in_words(&self.name, problem))
    }

    fn json(&self) -> Value {
        let result = &self.result;
        let figures = serde_json::to_value(&result.figures).expect("plain numbers");
        let mut step = json!({
            "name": self.name,
            "kind": self.kind,
            "outcome": result.outcome,
            "started_at": words::stamp(self.started_at),
            "finished_at": words::stamp(self.finished_at),
            "duration_seconds": words::between(self.started_at, self.finished_at).as_secs_f64(),
            "error": result.error,
            "problems": result.problems,
            "restore_point": result.restore_point,
            "requests": result.requests,
            "maintenance": result.maintenance,
            "machine": machine_json(&result.machine),
        });
        if let Some(tested) = &result.tested {
            step["tested"] = tested.json();
        }
        if let (Value::Object(step), Value::Object(figures)) = (&mut step, figures) {
            step.extend(figures);
        }
        step
    }
}

impl RunReport {
    /// Puts it together.
    pub fn new(
        host: &str,
        run_id: &str,
        started_at: Timestamp,
        finished_at: Timestamp,
        steps: Vec<StepReport>,
    ) -> Self {
        let outcome = worst(steps.iter().map(|step| step.result.outcome));
        Self {
            host: host.into(),
            run_id: run_id.into(),
            started_at,
            finished_at,
            outcome,
            steps,
            problems: vec![],
            bytes_written_here: None,
            not_told: vec![],
        }
    }

    /// A signal ended it before its first step.
    pub fn interrupted(&mut self, signal: &str) {
        self.outcome = Outcome::Interrupted;
        self.problems.push(Problem { message: format!("stopped by {signal} before the first step"), hint: None });
    }

    /// Adds what went wrong outside the steps; such a run is degraded at least.
    pub fn add_problems(&mut self, problems: Vec<Problem>) {
        if !problems.is_empty() {
            self.outcome = worst([self.outcome, Outcome::Degraded]);
        }
        self.problems.extend(problems);
    }

    /// 0 all well; 3 a step failed or was interrupted; 5 degraded or unfinished, none failed. With 3, and only then,
    /// whoever starts us need not tell anybody: it is in the outbox. 1: it is not.
    pub fn exit_code(&self) -> u8 {
        if !self.not_told.is_empty() {
            return 1;
        }
        match self.outcome {
            Outcome::Succeeded | Outcome::Skipped => 0,
            Outcome::Degraded | Outcome::Unfinished => 5,
            Outcome::Failed | Outcome::Interrupted => 3,
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "run_id": self.run_id,
            "started_at": words::stamp(self.started_at),
            "finished_at": words::stamp(self.finished_at),
            "outcome": self.outcome,
            "bytes_written_here": self.bytes_written_here,
            "steps": self.steps.iter().map(StepReport::json).collect::<Vec<_>>(),
            "problems": self.problems.iter().chain(&self.not_told).collect::<Vec<_>>(),
        })
    }

    /// For people: what needs attention, then a line about the whole.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let tested = step.result.tested.iter().flat_map(Tested::lines);
            text.extend(tested.map(|line| format!("{}: {line}\n", step.name)));
            text.extend(step.problems_in_words());
            text.extend(health::in_words(&step.result.machine).map(|it| format!("{}: the machine: {it}\n", step.name)));
        }
        let outside = self.problems.iter().chain(&self.not_told);
        text.extend(outside.map(|problem| problem_in_words("run", problem)));
        let duration = words::duration(words::between(self.started_at, self.finished_at));
        let written =
            self.bytes_written_here.map(|bytes| format!(", {} written to this machine's disks", words::size(bytes)));
        let written = written.unwrap_or_default();
        let _ = writeln!(text, "run {} {} in {duration}{written}", self.run_id, self.outcome.as_str());
        text
    }
}

/// What was wrong with the machine; `text` is the line that people get.
pub(super) fn machine_json(record: &[Trouble]) -> Value {
    let one = |trouble: &Trouble| {
        let mut value = serde_json::to_value(trouble).expect("plain values");
        value["from"] = words::stamp(trouble.from).into();
        value["to"] = words::stamp(trouble.to).into();
        value["text"] = trouble.in_words().into();
        value
    };
    record.iter().map(one).collect()
}

fn problem_in_words(place: &str, problem: &Problem) -> String {
    // A second line could pass for a report of its own.
    let message = harmless(&problem.message).replace('\n', "\n  ");
    format!("{place}: {message}{}\n", hint_lines(problem))
}

fn hint_lines(problem: &Problem) -> String {
    problem.hint.iter().flat_map(|hint| hint.lines()).map(|line| format!("\n  hint: {}", harmless(line))).collect()
}

/// The first characters, as restic shows ids; pgBackRest's labels stay whole.
pub fn short(id: &str) -> &str {
    if id.len() == 64 { &id[..8] } else { id }
}

fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Skipped | Outcome::Succeeded => 0,
        Outcome::Degraded => 1,
        Outcome::Unfinished => 2,
        Outcome::Interrupted => 3,
        Outcome::Failed => 4,
    };
    outcomes.into_iter().max_by_key(rank).filter(|outcome| rank(outcome) > 0).unwrap_or(Outcome::Succeeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_step_decides_the_exit_code() {
        let code = |outcomes: &[Outcome]| {
            let step = |outcome: &Outcome| StepReport {
                name: "x".into(),
                kind: "directory",
                backup: true,
                started_at: Timestamp::UNIX_EPOCH,
                finished_at: Timestamp::UNIX_EPOCH,
                result: StepResult::of(*outcome),
            };
            let steps = outcomes.iter().map(step).collect();
            RunReport::new("h", "r", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, steps).exit_code()
        };
        use Outcome::{Degraded, Failed, Interrupted, Skipped, Succeeded, Unfinished};
        assert_eq!(code(&[Succeeded, Succeeded]), 0);
        assert_eq!(code(&[Succeeded, Degraded]), 5);
        assert_eq!(code(&[Unfinished, Degraded]), 5);
        assert_eq!(code(&[Unfinished, Failed, Succeeded]), 3);
        assert_eq!(code(&[Interrupted, Skipped]), 3);
    }
}
