//! What the next run would do: a pure function of settings, history and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::config::{Directory, Postgres, Settings, Source, Step};
use crate::error::Result;
use crate::forecast::{does_not_fit, forecast};
use crate::health::Doubt;
use crate::report::SCHEMA;
use crate::restore_test::Earlier;
use crate::retention::is_of_the_future;
use crate::steps::{Check, Task};

/// What the plan needs to know of a step's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepHistory {
    /// Start of the first usable backup.
    pub first_success: Option<Timestamp>,
    /// Start of the last full PostgreSQL backup.
    pub last_full: Option<Timestamp>,
    /// The last prune that went well.
    pub last_prune: Option<Timestamp>,
    /// The last check without findings.
    pub last_check: Option<Timestamp>,
    /// The last part of the rotating data check, as [`Check::recorded`] names it.
    pub last_data_check: Option<String>,
    /// Bytes that a backup stores as a rule: the median of the last ones that were not full.
    pub usual_bytes: Option<u64>,
    /// Bytes that the last full PostgreSQL backup stored; before the first backup of any kind, the source's.
    pub full_bytes: Option<u64>,
    /// Bytes of memory that the largest process of one of the last backups took.
    pub peak_memory: Option<u64>,
    /// Restore tests before.
    pub tests: Earlier,
    /// What is mounted below the paths and not backed up, in words.
    pub left_out: Vec<String>,
}

/// What happened before, by step.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By step name.
    pub steps: BTreeMap<String, StepHistory>,
    /// Why the clock must not be trusted with deleting.
    pub clock_problem: Option<Doubt>,
    /// Bytes of memory that programs may still have just now.
    pub memory: Option<u64>,
}

impl History {
    fn keep_everything(&self) -> Option<String> {
        self.clock_problem.as_ref().map(|doubt| doubt.why.clone())
    }

    /// What was done while the clock was wrong was done nobody knows when, which a clock that is right tells by its date.
    fn is_due(&self, last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
        let is_dated_wrong = |last| self.clock_problem.is_none() && is_of_the_future(last, now);
        last.is_some_and(is_dated_wrong) || is_due(last, every, now)
    }
}

/// What a person or a timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A backup, and the maintenance that is due.
    Backup,
    /// Only a prune (PostgreSQL: expire).
    Prune,
    /// Only a check.
    Check,
    /// Only a check, of all contents.
    CheckAll,
    /// Restores for real, into a temporary place.
    RestoreTest,
}

/// A run as it will be.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<PlannedStep>,
}

/// One step of it.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedStep {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where to.
    pub target: String,
    /// What will be done.
    #[serde(flatten)]
    pub task: Task,
    /// In words, with the reasons.
    pub why: Vec<String>,
    /// What a person should know before it begins; also among the reasons.
    pub warnings: Vec<String>,
}

/// Plans a run of the steps named (none named: all).
///
/// # Errors
/// A name that no step has.
pub fn plan(settings: &Settings, history: &History, wanted: Wanted, names: &[String], now: Timestamp) -> Result<Plan> {
    for name in names {
        settings.step(name)?;
    }
    let steps = settings
        .steps
        .iter()
        // History is saved after every backup, also one of a single step.
        .filter(|step| {
            names.is_empty()
                || names.contains(&step.name)
                || (wanted == Wanted::Backup && matches!(step.source, Source::Agent(_)))
        })
        .map(|step| plan_step(settings, step, history, wanted, now))
        .collect();
    Ok(Plan { steps })
}

impl Plan {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "schema": SCHEMA, "steps": self.steps })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (number, step) in (1..).zip(&self.steps) {
            text.push_str(&format!("{number}. {} ({}) -> {}\n", step.name, step.kind, step.target));
            for line in &step.why {
                text.push_str(&format!("   {line}\n"));
            }
        }
        text
    }
}

