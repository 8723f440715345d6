//! WAL from the spool into the repository. PostgreSQL's `archive_command` copies finished files into `SPOOL/STANZA`;
//! [`push`] hands them to pgBackRest one by one and removes them; [`drain`] does so until nothing is left.
//!
//! It has a lock of its own, per stanza, and never the run lock: a backup waits for WAL that only a push delivers.

mod alone;
mod archive;
mod closing;
mod drain;
mod foreign;
mod left_behind;
mod minimal;
mod pg_wal;
mod reached;
mod records;
mod segment;
mod state;
mod times;
mod whose;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::foreign::Foreign;
use self::reached::Ledger;
use self::segment::{Name, system_id_of};
use crate::config::{Postgres, Settings, Step};
use crate::error::{Context, Error, Result};
use crate::monitor::Problem;
use crate::pgbackrest::{self, Code, PgBackRest, code_of};
use crate::process::User;
use crate::theirs::Theirs;

pub use alone::Alone;
pub use closing::close_holes;
pub use drain::{Drained, drain, drain_restored, empty_spools, tell};
pub use minimal::{minimal, minimal_in};
pub use reached::{Hole, Mark, Reached};
pub use segment::{Header, place};
pub use state::WalState;
pub use times::times;
pub use whose::{Record, Whose};

/// What one pass did.
#[derive(Debug, Default)]
pub struct PushReport {
    /// Files now in the repository.
    pub pushed: u64,
    /// Files still in the spool.
    pub waiting: u64,
    /// What is wrong; whatever it concerns is still on this disk.
    pub problems: Vec<Problem>,
    /// What stopped it may pass: the storage is away, a lock is held.
    pub try_again: bool,
    /// Segments that never came were noticed now.
    pub hole: Option<Hole>,
    /// WAL of other clusters than the stanza's, which no repository takes: where it is now. None of what is in the repository's way.
    pub foreign: Vec<Problem>,
}

/// Where a stanza's server puts its WAL.
pub fn spool_directory(settings: &Settings, postgres: &Postgres) -> PathBuf {
    settings.local.spool.join(&postgres.stanza)
}

/// The `archive_command` for a server on this host, which fills the spool safely: a file appears there whole and
/// durable or not at all, and one of the same name must be the same file.
pub fn archive_command(spool: &Path) -> String {
    let quoted = spool.to_string_lossy().replace('\'', r"'\''").replace('%', "%%");
    let mut command = format!(
        "d='{quoted}'; test -e \"$d/%f\" && exec cmp -s \"%p\" \"$d/%f\"; \
         cp \"%p\" \"$d/.%f.tmp\" && sync \"$d/.%f.tmp\" && mv \"$d/.%f.tmp\" \"$d/%f\" && sync \"$d\""
    );
    if !quoted.contains("pgbackrest") {
        // pgBackRest refuses to back up a server whose archive_command does not name it.
        command.push_str(" # pgbackrest");
    }
    command
}

/// Pushes what lies in the spool, in order. Another push at work is no error: it does the same.
///
/// # Errors
/// The spool cannot be read, the place in storage is another machine's, or pgBackRest cannot be prepared: then everything stays in the
/// spool. What happens to single files is in the report.
pub fn push(settings: &Settings, step: &Step, postgres: &Postgres, whose: Whose<'_>) -> Result<PushReport> {
    let spool = spool_directory(settings, postgres);
    let user = pgbackrest::server_user(settings, step, postgres)?;
    if !spool.exists() {
        return Ok(PushReport::default());
    }
    // The directory itself is locked: whoever pushes can open it, whoever owns what lies in it.
    let lock = File::open(&spool).context(|| format!("open the WAL spool {}", spool.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(PushReport::default()),
        Err(TryLockError::Error(error)) => return Err(Error::new("lock the WAL spool").caused_by(error)),
    }
    let mut names = waiting(&spool)?;
    if names.is_empty() {
        return Ok(PushReport::default());
    }
    if !whose.allows(settings, step).context(|| "push WAL".into())? {
        return Ok(PushReport { waiting: names.len() as u64, ..PushReport::default() });
    }
    let pgbackrest = PgBackRest::prepare(settings, step, postgres, &user)?;
    let mut report = PushReport::default();
    let mut ledger = Ledger::open(&spool);
    let mut foreign = Foreign::default();
    // A history is small, and whoever does not know of a timeline begins another of its number.
    names.sort_by_key(|name| !is_history(name));
    for name in &names {
        match push_one(&pgbackrest, &spool.join(name), &step.name, &mut ledger, &mut foreign) {
            Ok(Pushed::InRepository(hole)) => {
                report.pushed += 1;
                report.hole = hole.or(report.hole);
            }
            Ok(Pushed::Foreign) => {}
            Err(refused) => {
                report.problems.push((&refused.error).into());
                if refused.stop {
                    report.try_again = refused.error.is_transient();
                    break;
                }
                ledger.left(name);
            }
        }
    }
    report.foreign = foreign.settle(&spool, &step.name, system_id_of(&postgres.data_directory));
    report.waiting = waiting(&spool)?.len() as u64;
    Ok(report)
}

/// The history of a timeline.
pub(crate) fn is_history(name: &str) -> bool {
    name.ends_with(".history")
}

/// The files in the spool that are WAL, oldest first. None when PostgreSQL has not archived anything yet.
///
/// # Errors
/// The spool cannot be read.
pub fn waiting(spool: &Path) -> Result<Vec<String>> {
    let doing = || format!("read the WAL spool {}", spool.display());
    let entries = match fs::read_dir(spool) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.context(doing)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(doing)?;
        names.extend(entry.file_name().into_string().ok().filter(|name| Name::of(name).is_some()));
    }
    names.sort();
    Ok(names)
}

