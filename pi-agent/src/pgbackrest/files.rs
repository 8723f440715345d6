//! The generated configuration, its folder, and the repository's folder.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use super::View;
use crate::config::{Limits, Location, Postgres, S3Location, Settings, Step};
use crate::error::{Context, Error, Result};
use crate::process::{self, User};
use crate::secrets::Secrets;
use crate::theirs;

/// Where things lie that one stanza's commands need.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The folder of all of them: ours, with files in it that are the user's alone.
    pub(super) home: PathBuf,
    server: PathBuf,
    repository: PathBuf,
    /// The step's folder, in a folder as storage.
    folder: Option<PathBuf>,
}

impl Files {
    pub(super) fn config(&self, view: View) -> &Path {
        match view {
            View::Server => &self.server,
            View::Repository => &self.repository,
        }
    }

    /// Makes the step's folder. Only who makes a stanza needs it: who reads leaves a new place as it is.
    pub(super) fn make_folder(&self, user: &User) -> Result<()> {
        self.folder.as_ref().map_or(Ok(()), |folder| theirs::make(folder, user, 0o750))
    }
}

/// Who pgBackRest must be: the owner of the data directory; on a blank machine the owner of the repository, else `postgres`.
///
/// # Errors
/// There is no such user, or it is root, as which PostgreSQL does not run.
pub fn server_user(settings: &Settings, step: &Step, postgres: &Postgres) -> Result<User> {
    let repository = match settings.storage.location.join(&step.name) {
        Location::File(path) => path,
        Location::S3(_) => PathBuf::new(),
    };
    let places = [&postgres.data_directory, &repository, &settings.local.spool.join(&postgres.stanza)];
    let Some(place) = places.into_iter().find(|path| path.exists()) else {
        return User::named("postgres").map_err(|error| error.hint("apt install postgresql"));
    };
    let user = match postgres.container {
        Some(_) => User::in_container_owning(place)?,
        // Data whose owner has no name is that of a container which is still to be made, in a recovery.
        None if *place == postgres.data_directory => {
            User::owner_of(place).or_else(|_| User::in_container_owning(place))?
        }
        None => User::owner_of(place).map_err(|error| error.hint("apt install postgresql"))?,
    };
    if user.uid == 0 {
        return Err(Error::new(format!("{} belongs to root", place.display()))
            .hint("PostgreSQL runs as a user of its own: chown -R it to that one"));
    }
    Ok(user)
}

/// Where the folders of all stanzas are.
fn homes(runtime: &Path) -> PathBuf {
    runtime.join("pgbackrest")
}

/// Ends the workers of commands that were killed. Each would go on with what it was given, into directories that belong to
/// another run by then: an old file over one that has been recovered meanwhile.
///
/// # Errors
/// One does not end.
pub fn end_left(runtime: &Path) -> Result<()> {
    process::end_outliving(&format!("--config={}/", homes(runtime).display()))
}

/// Makes a stanza's folder: two servers may have two users. In one that is the user's, as it was once, names may lead anywhere.
fn our_folder(home: &Path) -> Result<()> {
    let doing = || format!("make the directory {}", home.display());
    let is_ours = |found: fs::Metadata| found.is_dir() && found.uid() == geteuid().as_raw();
    if home.symlink_metadata().is_ok_and(|found| !is_ours(found)) {
        fs::remove_dir_all(home).context(doing)?;
    }
    fs::create_dir_all(home).context(doing)?;
    fs::set_permissions(home, Permissions::from_mode(0o711)).context(doing)
}

