//! WAL that a server has not handed over: it lies in its `pg_wal`, and neither in the spool nor in the repository, whatever its marks say
//! ([`Archive`]). Of a server that does not run we do what its archiver would have done, as its user; one that runs does it itself,
//! or something is wrong with it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::alone::{Alone, TAKEN};
use super::archive::Archive;
use super::pg_wal::{Held, Marks, began, changed, file, held};
use super::segment::{Control, Header, Name, place, system_id_of};
use super::{Reached, archive_command, spool_directory, waiting};
use crate::config::{Postgres, Settings, Step};
use crate::docker::{Docker, State};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::pgbackrest::{self, PgBackRest};
use crate::process::{Program, User};
use crate::restore::users::server;
use crate::steps::postgres::container;

/// How long the copy of one segment may take.
const COPYING: Duration = Duration::from_mins(10);

/// What is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All that the repository lacks.
    All,
    /// What the server has marked to be archived: of restored data, the rest comes from the repository.
    Marked,
}

/// What is not in the repository after that.
#[derive(Debug)]
pub(super) enum Behind {
    /// Changes that are in no backup.
    Lost(Problem),
    /// The WAL of another cluster than the backups'.
    Foreign(Problem),
}

/// Hands over what the step's server left, file by file; `push` empties the spool after each, and says whether that went well.
pub(super) fn hand_over(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    scope: Scope,
    push: &mut (dyn FnMut() -> bool + Send),
) -> Option<Behind> {
    let data = &container::data_on_this_machine(postgres)?;
    let work = || hand_over_from(settings, step, postgres, data, scope, push);
    container::with_its_wal(settings, postgres, data, work).unwrap_or_else(|error| {
        Some(Behind::Lost(Problem {
            message: format!("what WAL the server in {} has not handed over is not known: {error}", data.display()),
            hint: error.advice().map(str::to_owned),
        }))
    })
}

fn hand_over_from(
    settings: &Settings,
    step: &Step,
    postgres: &Postgres,
    data: &Path,
    scope: Scope,
    push: &mut dyn FnMut() -> bool,
) -> Result<Option<Behind>> {
    if runs(postgres, data) {
        return Ok(waiting_in_a_server(data, &spool_directory(settings, postgres)).map(Behind::Lost));
    }
    let spool = spool_directory(settings, postgres);
    let noted = Reached::read(&spool).is_some();
    let (mut segments, mut archive) = (Vec::new(), None);
    if scope == Scope::All {
        let user = pgbackrest::server_user(settings, step, postgres)?;
        let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
        let info = pgbackrest.info()?;
        if let Some(known) = info.cluster() {
            // Whose cluster it is, a damaged control file does not say.
            let id = system_id_of(data).unwrap_or(known.system_id);
            if id != known.system_id {
                return Ok(Some(Behind::Foreign(foreign(data, id, known.system_id))));
            }
            segments = held(data, id);
            archive = Archive::of(&pgbackrest, &info, &segments)?;
        }
    }
    let left = Left::of(data, &segments, archive.as_ref());
    let gap = archive.and_then(|archive| gap(data, &segments, &archive));
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
    Ok(lost.or(gap).map(Behind::Lost))
}

fn foreign(data: &Path, id: u64, known: u64) -> Problem {
    Problem {
        message: format!(
            "the cluster in {} is another one (system id {id}) than that of the backups ({known}): its WAL is in no backup",
            data.display()
        ),
        hint: None,
    }
}

