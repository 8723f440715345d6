//! `repair`: what is wrong with a step's repository, and, when a person agrees, what can be done about it.

use std::path::Path;

use jiff::Timestamp;

use crate::config::{Settings, Source, StateDirectory};
use crate::error::{Error, Kind, Result};
use crate::health::judge_by_others;
use crate::lock::RunLock;
use crate::monitor::Monitor;
use crate::repository::{Purpose, Repository};
use crate::secrets::Secrets;
use crate::setup::Dialogue;
use crate::storage::place::{self, Machine, Unowned};
use crate::storage::{Store, disk, token};

/// What a person asks for.
pub struct Order {
    /// The step.
    pub step: String,
    /// Do it, and ask nothing.
    pub yes: bool,
    /// Read the contents of all packs, too.
    pub read_data: bool,
}

/// Says what is wrong, asks, and mends it; `watch` makes a monitor for each part of that. The exit code: 0 all is well then, 3
/// something is damaged still, also because the person said no, 5 something is that cannot be mended here.
///
/// # Errors
/// There is no such repository, somebody else is at work on it, storage fails, or nobody can be asked.
pub fn repair(
    settings: &Settings,
    directory: &StateDirectory,
    order: &Order,
    watch: &dyn Fn(&str) -> Monitor,
) -> Result<u8> {
    let step = settings.step(&order.step)?;
    if let Source::Postgres(_) = step.source {
        return Err(Error::usage(format!("repair {}: the backups of a database are pgBackRest's", step.name)).hint(
            "it mends nothing; the next full backup depends on nothing that is damaged: pi-agent check says what is",
        ));
    }
    crate::run::make_private(directory.path())?;
    let _run_lock = RunLock::take(&directory.run_lock(), "repair")?;
    let secrets = Secrets::new(&settings.secrets);
    let (system, location) = (Path::new("/"), &settings.storage.location);
    let root = Store::open(&settings.storage, location, &secrets)?;
    let disk = disk::check(system, directory, location)?;
    let tokens = token::known(directory, location);
    place::verify(&root, &Machine::of(system, &settings.host)?, Unowned::Unused, disk.as_ref(), &tokens)?;

    let store = root.join(&step.name);
    let repository = Repository::open_what_is_left(settings, &step.name, store.clone(), &secrets)?
        .ok_or_else(|| Error::new(format!("{store} holds no repository")).kind_of(Kind::NotFound))?;
    // What it was opened without.
    let mut beyond: Vec<_> = repository.damage().into_iter().map(|damage| damage.message).collect();
    let clock = judge_by_others(Timestamp::now(), root.clock_ahead(), None).is_none();
    let (lock, diagnosis) = {
        let monitor = watch(&format!("look at {}", step.name));
        (repository.lock(Purpose::Delete, clock, None, &monitor)?, repository.diagnose(order.read_data, &monitor)?)
    };
    beyond.extend(diagnosis.beyond.iter().cloned());
    for line in &beyond {
        say!("cannot be mended: {line}");
    }
    let in_the_end = if beyond.is_empty() { 0 } else { 5 };
    if diagnosis.is_well() {
        let looked = if order.read_data { "" } else { "; contents were not read: --read-data" };
        say!("there is nothing to mend in {store}{looked}");
        return Ok(in_the_end);
    }
    for line in &diagnosis.lines {
        say!("{line}");
    }
    say!("a backup first stores again what the sources still hold, and less is lost: pi-agent run {}", step.name);
    say!("what is set aside is kept in {store}/set-aside; no pack is deleted");
    if !order.yes {
        let dialogue = Dialogue::open().ok_or_else(|| {
            Error::usage("nothing was changed: nobody can be asked here").hint("--yes has it done as it is said above")
        })?;
        if !dialogue.yes("Go on", false)? {
            say!("nothing was changed");
            return Ok(3);
        }
    }
    let findings = repository.mend(diagnosis, &watch(&format!("repair of {}", step.name)))?;
    for problem in lock.release() {
        say!("{}", problem.message);
    }
    for finding in &findings.errors {
        say!("still damaged: {finding}");
    }
    if !findings.errors.is_empty() {
        return Ok(3);
    }
    say!("mended; the next run stores again what was lost and is still there: pi-agent run {}", step.name);
    Ok(in_the_end)
}
