//! The state machine: an incident is raised, may get worse, is reminded of, and is cleared. Pure: what was remembered and
//! what was found go in, what to remember and what to tell come out.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::{MOVED, Moment, Trust, passed};
use super::memory::Memory;
use super::registry::{Bad, Found, Rule, Telling, Verdict};
use crate::notify::{Kind, Tone};

/// Something that is wrong, from when it is noticed until it is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// `foundry-backup-3f9c21aa`
    pub id: String,
    /// Which alarm.
    pub name: String,
    /// Which step, volume or unit.
    pub subject: Option<String>,
    /// How bad it is.
    pub tone: Tone,
    /// How bad it was when it was worst.
    pub worst: Tone,
    /// Since when.
    pub since: Timestamp,
    /// In a few words.
    pub title: String,
    /// The rest; may be empty.
    pub text: String,
    /// What to do.
    pub hint: Option<String>,
    /// The newest evidence of it; only newer evidence can end it.
    pub as_of: Option<Timestamp>,
    /// A person was told of it.
    pub told: bool,
    /// How often it got worse.
    pub worse: u32,
    /// Milliseconds for which nothing was said about it.
    pub quiet: u64,
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of the incident, as it stands (when it is over: as it stood).
    pub incident: Incident,
    /// What happened to it.
    pub kind: Kind,
    /// What is true once it is over.
    pub well: &'static str,
}

/// One look: each rule with what it found; `None`: nothing is known now.
pub struct Look<'a> {
    /// When.
    pub now: &'a Moment,
    /// Whether that is right.
    pub clock: &'a Trust,
    /// What was found.
    pub found: Vec<(&'static Rule, Option<Vec<Found>>)>,
    /// Time between two reminders.
    pub remind_every: Duration,
    /// Makes the last part of an id: eight hexadecimal digits that never came before.
    pub tag: &'a mut dyn FnMut() -> String,
}

/// Takes the memory one look further.
pub fn step(memory: &Memory, look: Look<'_>) -> (Memory, Vec<Event>) {
    let mut machine = Machine::new(memory, look.now, look.clock, look.remind_every, look.tag);
    let mut rest: Vec<Incident> = memory.incidents.iter().map(|incident| machine.aged(incident.clone())).collect();
    for (rule, found) in look.found {
        let (of_rule, others) = rest.into_iter().partition(|incident| incident.name == rule.name);
        rest = others;
        match found {
            Some(found) => machine.rule(rule, of_rule, found),
            None => of_rule.into_iter().for_each(|incident| machine.keep(incident, false)),
        }
    }
    // What is left belongs to alarms that this version does not know any more.
    for incident in rest {
        machine.end(incident, "it is no longer watched");
    }
    (machine.next, machine.events)
}

struct Machine<'a> {
    now: &'a Moment,
    clock: &'a Trust,
    remind_every: Duration,
    tag: &'a mut dyn FnMut() -> String,
    passed: Duration,
    next: Memory,
    events: Vec<Event>,
}

impl<'a> Machine<'a> {
    fn new(
        memory: &Memory,
        now: &'a Moment,
        clock: &'a Trust,
        remind_every: Duration,
        tag: &'a mut dyn FnMut() -> String,
    ) -> Self {
        let anchor = memory.anchor.as_ref();
        let passed = memory.seen.as_ref().map_or(Duration::ZERO, |seen| passed(seen, now, anchor, clock));
        let anchor = if clock.is_trusted() { Some(now) } else { anchor };
        let next = Memory {
            seen: Some(now.clone()),
            anchor: anchor.cloned(),
            incidents: Vec::new(),
            settled: memory.settled.clone(),
            ..memory.clone()
        };
        Self { now, clock, remind_every, tag, passed, next, events: Vec::new() }
    }