/// Changes that are neither in the repository nor in `pg_wal`: the server went on without archiving, and used its segments again.
fn gap(data: &Path, held: &[Held], archive: &Archive) -> Option<Problem> {
    if data.join("backup_label").exists() {
        return None; // Restored files that no server has recovered yet.
    }
    let keep =
        "its data files hold those changes: keep that directory; where it is started again, `pi-agent run` backs it up";
    let problem = |message| Some(Problem { message, hint: Some(keep.into()) });
    let control = Control::read(data);
    let Some(last) = held.iter().rfind(|segment| segment.follows) else {
        let place = data.join("pg_wal");
        let message = format!("there is no WAL in {}: what the server wrote last is in no backup", place.display());
        return control.and_then(|_| problem(message));
    };
    let size = last.header.segment_size;
    let end = match control {
        Some(end) if end.is_shut_down => {
            (end.checkpoint / size).saturating_sub(u64::from(end.is_first_in_its_segment(size)))
        }
        Some(end) => last.place.max(end.checkpoint / size),
        None => last.place,
    };
    let newest = archive.newest_of(last.timeline());
    // Of a timeline that nothing came from, all since it began is asked for.
    let next = match newest {
        Some(newest) => place(newest, size)? + 1,
        None => began(data, last.timeline())? / size,
    };
    let missing = |place: &u64| !held.iter().any(|held| held.place == *place && held.timeline() == last.timeline());
    (next..=end).any(|place| missing(&place)).then_some(())?;
    let after = newest
        .map_or_else(|| format!("the beginning of timeline {}", last.timeline()), |newest| format!("the WAL {newest}"));
    problem(format!(
        "changes behind {after} are in no backup: the server in {} archived nothing and has used segments behind it again",
        data.display()
    ))
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

fn waiting_in_a_server(data: &Path, spool: &Path) -> Option<Problem> {
    let marks = Marks::read(data);
    let spooled = waiting(spool).unwrap_or_default();
    let alone = Alone::of(data, &marks, &spooled, Reached::read(spool).as_ref());
    if let Some(Alone { since, astray }) = alone.filter(|alone| !alone.astray.is_empty()) {
        return Some(Problem {
            message: format!(
                "the server does not hand its WAL over: changes since {since} are in its pg_wal alone, in {} finished segments from {} on",
                astray.len(),
                astray.first().map_or("", String::as_str)
            ),
            hint: Some("archive_mode is off, or archive_command does something else: pi-agent doctor says what to set; then pi-agent run".into()),
        });
    }
    let now = Timestamp::now();
    let ready = &marks.ready;
    let oldest = ready.iter().filter_map(|name| Marks::waits_since(data, name)).min()?;
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
    /// `archive`: what need not be handed over. Without it, what the server marked is.
    fn of(data: &Path, held: &[Held], archive: Option<&Archive>) -> Self {
        let Marks { ready, done } = Marks::read(data);
        let control = Control::read(data);
        let latest = held.last().map_or("", Held::timeline);
        let open = |(number, segment): (usize, &Held)| {
            let (archive, name) = (archive?, segment.name.clone());
            let goes_on =
                held.get(number + 1).is_some_and(|next| next.follows && next.timeline() == segment.timeline());
            let unfinished = segment.follows && !goes_on && !done.contains(&name);
            let size = segment.header.segment_size;
            let is_empty = || {
                control.is_some_and(|end| end.is_first_in_its_segment(size) && end.checkpoint / size == segment.place)
            };
            let wanted = match unfinished {
                // The last of an earlier timeline may be there whole, or as the beginning that it is.
                true if segment.timeline() != latest => archive.lacks(segment) && archive.lacks_beginning_of(segment),
                true => archive.asks_for(segment) && !is_empty(),
                false => archive.lacks(segment) && (segment.follows || done.contains(&name)),
            };
            (wanted && !ready.contains(&name)).then_some(File { name, marked: false, unfinished })
        };
        let mut files: Vec<_> = held.iter().enumerate().filter_map(open).collect();
        files.extend(ready.iter().map(|name| File { name: name.clone(), marked: true, unfinished: false }));
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Self { files }
    }

    /// That the files from `first` on are there alone.
    fn lost(&self, first: usize, data: &Path, error: &Error) -> Problem {
        let files = &self.files[first..];
        let times = files.iter().filter_map(|left| changed(&file(data, &left.name)));
        // What is in a segment was written since the one before was finished.
        let before = first.checked_sub(1).and_then(|before| self.files.get(before));
        let before = before.and_then(|before| changed(&file(data, &before.name)));
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
        let here = file(data, &self.name);
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
