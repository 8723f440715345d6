//! Alarms about restore tests: a backup is what comes back.

use super::by_step;
use crate::alarms::evidence::Evidence;
use crate::alarms::registry::{Bad, Found, Verdict};
use crate::config::Alarms;
use crate::notify::Tone;
use crate::report::words;
use crate::steps::Outcome;

/// The last one failed. Whatever could not be tested is told by `status`, and is no reason to wake anybody.
pub fn outcome(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_step(evidence, |step| {
        let Some(last) = step.tests.first() else { return Verdict::Unknown };
        let as_of = Some(last.finished_at);
        if last.outcome != Outcome::Failed {
            return Verdict::Fine { as_of };
        }
        let since = step.tests.iter().take_while(|test| test.outcome == Outcome::Failed).last();
        Bad::new(Tone::Critical, "the restore test failed")
            .text(last.error.clone().unwrap_or_default())
            .hint(format!(
                "pi-agent check {0} --read-data says what is damaged, and pi-agent repair {0} --read-data mends it; once that is put right: \
                 pi-agent restore-test {0}",
                step.name
            ))
            .dated(since.map(|first| first.finished_at), as_of)
            .into()
    })
}

/// The last one that told something good is too long ago; without any it counts from the first backup.
pub fn age(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    let limit = limits.restore_test_age;
    by_step(evidence, |step| {
        let last = step.tests.iter().find(|test| test.outcome.is_usable()).map(|test| test.finished_at);
        let Some(since) = last.or(step.first_good) else { return Verdict::Unknown };
        let age = words::between(since, evidence.now);
        if age <= limit {
            return Verdict::Fine { as_of: last };
        }
        let title = match last {
            Some(_) => format!("the last good restore test is {} old", words::duration(age)),
            None => "no restore was ever tested".to_owned(),
        };
        Bad::new(Tone::Warning, title)
            .text(format!("the limit is {}", words::duration(limit)))
            .hint(format!("pi-agent restore-test {}; systemctl list-timers pi-agent-restore-test", step.name))
            .dated(since.checked_add(limit).ok(), last)
            .into()
    })
}
