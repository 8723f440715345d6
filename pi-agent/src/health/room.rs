//! Room on disks.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::Result;
use crate::error::Context;
use crate::report::words;

/// Room on the file system of a path. One that does not tell (some of FUSE and of the network) has room for all, until a write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that we may still write.
    pub free: u64,
    /// Bytes in use, and those that may still be written; 0: it does not tell. What is kept back for root counts for neither, as `df` has it.
    pub total: u64,
    /// Files that can still be made; `None`: the file system does not count them.
    pub free_files: Option<u64>,
    /// Files there can be in all.
    pub total_files: u64,
    /// The disk is mounted read-only (also what ext4 does after errors).
    pub read_only: bool,
}

/// The room where `path` lies, or where it would lie: its nearest ancestor that exists.
///
/// # Errors
/// The file system cannot be asked.
pub fn room(path: &Path) -> Result<Room> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let found = statvfs(existing).context(|| format!("ask for the room at {}", existing.display()))?;
    let block = found.fragment_size();
    let read_only = found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    if found.blocks() == 0 {
        return Ok(Room { free: u64::MAX, total: 0, free_files: None, total_files: 0, read_only });
    }
    Ok(Room {
        free: found.blocks_available() * block,
        total: (found.blocks() - found.blocks_free() + found.blocks_available()) * block,
        total_files: found.files(),
        free_files: (found.files() > 0).then(|| found.files_available()),
        read_only,
    })
}

impl Room {
    /// The file system says how much there is.
    pub fn is_told(&self) -> bool {
        self.total > 0
    }

    /// The free room, in words.
    pub fn in_words(&self) -> String {
        if self.is_told() {
            format!("{} are free", words::size(self.free))
        } else {
            "nobody tells how much is free".into()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::process::Program;

    #[test]
    fn room_is_asked_of_the_nearest_ancestor() {
        let directory = tempfile::tempdir().unwrap();
        let room = room(&directory.path().join("not/there/yet")).unwrap();
        assert!(room.total > 0 && room.free <= room.total && !room.read_only);
    }

    #[test]
    fn a_file_system_that_tells_nothing_is_not_full() {
        let room = room(Path::new("/proc/self")).unwrap();
        assert!(!room.is_told() && room.free == u64::MAX && room.free_files.is_none());
        assert_eq!(room.in_words(), "nobody tells how much is free");
    }

    /// A file system of its own, so that nobody else writes to it between the two looks.
    #[test]
    fn room_counts_as_df_does() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("image"), vec![0; 16 << 20]).unwrap();
        let image = directory.path().join("image");
        let run = |program: &str, arguments: &[&str]| {
            let output = Program::new(program, arguments.iter().copied()).run(&mut |_, _| ()).unwrap();
            assert!(output.status.success(), "{program}: {}", output.stderr);
            output.stdout
        };
        // A tenth of it is kept back for root: that is where ways of counting differ.
        run("mkfs.ext4", &["-q", "-F", "-m", "10", image.to_str().unwrap()]);
        let at = directory.path().join("mounted");
        std::fs::create_dir(&at).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        std::fs::write(at.join("file"), vec![1; 5 << 20]).unwrap();
        let seen = room(&at).unwrap();
        let df = run("df", &["--block-size=1", "--output=used,avail,itotal,iavail", at.to_str().unwrap()]);
        run("umount", &[at.to_str().unwrap()]);
        let numbers: Vec<u64> = df.lines().nth(1).unwrap().split_whitespace().map(|it| it.parse().unwrap()).collect();
        let [used, available, files, free_files] = numbers[..] else { panic!("{df}") };
        assert_eq!((seen.free, seen.total), (available, used + available));
        assert_eq!((seen.total_files, seen.free_files), (files, Some(free_files)));
    }
}