fn plan_step(settings: &Settings, step: &Step, history: &History, wanted: Wanted, now: Timestamp) -> PlannedStep {
    let past = history.steps.get(&step.name).cloned().unwrap_or_default();
    let mut why = Vec::new();
    let mut warnings = Vec::new();
    let task = match (wanted, &step.source) {
        (Wanted::Prune, _) => {
            why.extend(history.keep_everything().map(|why| format!("nothing is removed: {why}")));
            Task::Prune { keep_everything: history.keep_everything() }
        }
        (Wanted::RestoreTest, _) => Task::RestoreTest(past.tests.clone()),
        (Wanted::Check | Wanted::CheckAll, Source::Postgres(_)) => Task::Check(Check::Structure),
        (Wanted::CheckAll, Source::Directory(_) | Source::Agent(_)) => Task::Check(Check::Data { part: 0, of: 1 }),
        (Wanted::Check, Source::Directory(directory) | Source::Agent(directory)) => {
            Task::Check(next_check(directory, &past))
        }
        (Wanted::Backup, source) => {
            let (full, prune, check) = match source {
                Source::Postgres(postgres) => (full_is_due(postgres, &past, history, now, &mut why), false, None),
                Source::Directory(directory) | Source::Agent(directory) => {
                    let prune = history.is_due(past.last_prune.or(past.first_success), directory.prune_every, now);
                    let check = check_is_due(past.last_check.or(past.first_success), directory.check_every, now)
                        .then(|| next_check(directory, &past));
                    (false, prune, check)
                }
            };
            let bytes = if full || past.first_success.is_none() { past.full_bytes } else { past.usual_bytes };
            let forecast = forecast(settings, step, bytes, &now.to_zoned(TimeZone::system()));
            let waits = forecast.as_ref().and_then(|forecast| forecast.prune_waits.clone());
            why.extend(forecast.map(|forecast| forecast.words));
            let prune = prune && waits.is_none();
            why.extend(maintenance_in_words(prune, check, history));
            warnings.extend(waits.into_iter().chain(does_not_fit(past.peak_memory, history.memory)));
            why.extend(warnings.iter().cloned());
            why.extend(past.left_out.clone());
            Task::Backup { full, prune, check, keep_everything: history.keep_everything() }
        }
    };
    PlannedStep {
        name: step.name.clone(),
        kind: step.source.kind(),
        target: settings.storage.location.join(&step.name).to_string(),
        task,
        why,
        warnings,
    }
}

fn full_is_due(
    postgres: &Postgres,
    past: &StepHistory,
    history: &History,
    now: Timestamp,
    why: &mut Vec<String>,
) -> bool {
    let due = past.last_full.is_none_or(|last| history.is_due(Some(last), postgres.full_every, now));
    why.push(match (past.last_full, due) {
        (None, _) => "full backup: none is recorded".into(),
        (Some(last), true) => format!("full backup: the last is of {last}"),
        (Some(last), false) => format!("incremental backup: the last full is of {last}"),
    });
    due
}

fn maintenance_in_words(prune: bool, check: Option<Check>, history: &History) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(why) = history.keep_everything() {
        words.push(format!("nothing is removed: {why}"));
    } else if prune {
        words.push("prune: due".into());
    }
    match check {
        Some(Check::Structure) => words.push("check of the structure: due".into()),
        Some(Check::Data { part, of }) => {
            words.push(format!("check of the structure, and of the data part {} of {of}: due", part + 1));
        }
        None => {}
    }
    words
}

/// Never done and nothing to count from: not due. A tenth of the interval, at most 12 hours, is forgiven: "every 7 days"
/// of a nightly run must not slip to 8 because last week's was minutes later.
fn is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    let forgiven = (every / 10).min(Duration::from_hours(12));
    last.is_some_and(|last| {
        Duration::try_from(now.duration_since(last)).is_ok_and(|age| age >= every.saturating_sub(forgiven))
    })
}

/// A check removes nothing: whatever is wrong with the clock, one of the future was not made when it says.
fn check_is_due(last: Option<Timestamp>, every: Duration, now: Timestamp) -> bool {
    last.is_some_and(|last| is_of_the_future(last, now)) || is_due(last, every, now)
}

