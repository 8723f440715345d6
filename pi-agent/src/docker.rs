//! The Docker engine, asked over its socket: what a container is made of, and pausing, stopping and starting it.
//!
//! Not through the `docker` program: on a small machine that takes 40 MiB and a third of a second for each question, and
//! a writer that was paused waits for it.

use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Context, Error, Kind, Result};

/// Docker's own variable; only its `unix://` form is understood: everything here needs the engine on this machine.
const SOCKET_VARIABLE: &str = "DOCKER_HOST";
const SOCKET: &str = "/var/run/docker.sock";

/// An engine on a small machine under load takes seconds to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Far more than an engine says of a container.
const LONGEST_ANSWER: usize = 8 << 20;

/// The engine of this machine.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Changes when it is made anew.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// What it does.
    pub state: State,
    /// Its first process, as this machine counts them; `None` when it does not run.
    pub pid: Option<u32>,
    /// The id of what it was made of.
    pub image: String,
    /// The directories of this machine that it sees.
    pub mounts: Vec<Mount>,
    /// `NAME=VALUE`. May hold passwords.
    pub environment: Vec<String>,
    /// The logging driver: `json-file`, `local`, `journald`, …
    pub log_driver: String,
    /// Its options, such as `max-size`.
    pub log_options: Vec<(String, String)>,
    /// Where the driver writes, when it writes a file.
    pub log_path: Option<PathBuf>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It stands still and keeps its memory.
    Paused,
    /// It was never started, has ended or is about to.
    Stopped,
}

/// A directory of this machine, seen in a container.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// Here; empty for what lives in memory only.
    #[serde(rename = "Source", default)]
    pub source: PathBuf,
    /// There.
    #[serde(rename = "Destination")]
    pub destination: PathBuf,
    /// It can be written to from there.
    #[serde(rename = "RW")]
    pub writable: bool,
}

impl Docker {
    /// Ready to ask; nothing was asked yet.
    ///
    /// # Errors
    /// There is no socket (kind `NotFound`).
    pub fn open() -> Result<Self> {
        let host = std::env::var(SOCKET_VARIABLE).unwrap_or_default();
        Self::at(host.strip_prefix("unix://").unwrap_or(SOCKET).into())
    }

