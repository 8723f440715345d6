//! The key file that `restic.key` opens. This machine keeps the key that is in it, and would go on without: but nobody else could read
//! what it stores.

use rustic_core::repofile::{KeyFile, MasterKey};

use super::{Repository, cipher};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::secrets::{Secret, Secrets};

/// A key file that a password opened.
pub(super) struct Opened {
    /// `keys/NAME`.
    file: String,
    size: u64,
    pub(super) key: MasterKey,
}

impl Repository {
    /// The fact that `restic.key` opens one of the key files, for the next time, or what is wrong. A file that did so by the fact `known`
    /// is taken for the same while its name, its length and `restic.key` are: opening it takes a Pi a second and 32 MiB.
    ///
    /// # Errors
    /// Storage fails, or `restic.key` cannot be read.
    pub fn key_in_use(&self, known: Option<&str>, secrets: &Secrets) -> Result<std::result::Result<String, Problem>> {
        let fact = |file: &str, size: u64, stamp: &str| format!("{file} {size} {stamp}");
        let stamp = secrets.restic_key_stamp()?;
        if let Some((file, size)) = &self.made_key {
            return Ok(Ok(fact(file, *size, &stamp)));
        }
        let is_known = |(file, size): &&(String, u64)| known == Some(&fact(file, *size, &stamp));
        if let Some((file, size)) = self.backend.below("keys/")?.iter().find(is_known) {
            return Ok(Ok(fact(file, *size, &stamp)));
        }
        if let Some(opened) = self.opened_by(&secrets.restic_key()?)? {
            return Ok(Ok(fact(&opened.file, opened.size, &stamp)));
        }
        let trouble = self.key_trouble()?.unwrap_or_else(|| {
            let (step, store) = (&self.step, self.store());
            Error::new(format!("restic.key opens none of the key files in {store}: this machine alone can read it")).hint(format!(
                "put the password back with which it was made or changed; else keep a copy of master-keys/{step}.json from the secrets \
                 of this machine"
            ))
        });
        Ok(Err((&trouble).into()))
    }

    /// The first key file that the password opens. Damaged ones are passed over: another one may open it.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn opened_by(&self, password: &Secret) -> Result<Option<Opened>> {
        for (file, size) in self.store().list("keys/")? {
            let Ok(content) = self.content(&file)? else { continue };
            let Ok(parsed) = serde_json::from_slice::<KeyFile>(&content) else { continue };
            if !file.ends_with(&cipher::name(&content)) {
                continue;
            }
            if let Ok(opened) = parsed.key_from_password(&password.reveal()) {
                let (encrypt, k, r) = opened.to_keys();
                let mut key = MasterKey::new();
                (key.encrypt, key.mac.k, key.mac.r) = (encrypt, k, r);
                return Ok(Some(Opened { file, size, key }));
            }
        }
        Ok(None)
    }
}
