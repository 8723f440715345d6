//! Alarms about the backups on record.

use jiff::{SignedDuration, Timestamp};

use super::{by_history, by_step};
use crate::alarms::evidence::{Evidence, StepEvidence};
use crate::alarms::registry::{Bad, Found, Telling, Verdict};
use crate::boot::ENOUGH;
use crate::config::Alarms;
use crate::health;
use crate::notify::Tone;
use crate::report::words;
use crate::state::Backup;
use crate::steps::Outcome;

/// From so many times the limit on, an age is critical.
const CRITICAL: u32 = 3;

/// The last backup failed, or needs a look. One that was cut off says nothing about the source: it is made again, and if
/// it is not, its age tells.
pub fn outcome(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_step(evidence, |step| {
        let ended = |backup: &&Backup| {
            matches!(
                backup.outcome,
                Some(Outcome::Succeeded | Outcome::Degraded | Outcome::Unfinished | Outcome::Failed)
            )
        };
        let mut backups = step.backups.iter().filter(ended);
        let Some(last) = backups.next() else { return Verdict::Unknown };
        let (tone, title) = match last.outcome {
            Some(Outcome::Failed) => (Tone::Critical, "the backup failed"),
            Some(Outcome::Degraded) => (Tone::Warning, "the backup is degraded"),
            Some(Outcome::Unfinished) => (Tone::Warning, "the backup is unfinished"),
            _ => return Verdict::Fine { as_of: last.finished_at },
        };
        let first = backups.take_while(|backup| backup.outcome != Some(Outcome::Succeeded)).last().unwrap_or(last);
        let mut bad = Bad::new(tone, title).dated(first.finished_at, last.finished_at);
        if let Some(error) = &last.error {
            (bad.text, bad.hint) = (error.message.clone(), error.hint.clone());
        }
        if let Some(machine) = health::in_words(&last.machine) {
            bad.text.push_str(&format!("; the machine: {machine}"));
        }
        if last.more_problems > 0 {
            bad.text.push_str(&format!("; and {} more: `journalctl -t pi-agent`", last.more_problems));
        }
        bad.into()
    })
}

/// The last good backup is too old, from its end. Not while the step moves: a night may take 25 hours.
pub fn age(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    let limit = limits.backup_age;
    by_step(evidence, |step| {
        let Some(last) = step.last_good else {
            // A machine that was set up today has until the next night.
            let bad = Bad::new(Tone::Warning, "there is no good backup yet").hint("pi-agent run");
            return if step.moving { Verdict::Unknown } else { Bad { telling: Telling::After(limit), ..bad }.into() };
        };
        let age = words::between(last, evidence.now);
        if age <= limit {
            return Verdict::Fine { as_of: Some(last) };
        }
        if step.moving {
            return Verdict::Unknown;
        }
        let tone = if age > limit * CRITICAL { Tone::Critical } else { Tone::Warning };
        let text = format!("it ended {}; the limit is {}", words::time(last), words::duration(limit));
        Bad::new(tone, format!("the last good backup is {} old", words::duration(age)))
            .text(text)
            .hint("systemctl list-timers 'pi-agent*', then journalctl -u pi-agent-backup")
            .dated(last.checked_add(limit).ok(), Some(last))
            .into()
    })
}

/// Backups the size of the newest is held against.
const SIZES: usize = 30;
/// With fewer nobody can say what is usual.
const FEWEST: usize = 7;
/// A new size that has held for so many backups is the usual one.
const HELD: usize = 3;
/// Bytes; a smaller difference is nothing to wake anybody for.
const LITTLE: f64 = 65_536.0;
/// Six standard deviations, where the median absolute deviation is 1/1.4826 of one.
const FAR: f64 = 6.0 * 1.4826;

/// The newest backup is far smaller or larger than this step's are.
pub fn size(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_step(evidence, |step| {
        // The size of our own history is our own doing.
        let sizes: Vec<(f64, Option<Timestamp>)> = if step.own { Vec::new() } else { sizes(step) };
        let Some(((newest, at), earlier)) = sizes.split_first().filter(|(_, earlier)| earlier.len() >= FEWEST) else {
            return Verdict::Unknown;
        };
        let usual = median(earlier.iter().map(|(size, _)| *size));
        let spread = median(earlier.iter().map(|(size, _)| (size - usual).abs()));
        let relative = f64::from(limits.size_change) / 100.0;
        let allowed = (usual * relative).max(FAR * spread).max(LITTLE);
        let held = sizes.len() > HELD
            && sizes[1..HELD]
                .iter()
                .all(|(size, _)| (size - newest).abs() <= (newest.min(*size) * relative).max(LITTLE));
        if (newest - usual).abs() <= allowed || held {
            return Verdict::Fine { as_of: *at };
        }
        let what = if *newest < usual { "smaller" } else { "larger" };
        let shown = |size: f64| words::size(size as u64);
        Bad::new(Tone::Warning, format!("the backup is much {what} than usual"))
            .text(format!("{}; usual are {}", shown(*newest), shown(usual)))
            .hint("look at what is there now, and at `pi-agent points`: earlier restore points are untouched")
            .dated(*at, *at)
            .into()
    })
}

