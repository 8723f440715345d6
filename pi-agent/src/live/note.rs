//! The file that says what is paused: `STATE/quiet/STEP.json`, locked by who takes care of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::warn;
use nix::fcntl::{Flock, FlockArg};

use crate::config::{StateDirectory, Writer};
use crate::error::{Context, Error, Result};
use crate::run::make_private;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Durable, and ours while it is held.
pub(super) struct Note {
    path: PathBuf,
    _file: Flock<File>,
}

/// Where the note of a step lies.
pub(super) fn path(directory: &StateDirectory, step: &str) -> PathBuf {
    directory.path().join("quiet").join(format!("{step}.json"))
}

impl Note {
    /// Says durably that this writer is about to be paused.
    ///
    /// # Errors
    /// It cannot be written, or there is one already.
    pub(super) fn write(path: &Path, writer: &Writer) -> Result<Self> {
        let doing = || format!("write {}", path.display());
        let folder = path.parent().unwrap_or(Path::new("/"));
        make_private(folder)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).context(doing)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).context(doing)?;
        file.write_all(&serde_json::to_vec(writer).context(doing)?).context(doing)?;
        file.sync_all().context(doing)?;
        settle(folder).context(doing)?;
        if file.metadata().context(doing)?.nlink() == 0 {
            // Somebody found it half-written and took it for a leftover.
            return Err(Error::transient(doing()));
        }
        Ok(Self { path: path.into(), _file: file })
    }

    /// Tries to let the writer go on, for so long; then the note goes, too.
    ///
    /// # Errors
    /// It did not; the note stays.
    pub(super) fn resume(&self, writer: &Writer, patience: Duration) -> Result<()> {
        let started = Instant::now();
        while let Err(error) = writer.resume() {
            if started.elapsed() >= patience {
                return Err(stuck(writer).caused_by(error));
            }
            std::thread::sleep(PAUSE);
        }
        let doing = || format!("remove {}", self.path.display());
        fs::remove_file(&self.path).context(doing)?;
        settle(self.path.parent().unwrap_or(Path::new("/"))).context(doing)
    }
}

fn settle(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn stuck(writer: &Writer) -> Error {
    Error::new(format!("cannot let {} go on", writer.name()))
        .hint(format!("it stands still! type: {}", writer.by_hand()))
}

/// Lets everything go on that a backup which was cut off has left paused; tries for so long.
///
/// # Errors
/// The first that does not; the others were tried too.
pub fn resume_left(directory: &StateDirectory, patience: Duration) -> Result<()> {
    let folder = directory.path().join("quiet");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
    let notes = entries.filter_map(std::result::Result::ok).map(|entry| entry.path());
    let tried: Vec<_> = notes.map(|path| resume_by_note(&path, patience)).collect();
    tried.into_iter().collect()
}

/// Lets go on what that note names, unless its guard lives and does so within `patience`.
///
/// # Errors
/// Nobody did.
pub(super) fn resume_by_note(path: &Path, patience: Duration) -> Result<()> {
    let doing = || format!("read {}", path.display());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        file => file.context(doing)?,
    };
    let mut text = String::new();
    file.read_to_string(&mut text).context(doing)?;
    let writer = serde_json::from_str::<Writer>(&text);
    let started = Instant::now();
    let file = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => break file,
            Err((_, _)) if started.elapsed() >= patience => {
                return Err(match &writer {
                    Ok(writer) => stuck(writer),
                    Err(_) => Error::transient(format!("{} is held by another process", path.display())),
                });
            }
            Err((returned, _)) => file = returned,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if file.metadata().context(doing)?.nlink() == 0 {
        return Ok(());
    }
    let note = Note { path: path.into(), _file: file };
    let Ok(writer) = writer else {
        // Cut off while it was written, so that nothing was paused yet.
        return fs::remove_file(path).context(|| format!("remove {}", path.display()));
    };
    note.resume(&writer, patience)?;
    warn!("{} was left quiet by a backup that was cut off; it goes on", writer.name());
    Ok(())
}
