//! Secrets: root-only files in one directory. Never in argv, logs or errors.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::durable::sync_directory;
use crate::error::Context;
use crate::{Error, Result, config};

/// What some editors begin a file with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Names the directory of the secrets that systemd hands to a service which may not read ours (`LoadCredential=`).
pub const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A secret text; `Debug` and `Display` never show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Random bytes for a key.
///
/// # Errors
/// The kernel gives none.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // Unlike urandom it waits until the kernel has gathered enough, which on a Pi's first boot takes a moment.
    let mut source = File::open("/dev/random").context(|| "open /dev/random".into())?;
    source.read_exact(&mut bytes).context(|| "read /dev/random".into())?;
    Ok(bytes)
}

/// Keys for S3.
#[derive(Clone, Debug)]
pub struct AwsCredentials {
    /// AWS_ACCESS_KEY_ID
    pub access_key: Secret,
    /// AWS_SECRET_ACCESS_KEY
    pub secret_key: Secret,
    /// AWS_SESSION_TOKEN
    pub session_token: Option<Secret>,
}

impl AwsCredentials {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// One of the two keys is missing.
    pub fn parse(text: &Secret, file: &Path) -> Result<Self> {
        let required = |key: &str| {
            variable(text.reveal(), key).ok_or_else(|| {
                Error::usage(format!("read secret {}: it has no {key}", file.display()))
                    .hint(format!("add a line {key}=… to {}", file.display()))
            })
        };
        Ok(Self {
            access_key: required("AWS_ACCESS_KEY_ID")?,
            secret_key: required("AWS_SECRET_ACCESS_KEY")?,
            session_token: variable(text.reveal(), "AWS_SESSION_TOKEN"),
        })
    }
}

/// The secrets directory: `aws.env`, `aws-STEP.env`, `restic.key`, `pgbackrest.key`, `discord.env`, `ntfy.env`, and the agent's own `master-keys/`.
#[derive(Clone, Debug)]
pub struct Secrets {
    directory: PathBuf,
    /// The file of the storage keys.
    aws: String,
}

/// The storage keys of all that this machine stores.
const AWS: &str = "aws.env";

/// The storage keys of what the database's own user does for a step.
fn aws_of(step: &str) -> String {
    format!("aws-{step}.env")
}

