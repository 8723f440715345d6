//! Where a test restores to, and what it knows: what a disaster leaves, which is the configuration and the keys. Caches,
//! opened keys, sockets and generated files are the test's own. All of it is removed with it, and what a killed one left by
//! whoever comes next.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::error::{Context, Error, Result};
use crate::health::room;
use crate::pgbackrest::{end_left, let_through};
use crate::report::words;
use crate::steps::postgres::image;

/// What the recovery kit holds of the secrets that a restore needs.
const KEYS: [&str; 3] = ["restic.key", "pgbackrest.key", "aws.env"];

/// Room that is left to others whatever happens.
const RESERVE: u64 = 1 << 30;

/// A place to restore to. Gone when dropped.
pub(super) struct Place {
    /// For what is restored.
    pub directory: PathBuf,
    /// Of the configured settings what a disaster leaves.
    pub settings: Settings,
    configured: Settings,
}

impl Place {
    /// Makes an empty one.
    pub fn make(settings: &Settings) -> Result<Self> {
        clean(settings)?;
        let (directory, runtime) = (settings.restore_test.directory.clone(), runtime(settings));
        let secrets = runtime.join("secrets");
        for private in [&directory, &runtime, &secrets, &runtime.join("tmp")] {
            let doing = || format!("make {}", private.display());
            if let Some(parent) = private.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(parent).context(doing)?;
            }
            // One that somebody else made a moment ago is not ours.
            DirBuilder::new().mode(0o700).create(private).context(doing)?;
        }
        let this = Self {
            settings: Settings { secrets: secrets.clone(), ..settings.clone() }.kept_in(&directory, &runtime),
            configured: settings.clone(),
            directory,
        };
        for key in KEYS.map(|name| settings.secrets.join(name)).iter().filter(|key| key.exists()) {
            // Not a copy: on a disk it would outlive its removal.
            let link = secrets.join(key.file_name().unwrap_or_default());
            symlink(key, link).context(|| format!("find {}", key.display()))?;
        }
        // The server's user reads a file of the recovery in there.
        for passed in [&settings.local.runtime, &runtime, &runtime.join("tmp")] {
            let_through(passed)?;
        }
        tempfile::env::override_temp_dir(&runtime.join("tmp")).ok();
        Ok(this)
    }

    /// Refuses what does not fit.
    pub fn room(&self, bytes: u64) -> Result<()> {
        let room = room(&self.directory)?;
        // Of a small disk a tenth is enough.
        let free = room.free.saturating_sub(RESERVE.min(room.total / 10));
        if bytes <= free {
            return Ok(());
        }
        Err(Error::new(format!(
            "a restore test needs {} in {}, which has {} to spare",
            words::size(bytes),
            self.directory.display(),
            words::size(free)
        ))
        .hint("[restore-test] directory may be on another disk; for directories, a smaller budget and more months do"))
    }

    /// An empty directory in it.
    pub fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        remove(&path)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now is told by the next test, which begins with it.
        let _ = clean(&self.configured);
    }
}

impl Settings {
    fn kept_in(mut self, directory: &Path, runtime: &Path) -> Self {
        self.local.cache = directory.join("cache");
        self.local.runtime = runtime.to_owned();
        self
    }
}

/// In memory: what must not stay on a disk, and sockets, whose paths must be short.
fn runtime(settings: &Settings) -> PathBuf {
    settings.local.runtime.join("restore-test")
}

/// Removes what a test left, processes too, and the containers of restores. With the run lock held, nobody is at work there.
///
/// # Errors
/// Something cannot be removed.
pub fn clean(settings: &Settings) -> Result<()> {
    let runtime = runtime(settings);
    end_left(&runtime)?;
    image::remove_left(&settings.local.runtime).and_then(|()| image::remove_left(&runtime))?;
    remove(&settings.restore_test.directory).and(remove(&runtime))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| format!("remove {}", path.display())),
    }
}