/// What became of a file that is no problem to the next ones.
enum Pushed {
    InRepository(Option<Hole>),
    Foreign,
}

/// Why a file was not pushed, and whether the next ones would fare the same.
struct Refused {
    error: Error,
    stop: bool,
}

fn push_one(
    pgbackrest: &PgBackRest,
    file: &Path,
    step: &str,
    ledger: &mut Ledger<'_>,
    foreign: &mut Foreign,
) -> Result<Pushed, Refused> {
    let header = match Name::of_file(file) {
        Some(Name::Segment) => {
            // pgBackRest would accept a truncated one, and then refuse the good one for ever.
            Some(Header::check(file).map_err(|error| Refused { error, stop: false })?)
        }
        _ => None,
    };
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if header.as_ref().is_some_and(|header| foreign.takes(header, name)) {
        return Ok(Pushed::Foreign);
    }
    let doing = || format!("push WAL {}", file.display());
    let pushed = pgbackrest.push(file).and_then(|()| leave(file, header.as_ref(), ledger));
    let error = match (pushed, header) {
        (Ok(hole), _) => return Ok(Pushed::InRepository(hole)),
        (Err(error), Some(header)) if code_of(&error) == Some(Code::ARCHIVE_MISMATCH) => {
            foreign.begins(&header, name);
            return Ok(Pushed::Foreign);
        }
        (Err(error), _) => error,
    };
    Err(match code_of(&error) {
        Some(Code::ARCHIVE_DUPLICATE) if file.extension().is_some_and(|ending| ending == "partial") => {
            // The server ended twice within one segment. What is in its pg_wal is the same, and stays there.
            let _ = fs::remove_file(file);
            Refused {
                error: Error::new(doing())
                    .hint("the repository has the beginning of this segment; what came later is in the pg_wal of the server alone")
                    .caused_by(error),
                // Nothing of its timeline comes behind it.
                stop: false,
            }
        }
        Some(Code::ARCHIVE_DUPLICATE) => Refused { error: duplicate(pgbackrest, file, step, error), stop: false },
        _ => Refused { error: Error::new(doing()).kind_of(error.kind()).caused_by(error), stop: true },
    })
}

/// The repository holds another file of that name. With later ones beside it, the cluster itself went back.
fn duplicate(pgbackrest: &PgBackRest, file: &Path, step: &str, error: Error) -> Error {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let info = pgbackrest.info().unwrap_or_default();
    match info.newest_wal_of_cluster().filter(|newest| *newest > name) {
        Some(newest) => went_back(step, name, newest),
        None => Error::new(format!("push WAL {}", file.display())).hint(format!(
            "the repository holds another file of this name; keep this one elsewhere, then a full backup starts anew: \
             pi-agent run {step}"
        )),
    }
    .caused_by(error)
}

/// What is said of a cluster that is at a segment behind the newest that the repository has of it.
pub fn went_back(step: &str, segment: &str, newest: &str) -> Error {
    Error::new(format!(
        "the database went back to an earlier state on its timeline: it writes WAL {segment}, and storage has all up to {newest}; \
         was an old image or copy of it put back?"
    ))
    .hint(format!(
        "to have what storage has: pi-agent restore {step} --in-place. To go on from what is there now: pi-agent adopt {step}, which \
         restarts the server on a new timeline"
    ))
}

