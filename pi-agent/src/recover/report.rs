//! What a recovery brought back, what not, and what is left for a person to do.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Back;
use super::probe::Told;
use crate::config::Settings;
use crate::monitor::Problem;
use crate::report::{SCHEMA, short, words};

/// How a recovery went.
pub struct Report {
    host: String,
    storage: String,
    /// What the storage told.
    told: Told,
    /// Files of this machine that the kit's replaced, where they are now.
    kept: Vec<PathBuf>,
    /// Part by part.
    pub parts: Vec<Recovered>,
    /// What else went wrong.
    pub problems: Vec<Problem>,
    /// The timers run.
    pub timers: bool,
    /// What is left for a person to do.
    pub left: Vec<String>,
    /// How long it took.
    pub seconds: u64,
}

/// One part: a path of a directory, or a database.
pub struct Recovered {
    /// The step.
    pub step: String,
    /// The path, or `database`.
    pub what: String,
    /// How long it took.
    pub seconds: f64,
    /// How it went.
    pub outcome: Outcome,
}

/// How one part went.
pub enum Outcome {
    /// It is back.
    #[allow(private_interfaces)]
    Back(Box<Back>),
    /// It did not.
    Failed(Problem),
}

impl Report {
    pub(super) fn new(settings: &Settings, told: Told, kept: Vec<PathBuf>) -> Self {
        Self {
            host: settings.host.clone(),
            storage: settings.storage.location.to_string(),
            told,
            kept,
            parts: Vec::new(),
            problems: Vec::new(),
            timers: false,
            left: Vec::new(),
            seconds: 0,
        }
    }

    /// Something is not back.
    pub fn any_failed(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.outcome, Outcome::Failed(_)))
    }

    /// Something of that step is not back.
    pub fn any_failed_of(&self, step: &str) -> bool {
        self.parts.iter().any(|part| part.step == step && matches!(part.outcome, Outcome::Failed(_)))
    }

    /// 3: something is not back; 5: something needs a look.
    pub fn exit_code(&self) -> u8 {
        let needs_a_look = |part: &Recovered| matches!(&part.outcome, Outcome::Back(back) if !back.problems.is_empty());
        match self.any_failed() {
            true => 3,
            false if !self.problems.is_empty() || self.parts.iter().any(needs_a_look) => 5,
            false => 0,
        }
    }

    /// What a person has to do now, in this order.
    fn to_do(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.any_failed() {
            lines.push("mend what is not back, and start the same command again: it goes on".to_owned());
        }
        for part in &self.parts {
            let Outcome::Back(back) = &part.outcome else { continue };
            lines.extend(back.part.left.iter().cloned());
            if back.part.elsewhere {
                let (what, to) = (&part.what, back.part.to.display());
                lines.push(format!("{what} is this system's own: take what you need from {to}"));
            }
        }
        let asides = self.parts.iter().filter_map(|part| match &part.outcome {
            Outcome::Back(back) => back.part.aside.as_ref().filter(|aside| aside.exists()),
            Outcome::Failed(_) => None,
        });
        let asides: Vec<_> = self.kept.iter().chain(asides).cloned().collect();
        if !asides.is_empty() {
            lines.push(format!("when all is well, remove what was there before: {}", listed(&asides)));
        }
        if self.told.configuration.is_some() {
            lines.push("make a kit of the newest configuration: pi-agent recovery-kit --to FILE".into());
        }
        lines.push("see whether anything is missing: pi-agent doctor".into());
        lines.push("make a backup: pi-agent run".into());
        lines.extend(self.left.iter().cloned());
        lines
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{} of {}", self.host, self.storage);
        if let Some(previous) = self.told.host.as_ref().filter(|previous| **previous != self.host) {
            text.push_str(&format!(", which was {previous}'s"));
        }
        text.push_str(&format!(", in {}\n\n", words::duration(std::time::Duration::from_secs(self.seconds))));
        if let Some(saved) = self.told.configuration {
            let saved = words::time(saved);
            text.push_str(&format!("+ the configuration of {saved}: it was changed after the kit was made\n"));
        }
        for part in &self.parts {
            let name = format!("{} {}", part.step, part.what);
            match &part.outcome {
                Outcome::Back(back) if back.was_there => text.push_str(&format!("= {name}: was back already\n")),
                Outcome::Back(back) => {
                    let size = back.part.bytes.map_or_else(String::new, |bytes| format!(", {}", words::size(bytes)));
                    let (time, point) = (words::time(back.part.time), short(&back.part.restore_point));
                    text.push_str(&format!("+ {name}: of {time} ({point}{size}), in {}\n", back.part.to.display()));
                    if !back.part.stays.is_empty() {
                        text.push_str(&format!("    stays as it is: {}\n", listed(&back.part.stays)));
                    }
                    back.problems.iter().for_each(|problem| text.push_str(&told(problem)));
                }
                Outcome::Failed(problem) => text.push_str(&format!("- {name}: NOT BACK\n{}", told(problem))),
            }
        }
        self.problems.iter().for_each(|problem| text.push_str(&told(problem)));
        if self.timers {
            text.push_str("the timers run\n");
        }
        text.push_str("\nWhat is left to do:\n");
        for (number, line) in (1..).zip(self.to_do()) {
            text.push_str(&format!("{number}. {line}\n"));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let problems = |problems: &[Problem]| problems.iter().map(problem).collect::<Vec<_>>();
        let part = |part: &Recovered| {
            let mut value = json!({"step": part.step, "what": part.what, "seconds": part.seconds});
            match &part.outcome {
                Outcome::Failed(error) => {
                    value["outcome"] = "failed".into();
                    value["error"] = problem(error);
                }
                Outcome::Back(back) => {
                    value["outcome"] = if back.was_there { "was-there" } else { "back" }.into();
                    value["to"] = back.part.to.display().to_string().into();
                    value["restore_point"] = back.part.restore_point.clone().into();
                    value["time"] = words::stamp(back.part.time).into();
                    value["bytes"] = back.part.bytes.into();
                    value["kept"] = back.part.aside.as_ref().map(|aside| aside.display().to_string()).into();
                    value["stays"] = back.part.stays.iter().map(|path| path.display().to_string()).collect();
                    value["problems"] = problems(&back.problems).into();
                }
            }
            value
        };
        json!({
            "schema": SCHEMA,
            "host": self.host,
            "storage": self.storage,
            "configuration": self.told.configuration.map(words::stamp),
            "parts": self.parts.iter().map(part).collect::<Vec<_>>(),
            "problems": problems(&self.problems),
            "timers": self.timers,
            "kept": self.kept,
            "left_to_do": self.to_do(),
            "seconds": self.seconds,
        })
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn problem(problem: &Problem) -> Value {
    json!({"message": problem.message, "hint": problem.hint})
}

fn told(problem: &Problem) -> String {
    let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("    {hint}\n"));
    format!("  ! {}\n{hint}", problem.message)
}
