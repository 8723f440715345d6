//! Parses, delegates, prints the error, exits.

use std::process::ExitCode;

use clap::Parser;
use pi_agent::cli::{Cli, exit_code, print_error};
use pi_agent::logging::{self, Target};

fn main() -> ExitCode {
    pi_agent::process::without_core_files();
    pi_agent::process::with_little_memory();
    let cli = Cli::parse();
    logging::start(if cli.is_step() { Target::Plain } else { Target::Automatic });
    let code = cli.perform().unwrap_or_else(|error| {
        print_error("", &error);
        exit_code(&error)
    });
    ExitCode::from(code)
}
