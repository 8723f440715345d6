//! What of the package is made from the sources and committed, so that a cross build needs no program it cannot run:
//! manual pages, completions and the licences. `make generated` writes the files, and a test compares.

mod command_page;
mod configuration_page;
mod copyright;
mod roff;

use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::{Generator, Shell};

/// A committed file and what it should hold.
#[derive(Debug)]
pub struct Generated {
    /// Below the project's directory.
    pub path: &'static str,
    /// All of it.
    pub content: String,
}

/// Every generated file, in the form it should have now.
pub fn files() -> Vec<Generated> {
    let mut files = vec![
        Generated {
            path: "packaging/man/pi-agent.1",
            content: command_page::render(&source("packaging/pi-agent.1.in")),
        },
        Generated {
            path: "packaging/man/pi-agent.toml.5",
            content: configuration_page::render(&source("docs/configuration.md")),
        },
        Generated { path: "debian/copyright", content: copyright::render(&source("packaging/copyright.in")) },
    ];
    for (path, shell) in [
        ("packaging/completions/pi-agent.bash", Shell::Bash),
        ("packaging/completions/_pi-agent", Shell::Zsh),
        ("packaging/completions/pi-agent.fish", Shell::Fish),
    ] {
        files.push(Generated { path, content: completion(shell) });
    }
    files
}

/// The version that everything else has to agree with: the workspace's.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The project's directory.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the project").to_owned()
}

fn source(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn completion(shell: Shell) -> String {
    // `pi-agent help COMMAND` says what `--help` does, and would be half of each script.
    let mut command =
        pi_agent::cli::command().disable_help_subcommand(true).mut_subcommands(|sub| sub.disable_help_subcommand(true));
    command.set_bin_name("pi-agent");
    command.build();
    let mut script = Vec::new();
    shell.generate(&command, &mut script);
    String::from_utf8(script).expect("a shell script is text")
}
