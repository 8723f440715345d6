//! A new timeline for a database that went back: an old image of its disk was put back, and it writes WAL under names that storage has
//! already, with other content. On a timeline of its own both stay.
//!
//! PostgreSQL begins one at the end of each recovery from an archive. The archive of this one holds nothing; the histories of all
//! timelines are in `pg_wal`, by which the server finds a number that is free.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::users::{self, Stopped};
use crate::config::{Postgres, Settings, StateDirectory, Step};
use crate::error::{Error, Result};
use crate::pgbackrest::PgBackRest;
use crate::process::{Program, User};
use crate::steps::postgres::{self, container};
use crate::wal;

/// How long the server may take to go through its own WAL.
const RECOVERY: Duration = Duration::from_mins(10);
const PAUSE: Duration = Duration::from_secs(1);
/// How long one of the scripts may take.
const SCRIPT: Duration = Duration::from_mins(1);

/// What the server does not have yet of these.
const HISTORY: &str = r#"[ -e "pg_wal/$1" ] || printf %s "$2" >"pg_wal/$1""#;
/// What waits to be archived is of the old timeline, and storage has other files of these names. The settings are in force for this one
/// start, and outweigh what an earlier recovery may have left.
const PREPARE: &str = r#"set -e
for mark in pg_wal/archive_status/????????????????????????.ready; do
  [ ! -e "$mark" ] || mv -- "$mark" "${mark%.ready}.done"
done
touch postgresql.auto.conf
[ -e postgresql.auto.conf.before-adopt ] || cp -p postgresql.auto.conf postgresql.auto.conf.before-adopt
for target in '' _lsn _name _time _xid; do echo "recovery_target$target = ''"; done >>postgresql.auto.conf
cat >>postgresql.auto.conf <<END
restore_command = 'false'
recovery_target_timeline = 'current'
recovery_target_action = 'promote'
archive_cleanup_command = ''
recovery_end_command = ''
END
touch recovery.signal
"#;
const SETTLE: &str = "mv -f postgresql.auto.conf.before-adopt postgresql.auto.conf && rm -f recovery.signal";

/// What was begun.
pub struct Begun {
    timeline: u32,
    aside: Option<PathBuf>,
}

impl Begun {
    /// In words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("it goes on on timeline {}; the next backup is a full one", self.timeline)];
        lines.extend(self.aside.iter().map(|aside| {
            format!("WAL that waited to be pushed is set aside in {}: delete it when nobody needs it", aside.display())
        }));
        lines
    }
}

/// Restarts the server, which then writes a new timeline.
///
/// # Errors
/// It is not known how to restart the server, it does not start, or the repository cannot be read.
pub fn begin(settings: &Settings, directory: &StateDirectory, step: &Step, database: &Postgres) -> Result<Begun> {
    // 1. Which timelines there are, and how the server is stopped; nothing is changed yet.
    let before = postgres::timeline(settings, step, database)?;
    let user = container::user(settings, step, database)?;
    let data = container::data_on_this_machine(database)
        .ok_or_else(|| Error::new(format!("the data directory of {} is not on this machine", step.name)))?;
    let pgbackrest = PgBackRest::prepare(settings, step, database, &user)?;
    let info = pgbackrest.info()?;
    let histories = match &info.newest_wal {
        Some((archive, _)) => pgbackrest.history_files(archive)?,
        None => Vec::new(),
    };
    let users = users::of_database(database, &data).map_err(|error| {
        Error::new(format!("restart the server of {}", step.name))
            .hint("start it as a unit of systemd whose name begins with postgresql, and say so once more")
            .caused_by(error)
    })?;

    // 2. The restart.
    let stopped = Stopped::begin(directory, &step.name, &users)?;
    let prepared = prepare(&histories, &data, &user)
        .and_then(|()| wal::set_waiting_aside(&wal::spool_directory(settings, database)));
    if prepared.is_err() {
        // It starts as it was.
        let _ = as_server(SETTLE, &[], &data, &user);
    }
    let started = stopped.end();
    let aside = prepared?;
    let begun = started.and_then(|()| wait(settings, step, database));

    // 3. What it is on now.
    let settled = as_server(SETTLE, &[], &data, &user);
    let timeline = begun.map_err(|error| {
        Error::new(format!("the server in {} did not begin a new timeline", data.display()))
            .hint("its log says why; start it as always")
            .caused_by(error)
    })?;
    settled?;
    if Some(timeline) == before {
        return Err(Error::new(format!("the server in {} is on timeline {timeline} as before", data.display()))
            .hint("its log says what it did with recovery.signal"));
    }
    Ok(Begun { timeline, aside })
}

/// `histories`: names and texts of files.
fn prepare(histories: &[(String, String)], data: &Path, user: &User) -> Result<()> {
    for (name, text) in histories {
        as_server(HISTORY, &[name, text], data, user)?;
    }
    as_server(PREPARE, &[], data, user)
}

fn wait(settings: &Settings, step: &Step, database: &Postgres) -> Result<u32> {
    let began = Instant::now();
    loop {
        let answer = postgres::timeline(settings, step, database);
        if let Ok(Some(timeline)) = answer {
            return Ok(timeline);
        }
        if began.elapsed() > RECOVERY {
            return Err(answer.err().unwrap_or_else(|| Error::new("it is still in recovery")));
        }
        thread::sleep(PAUSE);
    }
}

/// `arguments`: `$1` and so on.
fn as_server(script: &str, arguments: &[&str], data: &Path, user: &User) -> Result<()> {
    let arguments = [&["-c", script, "sh"], arguments].concat();
    let mut program = Program::new("sh", arguments).as_user(user).within(SCRIPT);
    program.directory = data.to_owned();
    let output = program.run(&mut |_, _| ())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(format!("change {}: {}", data.display(), output.stderr.trim())))
}