    /// The same, at that socket.
    ///
    /// # Errors
    /// It is not there (kind `NotFound`).
    pub fn at(socket: PathBuf) -> Result<Self> {
        if !socket.exists() {
            return Err(Error::new(format!("Docker does not run: there is no {}", socket.display()))
                .kind_of(Kind::NotFound)
                .hint("systemctl start docker; or, if it was never installed: apt install docker.io"));
        }
        // No certificate is ever looked at, so none is read.
        let client = Client::builder()
            .unix_socket(socket.clone())
            .tls_built_in_root_certs(false)
            .build()
            .context(|| "prepare the connection to Docker".into())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "prepare the connection to Docker".into())?;
        Ok(Self { socket, client, runtime })
    }

    /// The container of that name or id.
    ///
    /// # Errors
    /// There is none (kind `NotFound`; the hint names those there are), or Docker does not answer.
    pub fn container(&self, name: &str) -> Result<Container> {
        let doing = || format!("ask Docker for the container {name}");
        match self.ask(&Method::GET, &format!("containers/{name}/json"), PATIENCE, doing)? {
            Answer::Good(body) => Inspected::read(&body).context(doing),
            Answer::NoSuch => Err(self.no_such(name)),
            Answer::Conflict(error) => Err(error),
        }
    }

    /// Every container, also those that do not run, by name.
    ///
    /// # Errors
    /// Docker does not answer.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for name in self.names()? {
            match self.container(&name) {
                // It went away in between.
                Err(error) if error.kind() == Kind::NotFound => {}
                container => all.push(container?),
            }
        }
        Ok(all)
    }

    /// Freezes every process in it. Already paused is an error.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.order(name, "pause", "pause", PATIENCE)
    }

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn unpause(&self, name: &str) -> Result<()> {
        self.order(name, "unpause", "resume", PATIENCE)
    }

    /// Asks it to end and kills it after `grace`. One that has ended is fine.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn stop(&self, name: &str, grace: Duration) -> Result<()> {
        self.order(name, &format!("stop?t={}", grace.as_secs()), "stop", grace + PATIENCE)
    }

    /// Starts it. One that runs is fine.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn start(&self, name: &str) -> Result<()> {
        self.order(name, "start", "start", PATIENCE * 3)
    }

    /// Makes a container of that name as Docker's `containers/create` wants it described, and starts it.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn run(&self, name: &str, description: &Value) -> Result<()> {
        let doing = || format!("make the container {name}");
        let path = format!("containers/create?name={name}");
        match self.send(&Method::POST, &path, Some(description.to_string()), PATIENCE * 3, doing)? {
            Answer::Good(_) => self.start(name),
            Answer::NoSuch => Err(Error::new(format!("{}: Docker does not have its image", doing()))),
            Answer::Conflict(error) => Err(error),
        }
    }

    /// Ends and removes a container with the volumes that are its alone; whether it was there.
    ///
    /// # Errors
    /// Docker's, in its words.
    pub fn remove(&self, name: &str) -> Result<bool> {
        let doing = || format!("remove the container {name}");
        let began = Instant::now();
        loop {
            match self.ask(&Method::DELETE, &format!("containers/{name}?force=1&v=1"), PATIENCE * 3, doing)? {
                Answer::Good(_) => return Ok(true),
                Answer::NoSuch => return Ok(false),
                Answer::Conflict(error) if began.elapsed() > PATIENCE => return Err(error),
                // It is being removed already: for somebody who was killed meanwhile.
                Answer::Conflict(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn order(&self, name: &str, order: &str, verb: &str, patience: Duration) -> Result<()> {
        let doing = || format!("{verb} the container {name}");
        match self.ask(&Method::POST, &format!("containers/{name}/{order}"), patience, doing)? {
            Answer::Good(_) => Ok(()),
            Answer::NoSuch => Err(self.no_such(name)),
            Answer::Conflict(error) => Err(error),
        }
    }

    fn no_such(&self, name: &str) -> Error {
        let error = Error::new(format!("there is no container \"{name}\"")).kind_of(Kind::NotFound);
        match self.names() {
            Ok(names) if names.is_empty() => error.hint("Docker has no containers: docker compose up -d"),
            Ok(names) => error.hint(format!("the containers are {}", names.join(", "))),
            Err(_) => error,
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let doing = || "ask Docker for its containers".to_owned();
        let Answer::Good(body) = self.ask(&Method::GET, "containers/json?all=1", PATIENCE, doing)? else {
            return Err(Error::new(doing()).hint("something else than Docker answers there"));
        };
        let listed: Vec<Listed> = serde_json::from_slice(&body).context(doing)?;
        let mut names: Vec<_> = listed.into_iter().filter_map(|one| one.names.into_iter().next()).collect();
        names.iter_mut().for_each(|name| *name = name.trim_start_matches('/').to_owned());
        names.sort();
        Ok(names)
    }

    fn ask(&self, method: &Method, path: &str, patience: Duration, doing: impl Fn() -> String) -> Result<Answer> {
        self.send(method, path, None, patience, doing)
    }

    fn send(
        &self,
        method: &Method,
        path: &str,
        json: Option<String>,
        patience: Duration,
        doing: impl Fn() -> String,
    ) -> Result<Answer> {
        let answered = self.runtime.block_on(async {
            // The engine's own version of its interface: what is used here is in all of them.
            let mut request = self.client.request(method.clone(), format!("http://docker/{path}")).timeout(patience);
            if let Some(json) = json {
                request = request.header("content-type", "application/json").body(json);
            }
            let mut response = request.send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > LONGEST_ANSWER {
                    break;
                }
            }
            Ok::<_, reqwest::Error>((response.status(), body))
        });
        let (status, body) = answered.map_err(|error| {
            Error::new(format!("{}: Docker does not answer on {}", doing(), self.socket.display()))
                .kind_of(Kind::Transient)
                .hint("systemctl status docker says why; systemctl start docker")
                .caused_by(error.without_url())
        })?;
        match status {
            StatusCode::NOT_FOUND => Ok(Answer::NoSuch),
            // 304: it is so already.
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(Answer::Good(body)),
            status => {
                let said: Option<Value> = serde_json::from_slice(&body).ok();
                let said = said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or_default();
                let error = Error::new(format!("{}: Docker says {}: {said}", doing(), status.as_u16()));
                if status == StatusCode::CONFLICT { Ok(Answer::Conflict(error)) } else { Err(error) }
            }
        }
    }
}

enum Answer {
    Good(Vec<u8>),
    NoSuch,
    /// It is not in the state for that, or somebody else has asked for the same.
    Conflict(Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(default)]
    names: Vec<String>,
}

/// The part of Docker's description that is used.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    #[serde(default)]
    image: String,
    state: InspectedState,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    log_path: PathBuf,
    config: InspectedConfig,
    host_config: InspectedHost,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    running: bool,
    paused: bool,
    pid: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    env: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedHost {
    log_config: InspectedLog,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedLog {
    #[serde(rename = "Type")]
    driver: String,
    config: Option<std::collections::BTreeMap<String, String>>,
}

impl Inspected {
    fn read(body: &[u8]) -> serde_json::Result<Container> {
        let Self { id, name, image, state, mounts, log_path, config, host_config } = serde_json::from_slice(body)?;
        Ok(Container {
            id,
            name: name.trim_start_matches('/').to_owned(),
            state: match state {
                InspectedState { paused: true, .. } => State::Paused,
                InspectedState { running: true, .. } => State::Running,
                InspectedState { .. } => State::Stopped,
            },
            pid: (state.running && state.pid != 0).then_some(state.pid),
            image,
            mounts,
            environment: config.env.unwrap_or_default(),
            log_driver: host_config.log_config.driver,
            log_options: host_config.log_config.config.unwrap_or_default().into_iter().collect(),
            log_path: (!log_path.as_os_str().is_empty()).then_some(log_path),
        })
    }
}

impl Container {
    /// The value of a variable of its environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
    }

    /// Where on this machine a path of the container lies, when it is below a mount. One that leads up again is below none.
    pub fn on_this_machine(&self, inside: &Path) -> Option<PathBuf> {
        if inside.components().any(|part| !matches!(part, Component::RootDir | Component::Normal(_))) {
            return None;
        }
        let below = |mount: &&Mount| inside.starts_with(&mount.destination);
        let mount = self.mounts.iter().filter(below).max_by_key(|mount| mount.destination.components().count())?;
        if mount.source.as_os_str().is_empty() {
            return None;
        }
        Some(joined(&mount.source, inside.strip_prefix(&mount.destination).ok()?))
    }

    /// Where the container has a path of this machine and may write to it.
    pub fn sees(&self, here: &Path) -> Option<PathBuf> {
        let real = here.canonicalize().unwrap_or_else(|_| here.to_owned());
        self.mounts.iter().filter(|mount| mount.writable).find_map(|mount| {
            let source = mount.source.canonicalize().ok()?;
            Some(joined(&mount.destination, real.strip_prefix(source).ok()?))
        })
    }
}

/// Without the slash that joining nothing adds.
fn joined(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an engine of version 20.10 says, shortened.
    const DB: &str = r#"{"Id": "9c28", "Name": "/db",
        "State": {"Status": "running", "Running": true, "Paused": false, "Pid": 24431},
        "Mounts": [
            {"Type": "volume", "Name": "data", "Source": "/v/data/_data", "Destination": "/var/lib/postgresql/data", "RW": true},
            {"Type": "bind", "Source": "/srv/ts", "Destination": "/var/lib/postgresql/data/ts", "RW": false},
            {"Type": "tmpfs", "Destination": "/run", "RW": true}],
        "LogPath": "", "Config": {"Env": ["PGDATA=/var/lib/postgresql/data", "A=b=c"]},
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}}}"#;

    #[test]
    fn a_container_is_read_and_its_paths_are_found_on_this_machine() {
        let db = Inspected::read(DB.as_bytes()).expect("complete");
        assert_eq!(
            (db.name.as_str(), db.state, db.pid, db.log_path.clone()),
            ("db", State::Running, Some(24431), None)
        );
        assert_eq!((db.variable("A"), db.variable("PG")), (Some("b=c"), None));
        let found = |inside: &str| db.on_this_machine(Path::new(inside));
        assert_eq!(found("/var/lib/postgresql/data"), Some("/v/data/_data".into()));
        assert_eq!(found("/var/lib/postgresql/data/base/1"), Some("/v/data/_data/base/1".into()));
        assert_eq!(found("/var/lib/postgresql/data/ts/x"), Some("/srv/ts/x".into()));
        assert_eq!((found("/etc"), found("/run/postgresql")), (None, None));
        assert_eq!(found("/var/lib/postgresql/data/../../../../usr/bin"), None, "it leads out of the volume");
    }

    #[test]
    fn no_answer_of_dockers_panics() {
        crate::fuzzed::fuzz(&[DB.as_bytes()], |body| {
            let _ = Inspected::read(body).map(|db| db.on_this_machine(Path::new("/var/lib/postgresql/data/base")));
        });
    }
}
