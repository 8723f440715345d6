//! Log lines: to the journal with fields when systemd started us, else to standard error.
//! A step's process always writes plain lines; the supervisor hands them on.

use std::io::{IsTerminal, Write};

use log::{LevelFilter, Log, Metadata, Record};

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The journal if standard error is connected to it, else standard error.
    Automatic,
    /// Standard error.
    Plain,
}

/// Installs the logger; to be called once.
pub fn start(target: Target) {
    log::set_max_level(LevelFilter::Info);
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
    }));
}

struct StandardError {
    /// A person at a terminal sees the course of a run drawn, and not again as lines.
    told_otherwise: bool,
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries' own news are for their developers; their warnings are for us.
        if self.told_otherwise && metadata.target().starts_with("pi_agent::run") {
            return false;
        }
        metadata.level() <= if metadata.target().starts_with("pi_agent") { log::Level::Info } else { log::Level::Warn }
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Nowhere to complain to when standard error is closed.
            let _ = writeln!(std::io::stderr().lock(), "{}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}
