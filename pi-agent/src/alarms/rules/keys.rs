//! Alarms about keys.

use std::time::Duration;

use crate::alarms::evidence::Evidence;
use crate::alarms::registry::{Bad, Found, Verdict};
use crate::config::Alarms;
use crate::kit::record::Standing;
use crate::notify::Tone;
use crate::report::words;

/// A secret is missing, unreadable, or open to others: the next backup fails.
pub fn secrets(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let verdict = match &evidence.secrets {
        None => Verdict::Fine { as_of: None },
        Some(problem) => {
            let bad = Bad::new(Tone::Critical, "the secrets cannot be used").text(problem.message.clone());
            Bad { hint: problem.hint.clone(), ..bad }.into()
        }
    };
    vec![(None, verdict)]
}

/// From so little left on it is critical.
const LAST_DAYS: Duration = Duration::from_hours(3 * 24);

/// The storage server's certificate ends soon: from then on every backup fails.
pub fn certificate(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    let verdict = evidence.certificate_end.map_or(Verdict::Unknown, |end| {
        let left = words::between(evidence.now, end);
        if left >= limits.certificate {
            return Verdict::Fine { as_of: None };
        }
        let tone = if left < LAST_DAYS { Tone::Critical } else { Tone::Warning };
        Bad::new(tone, "the storage server's certificate ends soon")
            .text(format!("it ends {}, as the last run saw it; from then on every backup fails", words::time(end)))
            .hint("renew it on the server; the next run looks again")
            .into()
    });
    vec![(None, verdict)]
}

/// There are backups, and no kit of the keys that open them: a dead card would take the only keys with it.
pub fn recovery_kit(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let title = match evidence.kit {
        Some(Standing::Missing) => "no recovery kit was ever made",
        Some(Standing::OtherKeys) => "no recovery kit was made since the keys changed",
        Some(_) => return vec![(None, Verdict::Fine { as_of: None })],
        None => return vec![(None, Verdict::Unknown)],
    };
    if evidence.steps.iter().all(|step| step.last_good.is_none()) {
        return vec![(None, Verdict::Unknown)];
    }
    let bad = Bad::new(Tone::Warning, title)
        .text("the only keys that open the backups lie on the disk that the backups protect")
        .hint("pi-agent recovery-kit --to FILE, save it away from this machine, then pi-agent setup --kit-saved");
    vec![(None, bad.into())]
}
