//! The brake: a step stands still in turns, for longer the more others wait for this machine, and nearly always while somebody
//! holds it.
//!
//! How much others wait is best seen while the step stands still. A tenth of the time is always its own, and after an hour of
//! standing still only disks and memory count: a busy server never prevents its backup. It does not stand still while a live
//! part's writer does, nor for longer than connections last.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Zoned;
use nix::unistd::Pid;

use super::pressure::{Pressure, Sample};
use crate::config::Limits;
use crate::process;

/// A step that is done by then is better done.
const GRACE: Duration = Duration::from_secs(1);
/// One turn of standing still and going on.
const TURN: Duration = Duration::from_secs(1);
/// The least share of each turn that is the step's.
const LEAST: f64 = 0.1;
/// A look at what others do while the step stands still.
const LOOK: Duration = Duration::from_millis(150);
/// What was under way as it stopped is none of the others' waiting.
const SETTLE: Duration = Duration::from_millis(30);
/// Between two looks, while they show nothing.
const RARELY: Duration = Duration::from_secs(8);
/// A step that is held: connections survive the first, and work is done in the second.
const HELD: Duration = Duration::from_secs(20);
const BREATH: Duration = Duration::from_secs(1);

/// Who waits for a processor has the precedence for so long; then what the scheduler leaves must do for both.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Between two looks at what programs have read; they have to be far ahead of the limit to be stopped.
const METER: Duration = Duration::from_millis(100);
const AHEAD: Duration = Duration::from_millis(100);

/// Of one step's process and everything below it. Dropped, it lets them go on.
pub struct Brake {
    step: Pid,
    /// `None`: it does not give way.
    pressure: Option<Pressure>,
    meter: Option<Meter>,
    held: Option<String>,
    pace: Pace,
    phase: Phase,
    stood: Duration,
    /// The same for others, since it began.
    given: Duration,
}

enum Phase {
    Going {
        until: Instant,
        before: Option<Sample>,
    },
    /// `since`: what came before is counted already.
    Standing {
        since: Instant,
        settle: Instant,
        until: Instant,
        stopped: Vec<Pid>,
        settled: Option<Sample>,
    },
}

/// What programs read, and when that is paid for.
struct Meter {
    limits: Limits,
    seen: u64,
    paid: Instant,
}

impl Meter {
    /// How long to stand still for what was read since this was asked last.
    fn owed(&mut self, step: Pid, now: Instant) -> Duration {
        // Between its end and the moment that somebody waits for it, what a process has read is counted nowhere.
        let read = process::read_by(step).max(self.seen);
        let new = read - self.seen;
        self.seen = read;
        let Some(rate) = self.limits.at(Zoned::now().time()).read else { return Duration::ZERO };
        self.paid = self.paid.max(now) + Duration::from_secs_f64(new as f64 / rate as f64);
        self.paid - now
    }
}

/// How fast to go.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pace {
    /// The share of each turn that is the step's.
    share: f64,
    /// Until the next look.
    patience: Duration,
}

impl Brake {
    /// For the step whose process that is, on the machine at `root`. One that does not give way stands still only when held.
    pub fn new(root: &Path, step: Pid, gives_way: bool) -> Self {
        let (pressure, now) = (gives_way.then(|| Pressure::of(root)), Instant::now());
        let before = pressure.as_ref().map(|pressure| pressure.sample(now));
        Self {
            step,
            pressure,
            meter: None,
            held: None,
            pace: Pace { share: 1.0, patience: TURN },
            phase: Phase::Going { until: now + GRACE, before },
            stood: Duration::ZERO,
            given: Duration::ZERO,
        }
    }

    /// What the step and the programs below it read is limited, too: pgBackRest knows no limit of its own.
    #[must_use]
    pub fn metering(mut self, limits: &Limits) -> Self {
        let meter = || Meter { limits: limits.clone(), seen: 0, paid: Instant::now() };
        self.meter = limits.limit_reading().then(meter);
        self
    }

    /// From the next [`Self::turn`] on it stands still but for a second in twenty, until [`Self::release`].
    pub fn hold(&mut self, why: impl Into<String>) {
        if self.held.is_none() {
            self.phase.cut_short();
        }
        self.held = Some(why.into());
    }

    /// Nobody holds it any more.
    pub fn release(&mut self) {
        if self.held.take().is_some() {
            self.phase.cut_short();
        }
    }

    /// Why it is held.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// How long it has stood still since this was asked last: no sign of life was to be expected in that time.
    pub fn stood(&mut self, now: Instant) -> Duration {
        self.count(now);
        std::mem::take(&mut self.stood)
    }

