//! The kit's files to where they belong: the configuration and the secrets.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::kit::KitFile;
use crate::restore::beside::set_aside;
use crate::secrets::{write_private, write_shared};

/// Puts each in its place; what was there instead is kept beside it, and its name returned.
///
/// # Errors
/// Other files are there and may not be replaced (all are named, none is written), or one cannot be written.
pub fn put(files: &[KitFile], overwrite: bool) -> Result<Vec<PathBuf>> {
    let mut other = Vec::new();
    let mut missing = Vec::new();
    for file in files {
        match fs::read(&file.path) {
            Ok(found) if found == file.content.reveal().as_bytes() => {}
            Ok(_) => other.push(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(file),
            Err(error) => return Err(error).context(|| format!("read {}", file.path.display())),
        }
    }
    if !other.is_empty() && !overwrite {
        let paths: Vec<_> = other.iter().map(|file| file.path.display().to_string()).collect();
        return Err(Error::usage(format!("this machine has other files than the kit: {}", paths.join(", ")))
            .hint("--overwrite takes the kit's and keeps those beside them as *.before-restore-…"));
    }
    let mut kept = Vec::new();
    for file in &other {
        kept.push(set_aside(&file.path)?);
    }
    for file in missing.into_iter().chain(other) {
        let bytes = file.content.reveal().as_bytes();
        match file.name {
            // Others verify the storage with it, too.
            "ca.pem" => write_shared(&file.path, bytes, 0o644)?,
            _ => write_private(&file.path, bytes)?,
        }
    }
    Ok(kept)
}

/// All below one directory, to try them out before anything of the machine is touched.
///
/// # Errors
/// One cannot be written.
pub fn put_below(files: &[KitFile], directory: &Path) -> Result<()> {
    files.iter().try_for_each(|file| write_private(&directory.join(file.name), file.content.reveal().as_bytes()))
}
