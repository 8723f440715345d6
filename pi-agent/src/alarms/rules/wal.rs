//! Alarms about WAL: changes that are on one disk alone, room for what waits, segments that never came.

use std::time::Duration;

use crate::alarms::evidence::Evidence;
use crate::alarms::registry::{Bad, Found, Verdict};
use crate::config::Alarms;
use crate::notify::Tone;
use crate::report::words;
use crate::wal::WalState;

fn by_wal(evidence: &Evidence, judge: impl Fn(&WalState) -> Verdict) -> Vec<Found> {
    let steps = evidence.steps.iter().filter(|step| step.postgres);
    steps.map(|step| (Some(step.name.clone()), step.wal.as_ref().map_or(Verdict::Unknown, &judge))).collect()
}

/// A disk that dies now takes more changes than was agreed. Over once it is half as much.
pub fn age(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    let rpo = limits.rpo;
    by_wal(evidence, |wal| {
        // A hole is told by itself.
        let Some(safe) = wal.safe_until(evidence.now).filter(|_| wal.hole.is_none()) else { return Verdict::Unknown };
        let exposed = words::between(safe, evidence.now);
        // With nothing waiting it is archive_timeout that speaks, and stays as it is.
        let usual = if wal.files == 0 { wal.archive_timeout.unwrap_or_default() } else { Duration::ZERO };
        if exposed <= rpo {
            return if exposed <= (rpo / 2).max(usual) { Verdict::Fine { as_of: None } } else { Verdict::Unknown };
        }
        let limit = words::duration(rpo);
        let (tone, text, hint) = match (wal.files, wal.archive_timeout) {
            _ if wal.is_kept_back(evidence.now) => {
                let text = format!(
                    "the server does not hand over what it writes: archive_mode is off, or archive_command does something \
                     else; the limit (rpo) is {limit}"
                );
                (Tone::Critical, text, "pi-agent doctor says what to set; then: pi-agent run")
            }
            (0, timeout) => {
                let timeout = timeout.unwrap_or_default().as_secs();
                let text = format!(
                    "none waits, but the server keeps a segment until it is full (archive_timeout is {timeout} s); \
                     the limit (rpo) is {limit}"
                );
                (Tone::Warning, text, "pi-agent doctor says what to set; then: pi-agent run")
            }
            (files, _) => {
                let tone = if exposed > rpo * 3 { Tone::Critical } else { Tone::Warning };
                let what =
                    if files == 1 { "one file of WAL waits".to_owned() } else { format!("{files} files of WAL wait") };
                let text = format!("{what} in {}; the limit (rpo) is {limit}", wal.place.display());
                (tone, text, "pi-agent wal push; what stops it: journalctl -u pi-agent-wal, and PostgreSQL's own log")
            }
        };
        Bad::new(tone, format!("changes of the last {} are on this disk alone", words::duration(exposed)))
            .text(text)
            .hint(hint)
            .dated(safe.checked_add(rpo).ok(), None)
            .into()
    })
}

/// Segments never came: moments behind them cannot be reached from the backups there are. Over once a new backup has begun
/// behind them.
pub fn hole(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_wal(evidence, |wal| {
        if let Some(hole) = &wal.hole {
            return Bad::new(Tone::Critical, hole.to_string())
                .text(format!("no moment since {} can be restored until there is a new backup", words::time(hole.since)))
                .hint(
                    "it is made at once; by hand: pi-agent run. Look for what removed WAL: a changed archive_command, an \
                     emptied spool, a start with wal_level = minimal",
                )
                .dated(Some(hole.since), None)
                .into();
        }
        match &wal.astray {
            // One that is on its way just now is in neither place for a moment.
            Some(astray) if words::between(astray.finished, evidence.now) > limits.rpo => {
                Bad::new(Tone::Critical, "WAL does not arrive, and PostgreSQL counts it as archived")
                    .text(format!("{} is neither in the spool nor in the repository", astray.segment))
                    .hint("archive_command was changed, or the spool emptied: pi-agent doctor, then pi-agent run")
                    .dated(Some(astray.finished), None)
                    .into()
            }
            Some(_) => Verdict::Unknown,
            None => Verdict::Fine { as_of: None },
        }
    })
}

/// How far ahead a disk that fills with WAL is told of: PostgreSQL stops when it is full.
const WAL_ROOM: Duration = Duration::from_hours(12);
const LITTLE_WAL_ROOM: Duration = Duration::from_hours(3);
/// From a shorter time nothing is concluded about the rate.
const WAL_TREND: Duration = Duration::from_mins(5);

/// WAL that nobody takes away fills its disk within hours, at the rate at which it has come so far. Over once there is
/// room for twice as long.
pub fn room(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    by_wal(evidence, |wal| {
        let (Some(oldest), Some(free)) = (wal.oldest, wal.free) else { return Verdict::Fine { as_of: None } };
        let waits = words::between(oldest, evidence.now);
        if waits < WAL_TREND {
            return Verdict::Fine { as_of: None };
        }
        let seconds = u128::from(free) * u128::from(waits.as_secs()) / u128::from(wal.bytes.max(1));
        let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
        if lasts >= WAL_ROOM {
            return if lasts >= WAL_ROOM * 2 { Verdict::Fine { as_of: None } } else { Verdict::Unknown };
        }
        let tone = if lasts < LITTLE_WAL_ROOM { Tone::Critical } else { Tone::Warning };
        Bad::new(tone, format!("WAL fills the disk in {}", words::rough(lasts)))
            .text(format!(
                "{} of WAL wait in {}, {} are free; PostgreSQL stops when the disk is full",
                words::size(wal.bytes),
                wal.place.display(),
                words::size(free)
            ))
            .hint("pi-agent wal push says why the storage does not take it; make room meanwhile, but delete no WAL")
            .into()
    })
}
