//! WAL that a server has not handed over: it lies in its `pg_wal`, behind marks `.ready`, and the newest of it without one. Of a
//! server that does not run we do what its archiver would have done, as its user; one that runs does it itself, or
//! something is wrong with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::segment::{Header, Name, is_shut_down, system_id_of};
use super::{Reached, archive_command, spool_directory};
use crate::config::{Postgres, Settings, Step};
use crate::docker::{Docker, State};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::pgbackrest;
use crate::process::{Program, User};
use crate::restore::users::server;
use crate::steps::postgres::container;

/// An archiver that works has taken a file by then.
const TAKEN: Duration = Duration::from_mins(1);

/// How long the copy of one segment may take.
const COPYING: Duration = Duration::from_mins(10);

/// Hands over what the step's server left, file by file; `push` empties the spool after each, and says whether that went well.
/// What is not in the repository after that, in words.
pub(super) fn hand_over(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    push: &mut (dyn FnMut() -> bool + Send),
) -> Option<Problem> {
    let data = &container::data_on_this_machine(postgres)?;
    let work = || Ok(hand_over_from(settings, step, postgres, data, push));
    container::with_its_wal(settings, postgres, data, work).unwrap_or_else(|error| {
        Some(Problem {
            message: format!("what WAL the server in {} has not handed over is not known: {error}", data.display()),
            hint: error.advice().map(str::to_owned),
        })
    })
}

fn hand_over_from(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    data: &Path,
    push: &mut dyn FnMut() -> bool,
) -> Option<Problem> {
    if runs(postgres, data) {
        return waiting_in_a_server(data);
    }
    let spool = spool_directory(settings, postgres);
    let noted = Reached::read(&spool).is_some();
    let left = Left::of(data);
    let lost = left.files.iter().enumerate().find_map(|(number, file)| {
        if let Err(error) = file.take(settings, step, postgres, data) {
            return Some(left.lost(number, data, &error));
        }
        if push() {
            return None;
        }
        let error = Error::new("it could not be pushed").hint("`pi-agent wal push` says why");
        // What is in the spool is kept there.
        let first = number + usize::from(spool.join(file.spooled()).exists());
        (first < left.files.len()).then(|| left.lost(first, data, &error))
    });
    if !noted && !left.files.is_empty() {
        // A server that pushes by itself fills no spool, and a note in it would seem to stand still.
        Reached::forget(&spool);
    }
    lost
}

/// A server is at work there, or nobody can tell.
fn runs(postgres: &Postgres, data: &Path) -> bool {
    match &postgres.container {
        Some(name) => !Docker::open()
            .and_then(|docker| docker.container(name))
            .is_ok_and(|container| container.state == State::Stopped),
        None => server(data).is_some(),
    }
}

fn waiting_in_a_server(data: &Path) -> Option<Problem> {
    let now = Timestamp::now();
    let since = |name: &String| changed(&data.join(format!("pg_wal/archive_status/{name}.ready")));
    let ready = marked(data, "ready");
    let oldest = ready.iter().filter_map(since).min()?;
    let waits = Duration::try_from(now.duration_since(oldest)).unwrap_or_default();
    (waits >= TAKEN).then(|| Problem {
        message: format!(
            "{} files of WAL wait in the server itself, the oldest for {} minutes: its archive_command does not take them",
            ready.len(),
            waits.as_secs().div_ceil(60)
        ),
        hint: Some("the server's log says why; pi-agent doctor looks at the spool and at archive_command".into()),
    })
}

/// What lies there and is not handed over, oldest first.
struct Left {
    files: Vec<File>,
}

/// A file in `pg_wal`.
struct File {
    name: String,
    /// It has a mark: with it PostgreSQL forgets that it waits.
    marked: bool,
    /// The server ended in the midst of it.
    unfinished: bool,
}

impl Left {
    fn of(data: &Path) -> Self {
        let ready = marked(data, "ready");
        let done = marked(data, "done");
        let mut files: Vec<_> =
            ready.iter().map(|name| File { name: name.clone(), marked: true, unfinished: false }).collect();
        // One that was stopped in an orderly way has nothing in its last segment but the note of its end.
        if !is_shut_down(data) {
            let mut open = open_segments(data, |name| !ready.contains(name) && !done.contains(name));
            let last = open.pop_last();
            let file = |name, unfinished| File { name, marked: false, unfinished };
            files.extend(open.into_iter().map(|name| file(name, false)));
            files.extend(last.map(|name| file(name, true)));
        }
        Self { files }
    }