/// Writes both configurations.
pub(super) fn write(settings: &Settings, step: &Step, postgres: &Postgres, user: &User) -> Result<Files> {
    let home = homes(&settings.local.runtime).join(&postgres.stanza);
    let (lock, spool) = (home.join("lock"), home.join("spool"));
    our_folder(&home)?;
    theirs::make(&lock, user, 0o700)?;
    theirs::make(&spool, user, 0o700)?;
    // Made with whatever umask we have: a unit's is 077.
    let_through(&settings.local.runtime)?;
    let_through(&homes(&settings.local.runtime))?;

    let secrets = Secrets::new(&settings.secrets).for_the_user_of(&step.name);
    let mut folder = None;
    let mut text = common(&secrets)?;
    line(&mut text, "lock-path", &lock.to_string_lossy())?;
    // Its own default is `postgres`'s alone, and a restore looks into it.
    line(&mut text, "spool-path", &spool.to_string_lossy())?;
    match settings.storage.location.join(&step.name) {
        Location::File(path) => {
            repository_folder(&settings.storage.location, &path, user)?;
            line(&mut text, "repo1-type", "posix")?;
            line(&mut text, "repo1-path", &path.to_string_lossy())?;
            folder = Some(path);
        }
        Location::S3(s3) => {
            s3_options(&mut text, &s3, &secrets, &home, user)?;
            let slack = slack(&settings.storage.limits);
            if !slack.is_zero() {
                // Its default of a minute is how long a request may wait in the relay's queue. At most as long as a process
                // of pgBackRest's waits for another.
                line(&mut text, "io-timeout", &(60 + slack.as_secs()).min(1800).to_string())?;
            }
        }
    }
    let files = Files { server: home.join("server.conf"), repository: home.join("repository.conf"), folder, home };
    // 2.45 wants the stanza named in the file only for its own options, so this one has none.
    replace(&files.repository, &text, user)?;
    if postgres.data_directory.as_os_str().is_empty() {
        // Of a container that nobody has looked into: what a backup at work has found stays.
        return Ok(files);
    }
    text.push_str(&format!("[{}]\n", postgres.stanza));
    line(&mut text, "pg1-path", &postgres.data_directory.to_string_lossy())?;
    line(&mut text, "pg1-port", &postgres.port.to_string())?;
    if let Some(role) = &postgres.user {
        line(&mut text, "pg1-user", role)?;
    }
    replace(&files.server, &text, user)?;
    Ok(files)
}

/// How much longer everything may take at the lowest rate of the day: the time of a WAL segment, which is also about what
/// may wait before one byte.
pub(super) fn slack(limits: &Limits) -> Duration {
    const WAITING: u64 = 16 << 20;
    limits.lowest().map_or(Duration::ZERO, |rate| Duration::from_secs(WAITING / rate.max(1)))
}

fn common(secrets: &Secrets) -> Result<String> {
    let mut text = String::from("# Written by pi-agent before each use.\n[global]\n");
    line(&mut text, "repo1-cipher-type", "aes-256-cbc")?;
    line(&mut text, "repo1-cipher-pass", secrets.pgbackrest_key()?.reveal())?;
    // Small files lie together in bundles: fewer requests and less to list.
    line(&mut text, "repo1-bundle", "y")?;
    // Never by itself: the victims are chosen by `retention`.
    line(&mut text, "repo1-retention-full", "9999999")?;
    line(&mut text, "compress-type", "zst")?;
    line(&mut text, "process-max", "2")?;
    line(&mut text, "log-level-file", "off")?;
    line(&mut text, "log-level-console", "off")?;
    line(&mut text, "log-level-stderr", "warn")?;
    Ok(text)
}

fn s3_options(text: &mut String, s3: &S3Location, secrets: &Secrets, home: &Path, user: &User) -> Result<()> {
    let keys = secrets.aws()?;
    let (host, port) = endpoint(s3)?;
    line(text, "repo1-type", "s3")?;
    line(text, "repo1-path", &format!("/{}", s3.prefix))?;
    line(text, "repo1-s3-bucket", &s3.bucket)?;
    line(text, "repo1-s3-region", &s3.region)?;
    line(text, "repo1-s3-endpoint", &host)?;
    line(text, "repo1-storage-port", &port.to_string())?;
    line(text, "repo1-s3-uri-style", if s3.path_style { "path" } else { "host" })?;
    line(text, "repo1-s3-key", keys.access_key.reveal())?;
    line(text, "repo1-s3-key-secret", keys.secret_key.reveal())?;
    if let Some(token) = &keys.session_token {
        line(text, "repo1-s3-token", token.reveal())?;
    }
    if let Some(ca) = &s3.ca_file {
        // A copy, because the original may lie where only root may look.
        let copy = home.join("ca.pem");
        let pem = fs::read_to_string(ca).context(|| format!("read the ca-file {}", ca.display()))?;
        replace(&copy, &pem, user)?;
        line(text, "repo1-storage-ca-file", &copy.to_string_lossy())?;
    }
    Ok(())
}

