//! Backups of files: restic's repository format, by rustic_core. Nothing outside this folder knows rustic.
//!
//! What rustic leaves to its caller is done here: it takes no locks (see [`lock`]), it does not retry (the
//! store does), it logs what it leaves out (our [`source`] counts it), it panics inside (caught here), and its errors do
//! not say whether they may pass (the backend remembers what storage said).

mod any_source;
mod attribute;
mod backend;
mod backup;
mod buffers;
pub mod cache;
mod capabilities;
mod cipher;
mod contents;
mod damage;
mod diagnose;
mod entries;
mod graft;
mod hold;
mod index_parts;
mod key_file;
mod key_files;
mod key_in_use;
mod library;
mod listing;
mod lock;
mod lock_file;
mod lock_record;
mod lookup;
mod maintenance;
mod mend;
mod metadata;
mod pack;
mod permits;
mod privileges;
mod progress;
mod promised;
mod prove;
mod read_all;
mod restore;
mod salvage;
mod source;
mod streams;
mod target;
mod uploads;
mod walk;
mod writing;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustic_core::repofile::{MasterKey, SnapshotFile};
use rustic_core::{
    ConfigOptions, Credentials, KeyOptions, OpenStatus, Repository as Rustic, RepositoryBackends, RepositoryOptions,
    RusticResult,
};

use crate::config::Settings;
use crate::error::{Context, Kind};
use crate::monitor::{Monitor, Problem};
use crate::report::short;
use crate::secrets::{Secrets, read_private, write_private};
use crate::storage::Store;
use crate::{Error, Result};

use backend::Backend;
use backup::{LACKS_FILES, PROGRAM};
use lookup::Lookup;
use progress::{Bars, Gauge};

pub(crate) use backup::mounted_meanwhile;
pub use backup::{Backup, UNFINISHED};
pub use capabilities::NotHeld;
pub(crate) use cipher::hexadecimal;
pub use diagnose::Diagnosis;
pub use hold::{Held, Hold};
pub use lock::{Lock, Purpose, let_go};
pub use lock_record::record_locks;
pub use maintenance::{Findings, Pruned};
pub use mend::REPAIRED;
pub use prove::{Order, Proven, Share};
pub use restore::Selection;
pub(crate) use source::READ_AGAIN;
pub(crate) use source::is_bare;
pub use source::{Anchors, Inside, Look, Mounted, Sources, Tally};
pub use streams::Stream;
pub use writing::Written;

/// Each MiB more takes about 4 MiB in a first backup into a bucket. Smaller ones are more requests, each of which costs the server.
const PACK_SIZE: &str = "3.5 MiB";

/// Packs of directories are in memory beside those of files: 3 MiB would take 2 MiB more in a first backup of 50,000 files. Most nights have
/// less than one.
const TREE_PACK_SIZE: &str = "1 MiB";

/// Where a file is cut: of how many bytes one is a place to cut at, and after how many it is cut all the same. The format's own are
/// 1 and 8 MiB, with the same 512 KiB at least. Some ten pieces are in memory in a first backup, to be compressed, encrypted and verified. By a
/// simulation they have 0.8 MiB on average, and not 1.5, and what is inserted into a file costs 1.5 MiB stored anew, and not 2.1.
const PIECE_SIZE: (&str, &str) = ("512 KiB", "1 MiB");

/// zstd's level. Its next one, the format's own, takes 3 MiB for each thread anew for each piece, and tables that are cleared for each small
/// file: half a second of ten, for 4 to 5 % less of what is text.
const COMPRESSION: i32 = 2;

/// What the error says when a repository has another password.
pub(crate) const NOT_ITS_PASSWORD: &str = "the password in restic.key is not this repository's";

/// An open repository of one step.
pub struct Repository {
    backend: Arc<Backend>,
    gauge: Arc<Gauge>,
    key: MasterKey,
    cache: PathBuf,
    step: String,
    host: String,
    remarks: Vec<Problem>,
    damage: Mutex<Vec<Problem>>,
    /// The key file that was made just now, and its length.
    made_key: Option<(String, u64)>,
}

