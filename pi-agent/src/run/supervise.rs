//! Watching over the process of one step: its events, its deadline, its silence, and signals to us.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Location, Source};
use crate::error::{Context, Error, Result};
use crate::logging;
use crate::monitor::Event;
use crate::process::{self, Orphaned, Priority};
use crate::run::Watcher;
use crate::run::brake::Brake;
use crate::run::rest::Rest;
use crate::shown::harmless;
use crate::steps::{Job, StepResult, Task};

/// How a step's process ended.
pub enum Ended {
    /// With a result.
    Answered(Box<StepResult>),
    /// Without one: panic, kill, stall.
    Unanswered(Error),
    /// It did not stop by itself at `max-duration`.
    Overran(Error),
    /// A signal to us ended it.
    Stopped(&'static str),
}

/// SIGTERM and SIGINT, remembered from the start of a run on.
pub struct Signals {
    runtime: Runtime,
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// The runtime or the handlers cannot be set up.
    pub fn listen() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "start the supervisor's runtime".into())?;
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context(|| "listen for signals".into());
        let (term, int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        drop(_inside);
        Ok(Self { runtime, term, int })
    }

    /// Waits for so long, or until a signal comes: then its name.
    pub fn pause(&mut self, duration: Duration) -> Option<&'static str> {
        let Self { runtime, term, int } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => Some("SIGTERM"),
                _ = int.recv() => Some("SIGINT"),
                () = tokio::time::sleep(duration) => None,
            }
        })
    }
}

/// A step that stops by itself at its deadline still has to finish what is under way: a last pack on a slow line.
pub const OVERTIME: Duration = Duration::from_secs(15 * 60);
/// What a step's process gets after SIGTERM; with the step's own 4 s inside, and under the 10 s we promise.
const STOP: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_millis(500);
const STDERR_LINES: usize = 20;

/// Starts the step's process and watches over it until it and everything it started have ended, `at_most` so long. `spared`: a
/// process of ours that is none of the step's.
///
/// # Errors
/// It could not be started.
pub fn supervise(
    job: &Job,
    at_most: Option<Duration>,
    stall: Duration,
    signals: &mut Signals,
    watcher: &mut dyn Watcher,
    spared: Option<Pid>,
) -> Result<Ended> {
    let Signals { runtime, term, int } = signals;
    let ended = runtime.block_on(async {
        let mut child = start(job).await?;
        let mut brake = Brake::new(Path::new("/"), pid(&child), job.settings.gives_way);
        if job.settings.step(&job.step).is_ok_and(|step| matches!(step.source, Source::Postgres(_))) {
            brake = brake.metering(&job.settings.storage.limits);
        }
        let result = watch(&mut child, &mut brake, at_most, stall, term, int, watcher).await;
        Ok::<_, Error>((child, result))
    });
    // Whatever happened, nothing it started may live on beside the next step.
    process::end_descendants(STOP, spared);
    let (mut child, seen) = ended?;
    let status = runtime.block_on(child.wait()).context(|| format!("wait for step {}", job.step))?;
    Ok(match seen {
        Seen::Result(result) => Ended::Answered(result),
        Seen::Silence { stderr } => Ended::Unanswered(unanswered(status, &stderr)),
        Seen::Stall => Ended::Unanswered(
            Error::new(format!("no progress for {} s: the step was ended", stall.as_secs()))
                .hint("look for a hung disk or network mount; `stall` in the step's configuration sets the patience"),
        ),
        Seen::Strained(error) => Ended::Unanswered(error),
        Seen::Overrun => Ended::Overran(Error::new("the step did not stop at max-duration and was ended")),
        Seen::Signal(name) => Ended::Stopped(name),
    })
}

async fn start(job: &Job) -> Result<Child> {
    // This very program, and not what an upgrade has put in its place since the run began.
    let mut command = std::process::Command::new("/proc/self/exe");
    command
        .arg0("pi-agent")
        .arg("step")
        .arg(&job.step)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .envs(logging::journaled());
    process::lead_session(&mut command, Orphaned::CleansUp);
    if matches!(job.task, Task::Backup { .. }) {
        match job.settings.storage.location {
            _ if job.was_here() => command.envs(process::GIVES_BACK),
            // There what is on its way takes room, too.
            Location::S3(_) => command.envs(process::MOVES_MUCH),
            Location::File(_) => &mut command,
        };
    }
    if job.settings.gives_way {
        process::prioritise(&mut command, Priority::Last);
    }
    let mut child = Command::from(command).spawn().context(|| format!("start the process of step {}", job.step))?;
    let mut line = serde_json::to_vec(job).context(|| format!("describe step {}", job.step))?;
    line.push(b'\n');
    let stdin = child.stdin.as_mut().expect("it was asked for");
    // A child that dies before it has read everything is seen by its missing answer.
    let _ = stdin.write_all(&line).await;
    let _ = stdin.flush().await;
    Ok(child)
}

