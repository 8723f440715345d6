//! The process that keeps a writer quiet, and the step's end of the pipe to it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::note::{self, Note};
use crate::config::{Live, StateDirectory, Writer};
use crate::error::{Context, Error, Result};
use crate::monitor::Problem;
use crate::process::{self, Orphaned, Priority};

/// How long it tries to let go on before it tells that it cannot.
const SOON: Duration = Duration::from_secs(20);
/// And after that; then the note is all that is left.
const LONG: Duration = Duration::from_secs(600);

/// What a guard is asked, as one line on its standard input. The next line, or the end, is the word to let go on.
#[derive(Serialize, Deserialize)]
struct Order {
    note: PathBuf,
    writer: Writer,
    at_most: Duration,
}

/// What it answers, a line each on its standard output: one about becoming quiet, one about going on.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// Nobody writes; `Some`: it was paused or stopped before, and stays so.
    Quiet(Option<String>),
    Refused(Problem),
    Resumed(Resumed),
    Stuck(Problem),
}

/// How it ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Resumed {
    /// From the order to be quiet until it went on; none when it was quiet before.
    pub quiet: Option<Duration>,
    /// It went on before it was told to.
    pub early: bool,
}

/// A writer that is quiet. Dropped, it goes on as well.
pub struct Quiet {
    note: PathBuf,
    child: Child,
    word: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// It was paused or stopped before, and stays so.
    pub already: Option<String>,
    /// It goes on again: becoming quiet took all its time.
    over: Option<Resumed>,
}

impl Quiet {
    /// Returns when nobody writes any more.
    ///
    /// # Errors
    /// It did not become quiet, and goes on.
    pub fn begin(directory: &StateDirectory, step: &str, live: &Live) -> Result<Self> {
        let note = note::path(directory, step);
        let order = Order { note: note.clone(), writer: live.writer.clone(), at_most: live.at_most };
        let doing = || format!("start the process that guards {}", live.writer.name());
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pi-agent").arg("guard").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        process::lead_session(&mut command, Orphaned::CleansUp);
        // Somebody waits for it.
        process::prioritise(&mut command, Priority::Ordinary);
        let mut child = command.spawn().context(doing)?;
        let mut word = child.stdin.take().expect("it was asked for");
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut line = serde_json::to_vec(&order).context(doing)?;
        line.push(b'\n');
        // One that dies before it has read everything is seen by its missing answer.
        let _ = word.write_all(&line);
        let mut quiet = Self { note, child, word, answers, already: None, over: None };
        match quiet.answer() {
            Some(Answer::Quiet(already)) => Ok(Self { already, ..quiet }),
            Some(Answer::Refused(problem) | Answer::Stuck(problem)) => Err(error_of(problem)),
            Some(Answer::Resumed(resumed)) => Ok(Self { over: Some(resumed), ..quiet }),
            None => Err(quiet.guard_died()),
        }
    }

    /// Lets it go on, and returns when it does.
    ///
    /// # Errors
    /// It does not (then a person must act), or the guard died; then it was let go on from here.
    pub fn end(mut self) -> Result<Resumed> {
        let _ = self.word.write_all(b"resume\n");
        match self.over.map(Answer::Resumed).or_else(|| self.answer()) {
            Some(Answer::Resumed(resumed)) => {
                let _ = self.child.wait();
                Ok(resumed)
            }
            Some(Answer::Stuck(problem) | Answer::Refused(problem)) => Err(error_of(problem)),
            Some(Answer::Quiet(_)) | None => Err(self.guard_died()),
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Then nobody else lets it go on.
    fn guard_died(&mut self) -> Error {
        let _ = self.child.kill();
        let _ = self.child.wait();
        match note::resume_by_note(&self.note, SOON) {
            Ok(()) => Error::new("the process that guarded the writer was killed; the writer goes on"),
            Err(error) => error,
        }
    }
}

fn error_of(problem: Problem) -> Error {
    let error = Error::new(problem.message);
    problem.hint.into_iter().fold(error, Error::hint)
}

/// The guard's own process.
///
/// # Errors
/// Its order cannot be read; whatever comes later is an answer.
pub fn main() -> Result<()> {
    process::become_guard()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context(|| "read the order from the step".into())?;
    let order: Order = serde_json::from_str(&line).context(|| "understand the order from the step".into())?;
    let (word, told) = mpsc::channel();
    listen(word)?;
    guard(&order, &told).unwrap_or_else(|error| say(&Answer::Refused((&error).into())));
    Ok(())
}

fn guard(order: &Order, told: &mpsc::Receiver<Word>) -> Result<()> {
    let Order { note, writer, at_most } = order;
    if let Some(state) = writer.stands_still()? {
        say(&Answer::Quiet(Some(format!("{} was {state} before and stays so", writer.name()))));
        // Both ends of the channel are in this process: it cannot break.
        let _ = told.recv();
        let early = writer.stands_still()? != Some(state);
        say(&Answer::Resumed(Resumed { quiet: None, early }));
        return Ok(());
    }
    let note = Note::write(note, writer)?;
    let started = Instant::now();
    let quieted = writer.quiet(*at_most);
    if quieted.is_ok() {
        say(&Answer::Quiet(None));
    }
    let wait = if quieted.is_ok() { at_most.saturating_sub(started.elapsed()) } else { Duration::ZERO };
    let early = told.recv_timeout(wait) != Ok(Word::Given);
    if let Err(error) = note.resume(writer, SOON) {
        say(&Answer::Stuck((&error).into()));
        return note.resume(writer, LONG);
    }
    let quiet = started.elapsed();
    match quieted {
        Ok(()) => say(&Answer::Resumed(Resumed { quiet: Some(quiet), early })),
        Err(_) if quiet >= *at_most => say(&Answer::Resumed(Resumed { quiet: Some(quiet), early: true })),
        Err(error) => say(&Answer::Refused((&error).into())),
    }
    Ok(())
}

/// Nobody may be listening any more; that changes nothing.
fn say(answer: &Answer) {
    if let Ok(mut line) = serde_json::to_vec(answer) {
        line.push(b'\n');
        let _ = std::io::stdout().lock().write_all(&line);
    }
}

/// Why it is time to let go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The step has what it needs.
    Given,
    /// The step has ended, or SIGTERM came.
    Lost,
}

/// Waits for the word: a line, the end of the pipe, or SIGTERM.
fn listen(word: Sender<Word>) -> Result<()> {
    let (by_signal, doing) = (word.clone(), || "prepare to be told".to_owned());
    process::on_sigterm(move || {
        let _ = by_signal.send(Word::Lost);
    })?;
    let wait = move || {
        let given = std::io::stdin().lock().read_line(&mut String::new()).is_ok_and(|length| length > 0);
        let _ = word.send(if given { Word::Given } else { Word::Lost });
    };
    std::thread::Builder::new().name("word".into()).spawn(wait).map(drop).context(doing)
}
