//! Pausing and resuming, by Docker or by commands.

use std::time::Duration;

use crate::config::Writer;
use crate::docker::{Docker, State};
use crate::error::{Error, Kind, Result};
use crate::process::Program;

/// What a service gets to end in peace when there is all the time in the world.
const LONGEST_STOP: Duration = Duration::from_secs(300);
/// What a command that resumes may take.
const COMMAND: Duration = Duration::from_secs(60);

impl Writer {
    /// As a person would call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Pause(name) | Self::Stop(name) => format!("the container {name}"),
            Self::Commands { .. } => "the writer".into(),
        }
    }

    /// What a person types to let it go on.
    pub(super) fn by_hand(&self) -> String {
        match self {
            Self::Pause(name) => format!("docker unpause {name}"),
            Self::Stop(name) => format!("docker start {name}"),
            Self::Commands { resume, .. } => resume.join(" "),
        }
    }

    /// What it is when it stands still already. Of commands nobody knows.
    ///
    /// # Errors
    /// Docker does not answer, or there is no such container.
    pub(super) fn stands_still(&self) -> Result<Option<&'static str>> {
        let (Self::Pause(name) | Self::Stop(name)) = self else { return Ok(None) };
        Ok(match Docker::open()?.container(name)?.state {
            State::Running => None,
            State::Paused => Some("paused"),
            State::Stopped => Some("stopped"),
        })
    }

    /// Makes it quiet. After an error nobody knows whether it is.
    ///
    /// # Errors
    /// Docker's or the command's.
    pub(super) fn quiet(&self, at_most: Duration) -> Result<()> {
        match self {
            Self::Pause(name) => Docker::open()?.pause(name),
            // Half of the time is left for copying and starting; Docker kills what does not end by then.
            Self::Stop(name) => Docker::open()?.stop(name, (at_most / 2).min(LONGEST_STOP)),
            Self::Commands { quiet, .. } => run(quiet, at_most),
        }
    }

    /// Lets it go on; fine when it does already, or is not there any more.
    ///
    /// # Errors
    /// Docker's or the command's.
    pub(super) fn resume(&self) -> Result<()> {
        let (Self::Pause(name) | Self::Stop(name)) = self else {
            let Self::Commands { resume, .. } = self else { return Ok(()) };
            return run(resume, COMMAND);
        };
        let docker = Docker::open()?;
        match (self, docker.container(name).map(|container| container.state)) {
            (Self::Pause(_), Ok(State::Paused)) => docker.unpause(name),
            (Self::Stop(_), Ok(State::Stopped)) => docker.start(name),
            (_, Err(error)) if error.kind() != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn run(command: &[String], within: Duration) -> Result<()> {
    let (program, arguments) = command.split_first().expect("the configuration has no empty command");
    let output = Program::new(program, arguments).within(within).run(&mut |_, _| ())?;
    if output.status.success() {
        return Ok(());
    }
    let said = output.stderr.trim();
    Err(Error::new(format!(
        "{} ended with {}{}{said}",
        command.join(" "),
        output.status,
        if said.is_empty() { "" } else { ": " }
    )))
}
