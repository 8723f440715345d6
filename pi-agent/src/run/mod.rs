//! The supervisor: lock, history, plan, then one process per step, each with a deadline; every outcome is recorded.
//!
//! It stays small in memory and does no work of its own, so that what ends a step cannot end the night.

pub mod brake;
mod courier;
mod pressure;
mod ready;
pub mod recover;
mod rest;
mod supervise;
mod written;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use log::{error, info, warn};

use crate::alarms;
use crate::config::{Settings, Source, StateDirectory, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::events;
use crate::forecast::first_upload;
use crate::health::{self, Doubt, Sensors, Watch, What};
use crate::live;
use crate::lock::RunLock;
use crate::monitor::{Event, Problem};
use crate::notify::{self, Notice};
use crate::plan::{History, Plan, PlannedStep, StepHistory, Wanted, plan};
use crate::process;
use crate::report::{self, RunReport, Status, StepReport, digest, words};
use crate::restore_test;
use crate::state::State;
use crate::steps::inside::left_out_of;
use crate::steps::{self, Job, Outcome, StepResult, Task};
use courier::Courier;
use rest::{Rest, Watched};
use supervise::{Ended, OVERTIME, Signals, supervise};
use written::{Writers, Written};

/// How long a run tries to let go on what is paused, before it tells that it cannot.
const RESUME: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A backup, a prune or a check.
    pub wanted: Wanted,
    /// Only these steps; none: all.
    pub steps: Vec<String>,
    /// Why a person runs it, for the record.
    pub reason: Option<String>,
    /// Wait for a clock that is set, for the network and for another run to end, each within limits: what a timer wants.
    pub wait: bool,
}

/// Told what happens while it happens: for a terminal.
pub trait Watcher {
    /// The run waits for something before it begins.
    fn waiting(&mut self, _what: &str) {}
    /// The supervisor's loop turns: at least twice a second while it waits or a step works.
    fn tick(&mut self) {}
    /// Whether the step that works may go on: asked as often as [`Self::tick`].
    fn rest(&mut self) -> Rest {
        Rest::None
    }
    /// A step starts.
    fn started(&mut self, step: &PlannedStep);
    /// It tells something.
    fn event(&mut self, event: &Event);
    /// A line of its standard error.
    fn line(&mut self, line: &str);
    /// It ended.
    fn ended(&mut self, step: &StepReport);
}

/// What the next run would do; changes nothing anywhere.
///
/// # Errors
/// An unknown step, or a state database that cannot be read.
pub fn dry_run(settings: &Settings, directory: &StateDirectory, options: &Options) -> Result<Plan> {
    let history = match State::open_read_only(&directory.database())? {
        Some(state) => history(settings, &state)?,
        None => {
            let mut history = now(None);
            for step in &settings.steps {
                look_at_source(settings, step, None, history.steps.entry(step.name.clone()).or_default());
            }
            history
        }
    };
    plan(settings, &history, options.wanted, &options.steps, Timestamp::now())
}

/// Runs the steps. A step's failure is in the report, not an error.
///
/// # Errors
/// It could not run at all: unknown step, lock held, no place for the lock.
pub fn run(
    settings: &Settings,
    directory: &StateDirectory,
    options: &Options,
    watcher: &mut dyn Watcher,
) -> Result<RunReport> {
    let written = Written::begin();
    make_private(directory.path())?;
    let word = task_word(options.wanted);
    for name in &options.steps {
        settings.step(name)?;
    }
    let mut signals = Signals::listen()?;
    let _lock = take_lock(directory, word, options.wait, &mut signals, watcher)?;
    process::adopt_orphans()?;

    let mut problems = Vec::new();
    // Before anything else that takes its time: somebody waits for it.
    if let Err(error) = live::resume_left(directory, RESUME) {
        problems.push(Problem::from(&error));
    }
    // What a run left that was killed; a step that makes copies finds out by itself if it cannot.
    let _ = std::fs::remove_dir_all(steps::quiet::staging(settings));
    if let Err(error) = restore_test::clean(settings) {
        problems.push(Problem::from(&error));
    }

    let mut stopped = None;
    if options.wait && !directory.database().exists() {
        // History is fetched from storage first of all.
        stopped = ready::wait(settings, &mut signals, watcher);
    }
    let mut state = recover::open_state(settings, directory, &mut signals, watcher, &mut problems)?;
    match state.reconcile() {
        Ok(steps) => {
            for step in steps {
                warn!(MESSAGE_ID = events::RUN_CUT_OFF, STEP = step.as_str(); "the last run was cut off in step {step}");
            }
        }
        Err(error) => problems.push(Problem::from(&error)),
    }
    let night = Night {
        settings,
        directory,
        run_id: run_id(),
        word,
        started_at: Timestamp::now(),
        state: &mut state,
        signals: &mut signals,
        watcher,
        problems,
        place_verified: false,
        written,
        stopped,
        courier: Courier::new(settings, directory),
        watch: Watch::new("/", settings, directory),
        clock: None,
    };
    night.run(options)
}

