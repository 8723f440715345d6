//! The recovery kit: one printable text with everything that a blank machine needs to get everything back. Until it lies
//! somewhere else, the only key to the backups is on the card that they protect.
//!
//! [`gather`] collects, [`text`] writes, [`read()`] takes it apart again, [`record`] remembers that it was made and saved.

mod read;
pub mod record;
pub mod text;

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::config::{Location, Settings, StateDirectory, Step};
use crate::error::{Context, Error, Kind, Result};
use crate::pgbackrest;
use crate::repository::Repository;
use crate::secrets::{Secret, read_private, write_private};
use crate::steps::postgres::container::data_on_this_machine;
use crate::storage::place;

pub use read::{Found, read};
use record::Record;

/// Everything that the text tells.
#[derive(Debug)]
pub struct Kit {
    /// The configuration it belongs to.
    pub settings: Settings,
    /// `/etc/machine-id`, when there is one.
    pub machine_id: Option<String>,
    /// When it was made.
    pub made_at: Timestamp,
    /// Which keys and which access it holds.
    pub marks: Marks,
    /// The installed pgBackRest.
    pub pgbackrest: Option<String>,
    /// The clusters.
    pub postgres: Vec<Cluster>,
    /// The files it holds, in the order of the text.
    pub files: Vec<KitFile>,
}

/// Where a cluster is at home: what a blank machine cannot find out when a container holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The step.
    pub step: String,
    /// PostgreSQL's major version.
    pub major: String,
    /// Its data directory on this machine.
    pub data: Option<PathBuf>,
    /// User and group that the data belongs to.
    pub owner: Option<(u32, u32)>,
}

/// A file, exactly.
#[derive(Debug)]
pub struct KitFile {
    /// What it is called in the text.
    pub name: &'static str,
    /// Where it belongs.
    pub path: PathBuf,
    /// What it holds.
    pub content: Secret,
}

/// Short hashes that tell kits apart and reveal nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Of `restic.key` and `pgbackrest.key`.
    pub keys: String,
    /// Of the storage's place and its credentials.
    pub access: String,
}

impl Marks {
    /// Those of the secrets that are there now.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn of(settings: &Settings) -> Result<Self> {
        required(settings, "restic.key")?;
        Self::from(settings, |name| secret(settings, name))
    }

    /// Those of the secrets that `secret` gives.
    fn from(settings: &Settings, secret: impl Fn(&str) -> Result<Option<Secret>>) -> Result<Self> {
        let line = |secret: &Secret| secret.reveal().trim_end_matches(['\r', '\n']).to_owned();
        let key = |name: &str| Ok::<_, Error>(secret(name)?.map(|secret| line(&secret)).unwrap_or_default());
        let keys = mark("keys", &[&key("restic.key")?, &key("pgbackrest.key")?]);
        // A folder needs no credentials.
        let (place, aws) = match &settings.storage.location {
            Location::File(_) => (settings.storage.location.to_string(), String::new()),
            Location::S3(s3) => (
                format!("{} {} {}", settings.storage.location, s3.region, s3.endpoint.as_deref().unwrap_or("")),
                secret("aws.env")?.map(|secret| secret.reveal().to_owned()).unwrap_or_default(),
            ),
        };
        Ok(Self { keys, access: mark("access", &[&place, &aws]) })
    }

    /// The word that stands in the kit and nowhere else.
    pub fn word(&self) -> String {
        mark("word", &[&self.keys])
    }
}