impl Secrets {
    /// Names the directory; nothing is read yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), aws: AWS.into() }
    }

    /// With the storage keys of the step's own, `aws-STEP.env`, if there are any. What pgBackRest knows, a superuser of the database can read:
    /// those keys should open nothing else.
    #[must_use]
    pub fn for_the_user_of(mut self, step: &str) -> Self {
        let own = aws_of(step);
        if self.directory.join(&own).exists() {
            self.aws = own;
        }
        self
    }

    /// Whether these are with keys of a step's own: where that file is or comes.
    pub fn own_aws(&self, step: &str) -> (PathBuf, bool) {
        (self.directory.join(aws_of(step)), self.aws != AWS)
    }

    /// The storage keys: lines `KEY=value`.
    ///
    /// # Errors
    /// Missing, readable by others (mode beyond 0600, or not owned by us or root), or without the two keys.
    pub fn aws(&self) -> Result<AwsCredentials> {
        let text = self.read(&self.aws, "lines AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…")?;
        AwsCredentials::parse(&text, &self.directory.join(&self.aws))
    }

    /// `restic.key`: the repositories' password, one line.
    ///
    /// # Errors
    /// As [`Self::aws`]; also when empty.
    pub fn restic_key(&self) -> Result<Secret> {
        self.line("restic.key", "the repositories' password on one line")
    }

    /// Changes whenever `restic.key` does, and says nothing of what is in it.
    ///
    /// # Errors
    /// There is none, or it cannot be looked at.
    pub fn restic_key_stamp(&self) -> Result<String> {
        let file = self.directory.join("restic.key");
        let found = file.metadata().context(|| format!("look at secret {}", file.display())).map_err(usage)?;
        Ok(format!("{}.{:09}", found.ctime(), found.ctime_nsec()))
    }

    /// That restic reads the same password from `restic.key` as we do: it takes white space from both ends of a file, and a byte order
    /// mark from its beginning. What can be opened with pi-agent alone would be lost to whoever has the file and restic.
    ///
    /// # Errors
    /// It does not, or the file cannot be read: see [`Self::restic_key`].
    pub fn restic_reads_the_same(&self) -> Result<()> {
        let password = self.restic_key()?;
        let what = match password.reveal() {
            text if text.starts_with(BYTE_ORDER_MARK) => "begins with a byte order mark",
            text if text.trim() != text => "has white space at an end of its line",
            _ => return Ok(()),
        };
        let file = self.directory.join("restic.key");
        let shown = file.display();
        let message = format!("read secret {shown}: it {what}, which restic does not take for a part of the password");
        Err(Error::usage(message).hint(format!(
            "write the password without it. If repositories were made with it already, leave the file as it is and, for each, let restic know \
             the other, too: RESTIC_PASSWORD=\"$(cat {shown})\" restic -r REPOSITORY key add --new-password-file {shown}"
        )))
    }

    /// `pgbackrest.key`: the cipher passphrase of pgBackRest repositories, one line.
    ///
    /// # Errors
    /// As [`Self::restic_key`].
    pub fn pgbackrest_key(&self) -> Result<Secret> {
        self.line("pgbackrest.key", "the cipher passphrase on one line")
    }

    /// `discord.env`: the webhook's address; `None` when there is no such file.
    ///
    /// # Errors
    /// As [`Self::aws`]; also when it has no address, or one that is neither https nor on loopback.
    pub fn discord(&self) -> Result<Option<Secret>> {
        const KEY: &str = "DISCORD_WEBHOOK_URL";
        let file = self.directory.join("discord.env");
        let Some(text) = self.optional("discord.env")? else { return Ok(None) };
        let url = variable(text.reveal(), KEY).filter(|url| config::is_url(url.reveal())).ok_or_else(|| {
            Error::usage(format!("read secret {}: it has no {KEY} that begins with https://", file.display()))
                .hint(format!("a line {KEY}=https://discord.com/api/webhooks/… in {}", file.display()))
        })?;
        Ok(Some(url))
    }

    /// `ntfy.env`: the token of an ntfy server that wants one; `None` when there is no such file.
    ///
    /// # Errors
    /// As [`Self::aws`]; also when it has no token.
    pub fn ntfy(&self) -> Result<Option<Secret>> {
        const KEY: &str = "NTFY_TOKEN";
        let file = self.directory.join("ntfy.env");
        let Some(text) = self.optional("ntfy.env")? else { return Ok(None) };
        let token = variable(text.reveal(), KEY).ok_or_else(|| {
            Error::usage(format!("read secret {}: it has no {KEY}", file.display()))
                .hint(format!("a line {KEY}=tk_… in {}, or remove the file", file.display()))
        })?;
        Ok(Some(token))
    }

    /// Where the opened master key of a step's repository is kept, `master-keys/STEP.json` (0600 in 0700).
    pub fn master_key_file(&self, step: &str) -> PathBuf {
        self.directory.join("master-keys").join(format!("{step}.json"))
    }

    /// A secret of one line; a trailing newline is not part of it.
    fn line(&self, name: &str, holds: &str) -> Result<Secret> {
        let text = self.read(name, holds)?;
        let line = text.reveal().trim_end_matches(['\r', '\n']);
        let file = self.directory.join(name);
        let wrong = |what: &str| {
            let message = format!("read secret {}: it {what}", file.display());
            Err(Error::usage(message).hint(format!("put {holds} into {}", file.display())))
        };
        match line {
            "" => wrong("is empty"),
            _ if line.contains(['\r', '\n', '\0']) => wrong("has more than one line"),
            _ => Ok(Secret::new(line)),
        }
    }

    /// A secret that need not be there.
    fn optional(&self, name: &str) -> Result<Option<Secret>> {
        if !self.directory.exists() {
            return Ok(None);
        }
        check_directory(&self.directory)?;
        read_private(&self.directory.join(name))
    }

    fn read(&self, name: &str, holds: &str) -> Result<Secret> {
        check_directory(&self.directory)?;
        let file = self.directory.join(name);
        let missing = || {
            let path = file.display();
            // Whoever makes up another one can read nothing that is there.
            let from_kit = if name.ends_with(".key") {
                "get it from the recovery kit: pi-agent recover --kit FILE --only-files. By hand: "
            } else {
                ""
            };
            let command = format!("{from_kit}put {holds} into it, then: chown root: {path} && chmod 600 {path}");
            Error::usage(format!("read secret {path}: it does not exist")).hint(command)
        };
        read_private(&file)?.ok_or_else(missing)
    }
}