/// One run at a time. A timer's run waits a while for another's end: a short check must not cost the night its backup.
fn take_lock(
    directory: &StateDirectory,
    word: &str,
    wait: bool,
    signals: &mut Signals,
    watcher: &mut dyn Watcher,
) -> Result<RunLock> {
    const PATIENCE: Duration = Duration::from_secs(600);
    let started = Instant::now();
    loop {
        match RunLock::take(&directory.run_lock(), word) {
            Err(error) if wait && error.kind() == Kind::Locked && started.elapsed() < PATIENCE => {
                watcher.waiting("another run to end");
                watcher.tick();
                if signals.pause(Duration::from_secs(1)).is_some() {
                    return Err(error);
                }
            }
            lock => return lock,
        }
    }
}

/// One run under way.
struct Night<'a> {
    settings: &'a Settings,
    directory: &'a StateDirectory,
    run_id: String,
    word: &'static str,
    started_at: Timestamp,
    state: &'a mut State,
    signals: &'a mut Signals,
    watcher: &'a mut dyn Watcher,
    /// What went wrong outside the steps; makes the run degraded.
    problems: Vec<Problem>,
    place_verified: bool,
    written: Written,
    /// The signal that ended the run before its first step.
    stopped: Option<&'static str>,
    courier: Courier<'a>,
    watch: Watch<'a>,
    /// Why the clock is not trusted, as a step found that knows what others say.
    clock: Option<String>,
}

