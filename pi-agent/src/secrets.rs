//! Secrets: root-only files in one directory. Never in argv, logs or errors.

use std::path::PathBuf;

use crate::Result;

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

/// The secrets directory: `aws.env`, `restic.key`, `pgbackrest.key`, and the agent's own `master-keys/`.
#[derive(Clone, Debug)]
pub struct Secrets {
    directory: PathBuf,
}

impl Secrets {
    /// Names the directory; nothing is read yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// `aws.env`: lines `KEY=value`.
    ///
    /// # Errors
    /// Missing, readable by others (mode beyond 0600, or not owned by us or root), or without the two keys.
    pub fn aws(&self) -> Result<AwsCredentials> {
        todo!()
    }

    /// `restic.key`: the repositories' password, one line.
    ///
    /// # Errors
    /// As [`Self::aws`]; also when empty.
    pub fn restic_key(&self) -> Result<Secret> {
        todo!()
    }

    /// `pgbackrest.key`: the cipher passphrase of pgBackRest repositories, one line.
    ///
    /// # Errors
    /// As [`Self::restic_key`].
    pub fn pgbackrest_key(&self) -> Result<Secret> {
        todo!()
    }

    /// Where the opened master key of a step's repository is kept, `master-keys/STEP.json` (0600 in 0700).
    pub fn master_key_file(&self, step: &str) -> PathBuf {
        self.directory.join("master-keys").join(format!("{step}.json"))
    }
}
