//! Log lines: to the journal with fields when systemd started us, else to standard error.
//! A step's process always writes plain lines; the supervisor hands them on.

use std::io::IsTerminal;

use log::{LevelFilter, Log, Metadata, Record};

use crate::repository::READ_AGAIN;
use crate::shown::harmless;

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The journal if standard error is connected to it, else standard error.
    Automatic,
    /// Standard error.
    Plain,
}

/// The variable by which a step's process knows that its supervisor hands its lines on to the journal.
const JOURNALED: &str = "PI_AGENT_JOURNALED";

/// It, where our lines go to the journal.
pub fn journaled() -> Option<(&'static str, &'static str)> {
    systemd_journal_logger::connected_to_journal().then_some((JOURNALED, "1"))
}

/// What a panic of a library is logged as: it is for those who read code, and what it means is said elsewhere.
const PANIC: &str = "panic";

/// Installs the logger; to be called once.
pub fn start(target: Target) {
    log::set_max_level(LevelFilter::Info);
    hide_panics_of_libraries();
    if target == Target::Automatic && systemd_journal_logger::connected_to_journal() {
        let journal =
            systemd_journal_logger::JournalLog::new().map(|journal| journal.with_syslog_identifier("pi-agent".into()));
        if journal.is_ok_and(|journal| journal.install().is_ok()) {
            return;
        }
    }
    // Fails only when a logger is installed already, which then serves.
    let _ = log::set_boxed_logger(Box::new(StandardError {
        told_otherwise: target == Target::Automatic && std::io::stderr().is_terminal(),
        for_journal: target == Target::Plain && std::env::var_os(JOURNALED).is_some(),
    }));
}

/// A library that panics is caught where it is called. Its own words go to the journal, and never to a screen.
fn hide_panics_of_libraries() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |place| place.file());
        if is_of_a_library(place) {
            log::warn!(target: PANIC, "{panic}");
        } else {
            usual(panic);
        }
    }));
}

/// Cargo compiles crates of a registry by their whole paths, and a workspace's own by paths relative to it.
fn is_of_a_library(file: &str) -> bool {
    file.starts_with('/')
}

struct StandardError {
    /// A person at a terminal sees the course of a run drawn, and not again as lines.
    told_otherwise: bool,
    for_journal: bool,
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if self.told_otherwise && metadata.target().starts_with("pi_agent::run") {
            return false;
        }
        // Libraries' own news are for their developers, and their warnings for who reads the journal: what they mean is said by us.
        match metadata.target().starts_with("pi_agent") {
            true => metadata.level() <= log::Level::Info,
            false => self.for_journal && metadata.level() <= log::Level::Warn,
        }
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Names of files are in there, and a second line must not pass for a message of its own.
            let text = indented(&harmless(&record.args().to_string()));
            if record.target().starts_with("rustic_core") && text.contains(READ_AGAIN) {
                return;
            }
            tell!("{}: {text}", record.level().as_str().to_lowercase());
        }
    }

    fn flush(&self) {}
}

/// Indents every line but the first.
fn indented(text: &str) -> String {
    let indent = |line: &str| if line.starts_with(' ') { line.to_owned() } else { format!("  {line}") };
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + "\n" + &indent(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_library_is_told_from_one_of_ours() {
        assert!(!is_of_a_library(file!()));
        assert!(is_of_a_library("/home/user/.cargo/registry/src/index/rustic_core-0.13.0/src/id.rs"));
        let screen = StandardError { told_otherwise: false, for_journal: false };
        let panic = Metadata::builder().level(log::Level::Warn).target(PANIC).build();
        let theirs = Metadata::builder().level(log::Level::Warn).target("rustic_core::commands").build();
        let journal = StandardError { told_otherwise: false, for_journal: true };
        assert!(!screen.enabled(&panic) && !screen.enabled(&theirs));
        assert!(journal.enabled(&panic) && journal.enabled(&theirs));
    }
}