impl Night<'_> {
    fn run(mut self, options: &Options) -> Result<RunReport> {
        // On record before the waiting: a plug pulled meanwhile is a run cut off, too.
        let begun = self.state.begin_run(&self.run_id, options.reason.as_deref(), self.started_at);
        self.note_failure(begun);
        info!(MESSAGE_ID = events::RUN_STARTED, RUN_ID = self.run_id.as_str(); "{} started", self.word);
        let whole = options.wanted == Wanted::Backup && options.steps.is_empty();
        if whole {
            self.tell(&[digest::run_started(self.settings, &self.run_id, self.started_at)]);
        }
        if options.wait && self.stopped.is_none() {
            self.stopped = ready::wait(self.settings, self.signals, self.watcher);
        }

        let history = history(self.settings, self.state)?;
        if let Some(Doubt { why, by_record }) = &history.clock_problem {
            let unless = if *by_record { " unless the storage's server says that the clock is right" } else { "" };
            warn!(
                MESSAGE_ID = events::CLOCK_NOT_TRUSTED, RUN_ID = self.run_id.as_str();
                "{why}: nothing is forgotten, pruned or expired{unless}"
            );
        }
        let plan = plan(self.settings, &history, options.wanted, &options.steps, Timestamp::now())?;
        let mut steps = Vec::new();
        let mut stopped = self.stopped.is_some();
        for (position, step) in (0..).zip(&plan.steps) {
            let report = if stopped {
                StepReport::new(step, StepResult::of(Outcome::Skipped), Timestamp::now(), Timestamp::now())
            } else {
                self.step(position, step, history.clock_problem.as_ref())
            };
            stopped |= report.result.outcome == Outcome::Interrupted;
            steps.push(report);
        }

        let finished_at = Timestamp::now();
        let mut report = RunReport::new(&self.settings.host, &self.run_id, self.started_at, finished_at, steps);
        if let Some(signal) = self.stopped {
            report.interrupted(signal);
        }
        let ended = self.state.finish_run(&self.run_id, report.outcome, &self.problems, finished_at);
        self.note_failure(ended);
        let shown = self.show();
        self.note_failure(shown);
        report.add_problems(std::mem::take(&mut self.problems));
        self.look_for_alarms();
        if whole {
            self.tell(&digest::run_ended(self.settings, &report));
        }
        report.bytes_written_here = self.written.by_the_run();
        report.not_told = std::mem::take(&mut self.problems);
        log::log!(
            level(report.outcome),
            MESSAGE_ID = events::run_ended(report.outcome), RUN_ID = self.run_id.as_str(), OUTCOME = report.outcome.as_str();
            "{} {} in {}", self.word, report.outcome.as_str(), words::duration(words::between(self.started_at, finished_at))
        );
        self.courier.finish(self.signals, self.watcher, stopped);
        Ok(report)
    }

    /// What is alarming now, by this run's own history: told at once, not at its end.
    fn look_for_alarms(&mut self) {
        let looked = alarms::look(self.settings, self.directory, Some(self.state), None).map(drop);
        self.note_failure(looked);
        self.courier.go();
    }

    /// Puts notices into the outbox and sends them on their way.
    fn tell(&mut self, notices: &[Notice]) {
        let posted = notify::post(self.settings, self.directory, notices);
        self.note_failure(posted);
        self.courier.go();
    }

    fn step(&mut self, position: u32, step: &PlannedStep, doubt: Option<&Doubt>) -> StepReport {
        let started_at = Timestamp::now();
        info!(
            MESSAGE_ID = events::STEP_STARTED, RUN_ID = self.run_id.as_str(), STEP = step.name.as_str();
            "{} of {} started", self.word, step.name
        );
        for warning in &step.warnings {
            warn!(RUN_ID = self.run_id.as_str(), STEP = step.name.as_str(); "{}: {warning}", step.name);
        }
        self.watcher.started(step);
        let begun = self.state.begin_step(&self.run_id, position, &step.name, step.kind, self.word, started_at);
        self.note_failure(begun);

        self.watch.begin();
        let by_record = doubt.is_some_and(|doubt| doubt.by_record);
        let doubted = doubt.map(|doubt| doubt.why.clone()).or_else(|| self.clock.clone());
        let mut result = self.work(step, by_record).unwrap_or_else(|error| StepResult::failed(&error));
        if let Some(why) = doubted.filter(|_| !(by_record && result.clock_confirmed)) {
            self.watch.note(What::Clock { why });
        }
        if let Some(why) = &result.clock {
            self.watch.note(What::Clock { why: why.clone() });
            self.clock.get_or_insert_with(|| why.clone());
        }
        result.clock.clone_from(&self.clock);
        result.machine = self.watch.end();

        let finished_at = Timestamp::now();
        let ended = self.state.finish_step(&self.run_id, position, &step.name, &result, finished_at);
        self.note_failure(ended);
        self.place_verified |= result.place_verified;
        let report = StepReport::new(step, result, started_at, finished_at);
        self.log(&report);
        self.watcher.ended(&report);
        self.look_for_alarms();
        report
    }

    /// `by_record`: see [`Job::by_record`].
    fn work(&mut self, step: &PlannedStep, by_record: bool) -> Result<StepResult> {
        let rest_at_most = self.settings.alarms.rest_at_most;
        if let Some(signal) = rest::rest(&mut self.watch, rest_at_most, self.signals, self.watcher)? {
            return Ok(stopped_by(signal));
        }
        let mut settings = self.settings.clone();
        let configured = settings.steps.iter_mut().find(|one| one.name == step.name).expect("the plan is made of them");
        let mut status = None;
        if let Source::Agent(own) = &mut configured.source {
            own.paths.push(self.save_history()?);
            status = matches!(step.task, Task::Backup { .. }).then(|| self.status()).transpose()?;
        }
        let (max_duration, stall, source) = (configured.max_duration, configured.stall, configured.source.clone());
        let test = self.settings.restore_test.max_duration;
        let at_most = match step.task {
            Task::RestoreTest(_) => Some(test),
            _ => max_duration.map(|limit| limit + OVERTIME),
        };
        let job = Job {
            run_id: self.run_id.clone(),
            settings,
            state_directory: self.directory.clone(),
            step: step.name.clone(),
            task: step.task.without_trust(self.clock.as_ref()),
            deadline: max_duration.and_then(|limit| Timestamp::now().checked_add(limit).ok()),
            place_verified: self.place_verified,
            by_record: by_record && self.clock.is_none(),
            place_known: self.state.knows_place(&self.settings.storage.location).unwrap_or_default(),
            facts: self.state.facts(&step.name).unwrap_or_default(),
            status: status.map(|status| status.json().to_string()),
        };
        let spared = self.courier.process();
        let before = written::written(Writers::Children);
        let mut watched = Watched::new(self.watcher, &mut self.watch, rest_at_most);
        let ended = supervise(&job, at_most, stall, self.signals, &mut watched, spared);
        watched.end();
        let ended = ended?;
        let written = written::written(Writers::Children) - before;
        if let Source::Agent(_) = source {
            let _ = std::fs::remove_file(recover::saved_state(self.settings));
        }
        if matches!(job.task, Task::RestoreTest(_)) {
            // It does that itself, unless it was ended.
            let cleaned = restore_test::clean(self.settings);
            self.note_failure(cleaned);
        }
        // Step and guard may both have been killed.
        let resumed = live::resume_left(self.directory, RESUME);
        self.note_failure(resumed);
        let mut result = match ended {
            Ended::Answered(result) => *result,
            Ended::Unanswered(error) => StepResult::failed(&error),
            Ended::Overran(_) if matches!(job.task, Task::RestoreTest(_)) => StepResult::failed(
                &Error::new(format!("the test was not done after {} and was ended", words::duration(test)))
                    .hint("[restore-test] max-duration; for directories, a smaller budget and more months do"),
            ),
            Ended::Overran(error) => StepResult { error: Some((&error).into()), ..StepResult::of(Outcome::Unfinished) },
            Ended::Stopped(signal) => stopped_by(signal),
        };
        result.figures.bytes_written_here =
            self.written.by_step(&self.settings.storage.location, &source, &result, written);
        Ok(result)
    }

    /// A consistent copy of the state database for the `agent` step, always at the same path.
    fn save_history(&self) -> Result<PathBuf> {
        let copy = recover::saved_state(self.settings);
        make_private(copy.parent().expect("it lies in the cache"))?;
        if copy.exists() {
            std::fs::remove_file(&copy).context(|| format!("replace {}", copy.display()))?;
        }
        self.state.copy_to(&copy)?;
        Ok(copy)
    }

    /// The answer to "am I safe?" as it stands.
    fn status(&self) -> Result<Status> {
        Status::now(self.settings, self.directory, Some(self.state))
    }

    /// The status as files, for those who look in the morning.
    fn show(&self) -> Result<()> {
        report::write_all(self.settings, self.directory, self.state, &self.status()?)
    }

    /// History that cannot be written must not cost a backup, but is told.
    fn note_failure(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            let problem = Problem::from(&error);
            if !self.problems.contains(&problem) {
                error!("{}", problem.message);
                self.problems.push(problem);
            }
        }
    }

    fn log(&self, report: &StepReport) {
        let result = &report.result;
        log::log!(
            level(result.outcome),
            MESSAGE_ID = events::step_ended(result.outcome), RUN_ID = self.run_id.as_str(), STEP = report.name.as_str(), OUTCOME = result.outcome.as_str();
            "{} of {} {}{}", self.word, report.name, report.in_words(), report.hint_in_words()
        );
        // The first is the error, which has just been told.
        for line in report.problems_in_words().skip(usize::from(result.error.is_some())) {
            log::warn!(RUN_ID = self.run_id.as_str(), STEP = report.name.as_str(); "{}", line.trim_end());
        }
    }
}

