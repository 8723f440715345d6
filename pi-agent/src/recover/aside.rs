//! Names beside a place: what is on its way there, and what was there before. Nothing is ever removed for a recovery.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// What stands where something is to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing, or an empty directory.
    Nothing,
    /// Something.
    Something,
}

/// What stands there.
///
/// # Errors
/// It cannot be looked at.
pub fn there(path: &Path) -> Result<There> {
    let doing = || format!("look at {}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(There::Nothing),
        Ok(found) if found.is_dir() => {
            let empty = path.read_dir().context(doing)?.next().is_none();
            Ok(if empty { There::Nothing } else { There::Something })
        }
        found => found.context(doing).map(|_| There::Something),
    }
}

/// `PATH.pi-agent-recovery`: what is restored lies there until it is whole.
pub fn on_its_way(path: &Path) -> PathBuf {
    with(path, ".pi-agent-recovery")
}

/// A disk of its own is mounted there, so nothing can be renamed to it.
pub fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    path.parent().is_some_and(|above| path.exists() && device(path) != device(above))
}

/// Moves what is there out of the way: to `PATH.before-recovery`, or that with a number. `None`: nothing was there.
///
/// # Errors
/// It cannot be moved.
pub fn move_aside(path: &Path) -> Result<Option<PathBuf>> {
    if there(path)? == There::Nothing {
        return Ok(None);
    }
    let aside = (1..)
        .map(|number| if number == 1 { ".before-recovery".into() } else { format!(".before-recovery-{number}") })
        .map(|suffix| with(path, &suffix))
        .find(|aside| fs::symlink_metadata(aside).is_err())
        .ok_or_else(|| Error::new(format!("move {} out of the way", path.display())))?;
    fs::rename(path, &aside).context(|| format!("keep {} as {}", path.display(), aside.display()))?;
    Ok(Some(aside))
}

/// Another ending.
pub fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_kept_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        assert_eq!(move_aside(&path).unwrap(), None);
        fs::create_dir(&path).unwrap();
        assert_eq!((there(&path).unwrap(), move_aside(&path).unwrap()), (There::Nothing, None));
        for content in ["first", "second"] {
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), content).unwrap();
            let aside = move_aside(&path).unwrap().unwrap();
            assert_eq!(fs::read_to_string(aside.join("file")).unwrap(), content);
        }
        assert!(folder.path().join("data.before-recovery-2/file").exists() && !path.exists());
        assert!(
            !is_mount_point(folder.path().join("data.before-recovery").as_path()) && is_mount_point(Path::new("/proc"))
        );
    }
}
