//! Alarms about the machine: room, the clock, voltage and heat, units that failed.

use std::time::Duration;

use crate::alarms::clock::Trust;
use crate::alarms::evidence::{Evidence, Unit};
use crate::alarms::registry::{Bad, Found, Telling, Verdict};
use crate::config::Alarms;
use crate::health::{self, Volume, What};
use crate::notify::Tone;
use crate::report::words;

/// Percentage points below a limit at which it is over: a disk at the limit would otherwise come and go all day.
const BAND: u64 = 2;

/// A volume is nearly full, or cannot be written at all.
pub fn disk_space(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_volume(evidence, |volume| {
        let room = &volume.room;
        let shown = volume.name.display();
        if room.read_only {
            return Bad::new(Tone::Critical, "mounted read-only")
                .text(format!("it holds {}", volume.holds.join(", ")))
                .hint(format!(
                    "look at `dmesg` for errors of the disk, then `mount -o remount,rw {shown}` or replace it"
                ))
                .into();
        }
        let free = words::size(room.free);
        let (used, limit) = (percent(room.total - room.free.min(room.total), room.total), limits.disk_used);
        full(used, limit, volume, &format!("{free} free"), format!("make room: `du -xh {shown} | sort -h | tail`"))
    })
}

/// A volume has nearly as many files as it can.
pub fn inodes(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    by_volume(evidence, |volume| {
        let room = &volume.room;
        let Some(free) = room.free_files else { return Verdict::Fine { as_of: None } };
        let used = percent(room.total_files - free.min(room.total_files), room.total_files);
        let shown = volume.name.display();
        let hint = format!("remove small files: `du -x --inodes {shown} | sort -n | tail`");
        full(used, limits.inodes_used, volume, &format!("room for {free} more files"), hint)
    })
}

fn by_volume(evidence: &Evidence, judge: impl Fn(&Volume) -> Verdict) -> Vec<Found> {
    evidence.volumes.iter().map(|volume| (Some(volume.name.display().to_string()), judge(volume))).collect()
}

fn full(used: u64, limit: u32, volume: &Volume, left: &str, hint: String) -> Verdict {
    let limit = u64::from(limit);
    if used <= limit {
        return if used + BAND <= limit { Verdict::Fine { as_of: None } } else { Verdict::Unknown };
    }
    // With the default limit of 90 % this is 97 %.
    let tone = if used > limit + (100 - limit) * 7 / 10 { Tone::Critical } else { Tone::Warning };
    let what = if left.ends_with("files") { " of its files" } else { "" };
    Bad::new(tone, format!("{used} %{what} in use"))
        .text(format!("{left}; it holds {}; the limit is {limit} %", volume.holds.join(", ")))
        .hint(hint)
        .into()
}

/// Rounded up: 90.1 % is over 90 %.
fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from((u128::from(part) * 100).div_ceil(u128::from(whole.max(1)))).unwrap_or(100)
}

/// The clock cannot be right. Ages are not judged meanwhile, and nothing is deleted.
pub fn clock(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let verdict = match &evidence.clock {
        Trust::Trusted => match &evidence.contradicted {
            None => Verdict::Fine { as_of: None },
            Some((why, when)) => Bad::new(Tone::Warning, "the clock is not trusted")
                .text(format!("{why}. Nothing was forgotten, pruned or expired; the next run looks again"))
                .hint(
                    "look at `timedatectl`: `timedatectl set-ntp true`; `pi-agent points` shows a restore point of the future: once the network \
                     has set the clock, the next run says how to remove it",
                )
                .dated(Some(*when), None)
                .into(),
        },
        Trust::Starting(_) => Verdict::Unknown,
        Trust::Doubted(why) => Bad::new(Tone::Warning, "the clock is not trusted")
            .text(format!("{why}. No age is judged while that is so"))
            .hint("look at `timedatectl`: `timedatectl set-ntp true`; if the clock is right: pi-agent alarms --trust-clock")
            .into(),
    };
    vec![(None, verdict)]
}

/// What is done about a weak supply.
const SUPPLY: &str = "use the official power supply and a short cable, and give USB disks a supply of their own; then \
                      restart and look at `vcgencmd get_throttled`";
/// A moment's want of voltage, or of cool air, is told by the run that it hits.
const LASTING: Telling = Telling::After(Duration::from_mins(20));

/// The power supply is too weak: now, during the last backup of a step, or at some time since the machine's start.
pub fn power(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let reading = &evidence.reading;
    let during = evidence.steps.iter().find_map(|step| {
        let last = step.backups.iter().find(|backup| backup.outcome.is_some())?;
        let low: Vec<_> = last.machine.iter().filter(|it| it.what == What::UnderVoltage).cloned().collect();
        Some((&step.name, last.finished_at, health::in_words(&low)?))
    });
    let verdict = match during {
        _ if reading.under_voltage => {
            let bad = Bad::new(Tone::Critical, "the power supply gives too little voltage");
            Bad { telling: LASTING, ..bad.text("runs wait until it is better, and then fail").hint(SUPPLY) }.into()
        }
        Some((step, finished, low)) => {
            Bad::new(Tone::Warning, "the power supply gave too little voltage during a backup")
                .text(format!("{step}: {low}"))
                .hint(SUPPLY)
                .dated(finished, finished)
                .into()
        }
        None if reading.was_under_voltage => {
            Bad::new(Tone::Warning, "the power supply gave too little voltage since the machine's start")
                .hint(SUPPLY)
                .into()
        }
        None => Verdict::Fine { as_of: None },
    };
    vec![(None, verdict)]
}

/// The processor is too hot: runs wait meanwhile. Over once it is five degrees cooler.
pub fn temperature(evidence: &Evidence, limits: &Alarms) -> Vec<Found> {
    const HOT: u32 = 5;
    let limit = limits.temperature;
    let verdict = match evidence.reading.celsius {
        Some(celsius) if celsius >= limit => {
            let tone = if celsius >= limit + HOT { Tone::Critical } else { Tone::Warning };
            let bad = Bad::new(tone, format!("the processor is at {celsius} °C"))
                .text(format!("the limit is {limit} °C; runs wait until it is cooler, and then fail"))
                .hint("a heat sink or a fan, and room for air; `top` shows what keeps it busy");
            Bad { telling: LASTING, ..bad }.into()
        }
        Some(celsius) if celsius + HOT > limit => Verdict::Unknown,
        _ => Verdict::Fine { as_of: None },
    };
    vec![(None, verdict)]
}

/// A unit failed without the agent's being able to say so; the failure script told it, and we tell when it is over.
pub fn unit(evidence: &Evidence, _: &Alarms) -> Vec<Found> {
    let judge = |unit: &Unit| {
        let mut bad = Bad::new(Tone::Critical, "the unit failed")
            .hint(format!("systemctl status {0}; journalctl -u {0} -n 50", unit.name))
            .dated(unit.told, unit.told);
        bad.telling = Telling::Elsewhere;
        match (unit.well, unit.told) {
            (Some(false), _) => bad.into(),
            (Some(true), Some(_)) => Verdict::Over(bad),
            (Some(true), None) => Verdict::Fine { as_of: None },
            (None, _) => Verdict::Unknown,
        }
    };
    evidence.units.iter().map(|unit| (Some(unit.name.clone()), judge(unit))).collect()
}