    /// That the files from `first` on are there alone.
    fn lost(&self, first: usize, data: &Path, error: &Error) -> Problem {
        let files = &self.files[first..];
        let times = files.iter().filter_map(|file| changed(&data.join("pg_wal").join(&file.name)));
        // What is in a segment was written since the one before was finished.
        let before = first.checked_sub(1).and_then(|before| self.files.get(before));
        let before = before.and_then(|file| changed(&data.join("pg_wal").join(&file.name)));
        let (from, to) = (before.or_else(|| times.clone().min()), times.max());
        let minutes = from.zip(to).map_or(0, |(from, to)| to.duration_since(from).as_secs().max(0) / 60 + 1);
        Problem {
            message: format!(
                "the last {minutes} minutes of changes, in {} files from {} on, are in no backup, but in the pg_wal of the server that \
                 was there: {}",
                files.len(),
                files.first().map_or("", |file| &file.name),
                error.chain()
            ),
            hint: Some("keep that directory; whoever knows PostgreSQL may get them out of it".into()),
        }
    }
}

impl File {
    /// Its name in the spool. One that the server may still finish must not take the place of the finished one.
    fn spooled(&self) -> String {
        if self.unfinished { format!("{}.partial", self.name) } else { self.name.clone() }
    }

    /// Into the spool, as the archiver would have done it.
    fn take(&self, settings: &Settings, step: &Step, postgres: &Postgres, data: &Path) -> Result<()> {
        let user = pgbackrest::server_user(settings, step, postgres)?;
        container::provide_spool(settings, postgres, &user)?;
        let here = data.join("pg_wal").join(&self.name);
        if Name::of_file(&here) == Some(Name::Segment) {
            Header::check(&here)?;
        }
        // Names of WAL hold nothing that a shell would understand.
        let command = archive_command(&spool_directory(settings, postgres))
            .replace("%%", "\0")
            .replace("%p", &format!("pg_wal/{}", self.name))
            .replace("%f", &self.spooled())
            .replace('\0', "%");
        as_its_archiver("sh", &["-c", &command], data, &user)?;
        if self.marked {
            let mark = |ending| format!("pg_wal/archive_status/{}.{ending}", self.name);
            as_its_archiver("mv", &[&mark("ready"), &mark("done")], data, &user)?;
        }
        Ok(())
    }
}

fn as_its_archiver(program: &str, arguments: &[&str], data: &Path, user: &User) -> Result<()> {
    let mut program = Program::new(program, arguments.iter().copied()).as_user(user).within(COPYING);
    program.directory = data.to_owned();
    let output = program.run(&mut |_, _| ())?;
    if output.status.success() {
        return Ok(());
    }
    let doing = format!("hand over WAL of the stopped server in {}", data.display());
    Err(Error::new(format!("{doing}: {}", output.stderr.trim())))
}

/// The names with a mark of that kind.
fn marked(data: &Path, kind: &str) -> BTreeSet<String> {
    let marks = names_in(&data.join("pg_wal/archive_status")).into_iter();
    let names = marks.filter_map(|mark| Some(mark.strip_suffix(kind)?.strip_suffix('.')?.to_owned()));
    names.filter(|name| Name::of(name).is_some()).collect()
}

/// The segments of the last timeline that hold what their names say, one behind the other; others wait to be used again. One of those may
/// have come by its own number, from another timeline: nothing was written behind a gap.
fn open_segments(data: &Path, is_open: impl Fn(&String) -> bool) -> BTreeSet<String> {
    let id = system_id_of(data);
    let begins = |name: &String| {
        let header = Header::check(&data.join("pg_wal").join(name)).ok()?;
        (Some(header.system_id) == id && header.is_of(name)).then_some((header.begins, header.segment_size))
    };
    let names: BTreeSet<_> = names_in(&data.join("pg_wal"))
        .into_iter()
        .filter(|name| name.len() == 24 && Name::of(name) == Some(Name::Segment))
        .collect();
    let held: Vec<_> = names.into_iter().filter_map(|name| Some((begins(&name)?, name))).collect();
    let timeline = held.last().map(|(_, name)| name[..8].to_owned()).unwrap_or_default();
    let mut next = None;
    let whole = held.into_iter().filter(|(_, name)| name.starts_with(&timeline)).take_while(|((begins, size), _)| {
        let follows = next.is_none_or(|next| next == *begins);
        next = Some(begins + size);
        follows
    });
    whole.map(|(_, name)| name).filter(|name| is_open(name)).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn changed(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(path.metadata().ok()?.modified().ok()?).ok()
}
