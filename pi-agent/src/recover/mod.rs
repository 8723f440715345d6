//! The whole host back onto a blank machine, with nothing but the recovery kit and the storage.
//!
//! Whatever is restored lies beside its place until it is whole ([`directories`], [`databases`], as of every restore in
//! place), what was in its place is never removed, and what is done is noted ([`note`]), so that a recovery that was
//! interrupted goes on when it is started again.

pub mod adopt;
mod databases;
mod directories;
mod files;
mod newest;
mod note;
mod own;
mod probe;
mod report;
mod room;
mod server;
mod timers;

use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use log::{info, warn};

use crate::config::{Settings, Source, StateDirectory};
use crate::error::{Error, Result};
use crate::kit::{self, Cluster, Found, record};
use crate::lock::RunLock;
use crate::monitor::{Monitor, Problem};
use crate::restore::At;
use crate::restore::beside::Beside;
use crate::run::{self, recover::bring_back};
use crate::state::{Opened, State};
use note::{Notebook, Part};
use own::Own;
pub use report::{Outcome, Recovered, Report};

/// What is asked for.
#[derive(Debug)]
pub struct Options {
    /// The kit.
    pub kit: PathBuf,
    /// To which moment.
    pub at: At,
    /// What is there already is kept beside its place, and replaced.
    pub overwrite: bool,
    /// Enable and start the timers at the end.
    pub start_timers: bool,
    /// Whatever `[limits]` says.
    pub no_limits: bool,
}

/// What all parts need.
struct Order<'a> {
    settings: &'a Settings,
    directory: &'a StateDirectory,
    at: At,
    overwrite: bool,
    clusters: &'a [Cluster],
    own: Own<'a>,
}

impl Order<'_> {
    /// Nothing is in the place, or it may be replaced.
    fn may_replace(&self, beside: &Beside) -> Result<()> {
        if self.overwrite || !beside.is_taken()? {
            return Ok(());
        }
        let place = beside.place.display();
        Err(Error::usage(format!("bring back {place}: something is there already"))
            .hint(format!("move it away; or --overwrite, which keeps it as {}", beside.kept_as())))
    }
}

/// One part that is back.
struct Back {
    part: Part,
    problems: Vec<Problem>,
    /// An earlier recovery brought it back.
    was_there: bool,
}

impl Back {
    /// What an earlier one brought back, also when it was cut off before it had removed what it needed for that.
    fn before(part: Part, beside: Option<&Beside>) -> Result<Self> {
        if let Some(beside) = beside.filter(|beside| beside.cut_off().is_some()) {
            // Cut off before the old was out of the way, it would be removed with the stage.
            beside.exchange()?;
            beside.end()?;
        }
        Ok(Self { part, problems: Vec::new(), was_there: true })
    }
}

/// Recovers the host. A part that fails stops no other, and is in the report. `config`: where the configuration belongs when
/// the kit does not say. `watch`: makes the monitor for a part of that name.
///
/// # Errors
/// The kit cannot be read, the storage or the keys are not right, or the kit's files would replace others: then nothing was
/// changed. Or the place cannot be taken over.
pub fn recover(
    options: &Options,
    config: &Path,
    directory: &StateDirectory,
    watch: &dyn Fn(&str) -> Monitor,
) -> Result<Report> {
    let started = Instant::now();

    // 1. What the kit says, tried before anything is changed.
    let mut kit = kit::read(&options.kit, config)?;
    let at = words_of(&options.at)?;
    let told = probe::probe(&mut kit, &options.at)?;
    if options.no_limits {
        kit.settings = kit.settings.without_limits();
    }
    let order = Order {
        settings: &kit.settings,
        directory,
        at: options.at.clone(),
        overwrite: options.overwrite,
        clusters: &kit.clusters,
        own: Own::of(options, &kit, directory),
    };
    let mut notes = Notebook::open(directory, &kit.marks.keys, &at, options.overwrite)?;
    room::check(&order, &probe::Trial::of(&kit)?.settings, &notes)?;

    // 2. This machine becomes the lost one.
    run::make_private(directory.path())?;
    let _lock = RunLock::take(&directory.run_lock(), "recover")?;
    let kept = files::put(&kit.files, options.overwrite)?;
    adopt::adopt(&kit.settings, directory)?;
    record::recovered(directory, &kit.marks, kit.made_at)?;
    let mut report = Report::new(&kit.settings, told, kept);
    match bring_back(&kit.settings, directory, &watch("history")) {
        Ok(_) => {}
        Err(error) => report.problems.push(Problem {
            message: format!("history starts anew: {}", error.chain()),
            hint: error.advice().map(str::to_owned),
        }),
    }

    // 3. Everything else: files first, since a compose file may be among them.
    bring_all_back(&order, &kit, &mut notes, &mut report, watch);

    // 4. It backs up again.
    report.left.extend(server::only_for_the_recovery(&kit.settings));
    timers::start(&kit.settings, options.start_timers, &mut report);
    report.seconds = started.elapsed().as_secs();
    Ok(report)
}

