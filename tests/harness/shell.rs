//! Other programs, when a test needs one to do its part or to judge.

use std::process::{Command, Output};

/// Runs the command to its end and returns its standard output; a failure is a panic with everything it said.
pub fn sh(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n--- stdout\n{stdout}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
