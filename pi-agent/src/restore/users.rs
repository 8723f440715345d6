//! Who uses what is to be put back, and must not while that happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Directory, Live, Postgres, StateDirectory, Writer};
use crate::docker::{Container, Docker, State};
use crate::error::{Context, Error, Kind, Result};
use crate::live::Quiet;

/// Longer than any restore of a household.
const A_WEEK: Duration = Duration::from_hours(7 * 24);

/// Those who use these paths: the step's own writer, and every container that sees them as they are now. Paused would not
/// do: it would go on with the old.
///
/// # Errors
/// Docker does not answer, or one of the containers is paused. That there is no Docker is fine.
pub fn of_directory(directory: &Directory, paths: &[PathBuf]) -> Result<Vec<Writer>> {
    let writer = directory.live.as_ref().map(|live| &live.writer);
    let own = match writer {
        Some(Writer::Pause(name) | Writer::Stop(name)) => Some(name),
        _ => None,
    };
    let mut users: Vec<_> = writer.filter(|_| own.is_none()).cloned().into_iter().collect();
    users.extend(containers(own, paths)?);
    Ok(users)
}

/// The containers among them, and `own`.
///
/// # Errors
/// As of [`of_directory`].
pub fn containers(own: Option<&String>, paths: &[PathBuf]) -> Result<Vec<Writer>> {
    let mut users = Vec::new();
    let containers = match Docker::open().and_then(|docker| docker.containers()) {
        Err(error) if error.kind() == Kind::NotFound => Vec::new(),
        containers => containers?,
    };
    for container in containers {
        let uses = own == Some(&container.name) || (container.state != State::Stopped && holds(&container, paths));
        if uses && container.state == State::Paused {
            return Err(Error::usage(format!(
                "the container {0} is paused, and would go on with the old",
                container.name
            ))
            .hint(format!("docker unpause {0}, or docker stop {0}", container.name)));
        }
        if uses {
            users.push(Writer::Stop(container.name));
        }
    }
    Ok(users)
}

/// It would keep the old, or write into the new too early.
fn holds(container: &Container, paths: &[PathBuf]) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let overlaps = |source: &Path, writable: bool| {
        paths
            .iter()
            .map(|path| real(path))
            .any(|path| source.starts_with(&path) || (writable && path.starts_with(source)))
    };
    let mut mounts = container.mounts.iter().filter(|mount| !mount.source.as_os_str().is_empty());
    mounts.any(|mount| overlaps(&real(&mount.source), mount.writable))
}

/// The server of a database: its container, or its unit; none, when it does not run.
///
/// # Errors
/// It runs on this machine and no unit is its.
pub fn of_database(postgres: &Postgres, data: &Path) -> Result<Vec<Writer>> {
    if let Some(container) = &postgres.container {
        return Ok(vec![Writer::Stop(container.clone())]);
    }
    let Some(pid) = server(data) else { return Ok(Vec::new()) };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).context(|| format!("look at process {pid}"))?;
    let Some(unit) = unit(&groups) else {
        return Err(Error::usage(format!("the server in {} runs, and no unit of systemd is its", data.display()))
            .hint("stop it, restore, start it"));
    };
    let order = |verb: &str| ["/usr/bin/systemctl", verb, &unit].map(str::to_owned).to_vec();
    Ok(vec![Writer::Commands { quiet: order("stop"), resume: order("start") }])
}

/// The process of the server at work on that data directory.
pub fn server(data: &Path) -> Option<u32> {
    let lock = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    // That of one in single-user mode is negative.
    let pid = lock.lines().next()?.trim().trim_start_matches('-').parse().ok()?;
    let there = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (there == data.canonicalize().ok()?).then_some(pid)
}

/// Of a control group's path; whatever else starts a server by hand is no unit of its.
fn unit(groups: &str) -> Option<String> {
    let mut parts = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    parts.find(|part| part.starts_with("postgresql") && part.ends_with(".service")).map(str::to_owned)
}

/// As a person reads it, in a plan.
pub fn name(writer: &Writer) -> String {
    match writer {
        Writer::Pause(name) | Writer::Stop(name) => format!("the container {name}"),
        Writer::Commands { quiet, .. } => quiet.join(" "),
    }
}

/// All of them stand still until this is dropped or ended: a process of its own starts each again, whatever happens here.
pub struct Stopped(Vec<(Quiet, String)>);

impl Stopped {
    /// Stops them, one after the other.
    ///
    /// # Errors
    /// One cannot be stopped; the others go on.
    pub fn begin(directory: &StateDirectory, step: &str, users: &[Writer]) -> Result<Self> {
        let mut stopped = Vec::new();
        for (number, writer) in users.iter().enumerate() {
            let live = Live { paths: Vec::new(), writer: writer.clone(), at_most: A_WEEK };
            stopped.push((Quiet::begin(directory, &format!("{step}.restore-{number}"), &live)?, name(writer)));
        }
        Ok(Self(stopped))
    }

    /// Those that did not run before, and so are not started, in words.
    pub fn remarks(&self) -> Vec<String> {
        self.0.iter().filter_map(|(quiet, _)| quiet.already.clone()).collect()
    }

    /// Starts them again.
    ///
    /// # Errors
    /// One does not start; the others are tried.
    pub fn end(self) -> Result<()> {
        let ended: Vec<_> = self.0.into_iter().map(|(quiet, _)| quiet.end().map(drop)).collect();
        ended.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_of_postgresql_is_ever_stopped() {
        let debian = "0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n";
        assert_eq!(unit(debian).as_deref(), Some("postgresql@15-main.service"));
        let old = "12:cpu:/\n1:name=systemd:/system.slice/postgresql.service\n";
        assert_eq!(unit(old).as_deref(), Some("postgresql.service"));
        assert_eq!(unit("0::/system.slice/runner.service\n"), None);
        assert_eq!(unit("0::/\n"), None);
    }
}