/// 32 bits of a hash as `1a2b-3c4d`: enough to tell kits apart, too few to test guesses of a key with.
fn mark(what: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in std::iter::once(&what).chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    format!("{:02x}{:02x}-{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
}

/// Collects it. `root` is `/` but in tests.
///
/// # Errors
/// A secret that is needed is missing, or a file cannot be read.
pub fn gather(settings: &Settings, root: &Path) -> Result<Kit> {
    let marks = Marks::of(settings)?;
    let directory = &settings.secrets;
    let mut files = vec![KitFile {
        name: "restic.key",
        path: directory.join("restic.key"),
        content: required(settings, "restic.key")?,
    }];
    let mut add = |name: &'static str| -> Result<()> {
        let path = directory.join(name);
        files.extend(secret(settings, name)?.map(|content| KitFile { name, path, content }));
        Ok(())
    };
    add("pgbackrest.key")?;
    match &settings.storage.location {
        Location::S3(_) => files.push(KitFile {
            name: "aws.env",
            path: directory.join("aws.env"),
            content: required(settings, "aws.env")?,
        }),
        Location::File(_) => {}
    }
    if let Some(content) = secret(settings, "discord.env")? {
        files.push(KitFile { name: "discord.env", path: directory.join("discord.env"), content });
    }
    if let Location::S3(s3) = &settings.storage.location
        && let Some(ca) = &s3.ca_file
    {
        files.push(KitFile { name: "ca.pem", path: ca.clone(), content: plain(ca)? });
    }
    files.push(KitFile { name: "config.toml", path: settings.file.clone(), content: plain(&settings.file)? });
    let cluster = |step: &Step| {
        let data = data_on_this_machine(step.postgres()?)?;
        let major = std::fs::read_to_string(data.join("PG_VERSION")).ok()?.trim().to_owned();
        let owner = data.metadata().ok().map(|found| (found.uid(), found.gid()));
        Some(Cluster { step: step.name.clone(), major, data: Some(data), owner })
    };
    let postgres: Vec<_> = settings.steps.iter().filter_map(cluster).collect();
    let has_databases = settings.steps.iter().any(|step| step.postgres().is_some());
    Ok(Kit {
        settings: settings.clone(),
        machine_id: place::machine_id(root).ok(),
        made_at: Timestamp::now(),
        marks,
        pgbackrest: has_databases.then(pgbackrest::version).and_then(Result::ok).map(|version| version.to_string()),
        postgres,
        files,
    })
}

fn secret(settings: &Settings, name: &str) -> Result<Option<Secret>> {
    read_private(&settings.secrets.join(name))
}

fn required(settings: &Settings, name: &str) -> Result<Secret> {
    let path = settings.secrets.join(name);
    secret(settings, name)?.ok_or_else(|| {
        Error::usage(format!("read secret {}: it does not exist", path.display()))
            .hint("pi-agent doctor says what to put there")
    })
}

fn plain(path: &Path) -> Result<Secret> {
    std::fs::read_to_string(path).map(Secret::new).context(|| format!("read {}", path.display()))
}

/// Where the kit goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// This file.
    File(PathBuf),
    /// Standard output.
    Output,
}

/// Makes the kit and records that it was made.
///
/// # Errors
/// It cannot be gathered or written, or another file is in its place.
pub fn make(settings: &Settings, directory: &StateDirectory, to: &To) -> Result<Kit> {
    let kit = gather(settings, Path::new("/"))?;
    the_keys_open(settings)?;
    let text = text::text(&kit);
    match to {
        To::File(file) => write(file, &text)?,
        To::Output => {
            std::io::stdout().lock().write_all(text.reveal().as_bytes()).context(|| "write the recovery kit".into())?;
        }
    }
    Record::made(&kit.marks, kit.made_at, record::read(directory)?.as_ref()).write(directory)?;
    Ok(kit)
}

/// A kit whose password opens nothing would take the place of one that does. What cannot be reached just now says nothing.
fn the_keys_open(settings: &Settings) -> Result<()> {
    for step in settings.steps.iter().filter(|step| step.postgres().is_none()) {
        if let Ok(Err(error)) = Repository::password_opens(settings, &step.name)
            && error.kind() == Kind::Usage
        {
            let message = format!("no kit was made: with it what {} has stored could not be read", step.name);
            return Err(Error::usage(message).caused_by(error).hint(
                "keep the kit that you have: the right keys are in it (pi-agent recover --kit FILE --only-files); \
                 for a new beginning with these keys name another place in [storage] url",
            ));
        }
    }
    Ok(())
}

/// Only over an older kit, and into a directory that exists: a disk that is not mounted gets none.
fn write(file: &Path, text: &Secret) -> Result<()> {
    let shown = file.display();
    if !file.parent().is_some_and(Path::is_dir) {
        return Err(Error::usage(format!("write the recovery kit {shown}: its directory does not exist"))
            .hint("mount the disk or make the directory first"));
    }
    match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(old) if old.starts_with(text::TITLE.as_bytes()) => {}
        Ok(_) => {
            return Err(Error::usage(format!("write the recovery kit {shown}: another file is there"))
                .hint("name another file"));
        }
        Err(error) => {
            return Err(Error::new(format!("write the recovery kit {shown}")).kind_of(Kind::Usage).caused_by(error));
        }
    }
    write_private(file, text.reveal().as_bytes())
}
