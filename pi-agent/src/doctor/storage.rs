//! Storage: reachable, ours, writable. Tried with a small object that is written, read back and deleted.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::Finding;
use crate::Error;
use crate::config::{Settings, Storage};
use crate::secrets::Secrets;
use crate::storage::{Store, place};

const SUBJECT: &str = "storage";
/// A person waits for the answer; a backup's patience would be minutes.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn examine(settings: &Settings, secrets: &Secrets) -> Vec<Finding> {
    if matches!(settings.storage.location, crate::config::Location::S3(_)) && secrets.aws().is_err() {
        // The secrets' own finding says what to do first.
        return Vec::new();
    }
    let hurried = Storage {
        timeout: settings.storage.timeout.min(PATIENCE),
        retry_for: settings.storage.retry_for.min(PATIENCE),
        ..settings.storage.clone()
    };
    let result = Store::open(&hurried, &hurried.location, secrets).and_then(|store| look(&store, settings));
    result
        .unwrap_or_else(|error| vec![Finding::error(SUBJECT, &error, "check [storage] url and that it can be reached")])
}

fn look(store: &Store, settings: &Settings) -> Result<Vec<Finding>, Error> {
    let ours = place::machine_id(Path::new("/"))?;
    let owner = place::owner(store)?;
    if let Some(owner) = &owner
        && owner.machine_id != ours
    {
        let message = format!("{store} belongs to the machine {} since {:.0}", owner.host, owner.since);
        let advice = "give this machine a place of its own in [storage] url; if it replaces that one: pi-agent adopt";
        return Ok(vec![Finding::problem(SUBJECT, message, advice)]);
    }
    let mut findings = Vec::new();
    match &owner {
        Some(owner) if owner.host != settings.host => findings.push(Finding::note(
            SUBJECT,
            format!(
                "{store} was made by this machine under the name {}, now [host] name is {}",
                owner.host, settings.host
            ),
            "set [host] name back, or let `pi-agent adopt` write down the new one",
        )),
        Some(_) => {}
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
    findings.push(Finding::ok(SUBJECT, format!("{store} can be read and written")));
    Ok(findings)
}

fn try_writing(store: &Store) -> Result<(), Error> {
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
