//! Reading a repository that has lost some of its parts. Each of them is named by the hash of its content, which tells
//! damage; what a lost one said is taken from elsewhere where that is possible. Nothing is written to storage.

use std::collections::HashSet;

use bytes::Bytes;
use rustic_core::repofile::{IndexFile, MasterKey};
use rustic_core::{Id, IndexedIdsStatus, OpenStatus, Repository as Rustic, RusticResult};
use serde_json::json;

use super::cipher::{self, Cipher};
use super::pack::{self, Entry};
use super::{Repository, Snapshot};
use crate::Result;
use crate::config::Settings;
use crate::error::Kind;
use crate::monitor::Problem;
use crate::secrets::{Secrets, read_private};
use crate::storage::Store;

/// A file of the repository that is not what its name says.
pub(super) struct Damaged {
    pub name: String,
    /// Why it cannot be read, in parentheses behind a space; empty: it can be, and holds something else.
    pub why: String,
}

impl Repository {
    /// As [`Self::open`], for who only reads: also without the config, which says nothing that reading needs.
    ///
    /// # Errors
    /// Storage fails, the password is wrong, or the keys are lost.
    pub fn open_what_is_left(settings: &Settings, step: &str, store: Store, secrets: &Secrets) -> Result<Option<Self>> {
        let failed = match Self::open(settings, step, store.clone(), secrets) {
            Ok(Some(this)) => return Ok(Some(this)),
            Ok(None) => None,
            Err(error) if error.is_unread() || error.kind() == Kind::Usage => return Err(error),
            Err(error) => Some(error),
        };
        if store.list("snapshots/")?.is_empty() {
            return failed.map_or(Ok(None), Err);
        }
        let mut this = Self::closed(settings, step, store);
        this.key = this.find_key(secrets)?;
        let config = json!({ "version": 2, "id": "0".repeat(64), "chunker_polynomial": "3DA3358B4DC173" });
        this.backend.assume_config(Cipher::of(&this.key).seal(config.to_string().as_bytes())?.into());
        this.attempt("open", || this.rustic()).map_err(|failed| failed.error)?;
        this.damaged(format!("the config of {} is lost or damaged; it is read without", this.store()));
        Ok(Some(this))
    }

    /// What was found damaged so far.
    pub fn damage(&self) -> Vec<Problem> {
        self.damage.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn damaged(&self, message: String) {
        self.damaged_with(message, None);
    }

    pub(super) fn damaged_with(&self, message: String, hint: Option<String>) {
        let mut damage = self.damage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !damage.iter().any(|known| known.message == message) {
            damage.push(Problem { message, hint });
        }
    }

    /// The snapshots that can be read; the others are damage.
    ///
    /// # Errors
    /// Storage fails.
    pub fn readable_snapshots(&self) -> Result<Vec<Snapshot>> {
        self.without_damaged("snapshots", || self.snapshots())
    }

    /// Reads what lies in files of that kind; those that are damaged are left out, and are damage.
    pub(super) fn without_damaged<T>(&self, kind: &str, read: impl Fn() -> Result<T>) -> Result<T> {
        match read() {
            Err(error) if !error.is_unread() => {
                self.leave_out_damaged(kind)?;
                read()
            }
            read => read,
        }
    }

    /// The index for a backup, as far as it can be read; damaged parts of it are damage. What they promise is stored anew, for whatever is
    /// read later must be found in an index that lies in storage.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn readable_index(&self) -> Result<Rustic<IndexedIdsStatus>> {
        self.without_damaged("index", || self.cached("read the index of", Rustic::to_indexed_ids))
    }

    /// What to do about a damaged file of that kind.
    fn remedy(&self, kind: &str) -> String {
        let what = match kind {
            "index" => "has the index written anew from the packs",
            _ => "takes it away, and the restore point that it told of is lost",
        };
        format!("put a copy of it back; else pi-agent repair {} {what}", self.step)
    }

    fn leave_out_damaged(&self, kind: &str) -> Result<()> {
        for Damaged { name, why } in self.damaged_files(kind)? {
            let hint = self.remedy(kind);
            self.damaged_with(format!("{kind}/{name} in {} is damaged and left out{why}", self.store()), Some(hint));
            if let Ok(id) = name.parse() {
                self.backend.leave_out(id);
            }
        }
        Ok(())
    }

    /// The content of an object. The inner error: the object is there and cannot be read, as on a bad place of a disk, or
    /// there is none.
    ///
    /// # Errors
    /// Storage cannot be reached or refuses it, which says nothing of what lies there.
    pub(super) fn content(&self, key: &str) -> Result<Result<Bytes>> {
        match self.store().get(key) {
            Err(error) if error.is_unread() => Err(error),
            content => Ok(content),
        }
    }