/// A snapshot as its file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// 64 hexadecimal digits.
    pub id: String,
    /// When it was begun.
    pub time: Timestamp,
    /// The step's name; another tool's snapshot may have none.
    pub label: String,
    /// `[host] name` of the machine that made it.
    pub host: String,
    /// Made by a backup that ran out of time: it lacks files.
    pub unfinished: bool,
    /// It lacks files that could not be read.
    pub lacks_files: bool,
    /// What was backed up, as it was configured then.
    pub paths: Vec<PathBuf>,
    /// Bytes of the source it covers, when recorded.
    pub bytes: Option<u64>,
    /// Bytes of contents that were not in the repository before, when recorded.
    pub new_bytes: Option<u64>,
    /// Files it covers, when recorded.
    pub files: Option<u64>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Of one that was rewritten: the id that it had.
    pub original: Option<String>,
    /// Made by us, and written again by a program that knows no labels, such as `restic tag`.
    pub lost_its_label: bool,
}

impl Snapshot {
    /// It holds what that step backed up. Only what [`Self::label`] says so, too, is ever forgotten by us: whoever tags a snapshot
    /// may want to keep it.
    pub fn is_of(&self, step: &str) -> bool {
        // A step has a repository of its own.
        self.label == step || self.lost_its_label
    }

    /// It is the one whose id begins so, as it was made or rewritten.
    pub fn was(&self, id: &str) -> bool {
        self.id.starts_with(id) || self.original.as_ref().is_some_and(|original| original.starts_with(id))
    }
}

impl Repository {
    /// Opens the repository of `step` at `store`; `None`: the place is reachable and there is none.
    ///
    /// # Errors
    /// Storage fails, the password is wrong, or the repository is damaged.
    pub fn open(settings: &Settings, step: &str, store: Store, secrets: &Secrets) -> Result<Option<Self>> {
        let mut this = Self::closed(settings, step, store);
        if this.backend.config()?.is_none() {
            return Ok(None);
        }
        let file = secrets.master_key_file(step);
        let kept =
            read_private(&file).ok().flatten().and_then(|key| serde_json::from_str::<MasterKey>(key.reveal()).ok());
        if let Some(key) = kept {
            this.key = key;
            match this.attempt("open", || this.rustic()) {
                Ok(_) => return Ok(Some(this)),
                // Storage's own failures (it knows a hint or a kind) are not cured by a password.
                Err(error) if error.storage => return Err(error.error),
                // Another repository lies here now, or the key file is damaged: the password decides.
                Err(_) => this.backend.look_again(),
            }
        }
        let password = secrets.restic_key()?;
        let (opened, damaged) = this.opened_by(&password)??;
        this.key = opened.key;
        this.backend.look_again();
        this.attempt("open", || this.rustic()).map_err(|failed| failed.error)?;
        this.remark_on_keys(&damaged);
        this.keep_key(&file);
        Ok(Some(this))
    }

    /// Opens the repository of `step`, or makes one where the place is proven to be empty.
    ///
    /// # Errors
    /// As [`Self::open`]; also when there is no repository and the place is not empty, or restic would read another password.
    pub fn open_or_init(settings: &Settings, step: &str, store: Store, secrets: &Secrets) -> Result<Self> {
        if let Some(this) = Self::open(settings, step, store.clone(), secrets)? {
            return Ok(this);
        }
        // A key with no config is what an interrupted first use leaves: it is harmless and may stay.
        let rest: Vec<_> = store.list("")?.into_iter().filter(|(key, _)| !key.starts_with("keys/")).collect();
        if let Some((key, _)) = rest.first() {
            return Err(Error::new(format!("{store} is no repository but holds {} objects ({key}, …)", rest.len()))
                .hint("if it was one, its config is lost: restore that object; else empty the place or name another"));
        }
        secrets.restic_reads_the_same()?;
        let password = secrets.restic_key()?;
        let mut this = Self::closed(settings, step, store);
        let mut options = ConfigOptions::default();
        options.set_datapack_size = PACK_SIZE.parse().ok();
        options.set_treepack_size = TREE_PACK_SIZE.parse().ok();
        // Without these, packs grow with the square root of the repository.
        options.set_datapack_growfactor = Some(0);
        options.set_treepack_growfactor = Some(0);
        options.set_chunk_size = PIECE_SIZE.0.parse().ok();
        options.set_chunk_max_size = PIECE_SIZE.1.parse().ok();
        options.set_compression = Some(COMPRESSION);
        let (name, bytes) = key_file::key_file(&this.key, &password, &settings.host)?;
        let file = format!("keys/{name}");
        this.made_key = Some((file.clone(), bytes.len() as u64));
        this.backend.store().put(&file, &[bytes.into()])?;
        let credentials = Credentials::Masterkey(this.key.clone());
        let made = this.attempt("make the repository", || {
            Rustic::new_with_progress(&this.options(), &this.backends(), Bars(this.gauge.clone()))?
                .init(&credentials, &KeyOptions::default(), &options)
                .map(drop)
        });
        made.map_err(|failed| failed.error)?;
        this.keep_key(&secrets.master_key_file(step));
        Ok(this)
    }

