//! Extended attributes that are data of a file, and those in which a driver only shows what it keeps elsewhere.

use std::ffi::OsStr;

/// Owner, group, mode and device number as `ntfs3` keeps them on the disk, shown again beside what `stat` says. No other file
/// system takes these names, and `ntfs3` makes them itself when owner and mode are set.
const OF_NTFS: [&str; 4] = ["$LXUID", "$LXGID", "$LXMOD", "$LXDEV"];

/// Whether an attribute of that name is backed up and restored.
pub(super) fn is_data(name: &OsStr) -> bool {
    name.to_str().is_none_or(|name| !OF_NTFS.contains(&name))
}
