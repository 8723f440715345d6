//! What we tell systemd, and what we ask of it: the unit's status line, the watchdog, the clock, the start of a unit.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sd_notify::NotifyState;

use crate::error::{Context, Error, Result};
use crate::monitor::{Event, Progress, Unit};
use crate::plan::PlannedStep;
use crate::process::Program;
use crate::report::{StepReport, words};
use crate::run::Watcher;

/// The unit that runs the nightly sequence.
pub const BACKUP: &str = "pi-agent-backup.service";

/// The unit that looks for alarms.
pub const ALARMS: &str = "pi-agent-alarms.service";

/// systemd is this machine's service manager (as `sd_booted(3)` finds out).
pub fn is_manager() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// We were started as a service that wants to be told (`Type=notify`).
pub fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Asks for the start of a unit, and does not wait for it.
///
/// # Errors
/// systemd refuses, or does not answer in time.
pub fn start(unit: &str) -> Result<()> {
    let doing = || format!("start {unit}");
    let program = Program::new("systemctl", ["start", "--no-block", unit]).within(Duration::from_secs(30));
    let output = program.run(&mut |_, _| ()).context(doing)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(doing()).caused_by(Error::new(output.stderr.trim())).hint(format!("systemctl status {unit}")))
}

/// When a timer elapses next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRun {
    /// Then.
    At(Timestamp),
    /// The timer is not enabled, or there is no systemd.
    NotScheduled,
    /// Nobody asked, or what it triggers is at work and the next time not known.
    Unknown,
}

impl NextRun {
    /// The time, when it is known.
    pub fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(time) => Some(time),
            Self::NotScheduled | Self::Unknown => None,
        }
    }
}

/// When the nightly run comes next.
pub fn next_run() -> NextRun {
    if !is_manager() {
        return NextRun::NotScheduled;
    }
    let arguments = ["show", "--property=ActiveState,NextElapseUSecRealtime", "pi-agent-backup.timer"];
    let program = Program::new("systemctl", arguments).env("TZ", "UTC").within(Duration::from_secs(15));
    let next = program.run(&mut |_, _| ()).map_or(NextRun::Unknown, |output| judge_timer(&output.stdout));
    // While the run is at work, systemd still tells when it was due.
    if next.time().is_some_and(|time| time < Timestamp::now()) { NextRun::Unknown } else { next }
}

/// `NextElapseUSecRealtime=Sun 2026-11-22 03:00:00 UTC`
fn judge_timer(shown: &str) -> NextRun {
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    if value("ActiveState=") != "active" {
        return NextRun::NotScheduled;
    }
    let text = value("NextElapseUSecRealtime=");
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [_, date, time, "UTC"] => format!("{date}T{time}Z").parse().map_or(NextRun::Unknown, NextRun::At),
        _ => NextRun::Unknown,
    }
}

/// The machine's time service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeService {
    /// It has set the clock since the machine started.
    Synchronised,
    /// It is at work, but has not set the clock yet.
    Trying,
    /// There is none, or nobody can tell.
    Absent,
}

/// Asks how the clock is kept, whichever service does it (timesyncd, chrony, ntpsec).
pub fn time_service() -> TimeService {
    if !is_manager() {
        return TimeService::Absent;
    }
    let program = Program::new("timedatectl", ["show", "--property=NTP", "--property=NTPSynchronized"])
        .within(Duration::from_secs(15));
    // Without an answer nothing is known, and nothing is waited for: what the clock shows is judged all the same.
    program.run(&mut |_, _| ()).map_or(TimeService::Absent, |output| judge_time_service(&output.stdout))
}

fn judge_time_service(shown: &str) -> TimeService {
    let says = |line: &str| shown.lines().any(|one| one == line);
    match (says("NTPSynchronized=yes"), says("NTP=yes")) {
        (true, _) => TimeService::Synchronised,
        (false, true) => TimeService::Trying,
        (false, false) => TimeService::Absent,
    }
}

/// Tells systemd how a run goes: `systemctl status` shows it, and the watchdog knows that the supervisor's loop turns.
#[derive(Debug)]
pub struct Service {
    step: String,
    rate: Rate,
    told: Option<Instant>,
    fed: Option<Instant>,
}

impl Service {
    /// The status line changes at most this often.
    const STATUS: Duration = Duration::from_secs(2);

    /// Says that the service is up.
    pub fn ready() -> Self {
        tell(&[NotifyState::Ready]);
        Self { step: String::new(), rate: Rate::default(), told: None, fed: None }
    }

    fn status(&mut self, text: &str) {
        tell(&[NotifyState::Status(text)]);
        self.told = Some(Instant::now());
    }
}

impl Watcher for Service {
    fn waiting(&mut self, what: &str) {
        self.status(&format!("waiting for {what}"));
    }

    fn tick(&mut self) {
        // systemd asks for a sign within WatchdogSec; half of it is its own advice, a third is safer.
        if let Some(limit) = sd_notify::watchdog_enabled()
            && self.fed.is_none_or(|fed| fed.elapsed() >= limit / 3)
        {
            tell(&[NotifyState::Watchdog]);
            self.fed = Some(Instant::now());
        }
    }

    fn started(&mut self, step: &PlannedStep) {
        self.step.clone_from(&step.name);
        self.rate = Rate::default();
        self.status(&format!("{}: starting", step.name));
    }

