//! `pi-agent doctor`: what is wrong, and what to do about it. Each file here looks at one part; nothing here repairs.

mod database_keys;
mod kit;
mod live;
mod machine;
mod notices;
mod postgres;
mod sources;
mod storage;

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::{ConfigErrors, Location, Settings, Source, StateDirectory};
use crate::health::Sensors;
use crate::repository::Repository;
use crate::secrets::Secrets;
use crate::state::State;

const CONFIGURATION: &str = "configuration";

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Backups work; something will go wrong later.
    Warning,
    /// Backups do not work, or not all of them.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: `configuration`, `secrets`, `step foundry`.
    pub subject: String,
    /// What was found.
    pub message: String,
    /// What to do; always there unless the severity is `ok`.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, subject: subject.into(), message: message.into(), advice: None }
    }

    fn new(
        severity: Severity,
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity, subject: subject.into(), message: message.into(), advice: Some(advice.into()) }
    }

    fn problem(subject: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Problem, subject, message, advice)
    }

    fn warning(subject: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Warning, subject, message, advice)
    }

    fn note(subject: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Severity::Note, subject, message, advice)
    }

    /// A problem that an error tells; `otherwise` is the advice when the error has none.
    fn error(subject: impl Into<String>, error: &Error, otherwise: &str) -> Self {
        Self::problem(subject, error.chain(), error.advice().unwrap_or(otherwise))
    }
}

/// Looks at everything. Repairs nothing: storage is tried with a small object that is deleted again, archiving with a
/// segment of WAL that was due sooner or later.
pub fn examine(settings: &Result<Settings, ConfigErrors>, state_directory: &StateDirectory) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(match &settings {
        Ok(settings) => configuration(settings),
        Err(errors) => mistakes(errors),
    });
    findings.extend(machine::rights());
    let state = machine::state(state_directory, &mut findings);
    findings.extend(machine::clock(state.as_ref()));
    findings.extend(machine::memory_limits(Path::new("/")));
    findings.push(machine::room("state directory", state_directory.path()));
    if let Ok(settings) = &settings {
        findings.extend(of_settings(settings, state_directory, state.as_ref()));
        findings.extend(notices::examine(settings, state_directory));
        findings.extend(kit::examine(settings, state_directory));
    }
    findings
}

fn of_settings(settings: &Settings, directory: &StateDirectory, state: Option<&State>) -> Vec<Finding> {
    let secrets = Secrets::new(&settings.secrets);
    let mut findings = secrets_needed(settings, &secrets);
    findings.extend(machine::strain(&Sensors::below("/").look_closely(), settings.alarms.temperature));
    findings.push(machine::room("cache", &settings.local.cache));
    if let Location::File(path) = &settings.storage.location {
        findings.push(machine::room("storage", path));
    }
    let storage = storage::examine(settings, directory, &secrets, state);
    // With a note alone it may be a place that the first backup makes.
    let reachable = healthy(&findings) && storage.iter().all(|finding| finding.severity == Severity::Ok);
    findings.extend(storage);
    if settings.steps.iter().any(|step| matches!(step.source, Source::Postgres(_))) {
        findings.extend(postgres::tools());
    }
    for step in &settings.steps {
        if reachable && step.postgres().is_none() {
            let opens = Repository::password_opens(settings, &step.name).and_then(|opens| opens);
            let wrong = |error| Finding::error(format!("step {}", step.name), &error, "look at the storage");
            findings.extend(opens.err().map(wrong));
        }
        match &step.source {
            Source::Postgres(cluster) => {
                findings.extend(database_keys::examine(settings, step, reachable));
                findings.extend(postgres::examine(settings, step, cluster, reachable));
            }
            Source::Directory(directory) => findings.extend(sources::examine(settings, &step.name, directory, state)),
            // Its one source is the file that has just been read.
            Source::Agent(_) => {}
        }
    }
    findings
}

fn mistakes(ConfigErrors { file, mistakes }: &ConfigErrors) -> Vec<Finding> {
    let one = |mistake| ConfigErrors { file: file.clone(), mistakes: vec![mistake] }.to_string();
    let advice = "correct the file; the rest is looked at once it is right";
    mistakes.iter().cloned().map(|mistake| Finding::problem(CONFIGURATION, one(mistake), advice)).collect()
}

fn configuration(settings: &Settings) -> Vec<Finding> {
    let names: Vec<_> = settings.steps.iter().map(|step| step.name.as_str()).collect();
    let (age, rpo) = (friendly(settings.alarms.backup_age), friendly(settings.alarms.rpo));
    let message = format!(
        "{}: {} to {}; alarming: a backup older than {age}, WAL older than {rpo}",
        settings.file.display(),
        names.join(", "),
        settings.storage.location
    );
    let mut findings = vec![Finding::ok(CONFIGURATION, message)];
    let advice = "nothing to do; a later version will act on it";
    findings.extend(settings.warnings.iter().map(|warning| Finding::note(CONFIGURATION, warning, advice)));
    findings
}

/// A duration as the configuration writes it.
fn friendly(duration: std::time::Duration) -> String {
    jiff::SignedDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |span| format!("{span:#}"))
}