/// A text that only we (or root) can read; `None` when there is no such file.
///
/// # Errors
/// Others may read or write it, it belongs to somebody else, it is not UTF-8, or it cannot be read.
pub fn read_private(path: &Path) -> Result<Option<Secret>> {
    let doing = || format!("read secret {}", path.display());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.context(doing).map_err(usage)?,
    };
    // Asked of the open file, so that what is checked is what is read.
    check_access(path, &file.metadata().context(doing)?, "600")?;
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(Error::usage(format!("read secret {}: it is not text", path.display()))
                .hint(format!("replace {} by plain text", path.display())))
        }
        read => read.map(|_| Some(Secret(text))).context(doing),
    }
}

/// Writes a file that only we can read, whole or not at all; its directory is made (0700) when missing.
///
/// # Errors
/// Any of it fails; what was there before is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("write {}", path.display());
    prepared(path, bytes)?.persist(path).map_err(|error| error.error).context(doing)?;
    settle(path).context(doing)
}

/// As [`write_private`], for others to read: with the mode of the file that is there, else with this one.
///
/// # Errors
/// Any of it fails; what was there before is then still there.
pub fn write_shared(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let file = prepared(path, bytes)?;
    // Whoever owns its directory may have put anything there: no more than to read it is taken over.
    let there = path.symlink_metadata().ok().filter(Metadata::is_file).map(|there| there.mode() & 0o644 | 0o600);
    file.as_file().set_permissions(Permissions::from_mode(there.unwrap_or(mode))).context(doing)?;
    file.persist(path).map_err(|error| error.error).context(doing)?;
    settle(path).context(doing)
}

/// As [`write_private`], but never in the place of another: `false` when there is one.
///
/// # Errors
/// Any of it fails.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool> {
    let doing = || format!("write {}", path.display());
    match prepared(path, bytes)?.persist_noclobber(path) {
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        persisted => {
            persisted.map_err(|error| error.error).context(doing)?;
            settle(path).context(doing).map(|()| true)
        }
    }
}

/// The file beside its place, whole and durable. `tempfile` makes it 0600.
fn prepared(path: &Path, bytes: &[u8]) -> Result<tempfile::NamedTempFile> {
    let doing = || format!("write {}", path.display());
    let directory = directory_of(path);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).context(doing)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).context(doing)?;
    file.write_all(bytes).context(doing)?;
    file.as_file().sync_all().context(doing)?;
    Ok(file)
}

/// Makes a new name durable.
fn settle(path: &Path) -> std::io::Result<()> {
    sync_directory(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn check_directory(directory: &Path) -> Result<()> {
    let path = directory.display();
    match std::fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::usage(format!("read secrets directory {path}: it does not exist"))
                .hint(format!("install -d -m 700 {path}")))
        }
        found => {
            check_access(directory, &found.context(|| format!("read secrets directory {path}")).map_err(usage)?, "700")
        }
    }
}

