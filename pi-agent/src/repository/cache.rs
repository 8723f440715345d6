//! What is kept on this machine of the repositories: indexes, snapshots and trees as they lie in storage, so that a night
//! need not fetch them. rustic fills it, and lets go what it sees removed; here it is kept small. All of it is safe to lose.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::Result;
use crate::config::Settings;
use crate::error::Context;

/// As many files and directories as if each had so many bytes: on a small file system, inodes run out first.
const BYTES_AN_INODE: u64 = 16 << 10;

/// Where a repository's lies.
pub(super) fn of(settings: &Settings, repository: &str) -> PathBuf {
    all(settings).join(repository)
}

fn all(settings: &Settings) -> PathBuf {
    settings.local.cache.join("repositories")
}

/// Removes what is of steps that are no more, and of the rest the oldest when there is more than `[local] max-size`: trees
/// first, which a night needs in part only. What is needed after all is fetched again.
///
/// # Errors
/// Something cannot be read or removed.
pub fn trim(settings: &Settings) -> Result<()> {
    let root = all(settings);
    let known = |name: &str| {
        let step = name.strip_suffix(".dumps").unwrap_or(name);
        settings.steps.iter().any(|one| one.name == step)
    };
    let trim = || -> io::Result<()> {
        for entry in entries(&root)? {
            if !entry.file_name().to_str().is_some_and(known) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        shrink(&root, settings.local.max_size)
    };
    trim().context(|| format!("keep the cache in {} small", root.display()))
}

/// Removes files until a quarter of the bound is free, if more is taken: not a few each night.
fn shrink(root: &Path, most: u64) -> io::Result<()> {
    let mut found = Found::default();
    found.walk(root, false)?;
    if found.fits(most) {
        return Ok(());
    }
    found.files.sort_unstable_by_key(|file| (!file.tree, file.written));
    for file in std::mem::take(&mut found.files) {
        if found.fits(most / 4 * 3) {
            break;
        }
        gone_is_fine(fs::remove_file(&file.path))?;
        found.bytes -= file.bytes;
        found.inodes -= 1;
        // Unless there is more in it.
        if file.path.parent().is_some_and(|directory| fs::remove_dir(directory).is_ok()) {
            found.inodes -= 1;
        }
    }
    Ok(())
}

struct File {
    path: PathBuf,
    tree: bool,
    written: SystemTime,
    bytes: u64,
}

#[derive(Default)]
struct Found {
    files: Vec<File>,
    bytes: u64,
    inodes: u64,
}

impl Found {
    fn fits(&self, most: u64) -> bool {
        self.bytes <= most && self.inodes <= most / BYTES_AN_INODE
    }

    fn walk(&mut self, directory: &Path, tree: bool) -> io::Result<()> {
        for entry in entries(directory)? {
            let metadata = match entry.metadata() {
                // rustic renames and removes beside us.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            self.inodes += 1;
            if metadata.is_dir() {
                self.walk(&entry.path(), tree || entry.file_name() == "data")?;
            } else {
                let bytes = metadata.blocks() * 512;
                self.bytes += bytes;
                self.files.push(File { path: entry.path(), tree, written: metadata.modified()?, bytes });
            }
        }
        Ok(())
    }
}

/// Nothing, where the directory is gone.
fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_trees_go_first_and_nothing_goes_before_it_must() {
        let root = tempfile::tempdir().unwrap();
        let names = ["s/id/data/aa/new", "s/id/data/bb/old", "s/id/index/cc/oldest", "s/id/data/dd/middle"];
        for (age, name) in [1, 3, 9, 2].into_iter().zip(names) {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(&path).unwrap();
            io::copy(&mut io::repeat(7).take(1 << 20), &mut &file).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(age)).unwrap();
        }
        let left = || -> Vec<&str> { names.into_iter().filter(|name| root.path().join(name).exists()).collect() };
        shrink(root.path(), 5 << 20).unwrap();
        assert_eq!(left(), names);
        shrink(root.path(), 3 << 20).unwrap();
        assert_eq!(left(), ["s/id/data/aa/new", "s/id/index/cc/oldest"]);
        // Few bytes, and still too many: six directories are left, and two files.
        for file in left() {
            fs::write(root.path().join(file), "").unwrap();
        }
        shrink(root.path(), 7 * BYTES_AN_INODE).unwrap();
        assert_eq!(left(), [""; 0]);
    }
}
