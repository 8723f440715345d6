//! What a snapshot says of a file, and what of it cannot be said.
//!
//! rustic logs attributes that it cannot read and leaves them out, and is silent about times that its format cannot hold. So
//! attributes are read here, and whatever the snapshot lacks is counted.

use std::io;
use std::path::Path;

use ignore::{DirEntry, WalkBuilder};
use rustic_core::repofile::Node;
use rustic_core::{LocalSourceSaveOptions, XattrOption};

use super::stamp::held;
use super::tally::{Shared, io_cause};
use crate::repository::attribute::{is_data, is_made_by_itself};

/// Looks at one path as the walk does, without entering a directory.
pub(super) fn look(path: &Path, follow_link: bool) -> Option<Result<DirEntry, ignore::Error>> {
    WalkBuilder::new(path).standard_filters(false).follow_links(follow_link).max_depth(Some(0)).build().next()
}

/// Describes what the walk found.
///
/// # Errors
/// It cannot be looked at; it may be gone.
pub(in crate::repository) fn describe(entry: DirEntry, shared: &Shared) -> io::Result<Node> {
    let path = entry.path().to_owned();
    let attributes = Attributes::of(&path);
    let read = match attributes {
        Ok(Attributes::None) | Err(_) => XattrOption::No,
        Ok(Attributes::Some) => XattrOption::Yes,
    };
    let mut node =
        LocalSourceSaveOptions::default().set_xattrs(read).map_entry(entry).map_err(|error| io_cause(&error))?.node;
    let meta = &mut node.meta;
    match attributes {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => shared.without_attributes(&path, &error),
        // rustic has all of them or none.
        Ok(Attributes::Some) if meta.extended_attributes.is_empty() => {
            shared.without_attributes(&path, &io::Error::other("one of them cannot be read"));
        }
        Ok(_) => {}
    }
    meta.extended_attributes.retain(|attribute| is_data(&attribute.name, attribute.value.as_deref()));
    if held(meta.mtime).is_none() {
        (meta.mtime, meta.atime) = (None, None);
        shared.without_time(&path);
    }
    meta.ctime = held(meta.ctime);
    Ok(node)
}

/// Whether a file has extended attributes; ACLs and capabilities are among them.
enum Attributes {
    None,
    Some,
}

impl Attributes {
    /// # Errors
    /// They cannot be read, or one has a name that the format cannot hold.
    fn of(path: &Path) -> io::Result<Self> {
        let names = match xattr::list(path) {
            // The file system has none.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                return Ok(Self::None);
            }
            names => names?,
        };
        let mut some = Self::None;
        for name in names.filter(|name| !is_made_by_itself(name)) {
            if name.to_str().is_none() {
                return Err(io::Error::other(format!("the name {name:?} is not UTF-8")));
            }
            some = Self::Some;
        }
        Ok(some)
    }
}
