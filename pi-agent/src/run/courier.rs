//! Notices leave while the run goes on, by a process of their own: a failure at 03:10 must not wait for a backup that ends
//! at six, and TLS must not make the supervisor larger.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use log::warn;
use nix::unistd::Pid;

use crate::config::{Settings, StateDirectory};
use crate::process::{self, Orphaned};
use crate::run::Watcher;
use crate::run::supervise::Signals;
use crate::{notify, systemd};

/// How long one process tries; what it does not manage is left to the next, and to the alarms' timer.
const PATIENCE: Duration = Duration::from_secs(50);
/// A last request may still be under way then.
const OVERTIME: Duration = Duration::from_secs(35);

/// Sends what is in the outbox whenever it is told to.
pub struct Courier<'a> {
    settings: &'a Settings,
    directory: &'a StateDirectory,
    at_work: Option<Child>,
}

impl<'a> Courier<'a> {
    /// Nothing runs yet.
    pub fn new(settings: &'a Settings, directory: &'a StateDirectory) -> Self {
        Self { settings, directory, at_work: None }
    }

    /// Something may have come into the outbox. Does not wait: one that is at work already may not see it, then the next
    /// call or [`Self::finish`] starts another.
    pub fn go(&mut self) {
        if !self.is_at_work() && notify::waiting(self.settings, self.directory) > 0 {
            match self.start() {
                Ok(child) => self.at_work = Some(child),
                Err(error) => warn!("notices wait in the outbox: start the process that sends them: {error}"),
            }
        }
    }

    /// The process at work, which is no step's.
    pub fn process(&self) -> Option<Pid> {
        self.at_work.as_ref().map(|child| Pid::from_raw(child.id().cast_signed()))
    }

    /// Waits until everything is sent, but not long, and not when somebody wants us to stop: it stays in the outbox.
    pub fn finish(mut self, signals: &mut Signals, watcher: &mut dyn Watcher, stopped: bool) {
        let patience = if stopped { Duration::from_secs(2) } else { PATIENCE + OVERTIME };
        let until = Instant::now() + patience;
        let mut rounds = 0;
        while Instant::now() < until {
            if !self.is_at_work() {
                // The first may have begun before the last notice was there.
                if rounds == 2 || notify::waiting(self.settings, self.directory) == 0 {
                    return;
                }
                rounds += 1;
                self.go();
            }
            watcher.tick();
            if signals.pause(Duration::from_millis(50)).is_some() {
                return;
            }
        }
    }

    fn is_at_work(&mut self) -> bool {
        if self.at_work.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None))) {
            self.at_work = None;
        }
        self.at_work.is_some()
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("pi-agent")
            .arg("--config")
            .arg(&self.settings.file)
            .arg("--state-directory")
            .arg(self.directory.path())
            .args(["notify", "deliver", "--for"])
            .arg(format!("{}s", PATIENCE.as_secs()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // A terminal has progress bars drawn on it.
            .stderr(if systemd::listens() { Stdio::inherit() } else { Stdio::null() });
        // It ends by itself, and what it is about is worth more than the run when that is killed.
        process::lead_session(&mut command, Orphaned::CleansUp);
        command.spawn()
    }
}