/// Only those that this configuration needs.
fn secrets_needed(settings: &Settings, secrets: &Secrets) -> Vec<Finding> {
    let mut results = vec![("restic.key", secrets.restic_reads_the_same())];
    if matches!(settings.storage.location, Location::S3(_)) {
        results.push(("aws.env", secrets.aws().map(drop)));
    }
    if settings.steps.iter().any(|step| matches!(step.source, Source::Postgres(_))) {
        results.push(("pgbackrest.key", secrets.pgbackrest_key().map(drop)));
    }
    let directory = settings.secrets.display();
    let mut good = Vec::new();
    let mut findings = Vec::new();
    for (name, result) in results {
        match result {
            Ok(()) => good.push(name),
            Err(error) => {
                let finding = Finding::error("secrets", &error, "make the file readable for root alone");
                // A bad directory is told once, not for each file in it.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
    }
    if !good.is_empty() {
        findings.push(Finding::ok("secrets", format!("{} in {directory}", good.join(", "))));
    }
    findings
}

/// No finding is a problem.
pub fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity < Severity::Problem)
}

/// For a person: one line for each finding, the advice below it, and the sum.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.severity {
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "WARNING",
            Severity::Problem => "PROBLEM",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{word:<8} {}: {}", finding.subject, indented(&finding.message, 9));
        if let Some(advice) = &finding.advice {
            let _ = writeln!(text, "         -> {}", indented(advice, 12));
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let _ = match (problems, warnings) {
        (0, 0) => writeln!(text, "all is well"),
        _ => writeln!(text, "{}, {}", plural(problems, "problem"), plural(warnings, "warning")),
    };
    text
}

/// What other programs say may have several lines: the later ones begin below the first.
fn indented(text: &str, by: usize) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(&format!("\n{:by$}", ""))
}

/// For programs: `{"schema":1,"healthy":…,"findings":[…]}`.
pub fn json(findings: &[Finding]) -> serde_json::Value {
    serde_json::json!({ "schema": 1, "healthy": healthy(findings), "findings": findings })
}

/// 0: healthy; 2: the configuration is wrong; 1: something else stands in the way.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let wrong = |finding: &&Finding| finding.severity == Severity::Problem;
    match findings.iter().filter(wrong).any(|finding| finding.subject == CONFIGURATION) {
        true => 2,
        false => u8::from(!healthy(findings)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some() -> Vec<Finding> {
        vec![
            Finding::ok("clock", "2026-11-21 03:00"),
            Finding::note("clock", "nobody set it", "apt install systemd-timesyncd"),
            Finding::warning("cache", "nearly full", "make room"),
            Finding::problem("secrets", "none", "first\nsecond"),
        ]
    }

    #[test]
    fn a_person_reads_what_is_wrong_and_what_to_do() {
        assert_eq!(
            text(&some()),
            "ok       clock: 2026-11-21 03:00\n\
             note     clock: nobody set it\n\
             \x20        -> apt install systemd-timesyncd\n\
             WARNING  cache: nearly full\n\
             \x20        -> make room\n\
             PROBLEM  secrets: none\n\
             \x20        -> first\n\
             \x20           second\n\
             1 problem, 1 warning\n"
        );
        assert!(text(&some()[..2]).ends_with("all is well\n"));
    }

    #[test]
    fn programs_read_the_same() {
        let value = json(&some());
        assert_eq!(value["schema"], 1);
        assert_eq!(value["healthy"], false);
        assert_eq!(value["findings"][0]["severity"], "ok");
        assert_eq!(value["findings"][0]["advice"], serde_json::Value::Null);
        assert_eq!(value["findings"][3]["message"], "none");
        assert!(healthy(&some()[..3]));
        assert_eq!((exit_code(&some()[..3]), exit_code(&some())), (0, 1));
    }

    #[test]
    fn each_mistake_of_the_configuration_is_a_problem() {
        let errors = crate::config::parse("[host]\n", "/etc/pi-agent/config.toml".as_ref()).unwrap_err();
        let directory = tempfile::tempdir().unwrap();
        let findings = examine(&Err(errors.clone()), &StateDirectory(directory.path().join("state")));
        let told: Vec<_> = findings.iter().filter(|finding| finding.subject == "configuration").collect();
        assert_eq!(told.len(), errors.mistakes.len());
        assert!(told[0].message.starts_with("/etc/pi-agent/config.toml:1: "));
        assert_eq!(exit_code(&findings), 2);
        assert!(!directory.path().join("state").exists(), "the doctor makes nothing");
    }

    #[test]
    fn what_is_not_ok_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().display();
        let text = format!(
            "[host]\nname = \"pi\"\n[storage]\nurl = \"file://{here}/not/there\"\n[secrets]\ndirectory = \"{here}/secrets\"\n\
             [local]\nspool = \"{here}/spool\"\n\
             [[step]]\nname = \"d\"\nkind = \"directory\"\npaths = [\"{here}/missing\"]\n\
             [[step]]\nname = \"p\"\nkind = \"postgres\"\ndata-directory = \"{here}/cluster\"\n"
        );
        let settings = crate::config::parse(&text, "/etc/pi-agent/config.toml".as_ref());
        let findings = examine(&settings, &StateDirectory(directory.path().join("state")));
        for finding in &findings {
            assert_eq!(finding.advice.is_none(), finding.severity == Severity::Ok, "{finding:?}");
        }
        let problem = |subject: &str, message: &str| {
            let found = findings.iter().any(|finding| {
                finding.severity == Severity::Problem && finding.subject == subject && finding.message.contains(message)
            });
            assert!(found, "no problem {subject}: {message} in\n{}", super::text(&findings));
        };
        problem("secrets", "secrets: it does not exist");
        problem("storage", "not/there");
        problem("step d", "missing");
        problem("step p", "cluster");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0, "the doctor leaves nothing behind");
    }
}
