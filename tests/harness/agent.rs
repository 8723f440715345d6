//! The program under test, as a user starts it.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// `pi-agent --config F --state-directory D`.
#[derive(Clone, Debug)]
pub struct Agent {
    program: PathBuf,
    config: PathBuf,
    state: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// What a finished command gave.
#[derive(Debug)]
pub struct Ran {
    /// As one would type it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// A command that is still running, in a process group of its own. Ended by force when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    started: Instant,
    output: Option<[std::thread::JoinHandle<String>; 2]>,
}

impl Agent {
    /// The program with this configuration and state directory.
    pub fn new(config: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self { program: Self::binary(), config: config.into(), state: state.into(), environment: Vec::new() }
    }

    /// Another copy of the program.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Where the program is: `PI_AGENT_BINARY`, else beside the test's own executable in the target directory.
    pub fn binary() -> PathBuf {
        let path = std::env::var_os("PI_AGENT_BINARY").map_or_else(
            || {
                let test = std::env::current_exe().expect("a running program has a path");
                test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("pi-agent")
            },
            PathBuf::from,
        );
        assert!(path.is_file(), "{} is missing: build it first (`make test` does)", path.display());
        path
    }

    /// Sets a variable in the program's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The command, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).arg("--state-directory").arg(&self.state).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env_remove("STATE_DIRECTORY").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = [reader(child.stdout.take().expect("is piped")), reader(child.stderr.take().expect("is piped"))];
        Running { command: typed(&command), child, started: Instant::now(), output: Some(output) }
    }

    /// Runs it to its end, whatever that is.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.start(arguments).wait()
    }

    /// Runs it, expecting exit code 0.
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        self.run(arguments).expect(0)
    }
}

impl Ran {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Passes when it ended with that code; else panics with all it said.
    #[track_caller]
    #[must_use]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code() == Some(code), "expected exit code {code}: {self}");
        self
    }

    /// Standard output as the one JSON object every `--json` promises.
    #[track_caller]
    pub fn json(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"));
        assert_eq!(value["schema"], 1, "every document carries its schema: {self}");
        value
    }

    /// Passes when it said that, in its results or its log.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "expected {text:?}: {self}");
        self
    }

    /// The step of that name in the document of `run --json` or `status --json`.
    #[track_caller]
    pub fn step(&self, name: &str) -> Value {
        let document = self.json();
        let steps = document["steps"].as_array().unwrap_or_else(|| panic!("no steps: {self}"));
        let step = steps.iter().find(|step| step["name"] == name);
        step.unwrap_or_else(|| panic!("no step {name}: {self}")).clone()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ended = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (_, signal) => format!("signal {signal:?}"),
        };
        let Self { command, stdout, stderr, took, .. } = self;
        write!(f, "\n$ {command}\n--- {ended} after {took:.1?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

impl Running {
    /// The process id, which is also its group.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("signal {signal} to {}: {error}", self.command));
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ran {
        let status = self.child.wait().expect("our own child");
        let took = self.started.elapsed();
        let [stdout, stderr] =
            self.output.take().expect("wait is called once").map(|thread| thread.join().expect("a reader"));
        Ran { command: self.command.clone(), status, stdout, stderr, took }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Steps are in groups of their own and end by themselves when their supervisor is gone.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn reader(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn typed(command: &Command) -> String {
    let words = std::iter::once(OsStr::new("pi-agent")).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
