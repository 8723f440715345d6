//! Storage: reachable, ours, writable. Tried with a small object that is written, read back and deleted.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::Finding;
use crate::config::{Location, Settings, StateDirectory, Storage};
use crate::secrets::Secrets;
use crate::state::State;
use crate::storage::disk::{self, Disk};
use crate::storage::place::{self, Machine, Unowned};
use crate::storage::{Store, token};
use crate::{Error, Result};

const SUBJECT: &str = "storage";
/// A person waits for the answer; a backup's patience would be minutes.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn examine(
    settings: &Settings,
    directory: &StateDirectory,
    secrets: &Secrets,
    state: Option<&State>,
) -> Vec<Finding> {
    if matches!(settings.storage.location, Location::S3(_)) && secrets.aws().is_err() {
        // The secrets' own finding says what to do first.
        return Vec::new();
    }
    let hurried = Storage {
        timeout: settings.storage.timeout.min(PATIENCE),
        retry_for: settings.storage.retry_for.min(PATIENCE),
        ..settings.storage.clone()
    };
    let known = state.is_some_and(|state| state.knows_place(&settings.storage.location).unwrap_or_default());
    if let Location::File(root) = &hurried.location
        && !known
        && !root.exists()
        && root.parent().is_some_and(Path::is_dir)
    {
        return vec![Finding::note(
            SUBJECT,
            format!("{} does not exist yet", root.display()),
            "nothing, if it is a new place: the first run makes it; otherwise mount the disk it lies on",
        )];
    }
    let system = Path::new("/");
    let result = disk::check(system, directory, &hurried.location).and_then(|disk| {
        let store = Store::open(&hurried, &hurried.location, secrets)?;
        let tokens = token::known(directory, &hurried.location);
        look(&store, known, disk.as_ref(), &tokens, || Machine::of(system, &settings.host))
    });
    result
        .unwrap_or_else(|error| vec![Finding::error(SUBJECT, &error, "check [storage] url and that it can be reached")])
}

/// `ours` is this machine, asked only when there is one to compare with.
fn look(
    store: &Store,
    known: bool,
    disk: Option<&Disk>,
    tokens: &[String],
    ours: impl Fn() -> Result<Machine>,
) -> Result<Vec<Finding>> {
    if known {
        // Of a place that is known it only looks.
        place::verify(store, &ours()?, Unowned::Lost, disk, tokens)?;
    }
    let owner = place::owner(store)?;
    let mut findings = Vec::new();
    match &owner {
        Some(owner) => {
            let ours = ours()?;
            owner.is(&ours, tokens, &store.to_string())?;
            findings.extend(owner.renamed(&ours).map(|before| {
                Finding::note(
                    SUBJECT,
                    format!("{store} was written by the machine {before} until now, and [host] name is {}", ours.host),
                    "nothing, if that is a new name of this machine; a clone of its card needs a place of its own in [storage] url",
                )
            }));
        }
        None if store.list("")?.is_empty() => findings.push(Finding::note(
            SUBJECT,
            format!("{store} is empty"),
            "nothing to do before the first run; otherwise check that this is the right place",
        )),
        None => findings.push(Finding::problem(
            SUBJECT,
            format!("{store} is not empty, and says nothing of whose it is"),
            "look at what lies there; if it is this machine's: pi-agent adopt",
        )),
    }
    try_writing(store)?;
    let lacking = |what| {
        let advice = "nothing, if that is known: backups work there; a disk with ext4 has all of it, and one with exFAT or FAT is mounted with \
                      umask=077";
        Finding::note(SUBJECT, format!("the file system of {store} {what}"), advice)
    };
    findings.extend(store.lacks().into_iter().map(lacking));
    findings.push(Finding::ok(SUBJECT, format!("{store} can be read and written")));
    Ok(findings)
}

fn try_writing(store: &Store) -> Result<()> {
    // A name of its own for each try, so that two at once do not disturb each other.
    let key = format!("doctor-{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond());
    let content = Bytes::from_static(b"written and deleted by pi-agent doctor\n");
    let tried = store.put(&key, std::slice::from_ref(&content)).and_then(|()| store.get(&key));
    // Deleted also when the write seemed to fail: it may have arrived.
    let deleted = store.delete(&key);
    let found = tried?;
    deleted.map_err(|error| {
        let advice = format!("allow deleting there, and delete the object {key}");
        Error::new(format!("delete {store}/{key}")).hint(advice).caused_by(error)
    })?;
    if found != content {
        return Err(Error::new(format!("read {store}/{key}: what came back is not what was written"))
            .hint("the disk or the server damages data: do not use it"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::doctor::Severity;

    fn store(path: &Path) -> Store {
        let location = Location::File(path.to_owned());
        let limits = Limits::default();
        let storage = Storage { location: location.clone(), timeout: PATIENCE, retry_for: PATIENCE, limits };
        Store::open(&storage, &location, &Secrets::new("/nowhere")).unwrap()
    }

    fn machine(id: &str) -> Machine {
        Machine { host: "pi".into(), id: id.into(), serial: None }
    }

    fn told(path: &Path) -> Result<Vec<(Severity, String)>> {
        let findings = look(&store(path), false, None, &["token".into()], || Ok(machine("ours")))?;
        Ok(findings.into_iter().map(|finding| (finding.severity, finding.message)).collect())
    }

    #[test]
    fn a_place_is_tried_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let told = told(directory.path()).unwrap();
        assert_eq!(told.iter().map(|(severity, _)| *severity).collect::<Vec<_>>(), [Severity::Note, Severity::Ok]);
        assert!(told[1].1.contains("read and written"), "{told:?}");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn ours_is_well_and_another_machines_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let owned_by = |id: &str, token: &str| {
            place::take_over(&store(directory.path()), &machine(id), None, Some(token.into())).unwrap();
            told(directory.path())
        };
        assert!(matches!(&owned_by("ours", "token").unwrap()[..], [(Severity::Ok, _)]));
        let refused = |told: Result<_>| told.map(|_| ()).unwrap_err().to_string();
        assert!(refused(owned_by("theirs", "token")).contains("belongs to the machine pi"));
        assert!(refused(owned_by("ours", "another")).contains("also writes to"));
    }

    #[test]
    fn what_is_nobodys_or_not_there_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config"), "x").unwrap();
        let told_of_it = told(directory.path()).unwrap();
        assert!(told_of_it.iter().any(|(severity, _)| *severity == Severity::Problem), "{told_of_it:?}");
        assert!(told(&directory.path().join("unmounted")).is_err());
    }
}