/// Sets aside what waits in the spool and belongs into no repository; where it is then, if there was any.
///
/// # Errors
/// The spool cannot be read, or a file cannot be moved.
pub fn set_waiting_aside(spool: &Path) -> Result<Option<PathBuf>> {
    let mut folder = None;
    for name in waiting(spool)? {
        folder = set_aside(&spool.join(name), "went-back")?.parent().map(Path::to_owned);
    }
    Ok(folder)
}

/// Lets a file that is in the repository leave the spool, and notes it before. On a disk that is full there is room for the note only then;
/// what is killed in between has one that is behind, and may take the next segment for one behind a hole.
fn leave(file: &Path, header: Option<&Header>, ledger: &mut Ledger<'_>) -> Result<Option<Hole>> {
    let remove = || fs::remove_file(file).context(|| "remove it from the spool".into());
    let Some(header) = header else { return remove().map(|()| None) };
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let finished = pg_wal::changed(file).unwrap_or_else(Timestamp::now);
    let lacks_changes = minimal_in(file).context(|| format!("read WAL {}", file.display()))?.is_some();
    let hole = ledger.arrived(name, header, finished, lacks_changes);
    match ledger.write() {
        Err(error) if error.is_for_lack_of_room() => {
            remove()?;
            ledger.write()?;
        }
        written => {
            written?;
            remove()?;
        }
    }
    Ok(hole)
}

fn set_aside(file: &Path, of: &str) -> Result<PathBuf> {
    let doing = || format!("set WAL aside that goes into no repository: {}", file.display());
    let (spool, name) = file.parent().zip(file.file_name()).ok_or_else(|| Error::new(doing()))?;
    let folder = PathBuf::from(format!("set-aside-{of}"));
    // Whoever owns the spool may have put a link there, to anywhere.
    let owner = User::in_container_owning(spool)?;
    let there = Theirs::open(spool, &owner)?;
    there.act(|| {
        fs::create_dir_all(there.inside(&folder)).context(doing)?;
        fs::rename(there.inside(name), there.inside(folder.join(name))).context(doing)
    })?;
    Ok(spool.join(folder).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs the command as PostgreSQL would, with `%p` and `%f` filled in.
    fn archive(spool: &Path, file: &Path) -> bool {
        let name = file.file_name().expect("a name").to_string_lossy();
        let command = archive_command(spool)
            .replace("%%", "\0")
            .replace("%p", &file.to_string_lossy())
            .replace("%f", &name)
            .replace('\0', "%");
        Command::new("sh").args(["-c", &command]).status().expect("sh runs").success()
    }

    #[test]
    fn the_archive_command_accepts_the_same_file_and_refuses_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path().join("it's 100% odd");
        let file = folder.path().join("000000010000000000000001");
        fs::write(&file, "one").expect("written");
        assert!(!archive(&spool, &file), "without its folder it fails");
        fs::create_dir(&spool).expect("made");
        assert!(archive(&spool, &file));
        assert!(archive(&spool, &file), "the same again");
        fs::write(&file, "two").expect("written");
        assert!(!archive(&spool, &file), "another of that name");
        assert_eq!(fs::read_to_string(spool.join("000000010000000000000001")).expect("kept"), "one");
        assert_eq!(waiting(&spool).expect("readable"), ["000000010000000000000001"]);
        assert_eq!(fs::read_dir(&spool).expect("readable").count(), 1, "no temporary file is left");
    }

    #[test]
    fn pgbackrest_finds_its_name_in_it() {
        assert!(!archive_command(Path::new("/var/spool/pgbackrest/main")).contains('#'));
        assert!(archive_command(Path::new("/srv/wal")).ends_with("# pgbackrest"));
    }

    #[test]
    fn nothing_is_set_aside_behind_a_link_of_the_spools_owner() {
        use std::os::unix::fs::{chown, symlink};

        let root = tempfile::tempdir().expect("a folder");
        let (spool, elsewhere) = (root.path().join("spool"), root.path().join("elsewhere"));
        fs::create_dir(&spool).expect("made");
        fs::create_dir(&elsewhere).expect("made");
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its own");
        let file = spool.join("000000010000000000000001");
        fs::write(&file, "theirs").expect("written");
        if nix::unistd::geteuid().is_root() {
            symlink(&elsewhere, spool.join("set-aside-link")).expect("made");
            chown(&spool, Some(65534), Some(65534)).expect("we are root");
            set_aside(&file, "link").expect_err("it is root's directory");
            assert!(file.exists() && fs::read_dir(&elsewhere).expect("ours").next().is_none());
        }
        let place = set_aside(&file, "7").expect("set aside");
        assert_eq!(fs::read(place).expect("there"), b"theirs");
    }
}