/// Refuses what others than its owner may touch, and owners other than us and root.
fn check_access(path: &Path, found: &Metadata, mode: &str) -> Result<()> {
    if std::env::var_os(CREDENTIALS).is_some_and(|handed_over| path.starts_with(handed_over)) {
        // systemd keeps these to the service's user, by an access list that the mode does not show.
        return Ok(());
    }
    let shown = path.display();
    let us = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != us {
        let message = format!("read secret {shown}: it belongs to user {}, who could change it", found.uid());
        return Err(Error::usage(message).hint(format!("chown root: {shown} && chmod {mode} {shown}")));
    }
    let allowed = found.permissions().mode() & 0o7777;
    if allowed & 0o077 != 0 {
        let message = format!("read secret {shown}: others than its owner may use it (mode {allowed:04o})");
        return Err(Error::usage(message).hint(format!("chmod {mode} {shown}")));
    }
    Ok(())
}

/// The value of `KEY=value`, as shells and systemd's EnvironmentFile read it: `export ` and one pair of quotes around it go.
fn variable(text: &str, key: &str) -> Option<Secret> {
    let value = text.lines().rev().find_map(|line| {
        let line = line.trim();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })?;
    let inside = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Some(inside.unwrap_or(value)).filter(|value| !value.is_empty()).map(Secret::new)
}

