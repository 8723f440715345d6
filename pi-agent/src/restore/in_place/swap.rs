//! One directory in the place of another, in one moment: whoever looks finds either all of the old or all of the new.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Context, Error, Result};
use crate::restore::beside;

/// What was put where.
#[derive(Debug)]
pub struct Swapped {
    /// The new lies here.
    pub place: PathBuf,
    /// What lay there before; `None`: nothing.
    pub kept: Option<PathBuf>,
}

/// Puts `new` into `place`, on the same file system, and keeps what is there beside it, as `PLACE.before-restore-STAMP`.
///
/// # Errors
/// It cannot be renamed; then the old is where it was.
pub fn swap(new: &Path, place: &Path, stamp: &str) -> Result<Swapped> {
    let doing = || format!("put {} into its place", place.display());
    let kept = match fs::symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::rename(new, place).context(doing)?;
            None
        }
        _ => {
            let kept = beside(place, &format!(".before-restore-{stamp}"));
            // The new first gets the name that the old is to have: a power cut between the two leaves both, under names of ours.
            fs::rename(new, &kept).context(doing)?;
            if let Err(error) = exchange(&kept, place) {
                let _ = fs::rename(&kept, new);
                return Err(error).context(doing);
            }
            Some(kept)
        }
    };
    if let Some(Ok(folder)) = place.parent().map(File::open) {
        folder.sync_all().context(doing)?;
    }
    Ok(Swapped { place: place.into(), kept })
}

impl Swapped {
    /// The old again; the new is `to`.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn undo(&self, to: &Path) -> Result<()> {
        let undone = match &self.kept {
            Some(kept) => exchange(kept, &self.place).and_then(|()| fs::rename(kept, to)),
            None => fs::rename(&self.place, to),
        };
        undone.context(|| format!("put the old {} back", self.place.display()))
    }
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE) {
        // A file system that cannot, such as a share in the network.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            let aside = beside(one, ".swapping");
            fs::rename(one, &aside)?;
            fs::rename(other, one).inspect_err(|_| drop(fs::rename(&aside, one)))?;
            fs::rename(&aside, other).inspect_err(|_| drop(fs::rename(one, other)))
        }
        done => Ok(done?),
    }
}

/// A place can be swapped: no disk is mounted there or below, which would go with the old.
///
/// # Errors
/// One is.
pub fn check(place: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context(|| "look for mounted disks".into())?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| point.replace("\\040", " "));
    match points.map(PathBuf::from).find(|point| point.starts_with(place)) {
        None => Ok(()),
        Some(point) => {
            Err(Error::usage(format!("restore {} in place: {} is a mounted disk", place.display(), point.display()))
                .hint("restore into a directory on that disk with --to, and move what is in it"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_old_is_beside_the_new_and_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let [new, place] = ["new", "place"].map(|name| root.path().join(name));
        fs::create_dir(&new).unwrap();
        fs::write(new.join("new"), "").unwrap();
        fs::create_dir(&place).unwrap();
        fs::write(place.join("old"), "").unwrap();
        let swapped = swap(&new, &place, "now").unwrap();
        assert!(place.join("new").exists() && !new.exists());
        assert!(swapped.kept.as_ref().unwrap().join("old").exists());
        swapped.undo(&new).unwrap();
        assert!(place.join("old").exists() && new.join("new").exists());

        fs::remove_dir_all(&place).unwrap();
        let swapped = swap(&new, &place, "now").unwrap();
        assert!(place.join("new").exists() && swapped.kept.is_none());
    }

    #[test]
    fn a_mounted_disk_is_not_moved_away() {
        assert!(check(Path::new("/")).unwrap_err().to_string().contains("mounted"));
        assert!(check(Path::new("/no/such/place")).is_ok());
    }
}
