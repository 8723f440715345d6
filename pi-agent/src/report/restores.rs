//! Restore tests in words: the last, the trend, and how long everything would take.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::report::screen::short_time;
use crate::report::{StepStatus, words};
use crate::restore_test::{RTO, Tested};
use crate::state::PastTest;
use crate::steps::Outcome;

/// So many tests are a trend: a year of them.
pub const TREND: u32 = 12;

impl StepStatus {
    /// For a column: its age, or that it failed.
    pub fn test_in_short(&self, now: Timestamp) -> String {
        match self.tests.first() {
            None => "none yet".into(),
            Some(test) if test.outcome.is_usable() => words::rough(words::between(test.finished_at, now)),
            Some(test) => test.outcome.as_str().into(),
        }
    }

    /// "restore test Nov  1 05:12 succeeded: 4.0 GiB in 12 min, everything in 36 min; before: +++x".
    pub fn test_in_words(&self, now: Timestamp) -> Option<String> {
        let test = self.tests.first()?;
        let mut text = format!("restore test {} {}", short_time(test.finished_at, now), test.outcome.as_str());
        if let Some(tested) = test.tested.as_ref().filter(|tested| tested.bytes > 0) {
            let [took, all] = [tested.took, tested.projected].map(|time| words::duration(Duration::from_millis(time)));
            text.push_str(&format!(": {} in {took}, everything in {all}", words::size(tested.bytes)));
        }
        if self.tests.len() > 1 {
            text.push_str(&format!("; before: {}", trend(&self.tests[1..])));
        }
        Some(text)
    }
}

/// Oldest first: `+` good, `!` not all could be tested, `x` failed.
fn trend(tests: &[PastTest]) -> String {
    let mark = |test: &PastTest| match test.outcome {
        Outcome::Succeeded => '+',
        Outcome::Degraded => '!',
        _ => 'x',
    };
    tests.iter().rev().map(mark).collect()
}

/// "a restore of everything takes 24 min (2 h wanted)", by the last test of each step.
pub fn everything_in_words(steps: &[StepStatus]) -> Option<String> {
    let took = everything(steps)?;
    Some(format!("a restore of everything takes {} ({} wanted)", words::duration(took), words::duration(RTO)))
}

/// Nothing while a step has none that came so far.
pub fn everything(steps: &[StepStatus]) -> Option<Duration> {
    let of = |step: &StepStatus| {
        let tested = step.tests.iter().find_map(|test| test.tested.as_ref().filter(|tested| tested.projected > 0))?;
        Some(Duration::from_millis(tested.projected))
    };
    steps.iter().map(of).sum::<Option<Duration>>().filter(|took| !took.is_zero())
}

/// The last one with the trend, for programs.
pub fn json(tests: &[PastTest]) -> Value {
    let Some(last) = tests.first() else { return Value::Null };
    json!({
        "at": words::stamp(last.finished_at),
        "outcome": last.outcome,
        "error": last.error,
        "tested": last.tested.as_ref().map(Tested::json),
        "trend": tests.iter().rev().map(|test| test.outcome).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_ends_with_the_newest() {
        let test = |outcome| PastTest {
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            outcome,
            error: None,
            tested: Some(Tested { bytes: 1, took: 1000, projected: 60_000, ..Tested::default() }),
        };
        assert_eq!(trend(&[Outcome::Failed, Outcome::Degraded, Outcome::Succeeded].map(test)), "+!x");
        assert_eq!(json(&[]), Value::Null);
        assert_eq!(json(&[test(Outcome::Failed), test(Outcome::Succeeded)])["trend"], json!(["succeeded", "failed"]));
    }
}