enum Seen {
    Result(Box<StepResult>),
    Silence { stderr: Vec<String> },
    Stall,
    Strained(Error),
    Overrun,
    Signal(&'static str),
}

/// Of a process that was not waited for yet.
fn pid(child: &Child) -> Pid {
    let pid = child.id().expect("it was not waited for");
    Pid::from_raw(pid.cast_signed())
}

async fn watch(
    child: &mut Child,
    brake: &mut Brake,
    at_most: Option<Duration>,
    stall: Duration,
    term: &mut Signal,
    int: &mut Signal,
    watcher: &mut dyn Watcher,
) -> Seen {
    let mut events = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let mut errors = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
    let mut stderr = Vec::new();
    let mut errors_open = true;
    let mut tick = tokio::time::interval(TICK);
    let started = Instant::now();
    let mut life = Life::new();
    let mut rested = Duration::ZERO;
    let mut turn = Instant::now();
    loop {
        tokio::select! {
            line = events.next_line() => match line {
                Ok(Some(line)) => match serde_json::from_str(&line) {
                    Ok(Event::Finished(result)) => return Seen::Result(result),
                    Ok(event) => {
                        life.sign();
                        watcher.event(&event);
                    }
                    Err(_) => watcher.line(&harmless(&line)),
                },
                Ok(None) | Err(_) => {
                    // What it said last is why.
                    while let (true, Ok(Ok(Some(line)))) =
                        (errors_open, tokio::time::timeout(TICK, errors.next_line()).await)
                    {
                        keep(&mut stderr, harmless(&line));
                    }
                    return Seen::Silence { stderr };
                }
            },
            line = errors.next_line(), if errors_open => match line {
                Ok(Some(line)) => {
                    let line = harmless(&line);
                    watcher.line(&line);
                    keep(&mut stderr, line);
                }
                Ok(None) | Err(_) => errors_open = false,
            },
            _ = term.recv() => return Seen::Signal("SIGTERM"),
            _ = int.recv() => return Seen::Signal("SIGINT"),
            () = tokio::time::sleep_until(turn.into()) => turn = brake.turn(Instant::now()),
            _ = tick.tick() => {
                watcher.tick();
                let held = brake.held().is_some();
                match watcher.rest() {
                    Rest::None => brake.release(),
                    Rest::Needed(why) => brake.hold(why),
                    Rest::InVain(error) => return Seen::Strained(error),
                }
                if held != brake.held().is_some() {
                    turn = Instant::now();
                }
                let stood = brake.stood(Instant::now());
                life.excuse(stood);
                rested += stood;
                if life.silence() >= stall {
                    return Seen::Stall;
                }
                if at_most.is_some_and(|limit| started.elapsed() >= limit + rested) {
                    return Seen::Overrun;
                }
            }
        }
    }
}

/// When the step last gave a sign of life: an event, or bytes moved by a program it runs.
struct Life {
    last: Instant,
    looked: Instant,
    bytes: u64,
}

impl Life {
    fn new() -> Self {
        Self { last: Instant::now(), looked: Instant::now(), bytes: 0 }
    }

    fn sign(&mut self) {
        self.last = Instant::now();
    }

    /// For so long no sign of life was to be expected.
    fn excuse(&mut self, stood: Duration) {
        self.last += stood;
    }

    fn silence(&mut self) -> Duration {
        // Reading /proc twice a second all night would be a bad neighbour.
        const LOOK: Duration = Duration::from_secs(5);
        if self.last.elapsed() >= LOOK && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let bytes = process::descendants_io();
            if bytes != self.bytes {
                self.bytes = bytes;
                self.sign();
            }
        }
        self.last.elapsed()
    }
}

fn keep(lines: &mut Vec<String>, line: String) {
    if lines.len() == STDERR_LINES {
        lines.remove(0);
    }
    lines.push(line);
}

fn unanswered(status: ExitStatus, stderr: &[String]) -> Error {
    use std::os::unix::process::ExitStatusExt;
    let last = stderr.iter().rev().find(|line| !line.trim().is_empty() && !line.starts_with("note: "));
    let said = last.map_or_else(String::new, |line| format!(": {line}"));
    match (status.signal(), status.code()) {
        (Some(9), _) => Error::new(format!("the step's process was killed (SIGKILL){said}"))
            .hint("the kernel does so when memory runs out: see `journalctl -k | grep -i oom`"),
        (Some(signal), _) => Error::new(format!("the step's process was ended by signal {signal}{said}")),
        (_, Some(101)) => Error::new(format!("the step's process panicked: {}", panic_message(stderr)))
            .hint("this is a defect in pi-agent: please report it with the journal of this run"),
        (_, code) => {
            Error::new(format!("the step's process ended without an answer (exit {}){said}", code.unwrap_or(-1)))
        }
    }
}

fn panic_message(stderr: &[String]) -> String {
    let at = stderr.iter().rposition(|line| line.contains("panicked at"));
    at.map_or_else(
        || "without a message".into(),
        |at| stderr[at..].iter().take(2).cloned().collect::<Vec<_>>().join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_no_silence() {
        let long = Duration::from_secs(30);
        let mut life = Life { last: Instant::now(), looked: Instant::now(), bytes: 0 };
        // As if that much time had passed, most of it standing still.
        life.last -= long;
        life.excuse(long - Duration::from_secs(1));
        assert!((1..10).contains(&life.silence().as_secs()));
    }
}