fn usage(error: Error) -> Error {
    error.kind_of(crate::error::Kind::Usage)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::{set_permissions, write};

    use super::*;
    use crate::error::Kind;

    struct Case {
        directory: tempfile::TempDir,
    }

    impl Case {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
            Self { directory }
        }

        fn secrets(&self) -> Secrets {
            Secrets::new(self.directory.path())
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.directory.path().join(name);
            write(&path, text).unwrap();
            set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            path
        }
    }

    /// Refused as a usage error that names the file, with that advice.
    fn refused<T>(result: Result<T>, path: &Path, what: &str, advice: &str) {
        let error = result.err().expect("it is refused");
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.chain().contains(&path.display().to_string()), "{}", error.chain());
        assert!(error.chain().contains(what), "{}", error.chain());
        assert!(error.advice().unwrap().contains(advice), "{:?}", error.advice());
    }

    #[test]
    fn a_key_is_one_line() {
        let case = Case::new();
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            case.file("restic.key", text, 0o600);
            assert_eq!(case.secrets().restic_key().unwrap().reveal(), "correct horse");
        }
        let path = case.file("restic.key", "\n", 0o600);
        refused(case.secrets().restic_key(), &path, "is empty", "put ");
        case.file("restic.key", "one\ntwo\n", 0o400);
        refused(case.secrets().restic_key(), &path, "more than one line", "put ");
        assert!(!case.secrets().restic_key().unwrap_err().chain().contains("one\n"));
    }

    #[test]
    fn a_key_that_restic_reads_otherwise_is_told() {
        let case = Case::new();
        for text in ["correct horse\n", "correct horse\r\n", "pässword", "a\u{feff}b"] {
            case.file("restic.key", text, 0o600);
            case.secrets().restic_reads_the_same().unwrap();
        }
        for text in ["horse ", " horse\n", "horse\t\n", "\u{feff}horse\n", "horse\u{a0}", "horse \r\n", " "] {
            let path = case.file("restic.key", text, 0o600);
            assert_eq!(case.secrets().restic_key().unwrap().reveal(), text.trim_end_matches(['\r', '\n']), "as it was");
            refused(case.secrets().restic_reads_the_same(), &path, "restic does not take", "key add");
        }
        let path = case.file("restic.key", "one\ntwo\n", 0o600);
        refused(case.secrets().restic_reads_the_same(), &path, "more than one line", "put ");
    }

    #[test]
    fn missing_ones_say_what_to_make() {
        let case = Case::new();
        let path = case.directory.path().join("pgbackrest.key");
        let advice = format!("chmod 600 {}", path.display());
        refused(case.secrets().pgbackrest_key(), &path, "does not exist", &advice);
        let nowhere = case.directory.path().join("nowhere");
        refused(Secrets::new(&nowhere).aws(), &nowhere, "does not exist", "install -d -m 700 ");
    }

    #[test]
    fn what_others_can_touch_is_refused() {
        let case = Case::new();
        for mode in [0o604, 0o640, 0o620, 0o602, 0o777] {
            let path = case.file("restic.key", "word", mode);
            refused(
                case.secrets().restic_key(),
                &path,
                &format!("{mode:04o}"),
                &format!("chmod 600 {}", path.display()),
            );
        }
        case.file("restic.key", "word", 0o600);
        set_permissions(case.directory.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let advice = format!("chmod 700 {}", case.directory.path().display());
        refused(case.secrets().restic_key(), case.directory.path(), "0750", &advice);
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            // Only root can give a file away; what can be asked without that is that the check passes on our own.
            let case = Case::new();
            case.file("restic.key", "word", 0o600);
            assert_eq!(case.secrets().restic_key().unwrap().reveal(), "word");
            return;
        }
        let case = Case::new();
        let path = case.file("restic.key", "word", 0o600);
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        refused(case.secrets().restic_key(), &path, "belongs to user 12345", "chown root: ");
    }

    #[test]
    fn environment_files_are_read_as_shells_do() {
        let case = Case::new();
        let path = case.file(
            "aws.env",
            "# keys\r\nexport AWS_ACCESS_KEY_ID=\"AKIA=1\"\r\n\nAWS_SECRET_ACCESS_KEY = 'se\"cret'\nAWS_SESSION_TOKEN=\n",
            0o600,
        );
        let keys = case.secrets().aws().unwrap();
        assert_eq!(keys.access_key.reveal(), "AKIA=1");
        assert_eq!(keys.secret_key.reveal(), "se\"cret");
        assert!(keys.session_token.is_none());
        assert!(!format!("{keys:?}").contains("AKIA"));
        case.file("aws.env", "AWS_ACCESS_KEY_ID=AKIA\n#AWS_SECRET_ACCESS_KEY=no\n", 0o600);
        refused(case.secrets().aws(), &path, "no AWS_SECRET_ACCESS_KEY", "add a line AWS_SECRET_ACCESS_KEY=");
        write(&path, b"AWS_ACCESS_KEY_ID=\xff").unwrap();
        refused(case.secrets().aws(), &path, "not text", "replace ");
    }

    #[test]
    fn what_we_write_only_we_can_read() {
        let case = Case::new();
        let path = case.secrets().master_key_file("foundry");
        assert!(read_private(&path).unwrap().is_none());
        for text in ["one", "two"] {
            write_private(&path, text.as_bytes()).unwrap();
            assert_eq!(read_private(&path).unwrap().unwrap().reveal(), text);
        }
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(!create_private(&path, b"three").unwrap());
        assert_eq!(read_private(&path).unwrap().unwrap().reveal(), "two", "a key that exists stays");
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn no_keys_panic_or_are_shown() {
        let keys = "# of the bucket\nexport AWS_ACCESS_KEY_ID='AKIA'\nAWS_SECRET_ACCESS_KEY=\"ge heim\"\nAWS_SESSION_TOKEN=x\n";
        crate::fuzzed::fuzz_text(&[keys], |text| {
            if let Err(error) = AwsCredentials::parse(&Secret::new(text), Path::new("/aws.env")) {
                assert!(!error.chain().contains("AKIA") && !error.chain().contains("heim"), "{error}");
            }
        });
    }

    #[test]
    fn what_lies_in_a_files_place_gives_it_no_more_rights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        let mode = || path.symlink_metadata().unwrap().mode() & 0o7777;
        for (there, then) in [(None, 0o600), (Some(0o6777), 0o644), (Some(0o640), 0o640), (Some(0o000), 0o600)] {
            if let Some(there) = there {
                set_permissions(&path, Permissions::from_mode(there)).unwrap();
            }
            write_shared(&path, b"x", 0o600).unwrap();
            assert_eq!(mode(), then, "{there:?}");
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/usr/bin/env", &path).unwrap();
        write_shared(&path, b"x", 0o600).unwrap();
        assert_eq!(mode(), 0o600, "a link's goal is another's affair");
    }
}