    fn rule(&mut self, rule: &'static Rule, mut incidents: Vec<Incident>, found: Vec<Found>) {
        for (subject, verdict) in found {
            let at = incidents.iter().position(|incident| incident.subject == subject);
            let known = at.map(|at| incidents.swap_remove(at));
            self.subject(rule, subject, known, verdict);
        }
        for gone in incidents {
            self.end(gone, "it is no longer watched");
        }
    }

    fn subject(&mut self, rule: &'static Rule, subject: Option<String>, known: Option<Incident>, verdict: Verdict) {
        match (verdict, known) {
            (Verdict::Unknown, Some(incident)) => self.keep(incident, false),
            (Verdict::Bad(bad), Some(incident)) => self.still(incident, bad),
            (Verdict::Bad(bad), None) => self.begin(rule, subject, &bad),
            (Verdict::Fine { as_of }, Some(incident)) if is_newer(as_of, incident.as_of) => {
                self.end(incident, rule.well);
            }
            (Verdict::Fine { .. }, Some(incident)) => self.keep(incident, true),
            (Verdict::Over(bad), Some(incident)) => {
                self.settle(&incident, bad.as_of);
                self.end(incident, rule.well);
            }
            (Verdict::Over(bad), None) => {
                let incident = self.incident(rule, subject, &bad, true);
                if self.settle(&incident, bad.as_of) {
                    // It came and went between two looks.
                    self.end(incident, rule.well);
                }
            }
            (Verdict::Unknown | Verdict::Fine { .. }, None) => {}
        }
    }

    /// Lets time pass for it. What it is dated must not lie in the future of a clock that is right: it was dated while the
    /// clock was wrong, and would block its own end until then.
    fn aged(&self, mut incident: Incident) -> Incident {
        incident.quiet = incident.quiet.saturating_add(u64::try_from(self.passed.as_millis()).unwrap_or(u64::MAX));
        if self.clock.is_trusted() {
            incident.since = self.not_in_future(incident.since);
            incident.as_of = incident.as_of.map(|as_of| self.not_in_future(as_of));
        }
        incident
    }

    fn not_in_future(&self, moment: Timestamp) -> Timestamp {
        if moment.duration_since(self.now.wall) > MOVED { self.now.wall } else { moment }
    }

    fn begin(&mut self, rule: &'static Rule, subject: Option<String>, bad: &Bad) {
        let mut incident = self.incident(rule, subject, bad, false);
        let mut telling = bad.telling;
        if telling == Telling::Elsewhere {
            incident.told = self.settle(&incident, bad.as_of);
            // What was told then was over since, and the script keeps silent for an hour.
            telling = Telling::Now;
        }
        self.tell_if_due(incident, telling);
    }

    fn incident(&mut self, rule: &Rule, subject: Option<String>, bad: &Bad, told: bool) -> Incident {
        Incident {
            id: format!("{}-{}-{}", word(subject.as_deref()), rule.name, (self.tag)()),
            name: rule.name.to_owned(),
            subject,
            tone: bad.tone,
            worst: bad.tone,
            since: bad.since.unwrap_or(self.now.wall),
            title: bad.title.clone(),
            text: bad.text.clone(),
            hint: bad.hint.clone(),
            as_of: bad.as_of,
            told,
            worse: 0,
            quiet: 0,
        }
    }

    fn still(&mut self, mut incident: Incident, bad: Bad) {
        incident.tone = bad.tone;
        (incident.title, incident.text, incident.hint) = (bad.title, bad.text, bad.hint);
        let as_of = bad.as_of.map(|as_of| if self.clock.is_trusted() { self.not_in_future(as_of) } else { as_of });
        incident.as_of = incident.as_of.max(as_of);
        if bad.telling == Telling::Elsewhere {
            // The script may have told it again: then a reminder is not due yet.
            if self.settle(&incident, bad.as_of) {
                incident.quiet = 0;
            }
        }
        if incident.told && incident.tone > incident.worst {
            incident.worst = incident.tone;
            incident.worse += 1;
            return self.tell(incident, Kind::Worse);
        }
        self.tell_if_due(incident, bad.telling);
    }

