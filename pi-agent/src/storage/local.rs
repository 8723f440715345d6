//! A folder as storage: atomic, durable writes; modes 0600 and 0700.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use nix::unistd::geteuid;

use super::meter::{Meter, Operation};
use crate::durable;
use crate::error::Kind;
use crate::theirs::Held;
use crate::{Error, Result};

/// Begins the name of a file that is still being written; no object's name begins so.
const TEMPORARY: &str = ".pi-agent-";

/// The mode of an object that is nobody else's business.
const PRIVATE: u32 = 0o600;

/// Objects of a listing: as in a bucket. And how deep they may lie.
const MOST_OBJECTS: usize = 1_000_000;
const DEEPEST: u32 = 32;

/// A leftover younger than this may still be written by somebody.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// A folder below a root that must exist.
#[derive(Clone, Debug)]
pub struct Local {
    root: PathBuf,
    place: PathBuf,
    meter: Arc<Meter>,
    /// What the first write went to.
    device: Arc<OnceLock<u64>>,
}

impl Local {
    pub(super) fn new(root: &Path, place: &Path, meter: Arc<Meter>) -> Self {
        Self { root: root.into(), place: place.into(), meter, device: Arc::default() }
    }

    pub(super) fn join(&self, name: &str) -> Self {
        Self { place: self.place.join(name), ..self.clone() }
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Only the last folder: a missing parent is a disk that is not mounted, or a slip of the pen. Others may pass
    /// through it, since a server's user keeps its backups below.
    pub(super) fn make_root(&self) -> Result<()> {
        match fs::create_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => {
                let failed = Error::new(format!("cannot make the storage directory {}", self.root.display()));
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => failed.hint(self.is_missing()),
                    kind => self.advised(failed, kind),
                }
                .caused_by(error));
            }
            Ok(()) => {}
        }
        // The mode is set on what was made, because the unit's umask is 077.
        match fs::set_permissions(&self.root, Permissions::from_mode(0o711)) {
            Err(error) if !has_no_modes(&error) => {
                Err(Error::new(format!("cannot let others pass through {}", self.root.display())).caused_by(error))
            }
            _ => Ok(()),
        }
    }

    /// What the file system of the place cannot do and others can, in words. It is used all the same.
    pub(super) fn lacks(&self) -> Vec<&'static str> {
        let Ok(found) = self.root.metadata() else { return Vec::new() };
        // Set to what they are, the modes stay as they are.
        let modes = fs::set_permissions(&self.root, found.permissions()).is_err_and(|error| has_no_modes(&error));
        let names =
            File::open(&self.root).and_then(|root| root.sync_all()).is_err_and(|error| durable::is_lacking(&error));
        let modes = modes.then_some("knows no modes: who may read what lies there is decided by how it is mounted");
        let names = names.then_some(
            "does not say when a new name is on the disk: a power cut may take the last files of a backup along, which the next check tells",
        );
        // Where modes are made up, setting them does nothing, and is no error.
        let others = found.permissions().mode() & 0o022 != 0;
        let others = others.then_some("lets others write there than its owner, who may delete every backup");
        modes.into_iter().chain(others).chain(names).collect()
    }

    pub(super) fn get(&self, key: &str, most: usize) -> Result<Bytes> {
        let path = self.begin(Operation::Get, key);
        let read = open(&path).and_then(|file| {
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            let mut bytes = Vec::with_capacity(length.min(most));
            file.take(most as u64 + 1).read_to_end(&mut bytes)?;
            match bytes.len() <= most {
                true => Ok(bytes),
                false => Err(io::Error::other(format!("it is longer than {most} bytes, and none is"))),
            }
        });
        let bytes = read.map_err(|error| self.failed(Operation::Get, &path, error))?;
        self.meter.down(bytes.len());
        Ok(bytes.into())
    }

    pub(super) fn get_into(&self, key: &str, most: usize, mut buffer: Vec<u8>) -> Result<Vec<u8>> {
        let path = self.begin(Operation::Get, key);
        open(&path)
            .and_then(|file| file.take(most as u64).read_to_end(&mut buffer))
            .map_err(|error| self.failed(Operation::Get, &path, error))?;
        self.meter.down(buffer.len());
        Ok(buffer)
    }

    pub(super) fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Bytes> {
        let path = self.begin(Operation::Get, key);
        let mut buffer = vec![0; length];
        open(&path)
            .and_then(|file| file.read_exact_at(&mut buffer, offset))
            .map_err(|error| self.failed(Operation::Get, &path, error))?;
        self.meter.down(length);
        Ok(buffer.into())
    }

    pub(super) fn put(&self, key: &str, parts: &[Bytes]) -> Result<()> {
        self.put_as(key, parts, PRIVATE)
    }

    /// `mode`: of the file, where the file system knows any.
    pub(super) fn put_as(&self, key: &str, parts: &[Bytes], mode: u32) -> Result<()> {
        let path = self.begin(Operation::Put, key);
        self.stay_on_the_disk()?;
        self.write(&path, parts, mode).map_err(|error| self.failed(Operation::Put, &path, error))?;
        self.meter.up(parts.iter().map(Bytes::len).sum());
        Ok(())
    }

    /// A disk that was unmounted since the last write leaves a folder of the same name behind, on the system's own.
    fn stay_on_the_disk(&self) -> Result<()> {
        // Without a root the write itself says what is wrong.
        let Ok(metadata) = self.root.metadata() else { return Ok(()) };
        if *self.device.get_or_init(|| metadata.dev()) == metadata.dev() {
            return Ok(());
        }
        Err(Error::new(format!("the disk at {} was unmounted: nothing more is written", self.root.display()))
            .hint("mount it again, then: pi-agent run"))
    }

    fn write(&self, path: &Path, parts: &[Bytes], mode: u32) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.create_directories(directory)?;
        let held = self.held(directory)?;
        let place = held.path();
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let (temporary, mut file) = loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = place.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&temporary) {
                // Left by another process of our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => break (temporary, opened?),
            }
        };
        let written = parts.iter().try_for_each(|part| file.write_all(part)).and_then(|()| {
            if mode != PRIVATE {
                // Set on what was made, because the unit's umask is 077.
                let set = file.set_permissions(Permissions::from_mode(mode));
                set.or_else(|error| if has_no_modes(&error) { Ok(()) } else { Err(error) })?;
            }
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, place.join(name))) {
            // The write's own error is the one to tell; a leftover is swept by the next prune.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        durable::sync_directory(directory)
    }

    /// A directory of objects, held open. In one that belongs to somebody else, though the storage does not, each name may be a link to
    /// anywhere: the folder of a database is its user's.
    fn held(&self, directory: &Path) -> io::Result<Held> {
        let held = Held::directory(directory)?;
        let owner = held.path().metadata()?.uid();
        // Where a file system knows no owners, all have the same.
        let is_ours = owner == geteuid().as_raw() || owner == 0 || owner == self.root.metadata()?.uid();
        let theirs = || io::Error::new(io::ErrorKind::PermissionDenied, "its directory belongs to somebody else");
        if is_ours { Ok(held) } else { Err(theirs()) }
    }

    /// An object in its directory, which is held open.
    fn object(&self, path: &Path) -> io::Result<(Held, PathBuf)> {
        let (directory, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        let held = self.held(directory)?;
        let path = held.path().join(name);
        Ok((held, path))
    }

    /// Creates what is missing below the root, never the root itself.
    fn create_directories(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        if !directory.starts_with(&self.root) || directory == self.root {
            return Err(io::ErrorKind::NotFound.into());
        }
        let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.create_directories(parent)?;
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        durable::sync_directory(parent)
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let path = self.begin(Operation::Delete, key);
        match self.object(&path).and_then(|(_held, path)| fs::remove_file(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(()),
            result => result.map_err(|error| self.failed(Operation::Delete, &path, error)),
        }
    }

    pub(super) fn rename(&self, key: &str, to: &str) -> Result<()> {
        let (path, to) = (self.begin(Operation::Put, key), self.place.join(to));
        let rename = || {
            let (from, into) = path.parent().zip(to.parent()).ok_or(io::ErrorKind::InvalidInput)?;
            self.create_directories(into)?;
            let (old, new) = (self.object(&path)?, self.object(&to)?);
            fs::rename(&old.1, &new.1)?;
            // The new name first.
            durable::sync_directory(into)?;
            durable::sync_directory(from)
        };
        rename().map_err(|error| self.failed(Operation::Put, &path, error))
    }

    pub(super) fn list(&self, prefix: &str, after: &str) -> Result<Vec<(String, u64)>> {
        let path = self.begin(Operation::List, prefix);
        let mut found = Vec::new();
        match self.walk(&path, prefix, after, &mut found, DEEPEST) {
            Ok(()) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() && !path.exists() => {
                Ok(Vec::new())
            }
            Err(error) => Err(self.failed(Operation::List, &path, error)),
        }
    }

    fn walk(
        &self,
        directory: &Path,
        prefix: &str,
        after: &str,
        found: &mut Vec<(String, u64)>,
        deeper: u32,
    ) -> io::Result<()> {
        if deeper == 0 || found.len() > MOST_OBJECTS {
            return Err(io::Error::other("what lies there has no end: is it the right directory?"));
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // No object of ours has a name that is not UTF-8.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(TEMPORARY) {
                continue;
            }
            let metadata = match entry.metadata() {
                // Deleted while we look: it is as if it had been deleted before.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            let key = format!("{prefix}{name}");
            if metadata.is_dir() {
                let below = key + "/";
                // Else everything in it sorts before.
                if *below > *after || after.starts_with(&below) {
                    self.walk(&entry.path(), &below, after, found, deeper - 1)?;
                }
            } else if metadata.is_file() && *key > *after {
                found.push((key, metadata.len()));
            }
        }
        Ok(())
    }

    pub(super) fn size(&self, key: &str) -> Result<u64> {
        let path = self.begin(Operation::Head, key);
        Ok(fs::metadata(&path).map_err(|error| self.failed(Operation::Head, &path, error))?.len())
    }

    pub(super) fn remove_leftovers(&self) -> Result<()> {
        sweep(&self.place, SystemTime::now() - LEFTOVER_AGE)
            .map_err(|error| self.failed(Operation::Delete, &self.place, error))
    }

    fn begin(&self, operation: Operation, key: &str) -> PathBuf {
        self.meter.request(operation);
        self.place.join(key)
    }

    fn failed(&self, operation: Operation, path: &Path, error: io::Error) -> Error {
        let verb = operation.verb();
        if error.kind() == io::ErrorKind::NotFound && !self.root.is_dir() {
            return Error::new(format!(
                "cannot {verb} {}: the storage directory {} does not exist",
                path.display(),
                self.root.display()
            ))
            .kind_of(Kind::NotFound)
            .hint(match operation {
                Operation::Put => self.is_missing(),
                // Who looks for backups in a new place finds none.
                _ => "mount the disk it lies on".into(),
            });
        }
        let base = Error::new(format!("cannot {verb} {}", path.display()));
        match error.kind() {
            io::ErrorKind::NotFound => base.kind_of(Kind::NotFound),
            kind => self.advised(base, kind),
        }
        .caused_by(error)
    }

    fn is_missing(&self) -> String {
        format!("mount the disk it lies on; for a new place, create it: mkdir -p {}", self.root.display())
    }

    /// With what a person can do about that kind of failure.
    fn advised(&self, failed: Error, kind: io::ErrorKind) -> Error {
        let root = self.root.display();
        match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed.hint("free space on the storage disk"),
            // Only a person can see which of the two it is: a service does not know what it is kept from.
            io::ErrorKind::ReadOnlyFilesystem => failed.hint(format!(
                "try `touch {root}/try && rm {root}/try` as root: if that works, only the service may not write there (systemctl edit \
                 pi-agent-backup, a line ReadWritePaths={root} below [Service]); if not, the disk is mounted read-only, and `dmesg` may tell why"
            )),
            io::ErrorKind::PermissionDenied => failed
                .kind_of(Kind::Refused)
                .hint("the storage directory must belong to the user that runs the backup"),
            _ => failed,
        }
    }
}

