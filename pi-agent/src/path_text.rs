//! Paths as texts to remember: names may be anything but UTF-8, and two of them must never become one.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Begins the text of a path that is no text. No absolute path begins so.
const BYTES: &str = "bytes:";

/// The text of an absolute path: the path itself where it is UTF-8.
pub fn of(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    path.to_str().map_or_else(|| format!("{BYTES}{}", hex()), str::to_owned)
}

/// The path of such a text.
pub fn path(text: &str) -> PathBuf {
    let digits = |hex: &str| {
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
        bytes.collect::<Option<Vec<_>>>()
    };
    let bytes = text.strip_prefix(BYTES).and_then(digits);
    bytes.map_or_else(|| text.into(), |bytes| OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn every_path_comes_back() {
        for name in [&b"/srv/caf\xe9"[..], b"/srv/caf\xc3\xa9", b"/", b"/a\n\"b"] {
            let name = Path::new(OsStr::from_bytes(name));
            assert_eq!(path(&of(name)), name);
        }
        assert_eq!(of(Path::new("/srv/a b")), "/srv/a b");
        assert_eq!(path("bytes:zz"), Path::new("bytes:zz"));
    }
}
