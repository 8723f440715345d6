//! The links of a data directory: tablespaces, and perhaps its WAL, lie where they lead.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::restore::KEPT;

/// The directory of WAL.
pub(crate) const WAL: &str = "pg_wal";
/// How the names of directories begin in which something is restored, below the directory where it belongs.
const STAGE: &str = ".pi-agent-restoring";

/// The links of a data directory that lead outside of it, by their paths in there, and where they lead.
pub(crate) fn links(data: &Path) -> Vec<(PathBuf, PathBuf)> {
    let spaces = names(&data.join("pg_tblspc")).unwrap_or_default();
    let links = spaces.into_iter().map(|name| Path::new("pg_tblspc").join(name)).chain([WAL.into()]);
    links.filter_map(|link| fs::read_link(data.join(&link)).ok().map(|led_to| (link, led_to))).collect()
}

/// Where the cluster that belongs at `data` has something restored, below where that belongs. Several clusters may share a directory.
pub(crate) fn stage(place: &Path, data: &Path) -> PathBuf {
    // FNV-1a: the same in each version of this program.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = data.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, mix);
    place.join(format!("{STAGE}-{hash:016x}"))
}

/// Something is restored there, and is not in its place yet. Such a path is one of this machine, also in a container's data.
pub(crate) fn is_stage(path: &Path) -> bool {
    path.file_name().is_some_and(is_name_of_stage)
}

/// What a restore left beside something that came back.
pub(crate) fn is_of_a_restore(name: &OsStr) -> bool {
    is_name_of_stage(name) || name.to_string_lossy().contains(KEPT)
}

/// What of the directory of WAL is no part of the cluster: pgBackRest would take along whatever directories are in there.
pub(super) fn strange_in_wal(data: &Path) -> Vec<PathBuf> {
    let names = names(&data.join(WAL)).unwrap_or_default();
    names.into_iter().filter(|name| is_of_a_restore(name)).map(|name| Path::new(WAL).join(name)).collect()
}

/// What is in a directory.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn is_name_of_stage(name: &OsStr) -> bool {
    name.as_bytes().starts_with(STAGE.as_bytes())
}
