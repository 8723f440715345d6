//! Alarms about the records themselves.

use super::by_history;
use crate::alarms::evidence::Evidence;
use crate::alarms::registry::{Bad, Found, Verdict};
use crate::config::Alarms;
use crate::notify::Tone;

/// The state database cannot be read. No backup is lost, but what the other alarms rest on is.
pub fn readable(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let verdict = match &evidence.unreadable {
        None => Verdict::Fine { as_of: None },
        Some(problem) => Bad::new(Tone::Warning, "the history cannot be read")
            .text(problem.message.clone())
            .hint(problem.hint.clone().unwrap_or_else(|| {
                "nothing is lost: the next run sets it aside and fetches the saved copy; look at the disk with `dmesg`".into()
            }))
            .into(),
    };
    vec![(None, verdict)]
}

/// The last run had problems outside its steps.
pub fn run(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_history(evidence, || {
        let Some(run) = &evidence.run else { return Verdict::Unknown };
        let as_of = Some(run.finished_at);
        let Some((first, rest)) = run.problems.split_first() else { return Verdict::Fine { as_of } };
        let messages: Vec<&str> = run.problems.iter().map(|problem| problem.message.as_str()).collect();
        let title = match rest.len() {
            0 => "the last run had a problem outside its steps".to_owned(),
            more => format!("the last run had {} problems outside its steps", more + 1),
        };
        let bad = Bad::new(Tone::Warning, title).text(messages.join("; ")).dated(as_of, as_of);
        Bad { hint: first.hint.clone(), ..bad }.into()
    })
}
