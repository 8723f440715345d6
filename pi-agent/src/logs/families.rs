//! Logs in a directory: a file, and the older ones that rotation made of it, are one log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::shown;

/// One log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Family {
    /// The file that is written now, or would be.
    pub path: PathBuf,
    /// Its size; 0 when only older ones are there.
    pub bytes: u64,
    /// With the older ones, as they lie there (compressed or not).
    pub all_bytes: u64,
    /// How many older ones there are.
    pub older: usize,
    /// When the present file was begun, where the file system knows.
    #[serde(skip)]
    pub born: Option<SystemTime>,
}

/// Deeper, nothing is a log any more.
const DEPTH: usize = 8;

/// All logs below a path, which may be one file. What cannot be read is put into `problems`.
pub(super) fn below(path: &Path, problems: &mut Vec<String>) -> Vec<Family> {
    let mut families = BTreeMap::new();
    walk(path, DEPTH, &mut families, problems);
    families.into_values().collect()
}

fn walk(path: &Path, depth: usize, families: &mut BTreeMap<PathBuf, Family>, problems: &mut Vec<String>) {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && depth < DEPTH => return, // rotated away just now
        Err(error) => return problems.push(format!("{}: {error}", shown(path))),
    };
    if metadata.is_file() {
        let current = current(path);
        let family = families.entry(current.clone()).or_insert_with(|| Family {
            path: current,
            bytes: 0,
            all_bytes: 0,
            older: 0,
            born: None,
        });
        family.all_bytes += metadata.len();
        if family.path == path {
            family.bytes = metadata.len();
            family.born = metadata.created().ok();
        } else {
            family.older += 1;
        }
    } else if metadata.is_dir() && depth > 0 {
        match std::fs::read_dir(path) {
            Err(error) => problems.push(format!("{}: {error}", shown(path))),
            Ok(entries) => entries.flatten().for_each(|entry| walk(&entry.path(), depth - 1, families, problems)),
        }
    }
}

/// `app.log` of `app.log.2.gz`, `app.log-20261120`, `app.log.2026-11-20.zst` and `app.log.old`; journald's files are one log.
fn current(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "journal")
        && let Some(folder) = path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "journal"))
    {
        return folder.to_owned();
    }
    let Some(mut name) = path.file_name().and_then(|name| name.to_str()) else { return path.to_owned() };
    for packed in [".gz", ".xz", ".zst", ".bz2"] {
        name = name.strip_suffix(packed).unwrap_or(name);
    }
    if let Some(at) = name.len().checked_sub("2026-11-20".len()).filter(|at| *at > 1)
        && name.get(at..).is_some_and(is_date)
    {
        name = name[..at].trim_end_matches(['.', '-', '_']);
    } else if let Some((base, end)) = name.rsplit_once(['.', '-'])
        && !base.is_empty()
        && end.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(end.len(), 1..=3 | 8 | 10)
    {
        name = base;
    } else if let Some(base) = name.strip_suffix(".old") {
        name = base;
    }
    path.with_file_name(name)
}

/// `2026-11-20`
fn is_date(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rotation_makes_belongs_to_its_log() {
        let of = |name: &str| current(Path::new(name)).display().to_string();
        for name in ["a.log", "a.log.1", "a.log.12.gz", "a.log-20261120.xz", "a.log.2026-11-20.zst", "a.log.old"] {
            assert_eq!(of(&format!("/srv/logs/{name}")), "/srv/logs/a.log", "{name}");
        }
        assert_eq!(of("/srv/logs/worker-3"), "/srv/logs/worker");
        assert_eq!(of("/srv/logs/1"), "/srv/logs/1");
        assert_eq!(of("/srv/logs/dump-1234567.log"), "/srv/logs/dump-1234567.log");
        assert_eq!(of("/srv/logs/größe.log"), "/srv/logs/größe.log");
        assert_eq!(of("/var/log/journal/4f/system@1.journal"), "/var/log/journal");
    }
}
