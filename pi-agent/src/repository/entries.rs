//! The entries of a snapshot, as far as they can be believed: what a tree says comes out of storage, and whoever wrote it there
//! need not mean well.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustic_core::repofile::Node;
use rustic_core::{IndexedFullStatus, LsOptions, Repository as Rustic, RusticResult};

use super::Repository;
use crate::shown;

/// The listing of a directory borrows what it is asked for.
static ALL: LazyLock<LsOptions> = LazyLock::new(LsOptions::default);

impl Repository {
    /// All below a root, each directory before what is in it. One that no file can be called is damage, and is left out with all that is
    /// below it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(super) fn entries<'a>(
        &'a self,
        rustic: &'a Rustic<IndexedFullStatus>,
        root: &'a Node,
    ) -> RusticResult<impl Iterator<Item = RusticResult<(PathBuf, Node)>> + Clone + 'a> {
        let mut left_out: Option<Vec<u8>> = None;
        Ok(rustic.ls(root, &ALL)?.filter(move |item| {
            let Ok((path, node)) = item else { return true };
            let bytes = path.as_os_str().as_bytes();
            if left_out.as_ref().is_some_and(|left_out| bytes.starts_with(left_out)) {
                return false;
            }
            left_out = (!self.can_be_called(path, &node.name())).then(|| [bytes, b"/"].concat());
            left_out.is_none()
        }))
    }

    /// A file can have that name; else it is damage. `path` is only for the message.
    pub(super) fn can_be_called(&self, path: &Path, name: &OsStr) -> bool {
        let is_one = is_one_name(name);
        if !is_one {
            self.damaged(format!("{}: left out, no file can be called that", shown(&Path::new("/").join(path))));
        }
        is_one
    }
}

/// It leads to an entry of the directory itself, and of no other.
pub(super) fn is_one_name(name: &OsStr) -> bool {
    !matches!(name.as_bytes(), b"" | b"." | b"..") && !name.as_bytes().iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_elsewhere_is_no_name() {
        for name in ["", ".", "..", "/", "/etc", "a/b", "a/", "../a", "a\0b"] {
            assert!(!is_one_name(OsStr::new(name)), "{name:?}");
        }
        for name in ["a", "...", "..a", " ", "a\\b", "\u{202e}"] {
            assert!(is_one_name(OsStr::new(name)), "{name:?}");
        }
        assert!(is_one_name(OsStr::from_bytes(b"\xff")));
    }
}