    fn event(&mut self, event: &Event) {
        if let Event::Progress(progress) = event {
            let rate = self.rate.of(progress, Instant::now());
            if self.told.is_none_or(|told| told.elapsed() >= Self::STATUS) {
                self.status(&format!("{}: {}", self.step, in_words(progress, rate)));
            }
        }
    }

    fn line(&mut self, line: &str) {
        let (level, text) = level_of(line);
        log::log!(level, STEP = self.step.as_str(); "{}: {text}", self.step);
    }

    fn ended(&mut self, step: &StepReport) {
        self.status(&format!("{} {}", step.name, step.result.outcome.as_str()));
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // systemd that cannot be told will say so itself, by its watchdog; a backup does not depend on it.
    let _ = sd_notify::notify(states);
}

/// "reading files 42 % (1.2 GiB of 2.9 GiB), 3.1 MiB/s"
fn in_words(progress: &Progress, rate: Option<u64>) -> String {
    let amount = |count: u64| match progress.unit {
        Unit::Bytes => words::size(count),
        Unit::Items => count.to_string(),
    };
    let mut text = progress.phase.clone();
    match progress.total {
        Some(total) if total > 0 => {
            let percent = u128::from(progress.done) * 100 / u128::from(total);
            text.push_str(&format!(" {percent} % ({} of {})", amount(progress.done), amount(total)));
        }
        _ if progress.done > 0 => text.push_str(&format!(" {}", amount(progress.done))),
        _ => {}
    }
    if let (Some(rate), Unit::Bytes) = (rate, progress.unit) {
        text.push_str(&format!(", {}/s", words::size(rate)));
    }
    text
}

/// Bytes per second over the last seconds of one phase.
#[derive(Debug, Default)]
struct Rate {
    phase: String,
    since: Option<(Instant, u64)>,
    rate: Option<u64>,
}

impl Rate {
    const WINDOW: Duration = Duration::from_secs(10);

    fn of(&mut self, progress: &Progress, now: Instant) -> Option<u64> {
        let (then, done) = match self.since {
            Some(since) if self.phase == progress.phase && progress.done >= since.1 => since,
            _ => {
                *self = Self { phase: progress.phase.clone(), since: Some((now, progress.done)), rate: None };
                return None;
            }
        };
        let elapsed = now - then;
        if elapsed >= Self::WINDOW {
            self.rate = Some((u128::from(progress.done - done) * 1000 / elapsed.as_millis()) as u64);
            self.since = Some((now, progress.done));
        }
        self.rate
    }
}

/// A step's process writes its log lines as `level: text`; whatever else it writes is a warning.
fn level_of(line: &str) -> (log::Level, &str) {
    line.split_once(": ")
        .and_then(|(level, text)| Some((level.parse().ok()?, text)))
        .unwrap_or((log::Level::Warn, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_timedatectl_says() {
        assert_eq!(judge_time_service("NTP=yes\nNTPSynchronized=yes\n"), TimeService::Synchronised);
        assert_eq!(judge_time_service("NTP=yes\nNTPSynchronized=no\n"), TimeService::Trying);
        assert_eq!(judge_time_service("NTP=no\nNTPSynchronized=no\n"), TimeService::Absent);
        assert_eq!(
            judge_time_service("NTP=no\nNTPSynchronized=yes\n"),
            TimeService::Synchronised,
            "a clock of the host"
        );
        assert_eq!(judge_time_service(""), TimeService::Absent);
    }

    #[test]
    fn what_systemctl_says_of_the_timer() {
        let at = "2026-11-22T03:00:07Z".parse().expect("a timestamp");
        let shown = "ActiveState=active\nNextElapseUSecRealtime=Sun 2026-11-22 03:00:07 UTC\n";
        assert_eq!(judge_timer(shown), NextRun::At(at));
        assert_eq!(judge_timer("ActiveState=inactive\nNextElapseUSecRealtime=\n"), NextRun::NotScheduled);
        assert_eq!(judge_timer("NextElapseUSecRealtime=\nActiveState=active\n"), NextRun::Unknown);
        assert_eq!(judge_timer(""), NextRun::NotScheduled);
    }

    #[test]
    fn the_status_line_has_percent_and_rate() {
        let mut progress =
            Progress { phase: "reading files".into(), done: 0, total: Some(10 << 20), unit: Unit::Bytes };
        let start = Instant::now();
        let mut rate = Rate::default();
        assert_eq!(in_words(&progress, rate.of(&progress, start)), "reading files 0 % (0 B of 10.0 MiB)");
        progress.done = 5 << 20;
        let shown = in_words(&progress, rate.of(&progress, start + Duration::from_secs(10)));
        assert_eq!(shown, "reading files 50 % (5.0 MiB of 10.0 MiB), 512 KiB/s");
        let other = Progress { phase: "waiting for WAL".into(), ..Progress::default() };
        assert_eq!(in_words(&other, rate.of(&other, start + Duration::from_secs(11))), "waiting for WAL");
    }

    #[test]
    fn lines_of_a_step_keep_their_level() {
        assert_eq!(level_of("error: no"), (log::Level::Error, "no"));
        assert_eq!(level_of("thread 'main' panicked"), (log::Level::Warn, "thread 'main' panicked"));
    }
}