/// Newest first; at most [`SIZES`] besides the newest. As floating point: only their ratio matters.
fn sizes(step: &StepEvidence) -> Vec<(f64, Option<Timestamp>)> {
    step.good().filter_map(|backup| Some((backup.bytes? as f64, backup.finished_at))).take(SIZES + 1).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// The time that [`success_rate`] covers.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// One bad backup of three is no rate.
const ENOUGH_BACKUPS: usize = 4;

/// Too few of all steps' backups of the last seven days left a usable restore point.
pub fn success_rate(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_history(evidence, || {
        let counted: Vec<&Backup> = evidence.steps.iter().flat_map(|step| counted(step, evidence.now)).collect();
        if counted.len() < ENOUGH_BACKUPS {
            return Verdict::Unknown;
        }
        let good = counted.iter().filter(|backup| backup.outcome.is_some_and(Outcome::is_usable)).count();
        let as_of = counted.iter().filter_map(|backup| backup.finished_at).max();
        // A single one is told by itself.
        let few = counted.len() - good < 2;
        if few || good * 100 >= limits.success_rate as usize * counted.len() {
            return Verdict::Fine { as_of };
        }
        Bad::new(Tone::Warning, format!("only {good} of {} backups of the last seven days are good", counted.len()))
            .text(format!("wanted are {} %", limits.success_rate))
            .hint("pi-agent status, then journalctl -t pi-agent -p warning --since '7 days ago'")
            .dated(None, as_of)
            .into()
    })
}

/// The step's backups of the last week that count: those that were meant to be and ended. One that was cut off and made
/// again counts once.
fn counted(step: &StepEvidence, now: Timestamp) -> impl Iterator<Item = &Backup> {
    let in_week =
        move |backup: &&Backup| (-WEEK..=SignedDuration::ZERO).contains(&backup.started_at.duration_since(now));
    let mut later = false;
    step.backups.iter().filter(in_week).filter(move |backup| match backup.outcome {
        None | Some(Outcome::Skipped) => false,
        Some(Outcome::Interrupted) => !later,
        Some(_) => {
            later = true;
            true
        }
    })
}

/// The newest backups were all cut off.
pub fn cut_off(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_history(evidence, || {
        if evidence.cut_off < ENOUGH {
            return Verdict::Fine { as_of: None };
        }
        Bad::new(Tone::Critical, format!("the last {ENOUGH} backups were all cut off"))
            .text("the machine lost its power, hung, or the run was killed each time; it is not started again before its time")
            .hint("look at the power supply and the temperature (`vcgencmd get_throttled`), then: systemctl start pi-agent-backup")
            .into()
    })
}

/// The last check of a repository found damage, whoever started it. A good backup afterwards says nothing of that.
pub fn check(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_step(evidence, |step| {
        let Some(damaged) = &step.damaged else { return Verdict::Fine { as_of: step.last_check } };
        Bad::new(Tone::Critical, "the last check found damage")
            .text(damaged.problem.clone())
            .hint(match step.postgres {
                true => {
                    format!("pi-agent check {0} says more; a new full backup depends on nothing of before", step.name)
                }
                false => format!("pi-agent run {0}, then: pi-agent repair {0}; then: pi-agent check {0}", step.name),
            })
            .dated(Some(damaged.at), Some(damaged.at))
            .into()
    })
}

/// The last good check of a repository is too long ago; where checks are rarer than the limit, twice their time.
pub fn check_age(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_step(evidence, |step| {
        let Some(every) = step.check_every else { return Verdict::Fine { as_of: None } };
        let limit = limits.check_age.max(every * 2);
        let (Some(since), checked) = (step.last_check.or(step.first_good), step.last_check.is_some()) else {
            return Verdict::Unknown;
        };
        let age = words::between(since, evidence.now);
        if age <= limit {
            return Verdict::Fine { as_of: step.last_check };
        }
        let title = match checked {
            true => format!("the repository was checked last {} ago", words::duration(age)),
            false => "the repository was never checked".to_owned(),
        };
        Bad::new(Tone::Warning, title)
            .text(format!("the limit is {}", words::duration(limit)))
            .hint(format!("pi-agent check {}", step.name))
            .dated(since.checked_add(limit).ok(), step.last_check)
            .into()
    })
}