    /// Does what is due; when to call again.
    pub fn turn(&mut self, now: Instant) -> Instant {
        match &mut self.phase {
            Phase::Going { until, .. } if now < *until && self.meter.is_some() => {
                let until = *until;
                let owed = self.meter.as_mut().map(|meter| meter.owed(self.step, now)).unwrap_or_default();
                if owed < AHEAD { until.min(now + METER) } else { self.stop(now, owed.min(HELD)) }
            }
            Phase::Going { until, .. } | Phase::Standing { until, settled: Some(_), .. } if now < *until => *until,
            Phase::Standing { settle, until, settled, .. } if now < *until => {
                if now < *settle {
                    return *settle;
                }
                *settled = self.pressure.as_ref().map(|pressure| pressure.sample(now));
                *until
            }
            Phase::Going { .. } => self.stop_if_due(now),
            Phase::Standing { .. } => self.go_on(now),
        }
    }

    fn stop_if_due(&mut self, now: Instant) -> Instant {
        let Phase::Going { before, .. } = &mut self.phase else { return now };
        let standing = match (&self.held, &self.pressure) {
            (Some(_), _) => HELD,
            (None, Some(_)) if self.pace.share < 1.0 => TURN.mul_f64(1.0 - self.pace.share),
            (None, Some(pressure)) => {
                // Who waits may be ourselves: that is looked at only now and then.
                let sample = pressure.sample(now);
                let patient = self.given < PATIENCE;
                let waits = before.as_ref().is_some_and(|before| sample.level(before, patient) >= 1.0);
                if !waits {
                    return self.go(now, self.pace.patience.max(TURN), Some(sample));
                }
                LOOK
            }
            (None, None) => return self.go(now, TURN, None),
        };
        self.stop(now, standing)
    }

    fn stop(&mut self, now: Instant, standing: Duration) -> Instant {
        let stopped = process::stand_still(self.step);
        if stopped.is_empty() {
            // The writer of a live part is quiet: now speed is what is courteous.
            return self.go(now, TURN, None);
        }
        let (settle, until) = (now + SETTLE, now + standing);
        self.phase = Phase::Standing { since: now, settle, until, stopped, settled: None };
        settle
    }

    fn go_on(&mut self, now: Instant) -> Instant {
        let mut sample = None;
        if let Phase::Standing { settled: Some(settled), .. } = &self.phase
            && let Some(pressure) = &self.pressure
        {
            let seen = pressure.sample(now);
            if self.held.is_none() {
                self.pace = self.pace.after(seen.level(settled, self.given < PATIENCE));
            }
            sample = Some(seen);
        }
        self.let_go(now);
        let going = match (&self.held, self.pace) {
            (Some(_), _) => BREATH,
            (None, Pace { share, .. }) if share < 1.0 => TURN.mul_f64(share),
            (None, Pace { patience, .. }) => patience,
        };
        self.go(now, going, sample)
    }

    fn go(&mut self, now: Instant, going: Duration, before: Option<Sample>) -> Instant {
        let until = now + going;
        self.phase = Phase::Going { until, before };
        if self.meter.is_some() { until.min(now + METER) } else { until }
    }

    fn let_go(&mut self, now: Instant) {
        self.count(now);
        if let Phase::Standing { stopped, .. } = &mut self.phase {
            process::go_on(stopped);
            stopped.clear();
        }
    }

    fn count(&mut self, now: Instant) {
        if let Phase::Standing { since, .. } = &mut self.phase {
            let stood = now.saturating_duration_since(*since);
            self.stood += stood;
            if self.held.is_none() {
                self.given += stood;
            }
            *since = now;
        }
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        self.let_go(Instant::now());
    }
}

impl Phase {
    fn cut_short(&mut self) {
        let (Self::Going { until, .. } | Self::Standing { until, .. }) = self;
        *until = Instant::now();
    }
}

impl Pace {
    /// What follows from others' waiting at that level while the step stood still: quickly out of the way, slowly back.
    fn after(self, level: f64) -> Self {
        if level >= 1.0 {
            return Self { share: (self.share / 4.0).max(LEAST), patience: TURN };
        }
        if self.share >= 1.0 {
            // It was ourselves.
            return Self { patience: (self.patience * 2).min(RARELY), ..self };
        }
        let share = if level < 0.5 { (self.share * 1.4).min(1.0) } else { self.share };
        Self { share, patience: TURN }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Child, Command};

    /// A machine whose disk (io) or processors (cpu) others wait for at will, and a child that only sleeps.
    struct Machine {
        root: tempfile::TempDir,
        what: &'static str,
        waited: u64,
        child: Child,
    }

    impl Machine {
        fn new(what: &'static str) -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            let mut machine = Self { root, what, waited: 0, child };
            machine.wait(0.0, Duration::ZERO);
            machine
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.child.id().cast_signed())
        }

        fn wait(&mut self, share: f64, time: Duration) {
            self.waited += time.mul_f64(share).as_micros() as u64;
            let text = format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n", self.waited);
            fs::write(self.root.path().join("proc/pressure").join(self.what), text).unwrap();
        }