    /// Raised or reminded of, when it is time for that; remembered in any case.
    fn tell_if_due(&mut self, mut incident: Incident, telling: Telling) {
        if incident.told {
            return self.keep(incident, true);
        }
        let due = match telling {
            Telling::Now => true,
            // Nothing was said about it since it was first seen.
            Telling::After(patience) => Duration::from_millis(incident.quiet) >= patience,
            Telling::Elsewhere => false,
        };
        if !due {
            return self.next.incidents.push(incident);
        }
        (incident.told, incident.worst) = (true, incident.tone);
        self.tell(incident, Kind::Raised);
    }

    /// It stays; with `remind` a person is reminded when it is time.
    fn keep(&mut self, incident: Incident, remind: bool) {
        if remind && incident.told && Duration::from_millis(incident.quiet) >= self.remind_every {
            return self.tell(incident, Kind::Reminder);
        }
        self.next.incidents.push(incident);
    }

    fn tell(&mut self, mut incident: Incident, kind: Kind) {
        incident.quiet = 0;
        self.events.push(Event { incident: incident.clone(), kind, well: "" });
        self.next.incidents.push(incident);
    }

    /// It is over. What nobody was told of ends in silence.
    fn end(&mut self, incident: Incident, well: &'static str) {
        if incident.told {
            self.events.push(Event { incident, kind: Kind::Cleared, well });
        }
    }

    /// Remembers until when the script's messages about a unit are known; false when they were before.
    fn settle(&mut self, incident: &Incident, told: Option<Timestamp>) -> bool {
        let (Some(unit), Some(told)) = (&incident.subject, told) else { return false };
        let before = self.next.settled.insert(unit.clone(), told);
        before != Some(told)
    }
}

/// Evidence that was seen just now outweighs all that is on record.
fn is_newer(evidence: Option<Timestamp>, than: Option<Timestamp>) -> bool {
    match (evidence, than) {
        (Some(evidence), Some(than)) => evidence > than,
        _ => true,
    }
}

