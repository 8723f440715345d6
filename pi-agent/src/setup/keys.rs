//! The secrets directory: keys made once and never replaced, and copies of what a person gave.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::Settings;
use crate::error::{Context, Error, Result};
use crate::secrets::{AwsCredentials, Secret, Secrets, create_private, random, read_private, write_private};
use crate::storage::{Store, place};

/// What opens every backup.
const KEYS: [&str; 2] = ["restic.key", "pgbackrest.key"];

/// No key is missing that opens what is in storage: one that was made anew would open nothing of it.
///
/// # Errors
/// There are backups, and a key of theirs is missing.
pub fn are_not_lost(settings: &Settings) -> Result<()> {
    let missing = |name: &str| settings.secrets.join(name).symlink_metadata().is_err();
    let Some(missing) = KEYS.into_iter().find(|name| missing(name)) else { return Ok(()) };
    let secrets = Secrets::new(&settings.secrets);
    // A new place may not be there yet.
    let Ok(store) = Store::open(&settings.storage, &settings.storage.location, &secrets) else { return Ok(()) };
    match place::owner(&store) {
        Ok(Some(_)) => {
            let path = settings.secrets.join(missing);
            Err(Error::usage(format!("{} is missing, and there are backups in {store}", path.display())).hint(
                "a new key would open none of them: get it from the recovery kit (pi-agent recover --kit FILE --only-files), or name a \
                 new place in [storage] url",
            ))
        }
        _ => Ok(()),
    }
}

/// Makes the directory (0700) and the keys that are missing in it; the names of those that were made.
///
/// # Errors
/// A file cannot be made, or there is no randomness.
pub fn make_missing(directory: &Path) -> Result<Vec<&'static str>> {
    let mut made = Vec::new();
    for name in KEYS {
        let path = directory.join(name);
        // Looked for first only so that no key is thought out in vain; the write itself replaces nothing.
        if path.symlink_metadata().is_err() && create_private(&path, new_key()?.reveal().as_bytes())? {
            made.push(name);
        }
    }
    let doing = || format!("close {} to others", directory.display());
    fs::set_permissions(directory, Permissions::from_mode(0o700)).context(doing)?;
    Ok(made)
}

/// 256 bits as 64 hexadecimal digits: they can be typed in again from paper.
fn new_key() -> Result<Secret> {
    let mut text: String = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    Ok(Secret::new(text))
}

/// The storage keys in a file that a person named, checked.
///
/// # Errors
/// It cannot be read, or lacks a key.
pub fn aws_env(file: &Path) -> Result<Secret> {
    let text = given("--aws-env", file)?;
    AwsCredentials::parse(&text, file).map(|_| text)
}

/// The webhook in a file that a person named.
///
/// # Errors
/// It cannot be read, or has no webhook.
pub fn discord_env(file: &Path) -> Result<Secret> {
    let text = given("--discord-env", file)?;
    if text.reveal().lines().any(|line| line.trim().trim_start_matches("export ").starts_with("DISCORD_WEBHOOK_URL=")) {
        return Ok(text);
    }
    Err(Error::usage(format!("{} has no DISCORD_WEBHOOK_URL", file.display()))
        .hint("it holds one line DISCORD_WEBHOOK_URL=https://discord.com/api/webhooks/…"))
}

fn given(flag: &str, file: &Path) -> Result<Secret> {
    let read = fs::read_to_string(file).context(|| format!("read {flag} {}", file.display()));
    read.map(Secret::new).map_err(|error| error.kind_of(crate::error::Kind::Usage))
}

/// Whether a secret has to be written: not when it is there already.
///
/// # Errors
/// Another one is in its place, and nobody said that it may be replaced.
pub fn is_new(directory: &Path, name: &str, text: &Secret, overwrite: bool) -> Result<bool> {
    let path = directory.join(name);
    match read_private(&path)? {
        Some(old) if old.reveal() == text.reveal() => Ok(false),
        Some(_) if !overwrite => {
            let message = format!("{} holds something else than what is given", path.display());
            Err(Error::usage(message).hint(format!("to replace it: install -m 600 FILE {}", path.display())))
        }
        _ => Ok(true),
    }
}

/// Keeps a secret under that name.
///
/// # Errors
/// It cannot be written.
pub fn keep(directory: &Path, name: &str, text: &Secret) -> Result<()> {
    write_private(&directory.join(name), text.reveal().as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_closed_and_made_once() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("etc/secrets");
        assert_eq!(make_missing(&directory).unwrap(), KEYS);
        let secrets = Secrets::new(&directory);
        let (one, two) = (secrets.restic_key().unwrap(), secrets.pgbackrest_key().unwrap());
        assert!(one.reveal().len() == 64 && one.reveal() != two.reveal());
        fs::remove_file(directory.join("pgbackrest.key")).unwrap();
        assert_eq!(make_missing(&directory).unwrap(), ["pgbackrest.key"]);
        assert_eq!(secrets.restic_key().unwrap().reveal(), one.reveal());
        assert_ne!(secrets.pgbackrest_key().unwrap().reveal(), two.reveal());
        assert!(make_missing(&directory).unwrap().is_empty());
    }

    #[test]
    fn what_is_given_is_checked_and_replaces_nothing_different() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("given");
        fs::write(&file, "AWS_ACCESS_KEY_ID=GK1\n").unwrap();
        assert!(aws_env(&file).unwrap_err().to_string().contains("no AWS_SECRET_ACCESS_KEY"));
        assert!(discord_env(&file).unwrap_err().to_string().contains("no DISCORD_WEBHOOK_URL"));
        let (one, two) = (Secret::new("geheim"), Secret::new("other"));
        assert!(is_new(scratch.path(), "aws.env", &one, false).unwrap());
        keep(scratch.path(), "aws.env", &one).unwrap();
        assert!(!is_new(scratch.path(), "aws.env", &one, false).unwrap());
        let error = is_new(scratch.path(), "aws.env", &two, false).unwrap_err();
        assert!(!error.chain().contains("geheim") && !error.chain().contains("other"));
        assert!(is_new(scratch.path(), "aws.env", &two, true).unwrap());
    }
}
