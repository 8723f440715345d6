//! The key file that `restic.key` opens. This machine keeps the key that is in it, and would go on without: but nobody else could read
//! what it stores.

use rustic_core::repofile::MasterKey;

use super::damage::Damaged;
use super::key_files::{Candidate, WORK_OF_ALL};
use super::{NOT_ITS_PASSWORD, Repository};
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::monitor::Problem;
use crate::secrets::{Secret, Secrets};
use crate::storage::Store;

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
        let trouble = match self.opened_by(&secrets.restic_key()?)? {
            Ok((opened, _)) => return Ok(Ok(fact(&opened.file, opened.size, &stamp))),
            Err(error) if error.kind() == Kind::Usage => {
                let (step, store) = (&self.step, self.store());
                Error::new(format!("restic.key opens none of the key files in {store}: this machine alone can read it")).hint(format!(
                    "put the password back with which it was made or changed; else keep a copy of master-keys/{step}.json from the \
                     secrets of this machine"
                ))
            }
            Err(trouble) => trouble,
        };
        Ok(Err((&trouble).into()))
    }

    /// Whether `restic.key` opens what is stored of `step`, whatever key of this machine's own does. Where nothing is yet, it does.
    ///
    /// # Errors
    /// Storage fails, or the password cannot be read. The inner one: why it does not.
    pub fn password_opens(settings: &Settings, step: &str) -> Result<Result<()>> {
        let secrets = Secrets::new(&settings.secrets);
        let store = Store::open(&settings.storage, &settings.storage.location, &secrets)?.join(step);
        let this = Self::closed(settings, step, store);
        if this.backend.config()?.is_none() {
            return Ok(Ok(()));
        }
        Ok(this.opened_by(&secrets.restic_key()?)?.map(drop))
    }

    /// The first key file that the password opens, and those that are damaged; or why it opens none.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn opened_by(&self, password: &Secret) -> Result<Result<(Opened, Vec<Damaged>)>> {
        let (candidates, damaged) = self.key_files()?;
        let whole = candidates.len();
        let (mut work, mut tried) = (0, 0);
        for Candidate { file, size, content, work: more } in candidates {
            work += more;
            if work > WORK_OF_ALL {
                break;
            }
            tried += 1;
            if let Ok(opened) = content.key_from_password(&password.reveal()) {
                let (encrypt, k, r) = opened.to_keys();
                let mut key = MasterKey::new();
                (key.encrypt, key.mac.k, key.mac.r) = (encrypt, k, r);
                return Ok(Ok((Opened { file, size, key }, damaged)));
            }
        }
        let store = self.store();
        Ok(Err(match self.trouble_of(whole, &damaged) {
            Some(trouble) if whole == 0 => trouble,
            _ if tried < whole => Error::usage(format!(
                "open {store}: the password in restic.key opens none of the first {tried} of its {whole} key files, and to try all takes too long"
            ))
            .hint("remove the key files that nobody made: a repository has one for each of its passwords"),
            _ => Error::usage(format!("open {store}: {NOT_ITS_PASSWORD}"))
                .hint("put the password it was made with into restic.key"),
        }))
    }
}
