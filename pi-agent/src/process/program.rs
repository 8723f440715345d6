//! A program run to its end: arguments, environment, user, deadline, the tail of stderr.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::below::end_session;
use super::confined::{Place, Reach};
use super::session::{Orphaned, enter, lead};
use super::tail::Tail;
use super::{Piped, User};
use crate::error::{Context, Error, Kind, Result};
use crate::mounts::{Bind, View};

/// A program to run to its end.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name or path.
    pub program: PathBuf,
    /// Arguments; never a secret.
    pub arguments: Vec<OsString>,
    /// The whole environment besides PATH, LANG and TZ, which [`Program::run`] sets.
    pub environment: Vec<(OsString, OsString)>,
    /// Run as this user, with its groups, when we are root.
    pub user: Option<User>,
    /// Working directory. Default `/`.
    pub directory: PathBuf,
    /// Files that it and what it starts find at other paths than everybody else.
    pub binds: Vec<Bind>,
    /// Where it runs, when it is not to reach what we do.
    pub place: Place,
    /// What it reaches when it runs alone.
    pub reach: Reach,
    /// Whoever asks it to end before.
    pub stop: Option<Stop>,
    /// Ended with everything it started when this is over.
    pub deadline: Duration,
}

/// Asks a program that runs to end in its own way. Only who started it knows its number for sure.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Sends it SIGINT soon, once; nothing when it has ended.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn send(&self, child: Pid) {
        if self.0.swap(false, Ordering::Relaxed) {
            let _ = kill(child, Signal::SIGINT);
        }
    }
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a program ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output, lossy UTF-8, its first 64 MiB.
    pub stdout: String,
    /// The last 16 KiB of standard error.
    pub stderr: String,
}

/// Where programs are looked for: what Debian's cron and systemd use, so that a hand-started run finds the same ones.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const STDOUT_LIMIT: usize = 64 << 20;
/// Bytes of a line. The longest that is meant to be read is a JSON document of pgBackRest's.
const LONGEST_LINE: u64 = 32 << 20;
/// Lines that have not been taken yet.
const LINES: usize = 64;

impl Program {
    /// A program with arguments; no environment, our own user, one minute.
    pub fn new<A: Into<OsString>>(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            user: None,
            directory: "/".into(),
            binds: Vec::new(),
            place: Place::Here,
            reach: Reach::default(),
            stop: None,
            deadline: Duration::from_secs(60),
        }
    }

    /// Sets the deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Lets somebody ask it to end.
    #[must_use]
    pub fn stopped_by(mut self, stop: &Stop) -> Self {
        self.stop = Some(stop.clone());
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn as_user(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Leaves it no network, no processes but its own, and none of the system calls that no server needs: it works on what somebody
    /// else has written. Sockets in the file system work.
    #[must_use]
    pub fn confined(mut self) -> Self {
        self.place = Place::Alone;
        self
    }

    /// Says what a confined one reaches.
    #[must_use]
    pub fn reaching(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// Shows it files at other paths than everybody else. Where the kernel refuses that, it does not start.
    #[must_use]
    pub fn seeing(mut self, binds: &[Bind]) -> Self {
        self.binds.extend_from_slice(binds);
        self
    }

    /// Adds an environment variable. The environment of a process is readable by its user: no secret of another's.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// Runs it and waits; every line of both streams goes through `on_line` as it comes.
    /// At the deadline, and when this thread or process dies, everything it started ends.
    ///
    /// # Errors
    /// It could not be started (kind `NotFound` when there is no such program), or the deadline passed (`Transient`).
    /// A non-zero exit is not an error here.
    pub fn run(&self, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Output> {
        let name = self.program.display();
        let mut child = self.spawn()?;
        let session = Pid::from_raw(child.id().cast_signed());
        let (sender, lines) = mpsc::sync_channel(LINES);
        let out = child.stdout.take().map(|pipe| read_lines(pipe, Stream::Out, sender.clone()));
        let err = child.stderr.take().map(|pipe| read_lines(pipe, Stream::Err, sender));

        let started = Instant::now();
        let mut stdout = String::new();
        let mut tail = Tail::default();
        let mut take = |stream: Stream, line: String| {
            on_line(stream, line.trim_end_matches(['\n', '\r']));
            match stream {
                Stream::Out if stdout.len() + line.len() <= STDOUT_LIMIT => stdout.push_str(&line),
                Stream::Out => {}
                Stream::Err => tail.push(line),
            }
        };
        let status = loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok((stream, line)) => take(stream, line),
                // Both pipes are closed; without this pause a program that closed them early would be polled hotly.
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(5)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = child.try_wait().context(|| format!("wait for {name}"))? {
                break Some(status);
            }
            if started.elapsed() >= self.deadline {
                break None;
            }
            // It is ours to wait for: nobody else has its number.
            self.stop.iter().for_each(|stop| stop.send(session));
        };
        // A worker that outlived its parent would keep our pipes open for ever.
        end_session(session);
        let ended = match status {
            Some(status) => Ok(status),
            None => {
                child.wait().context(|| format!("wait for {name}"))?;
                Err(Error::transient(format!("{name} did not finish within {} s", self.deadline.as_secs())))
            }
        };
        for (stream, line) in lines {
            take(stream, line);
        }
        for reader in [out, err].into_iter().flatten() {
            // A reader cannot panic: it only forwards.
            let _ = reader.join();
        }
        Ok(Output { status: ended?, stdout, stderr: tail.text() })
    }

    /// Starts it for what it writes to standard output, which may be more than fits anywhere.
    /// Read it to its end on this thread: the program dies with the thread that started it.
    ///
    /// # Errors
    /// It could not be started (kind `NotFound` when there is no such program).
    pub fn pipe(&self, patience: Duration) -> Result<Piped> {
        let mut child = self.spawn()?;
        let stdout = child.stdout.take().expect("it was asked for");
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || Tail::of(pipe)));
        let name = self.program.display().to_string();
        let deadline = Instant::now().checked_add(self.deadline);
        Ok(Piped { name, child, stdout, stderr, deadline, patience, ended: false })
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = self.command()?;
        self.place.bear(|| command.spawn()).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Permanent,
            };
            Error::new(format!("start {}", self.program.display())).kind_of(kind).caused_by(error)
        })
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .envs(std::env::var_os("TZ").map(|zone| ("TZ", zone)))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self.binds.is_empty() {
            // While it may: as root, if we are.
            enter(&mut command, View::of(&self.binds)?);
        }
        let user = self.user.as_ref().filter(|_| Uid::effective().is_root());
        let way = match self.place {
            Place::Here => None,
            _ => Some(self.place.way(&self.reach).context(|| format!("prepare {}", self.program.display()))?),
        };
        lead(&mut command, user, Orphaned::Dies, way);
        Ok(command)
    }
}

fn read_lines(
    pipe: impl Read + Send + 'static,
    stream: Stream,
    lines: mpsc::SyncSender<(Stream, String)>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // A longer one is cut into several.
        while reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if lines.send((stream, String::from_utf8_lossy(&line).into_owned())).is_err() {
                return;
            }
            line.clear();
        }
    })
}
