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
            (Verdict::Bad(bad), None) => self.begin(rule, subject, bad),
            (Verdict::Fine { as_of }, Some(incident)) if is_newer(as_of, incident.as_of) => {
                self.end(incident, rule.well)
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

    fn begin(&mut self, rule: &'static Rule, subject: Option<String>, bad: Bad) {
        let mut incident = self.incident(rule, subject, &bad, false);
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
