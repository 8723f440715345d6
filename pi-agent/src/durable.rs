//! Names that survive a power cut, on file systems that have that, and what others lack.

use std::fs::File;
use std::io;
use std::path::Path;

/// Makes the names in a directory durable. Some file systems (FUSE, shares of the network) know no such thing and keep their names in an
/// order of their own; what the files hold was synced before.
///
/// # Errors
/// The directory cannot be opened, or the disk fails.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// The file system does not know what it was asked for. That says nothing of what lies there.
pub fn is_lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::ENOTTY | libc::EOPNOTSUPP))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_file_system_does_not_know_is_lacking() {
        for (number, lacking) in [
            (libc::EINVAL, true),
            (libc::EOPNOTSUPP, true),
            (libc::ENOSYS, true),
            (libc::EIO, false),
            (libc::EROFS, false),
            (libc::ENOSPC, false),
        ] {
            assert_eq!(is_lacking(&io::Error::from_raw_os_error(number)), lacking, "{number}");
        }
        let directory = tempfile::tempdir().unwrap();
        sync_directory(directory.path()).unwrap();
        assert!(sync_directory(&directory.path().join("nothing")).is_err());
        // Of the kernel's own file systems, this one has no such thing.
        assert!(is_lacking(&File::open("/proc/self").unwrap().sync_all().unwrap_err()));
        sync_directory(Path::new("/proc/self")).unwrap();
    }
}