fn stopped_by(signal: &str) -> StepResult {
    let error = Some(Problem { message: format!("stopped by {signal}"), hint: None });
    StepResult { error, ..StepResult::of(Outcome::Interrupted) }
}

/// How loud an outcome is: an error means that a person must act.
fn level(outcome: Outcome) -> log::Level {
    match outcome {
        Outcome::Succeeded | Outcome::Skipped => log::Level::Info,
        Outcome::Degraded | Outcome::Unfinished => log::Level::Warn,
        Outcome::Failed | Outcome::Interrupted => log::Level::Error,
    }
}

/// Everything the plan needs, from the state database.
fn history(settings: &Settings, state: &State) -> Result<History> {
    let mut history = now(state.newest_moment()?);
    for step in &settings.steps {
        let mut past = state.history(&step.name)?;
        look_at_source(settings, step, Some(state), &mut past);
        history.steps.insert(step.name.clone(), past);
    }
    Ok(history)
}

/// What matters of the machine just now, and no history yet.
fn now(newest: Option<Timestamp>) -> History {
    let memory = Sensors::below("/").look().memory;
    History { clock_problem: health::clock_problem(newest), memory, ..History::default() }
}

/// What lies below the paths and is left out. Before the first backup only the source tells how much there is to upload; looked at
/// only when that matters.
fn look_at_source(settings: &Settings, step: &Step, state: Option<&State>, past: &mut StepHistory) {
    if let Source::Directory(source) = &step.source {
        let facts = state.and_then(|state| state.facts(&step.name).ok()).unwrap_or_default();
        past.left_out = left_out_of(settings, source, &facts);
    }
    if past.first_success.is_none() && !settings.storage.limits.is_none() {
        past.full_bytes = first_upload(step);
    }
}

fn task_word(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Backup => "backup",
        Wanted::Prune => "prune",
        Wanted::Check | Wanted::CheckAll => "check",
        Wanted::RestoreTest => "restore-test",
    }
}

/// Sortable, and unique on a host: time and process id.
fn run_id() -> String {
    format!("{}-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), std::process::id())
}

/// Makes a directory only we may enter; one that exists is left as it is.
///
/// # Errors
/// It cannot be made.
pub fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context(|| format!("make directory {}", path.display()))
}
