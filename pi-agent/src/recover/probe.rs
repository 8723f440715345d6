//! Before anything is touched: does the storage answer with what the kit holds, and do its keys open what lies there?

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use serde::Deserialize;
use tempfile::TempDir;

use super::{files, newest};
use crate::config::{AGENT, Location, Settings, Source};
use crate::error::{Context, Error, Kind, Result};
use crate::kit::Found;
use crate::pgbackrest::let_through;
use crate::report::words;
use crate::repository::{NOT_ITS_PASSWORD, Repository};
use crate::restore::At;
use crate::secrets::Secrets;
use crate::storage::{SMALL, Store, place};

/// What the storage tells.
pub struct Told {
    /// Whose place it was, when it says so.
    pub host: Option<String>,
    /// The kit holds the configuration that was saved then, after it was made.
    pub configuration: Option<Timestamp>,
}

/// The kit's settings with its files in a directory of their own: they reach the storage before anything is touched.
pub struct Trial {
    pub settings: Settings,
    aside: TempDir,
    /// For what pgBackRest is told, as whoever it runs as: the place of it all is not yet anybody's.
    _runtime: TempDir,
}

impl Trial {
    /// Puts the kit's files there.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn of(kit: &Found) -> Result<Self> {
        // In memory on most machines: it holds the keys.
        let runtime = &kit.settings.local.runtime;
        let doing = || format!("make a directory in {} to try the kit in", runtime.display());
        std::fs::create_dir_all(runtime).context(doing)?;
        let private = |prefix| {
            let mode = Permissions::from_mode(0o700);
            tempfile::Builder::new().prefix(prefix).permissions(mode).tempdir_in(runtime).context(doing)
        };
        let (aside, own_runtime) = (private("kit-")?, private("trial-")?);
        let_through(runtime)?;
        files::put_below(&kit.files, aside.path())?;
        let mut settings = kit.settings.clone();
        settings.secrets = aside.path().into();
        settings.local.cache = aside.path().join("cache");
        settings.local.runtime = own_runtime.path().into();
        if let Location::S3(s3) = &mut settings.storage.location {
            s3.ca_file = s3.ca_file.is_some().then(|| aside.path().join("ca.pem"));
        }
        Ok(Self { settings, aside, _runtime: own_runtime })
    }
}

/// Tries the kit, and brings its configuration up to date.
///
/// # Errors
/// The storage does not answer, holds no backups, or the kit's keys do not open them: then with when the keys were changed.
pub fn probe(kit: &mut Found, at: &At) -> Result<Told> {
    let Trial { settings, aside, .. } = &Trial::of(kit)?;
    let secrets = Secrets::new(&settings.secrets);
    let store = Store::open(&settings.storage, &settings.storage.location, &secrets)?;
    let owner = place::owner(&store).or_else(|error| match error.kind() {
        // A damaged marker is written anew.
        Kind::Permanent => Ok(None),
        _ => Err(error),
    })?;
    opens(settings, kit, &store, &secrets)?;
    let configuration = newest::configuration(kit, settings, aside.path(), at);
    Ok(Told { host: owner.map(|owner| owner.host), configuration })
}

/// One repository is enough: all have the same key. The agent's own is the smallest. One that is damaged hinders no other, and
/// does not hinder what can still be read of itself.
fn opens(settings: &Settings, kit: &Found, store: &Store, secrets: &Secrets) -> Result<()> {
    let directories = settings.steps.iter().filter(|step| matches!(step.source, Source::Directory(_)));
    let mut damaged = None;
    for name in std::iter::once(AGENT).chain(directories.map(|step| step.name.as_str())) {
        match Repository::open_what_is_left(settings, name, store.join(name), secrets) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(()),
            Err(error) if is_wrong_password(&error) => return Err(wrong_key(&store.join(name), kit, error)),
            Err(error) if error.is_unread() || error.kind() == Kind::Usage => return Err(error),
            Err(error) => damaged = damaged.or(Some(error)),
        }
    }
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    let databases = settings.steps.iter().filter(|step| step.postgres().is_some());
    for step in databases {
        if !store.join(&step.name).list("")?.is_empty() {
            return Ok(());
        }
    }
    Err(Error::new(format!("{store} holds no backups"))
        .kind_of(Kind::NotFound)
        .hint("is the disk mounted, and is it the right one? `Backups` at the top of the kit says where they are"))
}

fn is_wrong_password(error: &Error) -> bool {
    error.kind() == Kind::Usage && error.to_string().ends_with(NOT_ITS_PASSWORD)
}

/// A key file of restic's format tells when it was made.
#[derive(Deserialize)]
struct KeyFile {
    created: Option<Timestamp>,
}

/// A key of before a rotation is the likely reason, so both times are told.
fn wrong_key(store: &Store, kit: &Found, error: Error) -> Error {
    let wrong = Error::usage(format!("the kit's keys ({}) do not open {store}", kit.marks.keys)).caused_by(error);
    let made = kit.made_at.map_or_else(String::new, |made| format!("; this kit is of {}", words::time(made)));
    wrong.hint(match changed(store) {
        Some(changed) => {
            format!("the keys there were made on {}{made}: look for a kit that was made later", words::time(changed))
        }
        None => format!("look for another kit of this machine{made}"),
    })
}

/// When the newest key of a repository was made.
fn changed(store: &Store) -> Option<Timestamp> {
    let keys = store.list("keys/").ok()?;
    let created = |key: &str| serde_json::from_slice::<KeyFile>(&store.get_small(key, SMALL).ok()?).ok()?.created;
    keys.iter().filter_map(|(key, _)| created(key)).max()
}