    fn closed(settings: &Settings, step: &str, store: Store) -> Self {
        let cache = cache::of(settings, step);
        // Without a cache all works, only slower; rustic says nothing then, so neither need we.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(&cache);
        Self {
            backend: Arc::new(Backend::new(store, cache.join("config"))),
            gauge: Arc::default(),
            key: MasterKey::new(),
            cache,
            step: step.into(),
            host: settings.host.clone(),
            remarks: Vec::new(),
            damage: Mutex::default(),
            made_key: None,
        }
    }

    /// What is worth a line in the report though it stopped nothing.
    pub fn remarks(&self) -> &[Problem] {
        &self.remarks
    }

    /// Where it lies.
    pub fn store(&self) -> &Store {
        self.backend.store()
    }

    /// The command with which a person forgets a snapshot.
    pub fn forgets(&self, id: &str) -> String {
        format!("restic -r {} forget {}", self.restic_name(), short(id))
    }

    /// The repository, as restic's option `-r` has it.
    pub fn restic_name(&self) -> String {
        damage::restic_names(self.store())
    }

    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// Any of them cannot be read: what looks absent might otherwise be forgotten.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let files = self.cached("list the snapshots of", |rustic| rustic.get_all_snapshots())?;
        let mut snapshots: Vec<Snapshot> = files.iter().map(Snapshot::from).collect();
        snapshots.sort_by(|one, other| one.time.cmp(&other.time).then_with(|| one.id.cmp(&other.id)));
        Ok(snapshots)
    }

    /// Those of `snapshots` that hold `path` (absolute, as it was on the source; `/` is in all of them), each with its size
    /// if it is a file, and the number of its version: equal ones are the same in everything.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn holding(&self, snapshots: &[Snapshot], path: &Path) -> Result<Vec<(Snapshot, Option<u64>, usize)>> {
        let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id.as_str()).collect();
        let found = self.reading("look into the snapshots of", |rustic| {
            let files = rustic.get_snapshots(&ids)?;
            let rustic = rustic.to_indexed_ids()?;
            let mut lookup = Lookup::new(path);
            files.iter().map(|file| lookup.node(&rustic, file.tree)).collect::<RusticResult<Vec<_>>>()
        })?;
        let mut versions = Vec::new();
        let mut holding = Vec::new();
        for (snapshot, node) in snapshots.iter().zip(found) {
            let Some(node) = node else { continue };
            let size = node.is_file().then_some(node.meta.size);
            let version = versions.iter().position(|version| *version == node).unwrap_or_else(|| {
                versions.push(node);
                versions.len() - 1
            });
            holding.push((snapshot.clone(), size, version));
        }
        Ok(holding)
    }

    /// Where a snapshot holds a file of that name (the first one), as an absolute path.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn find(&self, snapshot: &Snapshot, name: &str) -> Result<Option<PathBuf>> {
        self.reading("look into the snapshots of", |rustic| {
            let file = rustic.get_snapshots(&[&snapshot.id])?.remove(0);
            let rustic = rustic.to_indexed_ids()?;
            let found =
                rustic.find_matching_nodes([file.tree], &|path, node| node.is_file() && path.ends_with(name))?;
            Ok(found.paths.into_iter().next().map(|path| Path::new("/").join(path)))
        })
    }

    /// Whether a snapshot holds anything below a directory.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn holds_below(&self, snapshot: &Snapshot, directory: &Path) -> Result<bool> {
        self.cached("look into the snapshots of", |rustic| {
            let file = rustic.get_snapshots(&[&snapshot.id])?.remove(0);
            let rustic = rustic.to_indexed_ids()?;
            let found = Lookup::new(directory).node(&rustic, file.tree)?;
            let Some(tree) = found.and_then(|node| node.subtree) else { return Ok(false) };
            Ok(!rustic.get_tree(&tree)?.nodes.is_empty())
        })
    }

    /// Keeps the opened master key, so that the next night needs no scrypt: 33 MB and a second, more on a Pi, and 134 MB where
    /// rustic made the key.
    fn keep_key(&mut self, file: &Path) {
        let kept = serde_json::to_vec(&self.key)
            .context(|| "cannot write down the master key".into())
            .and_then(|bytes| write_private(file, &bytes));
        if let Err(error) = kept {
            let error = error.hint("without it each night needs a second and 33 MB more to open the repository");
            self.remarks.push(Problem::from(&error));
        }
    }

    fn options(&self) -> RepositoryOptions {
        RepositoryOptions::default().cache_dir(self.cache.clone())
    }

    fn backends(&self) -> RepositoryBackends {
        RepositoryBackends::new(self.backend.clone(), None)
    }

    fn with_credentials(&self, credentials: &Credentials) -> RusticResult<Rustic<OpenStatus>> {
        Rustic::new_with_progress(&self.options(), &self.backends(), Bars(self.gauge.clone()))?.open(credentials)
    }

    /// Opens it anew: with the master key and the config in memory that costs nothing.
    fn rustic(&self) -> RusticResult<Rustic<OpenStatus>> {
        self.backend.seal_with(&self.key);
        self.with_credentials(&Credentials::Masterkey(self.key.clone()))
    }

    /// Runs `work` on the opened repository. A power cut may have damaged the local cache, which rustic then reports as a
    /// damaged repository: so a failure that storage has no part in is tried once more without the cache. And what was
    /// listed a moment ago may have been removed by others: then it is looked at again.
    fn cached<T>(&self, what: &str, work: impl Fn(Rustic<OpenStatus>) -> RusticResult<T>) -> Result<T> {
        match self.attempt(what, || work(self.rustic()?)) {
            Ok(value) => return Ok(value),
            Err(failed) if !failed.storage => self.clear_cache(),
            Err(failed) if failed.error.kind() != Kind::NotFound => return Err(failed.error),
            Err(_) => {}
        }
        self.backend.look_again();
        self.attempt(what, || work(self.rustic()?)).map_err(|failed| failed.error)
    }

    fn clear_cache(&self) {
        // What is left behind is compared with the storage's listing by rustic.
        let _ = fs::remove_dir_all(&self.cache);
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(&self.cache);
    }

    /// Calls into rustic: its errors and panics become ours.
    fn attempt<T>(&self, what: &str, work: impl FnOnce() -> RusticResult<T>) -> std::result::Result<T, Failed> {
        self.backend.take_failure();
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(what, &error)),
            // The panic's own words are in the journal, and say nothing to a reader of the report.
            Err(_) => {
                Err(self.failed_with(what, "the library that reads repositories gave up (the journal has its words)"))
            }
        }
    }

    fn failed(&self, what: &str, error: &rustic_core::RusticError) -> Failed {
        self.failed_with(what, &library::error(error))
    }

    fn failed_with(&self, what: &str, text: &str) -> Failed {
        let what = format!("{what} {}", self.backend.store());
        match self.backend.take_failure() {
            Some(cause) => Failed { error: Error::new(what).kind_of(cause.kind()).caused_by(cause), storage: true },
            None => Failed { error: Error::new(format!("{what}: {text}")), storage: false },
        }
    }

    /// Does `work` while `monitor` is told how far it is.
    fn watched<T>(&self, monitor: &Monitor, work: impl FnOnce() -> T) -> T {
        self.gauge.watch(monitor, self.backend.store().meter(), work)
    }
}

/// An error, and whether storage is its cause.
struct Failed {
    error: Error,
    storage: bool,
}

impl From<&SnapshotFile> for Snapshot {
    fn from(file: &SnapshotFile) -> Self {
        // restic's snapshots have no such summary before 0.17; rustic fills in zeros for what is missing.
        let summary = file.summary.as_ref().filter(|summary| summary.total_files_processed > 0);
        Self {
            id: file.id.to_hex().as_str().to_owned(),
            time: file.time.timestamp(),
            label: file.label.clone(),
            host: file.hostname.clone(),
            unfinished: file.tags.contains(UNFINISHED),
            lacks_files: file.tags.contains(LACKS_FILES),
            paths: file.paths.iter().map(PathBuf::from).collect(),
            bytes: summary.map(|summary| summary.total_bytes_processed),
            new_bytes: summary.map(|summary| summary.data_added_files),
            files: summary.map(|summary| summary.total_files_processed),
            tags: file.tags.iter().cloned().collect(),
            original: file.original.map(|original| original.to_hex().as_str().to_owned()),
            lost_its_label: file.label.is_empty() && file.program_version.starts_with(PROGRAM),
        }
    }
}