/// Host and port of the endpoint.
fn endpoint(s3: &S3Location) -> Result<(String, u16)> {
    let Some(url) = &s3.endpoint else { return Ok((format!("s3.{}.amazonaws.com", s3.region), 443)) };
    let Some(rest) = url.strip_prefix("https://") else {
        return Err(Error::usage(format!("[storage] endpoint {url}: pgBackRest speaks S3 over TLS only"))
            .hint("give the endpoint an https:// address; a private certificate authority goes into ca-file"));
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse().context(|| format!("understand the port of the endpoint {url}"))?;
            Ok((host.into(), port))
        }
        _ => Ok((rest.into(), 443)),
    }
}

/// Adds `key=value`; a line break in a value would be another option.
fn line(text: &mut String, key: &str, value: &str) -> Result<()> {
    if value.contains(['\n', '\r', '\0']) {
        // The value may be a secret.
        return Err(Error::usage(format!("pgBackRest's option {key} cannot hold a line break")));
    }
    text.push_str(&format!("{key}={value}\n"));
    Ok(())
}

/// Replaces a file atomically, 0600, owned by the user: a WAL push may be reading the old one at this moment.
pub(super) fn replace(path: &Path, text: &str, user: &User) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let folder = path.parent().ok_or_else(|| Error::new(doing()))?;
    // Created 0600 by tempfile.
    let mut file = tempfile::NamedTempFile::new_in(folder).context(doing)?;
    file.write_all(text.as_bytes()).context(doing)?;
    if geteuid().is_root() {
        fchown(file.as_file(), Some(user.uid), Some(user.gid)).context(doing)?;
    }
    file.persist(path).context(doing)?;
    Ok(())
}

/// Makes sure that the step's folder can be used, if there is one, and that the storage folder exists: where a disk is not mounted, none
/// may appear.
fn repository_folder(storage: &Location, folder: &Path, user: &User) -> Result<()> {
    if let Location::File(root) = storage {
        if !root.is_dir() {
            return Err(Error::new(format!("the storage folder {} does not exist", root.display()))
                .kind_of(crate::error::Kind::NotFound)
                .hint("is its disk mounted? if it is new: mkdir it"));
        }
        let_through(root)?;
    }
    if folder.exists() { theirs::make(folder, user, 0o750) } else { Ok(()) }
}

/// Lets other users pass through a directory of ours, without letting them list it.
///
/// # Errors
/// Its mode cannot be read or changed.
pub fn let_through(path: &Path) -> Result<()> {
    let mode = path.metadata().context(|| format!("look at {}", path.display()))?.mode();
    if mode & 0o001 == 0 {
        let opened = Permissions::from_mode((mode & 0o7777) | 0o001);
        fs::set_permissions(path, opened).context(|| format!("let the server's user through {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: Option<&str>) -> S3Location {
        S3Location {
            bucket: "b".into(),
            prefix: "p".into(),
            region: "ap-southeast-2".into(),
            endpoint: endpoint.map(str::to_owned),
            path_style: true,
            ca_file: None,
        }
    }

    #[test]
    fn endpoints_give_host_and_port() {
        let of = |text| endpoint(&place(text));
        assert_eq!(of(None).expect("AWS"), ("s3.ap-southeast-2.amazonaws.com".into(), 443));
        assert_eq!(of(Some("https://garage.home:3900")).expect("https"), ("garage.home".into(), 3900));
        assert_eq!(of(Some("https://garage.home")).expect("https"), ("garage.home".into(), 443));
        assert!(of(Some("http://127.0.0.1:3900")).expect_err("no TLS").to_string().contains("TLS only"));
    }

    #[test]
    fn a_line_break_is_refused_without_showing_the_value() {
        let error = line(&mut String::new(), "repo1-cipher-pass", "geheim\nlog-path=/x").expect_err("two lines");
        assert!(!error.chain().contains("geheim"));
    }
}
