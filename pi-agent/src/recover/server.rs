//! The server of a data directory: stopped for a moment, and started on what came back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Postgres, Settings};
use crate::docker::{Docker, State};
use crate::error::{Error, Result};
use crate::process::Program;
use crate::systemd;

/// Who serves a data directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Server {
    /// One of Debian's clusters: its version and name.
    Debian(String, String),
    /// A container that is there; whether it ran.
    Container(String, bool),
    /// A container that is still to be made.
    NoContainer(String),
    /// Nobody that is known here.
    Unknown(PathBuf),
}

/// An orderly stop writes everything out; on a card that takes a while.
const PATIENCE: Duration = Duration::from_secs(300);

impl Server {
    /// That of this data directory.
    ///
    /// # Errors
    /// Docker does not answer.
    pub fn of(data: &Path, postgres: &Postgres) -> Result<Self> {
        if let Some(name) = &postgres.container {
            return Ok(match Docker::open().and_then(|docker| docker.container(name)) {
                Ok(container) => Self::Container(name.clone(), container.state != State::Stopped),
                Err(error) if error.kind() == crate::error::Kind::NotFound => Self::NoContainer(name.clone()),
                Err(error) => return Err(error),
            });
        }
        let debians = data.strip_prefix("/var/lib/postgresql").ok().and_then(|rest| {
            let (version, name) = rest.to_str()?.split_once('/')?;
            (version.parse::<u32>().is_ok() && !name.contains('/')).then(|| (version.to_owned(), name.to_owned()))
        });
        Ok(match debians {
            Some((version, name)) if systemd::is_manager() => Self::Debian(version, name),
            _ => Self::Unknown(data.to_owned()),
        })
    }

    /// Stops it, if it runs.
    ///
    /// # Errors
    /// It does not stop, or nobody knows how.
    pub fn stop(&self) -> Result<()> {
        match self {
            Self::Debian(version, name) => systemctl("stop", &format!("postgresql@{version}-{name}")),
            Self::Container(name, true) => Docker::open()?.stop(name, PATIENCE),
            Self::Container(..) | Self::NoContainer(_) => Ok(()),
            Self::Unknown(data) => match data.join("postmaster.pid").exists() {
                false => Ok(()),
                true => {
                    Err(Error::new(format!("a server uses {}, and nobody knows how it is stopped", data.display()))
                        .hint("stop it, then recover again"))
                }
            },
        }
    }

    /// What a person has to do, because nobody here can.
    pub fn left(&self) -> Vec<String> {
        let line = match self {
            Self::Debian(..) | Self::Container(_, true) => return Vec::new(),
            Self::Container(name, false) => format!("start the database: docker start {name}"),
            Self::NoContainer(name) => {
                format!("start the database, where its compose file is: docker compose up -d {name}")
            }
            Self::Unknown(data) => format!("start the server of {}", data.display()),
        };
        vec![line]
    }

    /// Starts it on what came back, if that can be done here.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self) -> Result<()> {
        match self {
            Self::Debian(version, name) => {
                if !Path::new("/etc/postgresql").join(version).join(name).exists() {
                    // Takes over the data directory that is there, and has systemd know it.
                    run("pg_createcluster", &[version, name])?;
                    systemctl("daemon-reload", "")?;
                }
                systemctl("start", &format!("postgresql@{version}-{name}"))
            }
            Self::Container(name, true) => Docker::open()?.start(name),
            Self::Container(_, false) | Self::NoContainer(_) | Self::Unknown(_) => Ok(()),
        }
    }
}

/// What to do about a server of this machine that came with the programs which recovered a container's database.
pub fn only_for_the_recovery(settings: &Settings) -> Option<String> {
    let mut servers = settings.steps.iter().filter_map(|step| step.postgres()).peekable();
    servers.peek()?;
    let made = Path::new("/etc/postgresql").read_dir().is_ok_and(|mut versions| versions.next().is_some());
    (made && servers.all(|postgres| postgres.container.is_some())).then(|| {
        "PostgreSQL of this machine was only needed to recover the container's: systemctl disable --now postgresql"
            .into()
    })
}

fn systemctl(verb: &str, unit: &str) -> Result<()> {
    let arguments: Vec<_> = [verb, unit].into_iter().filter(|argument| !argument.is_empty()).collect();
    run("systemctl", &arguments)
        .map_err(|error| if unit.is_empty() { error } else { error.hint(format!("journalctl -u {unit} says why")) })
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Program::new(program, arguments.iter().copied()).within(PATIENCE).run(&mut |_, _| ())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("{program} {}: {}", arguments.join(" "), output.stderr.trim())))
}