/// The file system has no modes, or they are not ours to set.
fn has_no_modes(error: &io::Error) -> bool {
    durable::is_lacking(error) || error.raw_os_error() == Some(libc::EPERM)
}

/// Removes temporary files last written before `until`.
fn sweep(directory: &Path, until: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            sweep(&entry.path(), until)?;
        } else if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && metadata.modified()? < until {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file://{}", self.place.display())
    }
}

/// An object's file. What others put there is not waited for: a pipe has no end, and a device may have none.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()? {
        found if found.is_file() => Ok(file),
        found if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("it is no file")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store(root: &Path) -> Local {
        Local::new(root, root, Arc::default()).join("step")
    }

    #[test]
    fn objects_come_back_as_written_in_closed_files() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        assert_eq!(store.list("", "").unwrap(), []);
        store.put("data/ab/x", &[Bytes::from("one "), Bytes::from("two")]).unwrap();
        store.put("config", &[]).unwrap();
        assert_eq!(store.get("data/ab/x", 7).unwrap(), "one two");
        assert_eq!(store.get_range("data/ab/x", 4, 3).unwrap(), "two");
        assert!(store.get_range("data/ab/x", 4, 4).is_err());
        assert_eq!((store.size("data/ab/x").unwrap(), store.size("config").unwrap()), (7, 0));
        assert_eq!(store.list("data/", "").unwrap(), [("data/ab/x".to_owned(), 7)]);
        assert_eq!(store.list("", "").unwrap().len(), 2);
        assert_eq!(store.list("nothing/", "").unwrap(), []);
        for key in ["data1", "index/x", "datab/y"] {
            store.put(key, &[]).unwrap();
        }
        let after = |after: &str| {
            let mut keys: Vec<_> = store.list("", after).unwrap().into_iter().map(|(key, _)| key).collect();
            keys.sort();
            keys
        };
        assert_eq!(after("data0"), ["data1", "datab/y", "index/x"]);
        assert_eq!(after("data/ab/w"), ["data/ab/x", "data1", "datab/y", "index/x"]);
        assert_eq!(after("data1"), ["datab/y", "index/x"]);
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("step/data/ab"), mode("step/data/ab/x")), (0o700, 0o600));
        store.delete("config").unwrap();
        store.delete("config").unwrap();
        assert_eq!(store.get("config", 7).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn what_has_no_end_is_no_object() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store.put("long", &[Bytes::from("12345678")]).unwrap();
        nix::unistd::mkfifo(&root.path().join("step/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(store.get("long", 7).unwrap_err().chain().contains("longer than 7 bytes"));
        assert_eq!(store.get("long", 8).unwrap(), "12345678");
        assert!(store.get("pipe", 7).unwrap_err().chain().contains("is no file"));
        assert!(store.get_into("pipe", 7, Vec::new()).is_err() && store.get_range("pipe", 0, 1).is_err());
    }

    #[test]
    fn a_missing_root_is_an_error_for_everything_and_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("unmounted");
        let store = store(&root);
        let errors = [
            store.list("", "").unwrap_err(),
            store.get("x", 7).unwrap_err(),
            store.put("x", &[]).unwrap_err(),
            store.delete("x").unwrap_err(),
        ];
        for error in errors {
            assert!(error.kind() == Kind::NotFound && error.chain().contains("does not exist"), "{}", error.chain());
        }
        assert!(!root.exists());
    }

    #[test]
    fn an_interrupted_write_is_no_object_and_goes_after_a_day() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store.put("data/x", &[]).unwrap();
        let leftover = root.path().join(format!("step/data/{TEMPORARY}1-1"));
        let file = File::create(&leftover).unwrap();
        assert_eq!(store.list("", "").unwrap().len(), 1);
        store.remove_leftovers().unwrap();
        assert!(leftover.exists());
        file.set_modified(SystemTime::now() - 2 * LEFTOVER_AGE).unwrap();
        store.remove_leftovers().unwrap();
        assert!(!leftover.exists());
        assert_eq!(store.list("", "").unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_written_where_somebody_else_can_put_links() {
        if !geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        store.put("dumps/config", &[]).unwrap();
        let (theirs, elsewhere) = (root.path().join("step/dumps"), root.path().join("elsewhere"));
        fs::write(&elsewhere, "of root's").unwrap();
        fs::remove_dir_all(&theirs).unwrap();
        fs::create_dir(&theirs).unwrap();
        for number in 0..1000 {
            let name = format!("{TEMPORARY}{}-{number}", std::process::id());
            std::os::unix::fs::symlink(&elsewhere, theirs.join(name)).unwrap();
        }
        // What the link of a name leads to is never opened, and nothing is written beside links at all.
        store.put("dumps/config", &[Bytes::from("x")]).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
        for refused in [store.put("dumps/config", &[]), store.delete("dumps/config"), store.rename("dumps/config", "x")]
        {
            assert!(refused.unwrap_err().chain().contains("belongs to somebody else"));
        }
        assert_eq!(fs::read(&elsewhere).unwrap(), b"of root's");
    }
}