/// The subject as part of an id.
fn word(subject: Option<&str>) -> String {
    let Some(subject) = subject else { return "host".into() };
    let plain: String =
        subject.chars().map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' }).collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "root".into() } else { plain.chars().take(48).collect() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;
    use crate::alarms::registry::RULES;

    const HOUR: u64 = 3_600_000;
    const DAY: Duration = Duration::from_hours(24);

    /// A machine whose looks come one after another.
    struct World {
        memory: Memory,
        now: Moment,
        clock: Trust,
        tags: u32,
    }

    impl World {
        fn new() -> Self {
            let now = Moment { boot: "a".into(), since_boot: HOUR, wall: "2026-11-21T03:00:00Z".parse().unwrap() };
            Self { memory: Memory::default(), now, clock: Trust::Trusted, tags: 0 }
        }

        fn later(&mut self, milliseconds: u64) -> &mut Self {
            self.now.since_boot += milliseconds;
            self.now.wall += Duration::from_millis(milliseconds);
            self
        }

        /// What is told at the next look, as `KIND` of each message.
        fn look(&mut self, name: &str, found: Option<Vec<(&str, Verdict)>>) -> Vec<Kind> {
            self.events(name, found).into_iter().map(|event| event.kind).collect()
        }

        fn events(&mut self, name: &str, found: Option<Vec<(&str, Verdict)>>) -> Vec<Event> {
            let rule = RULES.iter().find(|rule| rule.name == name).unwrap();
            let found = found
                .map(|found| found.into_iter().map(|(subject, verdict)| (Some(subject.into()), verdict)).collect());
            let tags = &mut self.tags;
            let look = Look {
                now: &self.now,
                clock: &self.clock,
                found: vec![(rule, found)],
                remind_every: DAY,
                tag: &mut || {
                    *tags += 1;
                    format!("{tags:08x}")
                },
            };
            let (memory, events) = step(&self.memory, look);
            self.memory = memory;
            events
        }

        fn ago(&self, hours: i64) -> Option<Timestamp> {
            Some(self.now.wall - SignedDuration::from_hours(hours))
        }
    }

    fn bad(tone: Tone, as_of: Option<Timestamp>) -> Verdict {
        Bad::new(tone, "the backup failed").dated(as_of, as_of).into()
    }

    fn foundry(verdict: Verdict) -> Option<Vec<(&'static str, Verdict)>> {
        Some(vec![("foundry", verdict)])
    }

    #[test]
    fn an_incident_is_raised_once_worse_once_reminded_daily_and_cleared_once() {
        let mut world = World::new();
        let failed = world.ago(0);
        let mut told = Vec::new();
        for hour in 0..60 {
            let tone = if hour < 10 { Tone::Warning } else { Tone::Critical };
            told.extend(world.look("backup", foundry(bad(tone, failed))).into_iter().map(|kind| (hour, kind)));
            world.later(HOUR);
        }
        assert_eq!(told, [(0, Kind::Raised), (10, Kind::Worse), (34, Kind::Reminder), (58, Kind::Reminder)]);
        let good = world.ago(1);
        let over = world.events("backup", foundry(Verdict::Fine { as_of: good }));
        assert_eq!(over.len(), 1);
        assert_eq!((over[0].kind, over[0].incident.id.as_str()), (Kind::Cleared, "foundry-backup-00000001"));
        assert_eq!(over[0].incident.since, failed.unwrap());
        assert_eq!(world.later(HOUR).look("backup", foundry(Verdict::Fine { as_of: good })), []);
        assert!(world.memory.incidents.is_empty());
    }

    #[test]
    fn going_back_and_forth_between_bad_and_worse_is_no_storm() {
        let mut world = World::new();
        let mut told = Vec::new();
        for look in 0..100 {
            let tone = if look % 2 == 0 { Tone::Warning } else { Tone::Critical };
            told.extend(world.later(HOUR / 6).look("disk-space", foundry(bad(tone, None))));
        }
        assert_eq!(told, [Kind::Raised, Kind::Worse]);
    }

    #[test]
    fn older_evidence_ends_nothing() {
        // The disk was full: what failed at three is remembered nowhere but here, and the database knows a good night before.
        let mut world = World::new();
        let (good, failed) = (world.ago(24), world.ago(0));
        assert_eq!(world.look("backup", foundry(bad(Tone::Critical, failed))), [Kind::Raised]);
        for _ in 0..10 {
            assert_eq!(world.later(HOUR).look("backup", foundry(Verdict::Fine { as_of: good })), []);
        }
        assert_eq!(world.memory.incidents.len(), 1);
        let next = world.later(14 * HOUR).ago(0);
        assert_eq!(world.look("backup", foundry(Verdict::Fine { as_of: next })), [Kind::Cleared]);
    }

    #[test]
    fn what_was_dated_in_the_future_can_end() {
        let mut world = World::new();
        let right = world.now.wall;
        world.now.wall += SignedDuration::from_hours(365 * 24);
        world.clock = Trust::Doubted("moved".into());
        let failed = world.ago(0);
        assert_eq!(world.look("backup", foundry(bad(Tone::Critical, failed))), [Kind::Raised]);
        // The clock is set right; the newest record is still the failed one.
        (world.now.wall, world.clock) = (right, Trust::Trusted);
        let before = world.ago(20);
        assert_eq!(world.later(HOUR).look("backup", foundry(bad(Tone::Critical, failed))), []);
        assert_eq!(world.memory.incidents[0].since, world.now.wall);
        assert_eq!(world.later(HOUR).look("backup", foundry(Verdict::Fine { as_of: before })), [], "an older success");
        let good = world.later(HOUR).ago(0);
        assert_eq!(world.later(HOUR).look("backup", foundry(Verdict::Fine { as_of: good })), [Kind::Cleared]);
    }

    #[test]
    fn what_nobody_can_tell_stays_as_it_is() {
        let mut world = World::new();
        world.look("backup-age", foundry(bad(Tone::Warning, None)));
        for unknown in [None, foundry(Verdict::Unknown)] {
            for _ in 0..50 {
                assert_eq!(world.later(HOUR).look("backup-age", unknown.clone()), []);
            }
        }
        assert_eq!(world.look("backup-age", foundry(bad(Tone::Warning, None))), [Kind::Reminder], "it was overdue");
    }

    #[test]
    fn what_may_wait_is_told_only_when_it_lasts() {
        let later = || Verdict::Bad(Bad { telling: Telling::After(DAY), ..Bad::new(Tone::Warning, "no backup yet") });
        let mut world = World::new();
        assert_eq!(world.look("backup-age", foundry(later())), []);
        assert_eq!(world.memory.incidents.len(), 1, "`status` shows it");
        let good = world.ago(0);
        assert_eq!(world.look("backup-age", foundry(Verdict::Fine { as_of: good })), [], "it ends in silence");
        assert_eq!(world.look("backup-age", foundry(later())), []);
        // A clock that jumps makes no time pass.
        world.now.wall += SignedDuration::from_hours(365 * 24);
        assert_eq!(world.later(23 * HOUR).look("backup-age", foundry(later())), []);
        assert_eq!(world.later(HOUR).look("backup-age", foundry(later())), [Kind::Raised]);
    }

    #[test]
    fn what_is_no_longer_watched_ends() {
        let mut world = World::new();
        world.look("backup", foundry(bad(Tone::Critical, None)));
        let events = world.events("backup", Some(vec![("logs", Verdict::Unknown)]));
        assert_eq!((events[0].kind, events[0].well), (Kind::Cleared, "it is no longer watched"));
        world.look("backup", foundry(bad(Tone::Critical, None)));
        world.memory.incidents[0].name = "of-another-version".into();
        assert_eq!(world.look("backup", Some(vec![])), [Kind::Cleared]);
    }

    #[test]
    fn what_the_failure_script_told_is_not_told_again_and_cleared_by_us() {
        let mut world = World::new();
        let unit = |verdict| Some(vec![("pi-agent-backup.service", verdict)]);
        let failed =
            |told| Bad { telling: Telling::Elsewhere, ..Bad::new(Tone::Critical, "the unit failed").dated(told, told) };
        let first = world.ago(0);
        assert_eq!(world.look("unit", unit(Verdict::Bad(failed(first)))), []);
        assert_eq!(world.later(HOUR).look("unit", unit(Verdict::Over(failed(first)))), [Kind::Cleared]);
        assert_eq!(
            world.later(HOUR).look("unit", unit(Verdict::Over(failed(first)))),
            [],
            "its file stays until a restart"
        );
        // It fails again, and the script, which told it within the hour, keeps silent.
        assert_eq!(world.later(1).look("unit", unit(Verdict::Bad(failed(first)))), [Kind::Raised]);
        assert_eq!(world.later(1).look("unit", unit(Verdict::Over(failed(first)))), [Kind::Cleared]);
        // It failed, was told and recovered between two looks.
        let second = world.later(HOUR).ago(0);
        assert_eq!(world.look("unit", unit(Verdict::Over(failed(second)))), [Kind::Cleared]);
        // A restart of the machine takes the script's memory away, not ours.
        let third = world.later(HOUR).ago(0);
        assert_eq!(world.look("unit", unit(Verdict::Bad(failed(third)))), []);
        world.now = Moment { boot: "b".into(), since_boot: 60_000, wall: world.now.wall + Duration::from_mins(5) };
        assert_eq!(world.look("unit", unit(Verdict::Unknown)), []);
        assert_eq!(world.later(HOUR).look("unit", unit(Verdict::Fine { as_of: None })), [Kind::Cleared]);
    }

    #[test]
    fn ids_are_words() {
        assert_eq!(word(None), "host");
        assert_eq!(word(Some("/")), "root");
        assert_eq!(word(Some("/mnt/usb disk")), "mnt-usb-disk");
        assert_eq!(word(Some("pi-agent-backup.service")), "pi-agent-backup.service");
    }

    /// What may happen between two looks, and what the look finds.
    #[derive(Clone, Debug)]
    enum Happens {
        Looks { minutes: u64, found: u8 },
        ClockMoves { hours: i64 },
        Restarts { off: u64 },
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            8 => (1..600_u64, 0..5_u8).prop_map(|(minutes, found)| Happens::Looks { minutes, found }),
            1 => prop_oneof![Just(24), Just(-24), Just(8760), Just(-8760)].prop_map(|hours| Happens::ClockMoves { hours }),
            1 => (0..3000_u64).prop_map(|off| Happens::Restarts { off }),
        ]
    }

    proptest! {
        /// However the clock jumps and the machine restarts: one state of an incident is told at most once in a day of real
        /// time, what is raised is cleared at most once and never raised again under its id, and nothing is told out of turn.
        #[test]
        fn no_storm_and_no_false_all_clear(story in proptest::collection::vec(happens(), 1..120)) {
            let mut world = World::new();
            let (mut real, mut skew) = (0_u64, SignedDuration::ZERO); // minutes; what the clock shows too much
            let start = world.now.wall;
            let (mut looked, mut boots) = (false, 0);
            let mut told: Vec<(u64, String, Kind)> = Vec::new();
            for event in story {
                match event {
                    // Before the first look after a start that cannot be told from a longer rest either.
                    Happens::ClockMoves { .. } if !looked => {}
                    Happens::ClockMoves { hours } => skew += SignedDuration::from_hours(hours),
                    Happens::Restarts { off } => {
                        // A clock moved while the machine was off cannot be told from a longer rest.
                        skew = SignedDuration::ZERO;
                        (looked, boots) = (false, boots + 1);
                        real += off;
                        world.now = Moment { boot: format!("b{boots}"), since_boot: 0, wall: start };
                    }
                    Happens::Looks { minutes, found } => {
                        looked = true;
                        real += minutes;
                        world.now.since_boot += minutes * 60_000;
                        world.now.wall = start + SignedDuration::from_mins(real as i64) + skew;
                        // The real judge, on a machine without a time service.
                        let service = || crate::systemd::TimeService::Absent;
                        world.clock = crate::alarms::clock::judge(&world.now, world.memory.anchor.as_ref(), service, || None);
                        let as_of = world.ago(0);
                        let trusted = world.clock.is_trusted();
                        let verdict = match found {
                            0 => Verdict::Unknown,
                            1 => Verdict::Fine { as_of },
                            2 => bad(Tone::Critical, as_of),
                            _ => bad(Tone::Warning, as_of),
                        };
                        for event in world.events("backup-age", trusted.then(|| foundry(verdict).unwrap())) {
                            prop_assert!(trusted, "told on a clock that is not trusted");
                            prop_assert!(event.kind != Kind::Cleared || found == 1, "cleared by {found}");
                            told.push((real, event.incident.id, event.kind));
                        }
                    }
                }
            }
            let ids: std::collections::BTreeSet<&String> = told.iter().map(|(_, id, _)| id).collect();
            for id in ids {
                let of: Vec<_> = told.iter().filter(|(_, other, _)| other == id).collect();
                prop_assert_eq!(of[0].2, Kind::Raised);
                prop_assert_eq!(of.iter().filter(|(_, _, kind)| *kind == Kind::Raised).count(), 1);
                prop_assert!(of.iter().filter(|(_, _, kind)| *kind == Kind::Worse).count() <= 1);
                let cleared = of.iter().position(|(_, _, kind)| *kind == Kind::Cleared);
                prop_assert!(cleared.is_none_or(|at| at + 1 == of.len()));
                for pair in of.windows(2).filter(|pair| pair[1].2 == Kind::Reminder) {
                    prop_assert!(pair[1].0 - pair[0].0 >= 24 * 60, "{:?}", pair);
                }
            }
        }
    }
}
