//! The host-wide run lock: one run, prune or expire at a time.
//!
//! An `flock`, so it cannot outlive its holders. The descriptor is handed on to the steps' processes:
//! while an orphaned step of a killed run is still dying, no new run starts beside it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use crate::error::{Context, Error, Kind, Result};

/// Held until dropped.
#[derive(Debug)]
pub struct RunLock {
    _file: Flock<File>,
}

/// How long orphans of a killed run may take to end.
const ORPHANS: Duration = Duration::from_secs(15);

impl RunLock {
    /// Takes the lock. `what` is told to whoever finds it taken: "run", "prune".
    ///
    /// # Errors
    /// Kind `Locked` when a living process holds it, with who and since when; otherwise the file could not be opened.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .context(|| format!("open the run lock {}", path.display()))?;
        let started = Instant::now();
        let mut held = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => break held,
                Err((returned, Errno::EWOULDBLOCK)) => {
                    file = returned;
                    let holder = Holder::read(&mut file);
                    if holder.as_ref().is_none_or(Holder::is_alive) || started.elapsed() > ORPHANS {
                        return Err(busy(path, holder.as_ref()));
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err((_, error)) => {
                    return Err(Error::new(format!("lock {}", path.display())).caused_by(error));
                }
            }
        };
        // Who holds it is for messages; on a full disk that must not cost the backup.
        let _ = Holder::write(&mut held, what);
        // Without close-on-exec the steps' processes inherit it.
        fcntl(held.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).context(|| "hand on the run lock".into())?;
        Ok(Self { _file: held })
    }
}

/// Whether a run is at work, without being in the way of one that starts: the lock itself is tried only while the process
/// named in it lives.
pub fn is_held(path: &Path) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    Holder::read(&mut file).is_some_and(|holder| holder.is_alive())
        && matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

fn busy(path: &Path, holder: Option<&Holder>) -> Error {
    let who = holder.map_or_else(
        || "an unknown process".to_owned(),
        |holder| format!("process {} (`pi-agent {}`, since {})", holder.pid, holder.what, holder.since),
    );
    let restores = holder.is_some_and(|holder| ["restore", "recover"].contains(&holder.what.as_str()));
    Error::new(format!("another run holds the lock {}: {who}", path.display())).kind_of(Kind::Locked).hint(
        match restores {
            true => "nothing is backed up while something is put back; when it has ended: pi-agent run",
            false => "wait for it to finish; `pi-agent status` shows how the last runs went",
        },
    )
}

#[derive(Debug)]
struct Holder {
    pid: i32,
    what: String,
    since: String,
}

impl Holder {
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        let mut fields = text.trim_end().splitn(3, ' ');
        Some(Self {
            pid: fields.next()?.parse().ok()?,
            since: fields.next()?.to_owned(),
            what: fields.next()?.to_owned(),
        })
    }

    fn write(file: &mut File, what: &str) -> std::io::Result<()> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{} {} {what}", std::process::id(), Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"))
    }

    fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let first = RunLock::take(&path, "run").unwrap();
        let error = RunLock::take(&path, "prune").unwrap_err();
        assert_eq!(error.kind(), Kind::Locked);
        assert!(error.to_string().contains(&format!("process {} (`pi-agent run`", std::process::id())), "{error}");
        assert!(is_held(&path));
        drop(first);
        assert!(!is_held(&path) && !is_held(&folder.path().join("none")));
        RunLock::take(&path, "prune").unwrap();
    }
}