        /// A signal takes a moment to arrive.
        fn assert_stands(&self, stands: bool) {
            let started = Instant::now();
            loop {
                let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
                if stat.rsplit_once(") ").unwrap().1.starts_with('T') == stands {
                    return;
                }
                assert!(started.elapsed() < Duration::from_secs(10), "{stat}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        /// Plays so many seconds of others waiting so much; the share of them in which the child went, and its longest stop.
        fn play(&mut self, brake: &mut Brake, now: &mut Instant, seconds: u64, share: f64) -> (f64, Duration) {
            let (end, mut went) = (*now + Duration::from_secs(seconds), Duration::ZERO);
            let (mut stop, mut longest) = (Duration::ZERO, Duration::ZERO);
            while *now < end {
                let next = brake.turn(*now).max(*now + Duration::from_millis(1)).min(end);
                let time = next - *now;
                if stands(brake) {
                    stop += time;
                    longest = longest.max(stop);
                } else {
                    went += time;
                    stop = Duration::ZERO;
                }
                self.wait(share, time);
                *now = next;
            }
            (went.as_secs_f64() / seconds as f64, longest)
        }
    }

    fn stands(brake: &Brake) -> bool {
        matches!(brake.phase, Phase::Standing { .. })
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    #[test]
    fn it_backs_off_while_others_wait_and_comes_back() {
        let mut machine = Machine::new("io");
        let mut brake = Brake::new(machine.root.path(), machine.pid(), true);
        let mut now = Instant::now();
        let (went, _) = machine.play(&mut brake, &mut now, 20, 0.02);
        assert!((went - 1.0).abs() < 0.001, "nobody is hindered: {went}");
        machine.play(&mut brake, &mut now, 10, 0.5);
        let (went, longest) = machine.play(&mut brake, &mut now, 20, 0.5);
        assert!((went - 0.1).abs() < 0.03, "{went}");
        assert!(longest <= TURN, "{longest:?}");
        assert!(brake.stood(now) > Duration::from_secs(15));
        machine.play(&mut brake, &mut now, 10, 0.0);
        let (went, _) = machine.play(&mut brake, &mut now, 20, 0.0);
        assert!((went - 1.0).abs() < 0.001, "{went}");
    }

    #[test]
    fn a_processor_is_left_to_others_for_an_hour_and_a_disk_for_ever() {
        for (what, after) in [("cpu", 1.0), ("io", 0.1)] {
            let mut machine = Machine::new(what);
            let mut brake = Brake::new(machine.root.path(), machine.pid(), true);
            let mut now = Instant::now();
            machine.play(&mut brake, &mut now, 20, 0.9);
            let (went, _) = machine.play(&mut brake, &mut now, 20, 0.9);
            assert!((went - 0.1).abs() < 0.03, "{what}: {went}");
            brake.given = PATIENCE;
            machine.play(&mut brake, &mut now, 20, 0.9);
            let (went, _) = machine.play(&mut brake, &mut now, 20, 0.9);
            assert!((went - after).abs() < 0.03, "{what}: {went}");
        }
    }

    #[test]
    fn waiting_that_is_over_when_it_stands_still_was_its_own() {
        let mut machine = Machine::new("io");
        let mut brake = Brake::new(machine.root.path(), machine.pid(), true);
        let mut now = Instant::now();
        let end = now + Duration::from_secs(120);
        let mut stood = 0;
        while now < end {
            let next = brake.turn(now);
            let stands = stands(&brake);
            stood += u64::from(stands) * (next - now).as_millis() as u64;
            machine.wait(if stands { 0.0 } else { 0.6 }, next - now);
            now = next;
        }
        assert!((100..3000).contains(&stood), "{stood} ms of two minutes");
    }

    #[test]
    fn held_it_breathes_and_released_it_goes_at_once() {
        let mut machine = Machine::new("io");
        let mut brake = Brake::new(machine.root.path(), machine.pid(), false);
        let mut now = Instant::now();
        let (went, _) = machine.play(&mut brake, &mut now, 10, 0.9);
        assert!((went - 1.0).abs() < 0.001, "it does not give way: {went}");
        brake.hold("hot");
        assert_eq!(brake.held(), Some("hot"));
        now = Instant::now().max(now);
        let (went, longest) = machine.play(&mut brake, &mut now, 205, 0.0);
        assert!((went - 0.05).abs() < 0.02, "{went}");
        assert!(longest <= HELD, "{longest:?}");
        machine.assert_stands(true);
        brake.release();
        brake.turn(now);
        machine.assert_stands(false);
        assert_eq!(brake.held(), None);
    }

    #[test]
    fn dropped_it_lets_go() {
        let machine = Machine::new("io");
        let mut brake = Brake::new(machine.root.path(), machine.pid(), false);
        brake.hold("hot");
        brake.turn(Instant::now());
        machine.assert_stands(true);
        drop(brake);
        machine.assert_stands(false);
    }
}