/// The part after the last one; all parts together take `read_all_months`.
fn next_check(directory: &Directory, past: &StepHistory) -> Check {
    const MONTH: Duration = Duration::from_hours(24 * 30);
    if directory.read_all_months == 0 {
        return Check::Structure;
    }
    let every = directory.check_every.max(Duration::from_hours(1));
    let of = (MONTH * directory.read_all_months).as_secs().div_ceil(every.as_secs()).clamp(1, 1000);
    let of = u32::try_from(of).expect("clamped to 1000");
    Check::after(past.last_data_check.as_deref(), of)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::{Opened, State};
    use crate::steps::{Maintenance, Outcome, StepResult};

    const DAY: Duration = Duration::from_hours(24);

    fn directory(read_all_months: u32) -> Directory {
        Directory {
            paths: vec!["/srv".into()],
            exclude: vec![],
            one_file_system: true,
            prune_every: DAY * 30,
            check_every: DAY * 7,
            read_all_months,
            live: None,
        }
    }

    #[test]
    fn a_weekly_full_of_a_nightly_run_stays_weekly() {
        let last: Timestamp = "2026-11-01T03:00:10Z".parse().unwrap();
        let night = |day: i8| jiff::civil::date(2026, 11, day).at(3, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap();
        assert!(!is_due(Some(last), DAY * 7, night(7).timestamp()));
        assert!(is_due(Some(last), DAY * 7, night(8).timestamp()), "ten seconds short of seven days");
        assert!(!is_due(None, DAY * 7, night(8).timestamp()));
        let back = "2026-10-01T03:00:00Z".parse().unwrap();
        assert!(!is_due(Some(last), DAY * 7, back), "a clock that went back");
        let doubt = Doubt { why: "it went back".into(), by_record: true };
        assert!(!History { clock_problem: Some(doubt), ..History::default() }.is_due(Some(last), DAY * 7, back));
        assert!(History::default().is_due(Some(last), DAY * 7, back), "by a clock that is right the record is wrong");
    }

    /// Does the check that the plan gives after that record, through the database, so many times; the parts that were read.
    fn read_through_the_record(directory: &Directory, first: Option<&str>, times: u32) -> Vec<u32> {
        let folder = tempfile::tempdir().unwrap();
        let (Opened::Ready(mut state) | Opened::Fresh(mut state, _)) =
            State::open(&folder.path().join("state.db")).unwrap();
        let mut night = |what: String, number: i64| {
            let at = Timestamp::from_second(1_793_500_000 + number).unwrap();
            let run = format!("run-{number}");
            state.begin_run(&run, None, at).unwrap();
            state.begin_step(&run, 0, "files", "directory", "check", at).unwrap();
            let mut result = StepResult::of(Outcome::Succeeded);
            result.maintenance.push(Maintenance { what, problem: None, note: String::new() });
            state.finish_step(&run, 0, "files", &result, at).unwrap();
            state.history("files").unwrap()
        };
        let mut past = first.map_or_else(StepHistory::default, |what| night(what.to_owned(), 0));
        let mut parts = Vec::new();
        for number in 1..=times {
            let check = next_check(directory, &past);
            let Check::Data { part, of } = check else { panic!("a data check") };
            assert_eq!(of, times, "the test goes round once");
            parts.push(part);
            past = night(check.recorded(), number.into());
        }
        parts
    }

    #[test]
    fn the_data_check_goes_round_and_covers_everything() {
        for (months, days, of) in [(3, 7, 13), (4, 7, 18), (6, 7, 26), (1, 1, 30), (1, 3, 10), (1, 5, 6), (1, 30, 1)] {
            let directory = Directory { check_every: DAY * days, ..directory(months) };
            let expected: Vec<_> = (0..of).collect();
            assert_eq!(read_through_the_record(&directory, None, of), expected, "{months} months, every {days} days");
            // Records of the versions that skipped every other part: whichever was the last one, all parts come.
            for last in [1, of / 2 + 1, of] {
                let old = format!("check-data:{last}/{of}");
                let mut parts = read_through_the_record(&directory, Some(&old), of);
                assert_eq!(parts[0], last % of, "people count from one");
                parts.sort_unstable();
                assert_eq!(parts, expected, "after {old}");
            }
        }
    }

    #[test]
    fn a_changed_number_of_parts_starts_anew() {
        let past = StepHistory { last_data_check: Some("check-data:4/7".into()), ..StepHistory::default() };
        assert_eq!(next_check(&directory(3), &past), Check::Data { part: 0, of: 13 });
        assert_eq!(next_check(&directory(0), &past), Check::Structure);
        for nonsense in ["check-data:0/13", "check-data:14/13", "check-data:4294967295/13", "check-data:x/13", "check"]
        {
            let past = StepHistory { last_data_check: Some(nonsense.into()), ..StepHistory::default() };
            assert_eq!(next_check(&directory(3), &past), Check::Data { part: 0, of: 13 }, "{nonsense}");
        }
    }
}