/// Puts the configuration and the secrets into their places and does nothing else; the names of what was there before.
///
/// # Errors
/// As of a whole recovery; then nothing was changed.
pub fn put_files(options: &Options, config: &Path, directory: &StateDirectory) -> Result<Vec<PathBuf>> {
    let mut kit = kit::read(&options.kit, config)?;
    probe::probe(&mut kit, &options.at)?;
    run::make_private(directory.path())?;
    let _lock = RunLock::take(&directory.run_lock(), "recover")?;
    files::put(&kit.files, options.overwrite)
}

fn bring_all_back(
    order: &Order<'_>,
    kit: &Found,
    notes: &mut Notebook<'_>,
    report: &mut Report,
    watch: &dyn Fn(&str) -> Monitor,
) {
    let sources = || {
        kit.settings.steps.iter().filter_map(|step| match &step.source {
            Source::Directory(source) => Some((step, source)),
            _ => None,
        })
    };
    let all = || sources().flat_map(|(step, source)| source.paths.iter().map(move |path| (step, source, path)));
    let mut paths: Vec<_> = all().collect();
    // What lies in another path comes first, and the other one around it.
    paths.sort_by_key(|(_, _, path)| all().filter(|(_, _, other)| other != path && other.starts_with(path)).count());
    for (step, source, path) in paths {
        let what = path.display().to_string();
        part_of(report, &step.name, &what, || {
            directories::bring_back(order, notes, step, source, path, &watch(&format!("{} {what}", step.name)))
        });
    }
    for (step, _) in sources() {
        if !report.any_failed_of(&step.name)
            && let Err(error) = accept(order.directory, &step.name)
        {
            report.problems.push((&error).into());
        }
    }
    for step in &kit.settings.steps {
        let Source::Postgres(postgres) = &step.source else { continue };
        part_of(report, &step.name, "database", || {
            databases::bring_back(order, notes, step, postgres, &watch(&step.name))
        });
    }
}

/// History knows the files on a disk that is dead: the next run takes them as it finds them, as after `adopt STEP`. Of what
/// is not back it goes on to say that it is not what it was.
fn accept(directory: &StateDirectory, step: &str) -> Result<()> {
    if !directory.database().exists() {
        return Ok(());
    }
    match State::open(&directory.database())? {
        Opened::Ready(state) | Opened::Fresh(state, _) => state.forget_source(step),
    }
}

/// Does one part, and puts how it went into the report.
fn part_of(report: &mut Report, step: &str, what: &str, work: impl FnOnce() -> Result<Back>) {
    let started = Instant::now();
    let outcome = match work() {
        Ok(back) => {
            info!("{step}: {what} is back in {}", back.part.to.display());
            back.problems.iter().for_each(|problem| warn!("{step}: {}", problem.message));
            Outcome::Back(Box::new(back))
        }
        Err(error) => Outcome::Failed(Problem::from(&error)),
    };
    let seconds = started.elapsed().as_secs_f64();
    report.parts.push(Recovered { step: step.to_owned(), what: what.to_owned(), seconds, outcome });
}

/// How the note names the moment.
fn words_of(at: &At) -> Result<String> {
    match at {
        At::Latest => Ok(note::LATEST.into()),
        At::Time(time) if *time > Timestamp::now() => {
            Err(Error::usage(format!("{time} is in the future")).hint("give a moment with its offset, such as +10:00"))
        }
        At::Time(time) => Ok(time.to_string()),
        // No option of `recover` names one.
        At::Timeline { .. } => Err(Error::usage("a whole host goes back to a moment, not along a timeline")),
        At::Id(id) => Err(Error::usage(format!("--at {id}: a whole host goes back to a moment, not to a backup"))
            .hint("--at \"2026-11-20 21:30\"; single steps by id: pi-agent restore STEP --to DIR --at ID")),
    }
}