    /// The files of a kind that cannot be read, that are not what their names say, or that this repository's key does not
    /// open.
    ///
    /// # Errors
    /// Storage cannot be reached or refuses one of them.
    pub(super) fn damaged_files(&self, kind: &str) -> Result<Vec<Damaged>> {
        let mut damaged = Vec::new();
        for (key, _) in self.store().list(&format!("{kind}/"))? {
            // What has another kind of name is none of the repository's.
            let Some(name) = key.rsplit('/').next().filter(|name| name.parse::<Id>().is_ok()) else { continue };
            let opens = |content| Cipher::of(&self.key).open(content).is_some();
            let why = match self.content(&key)? {
                Ok(content) if cipher::name(&content) == name && opens(&content) => continue,
                Ok(_) => String::new(),
                // Removed meanwhile.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => format!(" ({})", error.chain()),
            };
            damaged.push(Damaged { name: name.to_owned(), why });
        }
        Ok(damaged)
    }

    /// Runs `work` on the opened repository, for who only reads; where that fails, with the index [mended](Self::mend_index).
    pub(super) fn reading<T>(&self, what: &str, work: impl Fn(Rustic<OpenStatus>) -> RusticResult<T>) -> Result<T> {
        match self.cached(what, &work) {
            Err(error) if !error.is_unread() => {
                self.mend_index()?;
                self.cached(what, &work)
            }
            done => done,
        }
    }

    /// Leaves out damaged parts of the index, and makes up for those that are not there from the headers of the packs.
    ///
    /// # Errors
    /// Storage fails.
    pub(super) fn mend_index(&self) -> Result<()> {
        self.leave_out_damaged("index")?;
        let packs = self.store().list("data/")?;
        self.leave_out_missing(&packs)?;
        let indexed = self.cached("read the index of", |rustic| {
            let mut packs = HashSet::new();
            for file in rustic.stream_files::<IndexFile>()? {
                let (_, file) = file?;
                packs.extend(file.packs.iter().chain(&file.packs_to_delete).map(|pack| *pack.id));
            }
            Ok(packs)
        })?;
        let cipher = Cipher::of(&self.key);
        let mut found = Vec::new();
        for (key, size) in packs {
            let id = key.rsplit('/').next().and_then(|name| name.parse::<Id>().ok());
            let Some(id) = id.filter(|id| !indexed.contains(id)) else { continue };
            match self.header(&key, size, &cipher) {
                Ok(Some(blobs)) => {
                    let blobs: Vec<_> = blobs.iter().map(Entry::json).collect();
                    found.push(json!({ "id": id.to_hex().as_str(), "blobs": blobs }));
                }
                Err(error) if error.is_unread() => return Err(error),
                _ => self.damaged(format!("{key} in {} is in no index, and is damaged", self.store())),
            }
        }
        if !found.is_empty() {
            self.damaged(format!(
                "{} packs in {} were in no index; they are read all the same",
                found.len(),
                self.store()
            ));
            let content = cipher.seal(json!({ "packs": found }).to_string().as_bytes())?;
            let id = cipher::name(&content).parse().expect("64 hexadecimal digits");
            self.backend.stand_in(id, content.into());
        }
        Ok(())
    }

    /// What a pack holds, by its own words at its end; `None`: they are damaged.
    fn header(&self, key: &str, size: u64, cipher: &Cipher) -> Result<Option<Vec<Entry>>> {
        let store = self.store();
        let Some(end) = size.checked_sub(pack::LENGTH as u64) else { return Ok(None) };
        let length = pack::number(&store.get_range(key, end, pack::LENGTH)?).unwrap_or_default();
        let Some(start) = end.checked_sub(length.into()) else { return Ok(None) };
        let Some(plain) = cipher.open(&store.get_range(key, start, length as usize)?) else { return Ok(None) };
        Ok(pack::entries(&plain))
    }

    /// The key that was kept, else that of a key file which the password opens.
    fn find_key(&self, secrets: &Secrets) -> Result<MasterKey> {
        let kept = read_private(&secrets.master_key_file(&self.step)).ok().flatten();
        if let Some(key) = kept.and_then(|key| serde_json::from_str(key.reveal()).ok()) {
            return Ok(key);
        }
        Ok(self.opened_by(&secrets.restic_key()?)??.0.key)
    }
}

/// The place as restic names it.
pub(super) fn restic_names(store: &Store) -> String {
    match store {
        Store::Local(_) => store.to_string().trim_start_matches("file://").to_owned(),
        Store::S3(_) => store.to_string().replacen("s3://", "s3:SERVER/", 1),
    }
}
