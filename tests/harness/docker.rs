//! A real Docker engine of a test's own: gone with the test and with everything that ran in it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Machine, Scratch, mounts_of_our_own, sh};

/// Where everybody looks for it.
const USUAL: &str = "/var/run/docker.sock";

/// Any user that every Debian has: whose range of numbers remapped users get.
const WHOSE: &str = "daemon";

/// A running engine with one image. Ended and removed when dropped.
#[derive(Debug)]
pub struct DockerEngine {
    daemon: Option<Child>,
    scratch: Scratch,
    socket: PathBuf,
    users: Users,
}

/// Whom the users of containers are on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Users {
    Same,
    /// Their numbers begin at [`DockerEngine::REMAPPED`].
    Remapped,
}

impl DockerEngine {
    /// The image: a Debian with PostgreSQL, pgBackRest and python3-plyvel (LevelDB).
    pub const IMAGE: &str = "household";

    /// User 0 of a container of [`start_remapped`](Self::start_remapped), on this machine.
    pub const REMAPPED: u32 = 100_000;

    /// Starts one without a network, waits until it answers, and gives it the image.
    pub fn start() -> Self {
        Self::with(false, Users::Same)
    }

    /// The same with `--userns-remap`.
    pub fn start_remapped() -> Self {
        Self::with(false, Users::Remapped)
    }

    /// The same with its files, its socket and its networks where a household has them: only within
    /// [`privately`](crate::privately), where `/run` and `/var/lib/docker` are nobody else's.
    pub fn start_as_usual() -> Self {
        Self::with(true, Users::Same)
    }

    /// The one of a booted machine, which runs there already; it gets the image.
    pub fn of(machine: &Machine) -> Self {
        machine.until("docker version");
        // `/var/run` would lead to a directory of this machine.
        let socket = machine.path("/run/docker.sock");
        let engine = Self { daemon: None, scratch: Scratch::new(), socket, users: Users::Same };
        engine.docker(["import", &prepared("docker.tar").display().to_string(), Self::IMAGE]);
        engine
    }

    fn with(usual: bool, users: Users) -> Self {
        let scratch = Scratch::new();
        let socket = if usual { USUAL.into() } else { scratch.join("docker.sock") };
        let mut engine = Self { daemon: None, scratch, socket, users };
        engine.share_image();
        engine.start_again();
        engine
    }

    /// Begins with a copy of an engine that has the image. Its layer, which no engine writes to, stays where it is: importing it
    /// costs six seconds of processor time.
    fn share_image(&self) {
        let made = prepared(if self.users == Users::Same { "docker.engine" } else { "docker.remapped" });
        let data = self.own_data();
        fs::create_dir_all(&data).expect("our own directory");
        let copied =
            "tar --create --directory \"$1\" --exclude='./overlay2/*/diff' . | tar --extract --directory \"$2\"";
        sh(Command::new("sh").args(["-ec", copied, "sh"]).args([&made, &data]));
        for layer in fs::read_dir(made.join("overlay2")).expect("was made by root") {
            let layer = Path::new("overlay2").join(layer.expect("a listing").file_name()).join("diff");
            if made.join(&layer).is_dir() {
                symlink(made.join(&layer), data.join(&layer)).expect("our own directory");
            }
        }
    }

    /// Starts the engine after [`Self::stop`].
    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.scratch.join("log")).expect("our own directory");
        let place = |name: &str| self.scratch.join(name);
        let mut command = Command::new("dockerd");
        if !self.is_usual() {
            command.arg("--data-root").arg(place("data")).arg("--exec-root").arg(place("exec"));
            command.arg("--pidfile").arg(place("pid")).args(["--host", &self.host()]);
            // Loopback and files are all that most tests need: no bridge, no firewall rules on this machine.
            command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        }
        // What the test mounts in a volume is there for the engine, too.
        mounts_of_our_own();
        if self.users == Users::Remapped {
            command.arg(format!("--userns-remap={WHOSE}"));
            let ranges = self.scratch.join("ranges");
            fs::write(&ranges, format!("{WHOSE}:{}:65536\n", Self::REMAPPED)).expect("our own directory");
            for file in ["/etc/subuid", "/etc/subgid"] {
                sh(Command::new("mount").arg("--bind").arg(&ranges).arg(file));
            }
        }
        let log_too = log.try_clone().expect("our own file");
        let child = command.stdin(Stdio::null()).stdout(log_too).stderr(log).spawn().expect("dockerd can be started");
        self.daemon = Some(child);
        let started = Instant::now();
        while !self.command(["version"]).output().is_ok_and(|output| output.status.success()) {
            let ended = self.daemon.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            let log = || fs::read_to_string(self.scratch.join("log")).unwrap_or_default();
            assert!(!ended && started.elapsed() < Duration::from_secs(60), "dockerd does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the engine, and with it every container.
    pub fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = daemon.wait();
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn is_usual(&self) -> bool {
        self.socket == Path::new(USUAL)
    }

    /// Where the volume of that name lies.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.own_data().join("volumes").join(name).join("_data")
    }

    /// Where it has its files: those of remapped users in a directory of their own.
    fn own_data(&self) -> PathBuf {
        match self.users {
            Users::Remapped => self.scratch.join("data").join(format!("{0}.{0}", Self::REMAPPED)),
            Users::Same if self.is_usual() => "/var/lib/docker".into(),
            Users::Same => self.scratch.join("data"),
        }
    }

    /// Runs Docker's own program; what it said.
    #[track_caller]
    pub fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        sh(&mut self.command(arguments)).trim_end().to_owned()
    }

    /// Docker's own program, not yet started.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            // A paused one could not be stopped.
            if let Ok(listed) = self.command(["ps", "--all", "--quiet"]).output() {
                let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
                let _ = self.command(["rm", "--force"].into_iter().chain(ids.split_whitespace())).output();
            }
        }
        self.stop();
    }
}

/// `PI_AGENT_TEST_CACHE` is where `tests/setup.sh` puts what takes long to make.
fn prepared(name: &str) -> PathBuf {
    let cache = std::env::var_os("PI_AGENT_TEST_CACHE").unwrap_or_else(|| "/var/cache/pi-agent-tests".into());
    let path = Path::new(&cache).join("machines").join(name);
    assert!(path.exists(), "{} is missing: run tests/setup.sh", path.display());
    path
}
