//! The configuration and secrets of one host, written as a person would.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Agent, Garage};

/// `ROOT/etc/config.toml` with its secrets, and every directory the agent keeps under `ROOT`.
#[derive(Clone, Debug)]
pub struct Config {
    root: PathBuf,
    storage: String,
    spool: PathBuf,
    local: String,
    extra: String,
    gives_way: bool,
    steps: String,
    aws: Option<(String, String)>,
    /// As restic names what the steps' repositories are in.
    repositories: String,
    ca_file: Option<PathBuf>,
}

impl Config {
    /// The password of the repositories.
    pub const PASSWORD: &str = "correct horse battery staple";
    /// The passphrase of pgBackRest's repository.
    pub const CIPHER: &str = "a passphrase for pgbackrest only";

    /// A host whose storage is the folder `ROOT/storage`.
    pub fn local(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let storage = format!("url = {}\n", quoted(&format!("file://{}/storage", root.display())));
        let spool = root.join("spool");
        let [local, extra, steps] = [const { String::new() }; 3];
        let repositories = format!("{}/storage", root.display());
        Self { root, storage, spool, local, extra, gives_way: false, steps, aws: None, repositories, ca_file: None }
    }

    /// A host whose storage is a bucket behind `endpoint`, whose certificate `ca_file` vouches for.
    pub fn s3(root: impl Into<PathBuf>, url: &str, endpoint: &str, ca_file: &Path, keys: (&str, &str)) -> Self {
        let storage = format!(
            "url = {}\nregion = \"garage\"\nendpoint = {}\npath-style = true\nca-file = {}\n",
            quoted(url),
            quoted(endpoint),
            quoted(&ca_file.display().to_string()),
        );
        let aws = Some((keys.0.to_owned(), keys.1.to_owned()));
        let repositories = format!("s3:{endpoint}/{}", url.trim_start_matches("s3://"));
        Self { storage, aws, repositories, ca_file: Some(ca_file.to_owned()), ..Self::local(root) }
    }

    /// Adds a directory step; `more` is TOML lines for it. Without a `keep` in them everything is kept.
    #[must_use]
    pub fn directory(self, name: &str, paths: &[&Path], more: &str) -> Self {
        let paths: Vec<_> = paths.iter().map(|path| quoted(&path.display().to_string())).collect();
        let keep = if more.contains("keep") { "" } else { "keep = \"forever\"\n" };
        let paths = paths.join(", ");
        self.step(&format!("name = {}\nkind = \"directory\"\npaths = [{paths}]\n{keep}{more}\n", quoted(name)))
    }

    /// Adds a step given as TOML lines.
    #[must_use]
    pub fn step(mut self, lines: &str) -> Self {
        self.steps.push_str("\n[[step]]\n");
        self.steps.push_str(lines);
        self.steps.push('\n');
        self
    }

    /// Adds lines to `[storage]`.
    #[must_use]
    pub fn storage(mut self, lines: &str) -> Self {
        self.storage.push_str(lines);
        self.storage.push('\n');
        self
    }

    /// Adds whole TOML tables of one's own.
    #[must_use]
    pub fn table(mut self, lines: &str) -> Self {
        self.extra.push('\n');
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Gives way to others. Without it a run takes as long as it takes, however busy the machine that tests is.
    #[must_use]
    pub fn giving_way(self) -> Self {
        Self { gives_way: true, ..self }
    }

    /// Has the spool there instead of in `ROOT/spool`.
    #[must_use]
    pub fn spool(self, spool: impl Into<PathBuf>) -> Self {
        Self { spool: spool.into(), ..self }
    }

    /// Adds lines to `[local]`.
    #[must_use]
    pub fn local_lines(mut self, lines: &str) -> Self {
        self.local.push_str(lines);
        self.local.push('\n');
        self
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let place = |name: &str| quoted(&self.root.join(name).display().to_string());
        let Self { storage, spool, local, extra, gives_way, steps, .. } = self;
        let limits = format!("[limits]\ngive-way = {gives_way}\n");
        let extra = match extra.contains("[limits]\n") {
            true => extra.replace("[limits]\n", &limits),
            false => format!("{extra}\n{limits}"),
        };
        format!(
            "[host]\nname = \"test-host\"\n\n[storage]\n{storage}\n[secrets]\ndirectory = {}\n\n\
             [local]\ncache = {}\nspool = {}\nruntime = {}\n{local}{extra}{steps}",
            place("etc/secrets"),
            place("cache"),
            quoted(&spool.display().to_string()),
            place("runtime"),
        )
    }

    /// Where the file is.
    pub fn file(&self) -> PathBuf {
        self.root.join("etc/config.toml")
    }

    /// Where the secrets are.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("etc/secrets")
    }

    /// The storage folder of a [`Config::local`] host.
    pub fn storage_folder(&self) -> PathBuf {
        self.root.join("storage")
    }

    /// restic, to look at a step's repository or to change it.
    pub fn restic(&self, step: &str) -> Command {
        let mut restic = Command::new("restic");
        restic.arg("--no-cache").env("RESTIC_PASSWORD", Self::PASSWORD);
        restic.env("RESTIC_REPOSITORY", format!("{}/{step}", self.repositories));
        if let (Some(ca_file), Some((id, key))) = (&self.ca_file, &self.aws) {
            restic.arg("--cacert").arg(ca_file).env("AWS_DEFAULT_REGION", Garage::REGION);
            restic.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", key);
        }
        restic
    }

    /// Writes everything; the agent that uses it.
    pub fn write(&self) -> Agent {
        for (directory, mode) in
            [("etc", 0o755), ("etc/secrets", 0o700), ("cache", 0o755), ("spool", 0o755), ("runtime", 0o755)]
        {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own directory");
        }
        if self.storage.contains("file://") {
            fs::create_dir_all(self.storage_folder()).expect("our own directory");
        }
        fs::write(self.file(), self.text()).expect("our own directory");
        self.secret("restic.key", Self::PASSWORD);
        self.secret("pgbackrest.key", Self::CIPHER);
        if let Some((id, key)) = &self.aws {
            self.secret("aws.env", &format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={key}"));
        }
        Agent::new(self.file(), self.root.join("state"))
    }

    /// Writes one secret as it must be: 0600.
    pub fn secret(&self, name: &str, text: &str) {
        let path = self.secrets().join(name);
        fs::write(&path, format!("{text}\n")).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_toml_and_the_secrets_are_closed() {
        let scratch = crate::Scratch::new();
        let config = Config::local(scratch.path()).directory("foundry", &[Path::new("/srv/a \"b\"")], "");
        config.write();
        let table: toml::Table = fs::read_to_string(config.file()).unwrap().parse().unwrap();
        assert_eq!(table["step"][0]["paths"][0].as_str(), Some("/srv/a \"b\""));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(config.secrets()), 0o700);
        assert_eq!(mode(config.secrets().join("restic.key")), 0o600);
    }
}
