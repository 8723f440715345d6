//! The command line as types; each arm is one call into the library.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use serde_json::Value;

use crate::config::{self, Settings, Source, StateDirectory};
use crate::error::{Context, Error, Kind, Result};
use crate::kit::To;
use crate::lock::RunLock;
use crate::plan::Wanted;
use crate::report::{self, History, Look, Status, digest, words};
use crate::repository;
use crate::restore::ask::{Asked, Order};
use crate::restore::{self, At};
use crate::run::{self, Options, Watcher};
use crate::secrets::{CREDENTIALS, Secrets, write_shared};
use crate::shown;
use crate::shown::{harmless, harmless_json};
use crate::state::{Opened, State};
use crate::terminal::Terminal;
use crate::{alarms, boot, doctor, kit, live, logs, notify, process, recover, repair, setup, steps, systemd, wal};

/// The backup appliance for the Raspberry Pi.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/pi-agent/config.toml")]
    config: PathBuf,
    /// Where history and the run lock are kept [default: $STATE_DIRECTORY, else /var/lib/pi-agent]
    #[arg(long, global = true, value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// As fast as machine and line give, whatever [limits] says and whoever else waits
    #[arg(long, global = true)]
    no_limits: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The first hour: write the configuration and the keys, say what else is to do, enable the timers
    Setup(Box<setup::Flags>),
    /// Write everything that a blank machine needs, the keys too, as one text to print
    RecoveryKit {
        /// Into this file; `-` is standard output, even if that is a terminal
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Back up now: the whole sequence, or the named steps
    Run {
        /// Only these steps
        steps: Vec<String>,
        /// Say what would be done, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// First wait up to ten minutes for a clock that is set, the network, and another run to end: as the timer does
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Say what the next run would do
    Plan {
        #[command(flatten)]
        output: Output,
    },
    /// Find out what is wrong, and what to do about it
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Take over the storage place from another machine; with STEP, accept its changed source
    Adopt {
        /// The step whose source changed on purpose
        step: Option<String>,
    },
    /// Am I safe? The last backups, their age and size
    Status {
        /// As one page with charts and calendars, into this file
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Look whether anything needs a person, and tell them (what the timer does every ten minutes)
    Alarms {
        /// The clock is right, whatever it showed before
        #[arg(long)]
        trust_clock: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Mend a damaged repository as far as that is possible; says first what is wrong and what it would do
    Repair {
        /// The step
        step: String,
        /// Also read the contents of all packs: a flipped bit shows in nothing else
        #[arg(long)]
        read_data: bool,
        /// Ask nothing
        #[arg(long)]
        yes: bool,
    },
    /// Every point one can restore to
    Points {
        /// Only these steps
        steps: Vec<String>,
        /// Only snapshots that hold this path
        #[arg(long, value_name = "PATH")]
        path: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Get something back; on a terminal it asks for what is not said
    Restore {
        /// The step
        step: Option<String>,
        /// Into this directory
        #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
        to: Option<PathBuf>,
        /// Where it was: who uses it is stopped and started, what is there is kept beside it
        #[arg(long)]
        in_place: bool,
        /// As it was then: a time (2026-11-20 21:30, or with an offset), or an id from `points` [default: latest]
        #[arg(long, value_name = "TIME|ID")]
        at: Option<String>,
        /// Databases: along this timeline [default: the one that the database was on then]
        #[arg(long, value_name = "N")]
        timeline: Option<u32>,
        /// Only this path, as it was on the source
        #[arg(long = "path", value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Even if the directory holds something
        #[arg(long)]
        overwrite: bool,
        /// With set-id bits, capabilities and device files too, which come back in their own places anyway
        #[arg(long)]
        privileges: bool,
        /// Ask nothing
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
    /// The whole host back, onto a blank machine, with its recovery kit; goes on where it was interrupted
    Recover {
        /// The recovery kit
        #[arg(long, value_name = "FILE")]
        kit: PathBuf,
        /// As it was then: a time (2026-11-20 21:30, or with an offset)
        #[arg(long, value_name = "TIME", default_value = "latest")]
        at: String,
        /// What is there already gives way, and is kept as *.before-restore-TIME
        #[arg(long)]
        overwrite: bool,
        /// Enable and start the timers when everything is back
        #[arg(long)]
        start_timers: bool,
        /// Only the configuration and the keys; nothing is taken over, nothing restored
        #[arg(long, conflicts_with_all = ["at", "start_timers", "json"])]
        only_files: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Check the repositories now: their structure, and the part of their contents whose turn it is
    Check {
        /// Only these steps
        steps: Vec<String>,
        /// All contents: everything is downloaded
        #[arg(long)]
        read_data: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Restore for real into a temporary place, look at what came back, and remove it again
    RestoreTest {
        /// Only these steps
        steps: Vec<String>,
        /// First wait up to ten minutes for a clock that is set, the network, and another run to end: as the timer does
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Remove what retention no longer keeps from the repositories now
    Prune {
        /// Only these steps
        steps: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// PostgreSQL's write-ahead log
    Wal {
        #[command(subcommand)]
        command: WalCommand,
    },
    /// The logs of the services on this machine
    Logs {
        #[command(subcommand)]
        command: LogsCommand,
    },
    /// Tell people something
    Notify {
        #[command(subcommand)]
        command: NotifyCommand,
    },
    /// Tell how the last month went, as the timer does
    Heartbeat,
    /// Start the backup again if the last one was cut off (for pi-agent-boot.service)
    #[command(hide = true)]
    Boot,
    /// Let go on what a backup that was cut off left paused (for pi-agent-backup.service)
    #[command(hide = true)]
    Resume,
    /// The process that keeps a step's writer quiet (internal)
    #[command(hide = true)]
    Guard,
    /// The process of one step (internal)
    #[command(hide = true)]
    Step {
        /// The step
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum WalCommand {
    /// Move what the servers left in the spool into the repositories, and what a stopped one still has; say what waits in one that runs
    Push {
        /// Only these steps
        steps: Vec<String>,
        /// First let the servers hand over what they wrote last, and wait until it is in storage: ten minutes at most
        #[arg(long)]
        switch: bool,
        /// Only the spools; when the storage is away, try again for so long: 4m
        #[arg(long, value_name = "DURATION", value_parser = config::duration)]
        retry_for: Option<Duration>,
    },
}

#[derive(Debug, Subcommand)]
enum LogsCommand {
    /// Who writes logs, how large they are, whether anything rotates them, and what to set; changes nothing
    Audit {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum NotifyCommand {
    /// Send one message of each kind to every service, marked as a test
    Test,
    /// Send what waits in the outbox (internal)
    #[command(hide = true)]
    Deliver {
        /// Try again for so long
        #[arg(long = "for", value_name = "DURATION", value_parser = config::duration)]
        patience: Duration,
    },
}

#[derive(Debug, Args)]
struct Output {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Whatever is told comes from elsewhere in part: names, hosts, what a server said.
    fn print(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<()> {
        self.print_styled(json, || harmless(&text()))
    }

    /// The same of text that was made harmless before it got its colours.
    fn print_styled(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json { harmless_json(&format!("{:#}\n", json())) } else { text() };
        std::io::stdout().lock().write_all(text.as_bytes()).context(|| "write the result".into())
    }

    /// The same of work that is done: it did not fail because nobody reads what became of it.
    fn print_done(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if let Err(error) = self.print(json, text) {
            print_error("", &error);
        }
    }
}

/// The command line, for what describes it: the manual page and the completions.
pub fn command() -> clap::Command {
    Cli::command()
}

impl Cli {
    /// It is the process of a step, or one that it started: its log lines go to the supervisor.
    pub fn is_step(&self) -> bool {
        matches!(self.command, Command::Step { .. } | Command::Guard)
    }

    /// Does it; the exit code.
    ///
    /// # Errors
    /// It could not be done; see [`exit_code`].
    pub fn perform(self) -> Result<u8> {
        let directory = StateDirectory(
            self.state_directory
                .or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
                .unwrap_or_else(|| "/var/lib/pi-agent".into()),
        );
        let settings = || -> Result<Settings> {
            let settings = config::load(&self.config)?;
            Ok(if self.no_limits { settings.without_limits() } else { settings })
        };
        match self.command {
            Command::Step { name: _ } => steps::child::main().map(|()| 0),
            Command::Guard => live::main().map(|()| 0),
            Command::Resume => live::resume_left(&directory, Duration::from_secs(20)).map(|()| 0),
            Command::Setup(flags) => setup::perform(*flags, &self.config, &directory),
            Command::RecoveryKit { to } => recovery_kit(&settings()?, &directory, to),
            Command::Run { steps, dry_run, reason, wait, output } => {
                let options = Options { wanted: Wanted::Backup, steps, reason, wait };
                if dry_run {
                    plan(&settings()?, &directory, &options, &output)
                } else {
                    start(&settings()?, &directory, &options, &output)
                }
            }
            Command::Plan { output } => plan(
                &settings()?,
                &directory,
                &Options { wanted: Wanted::Backup, steps: vec![], reason: None, wait: false },
                &output,
            ),
            Command::Check { steps, read_data, output } => start(
                &settings()?,
                &directory,
                &Options {
                    wanted: if read_data { Wanted::CheckAll } else { Wanted::Check },
                    steps,
                    reason: None,
                    wait: false,
                },
                &output,
            ),
            Command::RestoreTest { steps, wait, output } => start(
                &settings()?,
                &directory,
                &Options { wanted: Wanted::RestoreTest, steps, reason: None, wait },
                &output,
            ),
            Command::Prune { steps, output } => start(
                &settings()?,
                &directory,
                &Options { wanted: Wanted::Prune, steps, reason: None, wait: false },
                &output,
            ),
            Command::Doctor { output } => {
                let findings = doctor::examine(&config::load(&self.config), &directory);
                output.print(|| doctor::json(&findings), || doctor::text(&findings))?;
                Ok(doctor::exit_code(&findings))
            }
            Command::Adopt { step } => adopt(&settings()?, &directory, step.as_deref()),
            Command::Status { html, output } => status(&settings()?, &directory, html, &output),
            Command::Alarms { trust_clock, output } => {
                let settings = settings()?;
                if trust_clock {
                    alarms::trust_clock(&directory)?;
                }
                let looked = alarms::look(&settings, &directory, None, None);
                if let Ok(alarms) = &looked {
                    output.print(|| alarms::json(alarms), || alarms::text(alarms))?;
                }
                let closing = wal::close_holes(&settings, &directory);
                // What waits is sent even when nothing new can be said.
                let flushed = notify::flush(&settings, &directory, Duration::from_secs(240));
                looked.map(drop).and(closing).and(flushed.map(drop)).map(|()| 0)
            }
            Command::Repair { step, read_data, yes } => {
                answer_for_locks(&directory)?;
                let watch = |what: &str| Terminal::new(std::io::stderr().is_terminal()).into_monitor(what);
                repair::repair(&settings()?, &directory, &repair::Order { step, yes, read_data }, &watch)
            }
            Command::Points { steps, path, output } => {
                let points = restore::points::points(&settings()?, &steps, path.as_ref())?;
                output.print(|| points.json(), || points.text())?;
                for (step, error) in &points.failures {
                    print_error(&format!("{step}: "), error);
                }
                Ok(u8::from(!points.failures.is_empty()))
            }
            Command::Restore { step, to, in_place, at, timeline, paths, overwrite, privileges, yes, output } => {
                let absolute =
                    |to: PathBuf| std::path::absolute(&to).context(|| format!("understand {}", to.display()));
                let at = at.as_deref().map(restore::at::parse).transpose()?;
                let at = match timeline {
                    Some(number) => Some(at.unwrap_or(At::Latest).along(number)?),
                    None => at,
                };
                let to = to.map(absolute).transpose()?;
                let wanted = Asked { step, to, in_place, at, paths, overwrite, privileges, yes };
                restore(&settings()?, &directory, wanted, &output)
            }
            Command::Recover { kit, at, overwrite, start_timers, only_files, output } => {
                let (at, no_limits) = (restore::at::parse(&at)?, self.no_limits);
                let options = recover::Options { kit, at, overwrite, start_timers, no_limits };
                let watch = |what: &str| Terminal::new(std::io::stderr().is_terminal()).into_monitor(what);
                let config = std::path::absolute(&self.config).context(|| "understand --config".into())?;
                if only_files {
                    for kept in recover::put_files(&options, &config, &directory)? {
                        say!("what was there before is kept as {}", kept.display());
                    }
                    say!("the configuration and the keys are in their places; what they open: pi-agent points");
                    return Ok(0);
                }
                answer_for_locks(&directory)?;
                let report = recover::recover(&options, &config, &directory, &watch)?;
                output.print(|| report.json(), || report.text())?;
                Ok(report.exit_code())
            }
            Command::Wal { command: WalCommand::Push { steps, switch, retry_for } } => {
                let settings =
                    settings()?.handed_over(std::env::var_os(CREDENTIALS), std::env::var_os("RUNTIME_DIRECTORY"));
                let record = wal::Record::at_hand(&directory);
                let switched = !switch || steps::postgres::switch(&settings, &steps, &record)?;
                let pushed = match retry_for {
                    Some(patience) => wal::empty_spools(&settings, &steps, &record, patience)?,
                    None => wal::drain(&settings, &steps, &record)?.all(),
                };
                Ok(u8::from(!(switched && pushed)))
            }
            Command::Logs { command: LogsCommand::Audit { output } } => {
                let audit = logs::audit(&settings()?, readable_history(&directory).as_ref());
                output.print(|| audit.json(), || audit.text()).map(|()| 0)
            }
            Command::Notify { command: NotifyCommand::Test } => notify_test(&settings()?, &directory),
            Command::Notify { command: NotifyCommand::Deliver { patience } } => {
                Ok(u8::from(!notify::flush(&settings()?, &directory, patience)?))
            }
            Command::Heartbeat => heartbeat(&settings()?, &directory),
            Command::Boot => {
                // A broken configuration is told at once, not at three in the morning.
                settings()?;
                boot::boot(&directory).map(|()| 0)
            }
        }
    }
}

fn plan(settings: &Settings, directory: &StateDirectory, options: &Options, output: &Output) -> Result<u8> {
    let plan = run::dry_run(settings, directory, options)?;
    output.print(|| plan.json(), || plan.text()).map(|()| 0)
}

fn start(settings: &Settings, directory: &StateDirectory, options: &Options, output: &Output) -> Result<u8> {
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    let mut watcher: Box<dyn Watcher> = if systemd::listens() {
        Box::new(systemd::Service::ready())
    } else {
        Box::new(Terminal::new(std::io::stderr().is_terminal()))
    };
    let report = run::run(settings, directory, options, &mut *watcher)?;
    // The journal has it already, with fields.
    if output.json || !systemd::listens() {
        output.print_done(|| report.json(), || report.text());
    }
    Ok(report.exit_code())
}

fn status(settings: &Settings, directory: &StateDirectory, html: Option<PathBuf>, output: &Output) -> Result<u8> {
    let state = readable_history(directory);
    let mut status = Status::now(settings, directory, state.as_ref())?;
    status.next_run = systemd::next_run();
    let Some(file) = html else {
        return output.print_styled(|| status.json(), || status.text(Look::of_stdout())).map(|()| 0);
    };
    let file = std::path::absolute(&file).context(|| format!("understand {}", file.display()))?;
    let history = History::gather(settings, state.as_ref(), status.generated_at)?;
    write_shared(&file, report::page(&status, &history).as_bytes(), 0o600)?;
    if output.json { output.print(|| status.json(), String::new).map(|()| 0) } else { Ok(0) }
}

fn restore(settings: &Settings, directory: &StateDirectory, wanted: Asked, output: &Output) -> Result<u8> {
    let Some(Order { step, request, in_place }) = restore::ask::complete(settings, directory, wanted)? else {
        say!("nothing was changed");
        return Ok(0);
    };
    answer_for_locks(directory)?;
    let monitor = Terminal::new(std::io::stderr().is_terminal()).into_monitor(&format!("restore of {step}"));
    let (restored, place) = match &in_place {
        Some(in_place) => (in_place.restore(directory, &request, &monitor)?, "its place".to_owned()),
        None => (restore::restore(settings, &step, &request, &monitor)?, shown(&request.to).to_string()),
    };
    output.print_done(
        || {
            serde_json::json!({
                "schema": report::SCHEMA, "step": step, "to": request.to.to_string_lossy(), "in_place": in_place.is_some(),
                "restore_point": restored.restore_point, "time": words::stamp(restored.time), "bytes": restored.bytes,
                "problems": restored.told().collect::<Vec<_>>(), "passed_over": restored.passed_over,
                "next": restored.next,
            })
        },
        || restored.text(&step, &place),
    );
    Ok(if restored.told().next().is_none() { 0 } else { 5 })
}

/// When it is told to end, this process removes its locks from storage first; else the next run does, which knows them by the record in
/// that directory.
fn answer_for_locks(directory: &StateDirectory) -> Result<()> {
    repository::record_locks(directory);
    process::on_end(|signal| {
        repository::let_go()(Duration::from_secs(2));
        // As a shell says it.
        std::process::exit(128 + signal)
    })
}

fn adopt(settings: &Settings, directory: &StateDirectory, step: Option<&str>) -> Result<u8> {
    // On a blank machine this is the first command.
    run::make_private(directory.path())?;
    let _lock = RunLock::take(&directory.run_lock(), "adopt")?;
    let Some(name) = step else {
        recover::adopt::adopt(settings, directory)?;
        say!("{} is now this machine's", settings.storage.location);
        return Ok(0);
    };
    let step = settings.step(name)?;
    if let Source::Postgres(postgres) = &step.source {
        let went_back = steps::postgres::adopt(settings, step, postgres, &wal::Record::at_hand(directory))?;
        if went_back {
            say!("the database of {name} went back on its timeline: its server is restarted on a new one");
            let begun = restore::new_timeline::begin(settings, directory, step, postgres)?;
            for line in begun.lines() {
                say!("{line}");
            }
        }
    }
    match State::open(&directory.database())? {
        Opened::Ready(state) | Opened::Fresh(state, _) => state.forget_source(name)?,
    }
    say!("the next run takes the source of {name} as it finds it");
    Ok(0)
}

fn recovery_kit(settings: &Settings, directory: &StateDirectory, to: Option<PathBuf>) -> Result<u8> {
    let to = match to {
        Some(file) if file.as_os_str() == "-" => To::Output,
        Some(file) => To::File(std::path::absolute(&file).context(|| format!("understand {}", file.display()))?),
        None if std::io::stdout().is_terminal() => {
            return Err(Error::usage("a recovery kit holds every key: it is not shown on a terminal")
                .hint("--to FILE writes a file, --to - shows it all the same"));
        }
        None => To::Output,
    };
    kit::make(settings, directory, &to)?;
    if let Err(error) = Secrets::new(&settings.secrets).restic_reads_the_same() {
        print_error("the kit is made, and opens everything with pi-agent; with restic alone it does not: ", &error);
    }
    if let To::File(file) = &to {
        say!("{} holds every key: print it or copy it away from this machine,", file.display());
        say!("then `pi-agent setup --kit-saved` enables the timers");
    }
    Ok(0)
}

fn notify_test(settings: &Settings, directory: &StateDirectory) -> Result<u8> {
    if notify::Service::all(settings)?.is_empty() {
        let file = settings.secrets.join("discord.env");
        let hint = format!("put DISCORD_WEBHOOK_URL=… into {}, or services into [notify]", file.display());
        return Err(Error::usage("nobody is told of anything: no service is configured").hint(hint));
    }
    run::make_private(directory.path())?;
    notify::post(settings, directory, &digest::samples(settings, Timestamp::now()))?;
    let deliveries = notify::deliver(settings, directory, Duration::from_secs(60))?;
    for delivery in &deliveries {
        match &delivery.problem {
            None => say!("{}: {} messages sent", delivery.service, delivery.sent),
            Some(error) => {
                say!("{}: {} messages sent, {} wait", delivery.service, delivery.sent, delivery.waiting);
                print_error("", error);
            }
        }
    }
    Ok(u8::from(deliveries.iter().any(|delivery| delivery.problem.is_some())))
}

fn heartbeat(settings: &Settings, directory: &StateDirectory) -> Result<u8> {
    let state = readable_history(directory);
    let status = Status::now(settings, directory, state.as_ref())?;
    let notice = digest::heartbeat(settings, &status, state.as_ref(), status.generated_at)?;
    run::make_private(directory.path())?;
    notify::post(settings, directory, &[notice])?;
    notify::flush(settings, directory, Duration::from_secs(240)).map(|_| 0)
}

/// The history, if it can be read; else what is alarming about that is shown with everything else.
fn readable_history(directory: &StateDirectory) -> Option<State> {
    State::open_read_only(&directory.database()).unwrap_or_else(|error| {
        print_error("", &error);
        None
    })
}

/// The exit code of an error: 2 usage or configuration, 4 lock held, 1 the rest.
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Usage => 2,
        Kind::Locked => 4,
        _ => 1,
    }
}

/// An error with its causes and its hint, for a person or the journal.
pub fn print_error(prefix: &str, error: &Error) {
    let hint = error.advice().map_or_else(String::new, |hint| format!("\n  hint: {hint}"));
    log::error!("{prefix}{}{hint}", error.chain());
}
