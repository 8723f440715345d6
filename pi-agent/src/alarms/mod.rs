//! What needs a person: each alarm is one pure function of the evidence, and an incident while it lasts.
//!
//! [`look`] gathers the [`evidence`], asks every rule of the [`registry`], takes the incidents one step further and posts
//! what is to be told. It is asked every ten minutes by a timer, and by a run about itself.

mod clock;
mod evidence;
mod incidents;
mod memory;
mod notices;
mod registry;
mod rules;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};

use crate::config::{Settings, StateDirectory};
use crate::error::{Context, Error, Kind, Result};
use crate::notify::{self, Tone};
use crate::report::{SCHEMA, words};
use crate::state::State;
use clock::Moment;
use evidence::{Evidence, Place};
use incidents::{Event, Incident, Look};
use memory::Memory;

/// Something that needs attention, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Which of them: `backup-age`.
    pub name: &'static str,
    /// Which step (or volume, or unit); none: the whole host.
    pub step: Option<String>,
    /// How bad.
    pub tone: Tone,
    /// Since when.
    pub since: Timestamp,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A look takes milliseconds; another at work is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at everything, remembers it, and posts to the outbox what is to be told; sends nothing over the network.
/// A run that asks about itself gives its own `state` and the step that is at work.
///
/// # Errors
/// What is wrong cannot be remembered or posted; the next look tells it then.
pub fn look(
    settings: &Settings,
    directory: &StateDirectory,
    state: Option<&State>,
    moving_step: Option<&str>,
) -> Result<Vec<Alarm>> {
    crate::run::make_private(directory.path())?;
    let _alone = alone(directory)?;
    let before = Memory::read(directory, true)?;
    let (mut memory, evidence, events) = evaluate(settings, directory, state, moving_step, &before, Timestamp::now());
    memory.untold.extend(events.iter().map(|event| notices::notice(event, &evidence, &settings.host)));
    if memory.is_news_to(&before) {
        // Killed after this, the next look posts the same messages under the same keys.
        memory.write(directory)?;
    }
    if !memory.untold.is_empty() {
        notify::post(settings, directory, &memory.untold)?;
        memory.untold.clear();
        memory.write(directory)?;
    }
    Ok(alarms(&memory))
}

/// A person says that the clock is right, whatever it showed before.
///
/// # Errors
/// That cannot be remembered.
pub fn trust_clock(directory: &StateDirectory) -> Result<()> {
    crate::run::make_private(directory.path())?;
    let _alone = alone(directory)?;
    let anchor = Some(Moment::of(Path::new("/"), Timestamp::now()));
    Memory { anchor, ..Memory::read(directory, true)? }.write(directory)
}

/// What is wrong now; changes nothing and tells nobody.
///
/// # Errors
/// The alarms' memory cannot be read.
pub fn current(
    settings: &Settings,
    directory: &StateDirectory,
    state: Option<&State>,
    now: Timestamp,
) -> Result<Vec<Alarm>> {
    let memory = Memory::read(directory, false)?;
    Ok(alarms(&evaluate(settings, directory, state, None, &memory, now).0))
}

fn evaluate(
    settings: &Settings,
    directory: &StateDirectory,
    state: Option<&State>,
    moving_step: Option<&str>,
    memory: &Memory,
    now: Timestamp,
) -> (Memory, Evidence, Vec<Event>) {
    let root = Path::new("/");
    let now = Moment::of(root, now);
    let evidence = Evidence::gather(Place { root, settings, directory }, state, moving_step, &now, memory);
    let judge = |rule: &'static registry::Rule| {
        let known = evidence.clock.is_trusted() || !rule.by_clock;
        (rule, known.then(|| (rule.look)(&evidence, &settings.alarms)))
    };
    let look = Look {
        now: &now,
        clock: &evidence.clock,
        found: registry::RULES.iter().map(judge).collect(),
        remind_every: settings.alarms.remind_every,
        tag: &mut tag,
    };
    let (memory, events) = incidents::step(memory, look);
    (memory, evidence, events)
}

/// Eight hexadecimal digits. Without randomness the time will do: they only tell incidents of one name apart.
fn tag() -> String {
    let mut bytes = [0; 4];
    match File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)) {
        Ok(()) => format!("{:08x}", u32::from_ne_bytes(bytes)),
        Err(_) => format!("{:08x}", Timestamp::now().as_nanosecond() as u32),
    }
}

/// One look at a time: the timer's and a run's would otherwise tell the same twice.
fn alone(directory: &StateDirectory) -> Result<Flock<File>> {
    let path = directory.path().join("alarms.lock");
    let doing = || format!("lock {}", path.display());
    let mut file = File::options().create(true).append(true).open(&path).context(doing)?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(held),
            Err((returned, Errno::EWOULDBLOCK)) if started.elapsed() < PATIENCE => {
                file = returned;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::new(format!("{}: another look is at work", doing())).kind_of(Kind::Transient));
            }
            Err((_, error)) => return Err(Error::new(doing()).caused_by(error)),
        }
    }
}

/// In the order of the registry.
fn alarms(memory: &Memory) -> Vec<Alarm> {
    let of_rule = |rule: &'static registry::Rule| {
        memory.incidents.iter().filter(|incident| incident.name == rule.name).map(|incident| alarm(rule.name, incident))
    };
    registry::RULES.iter().flat_map(of_rule).collect()
}

fn alarm(name: &'static str, incident: &Incident) -> Alarm {
    let separator = if incident.text.is_empty() { "" } else { ": " };
    Alarm {
        name,
        step: incident.subject.clone(),
        tone: incident.tone,
        since: incident.since,
        message: format!("{}{separator}{}", incident.title, incident.text),
        hint: incident.hint.clone(),
    }
}

impl Alarm {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "name": self.name,
            "step": self.step,
            "tone": self.tone,
            "since": words::stamp(self.since),
            "message": self.message,
            "hint": self.hint,
        })
    }

    /// On one line.
    pub fn text(&self) -> String {
        let place = self.step.as_ref().map_or_else(String::new, |step| format!("{step}: "));
        format!("{place}{} ({}, since {})", self.message, self.name, words::time(self.since))
    }
}

/// All of them for programs.
pub fn json(alarms: &[Alarm]) -> Value {
    json!({ "schema": SCHEMA, "alarms": alarms.iter().map(Alarm::json).collect::<Vec<_>>() })
}

/// All of them for people: one line each.
pub fn text(alarms: &[Alarm]) -> String {
    match alarms {
        [] => "no alarms\n".to_owned(),
        alarms => alarms.iter().map(|alarm| alarm.text() + "\n").collect(),
    }
}
