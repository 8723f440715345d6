//! What a snapshot says of a file, and what of it cannot be said.
//!
//! All of it is taken from the one file that is held open. rustic would look it up by its path, log attributes that it cannot read and
//! leave them out, and be silent about times that its format cannot hold: here whatever the snapshot lacks is counted.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use nix::fcntl::readlinkat;
use nix::unistd::{Gid, Group, Uid, User};
use rustic_core::repofile::{Metadata as Meta, Node, NodeType};
use serde_json::{Value, json};

use super::stamp::held;
use super::tally::Shared;
use crate::repository::attribute::{is_data, is_made_by_itself};
use crate::repository::target::Item;

/// Describes what was found at that path.
///
/// # Errors
/// It is a link that cannot be read.
pub(in crate::repository) fn describe(item: &Item, path: &Path, shared: &Shared) -> io::Result<Node> {
    let found = &item.found;
    let attributes = match attributes(item) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            shared.without_attributes(path, &error);
            Vec::new()
        }
        Ok(attributes) => attributes,
    };
    let modified = held(time(found.mtime(), found.mtime_nsec()));
    if modified.is_none() {
        shared.without_time(path);
    }
    let changed = held(time(found.ctime(), found.ctime_nsec()));
    let has_links = found.nlink() > 1 && !found.is_dir();
    let meta = Meta {
        mode: Some(mode(found.mode())),
        mtime: modified,
        atime: modified,
        ctime: changed,
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        user: user(found.uid()),
        group: group(found.gid()),
        inode: if has_links { number(found.ino(), changed, shared.begun()) } else { found.ino() },
        device_id: if has_links { found.dev() } else { 0 },
        size: if found.is_dir() { 0 } else { found.len() },
        links: if found.is_dir() { 0 } else { found.nlink() },
        // rustic has no public name for one.
        extended_attributes: serde_json::from_value(Value::Array(attributes))?,
    };
    Ok(Node::new_node(path.file_name().unwrap_or(OsStr::new("")), kind(item)?, meta))
}

fn time(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()
}

fn kind(item: &Item) -> io::Result<NodeType> {
    let (found, kind) = (&item.found, item.found.file_type());
    Ok(match kind {
        _ if kind.is_dir() => NodeType::Dir,
        _ if kind.is_symlink() => NodeType::from_link(&PathBuf::from(readlinkat(&item.fd, "")?)),
        _ if kind.is_block_device() => NodeType::Dev { device: found.rdev() },
        _ if kind.is_char_device() => NodeType::Chardev { device: found.rdev() },
        _ if kind.is_fifo() => NodeType::Fifo,
        _ if kind.is_socket() => NodeType::Socket,
        _ => NodeType::File,
    })
}

/// How much earlier than now a change may be stamped that is made now: by the clock of a server, or by ours before it was set.
const CLOCKS: SignedDuration = SignedDuration::from_hours(24);

/// What tells the names of one file from those of others. A file that is removed while the backup is made leaves its number to the next
/// one, which then is no further name of it: one that changed since `begun` goes by the time of its change as well.
fn number(inode: u64, changed: Option<Timestamp>, begun: Timestamp) -> u64 {
    match changed {
        Some(changed) if changed < begun.saturating_sub(CLOCKS).unwrap_or(Timestamp::MIN) => inode,
        changed => {
            let mut hasher = DefaultHasher::new();
            (inode, changed).hash(&mut hasher);
            // Never 0, which says that there is none.
            hasher.finish() | 1
        }
    }
}

/// The type and mode as Go has them, and so the format.
fn mode(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 1 << 31,
        libc::S_IFLNK => 1 << 27,
        libc::S_IFBLK => 1 << 26,
        libc::S_IFCHR => 1 << 26 | 1 << 21,
        libc::S_IFIFO => 1 << 25,
        libc::S_IFSOCK => 1 << 24,
        _ => 0,
    };
    let bit = |here: u32, there: u32| if mode & here == 0 { 0 } else { there };
    (mode & 0o777) | kind | bit(libc::S_ISUID, 1 << 23) | bit(libc::S_ISGID, 1 << 22) | bit(libc::S_ISVTX, 1 << 20)
}

fn user(id: u32) -> Option<String> {
    thread_local! { static KNOWN: RefCell<HashMap<u32, Option<String>>> = RefCell::default(); }
    let ask = || User::from_uid(Uid::from_raw(id)).ok().flatten().map(|user| user.name);
    KNOWN.with_borrow_mut(|known| known.entry(id).or_insert_with(ask).clone())
}

fn group(id: u32) -> Option<String> {
    thread_local! { static KNOWN: RefCell<HashMap<u32, Option<String>>> = RefCell::default(); }
    let ask = || Group::from_gid(Gid::from_raw(id)).ok().flatten().map(|group| group.name);
    KNOWN.with_borrow_mut(|known| known.entry(id).or_insert_with(ask).clone())
}

/// The extended attributes of a file that are data, as the format has them; ACLs and capabilities are among them.
///
/// # Errors
/// They cannot be read, or one has a name that the format cannot hold.
fn attributes(item: &Item) -> io::Result<Vec<Value>> {
    let is_link = item.found.is_symlink();
    let names = if is_link { xattr::list(&item.path) } else { xattr::list_deref(&item.path) };
    let names: Vec<OsString> = match names {
        // The file system has none.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => return Ok(Vec::new()),
        names => names?.filter(|name| !is_made_by_itself(name)).collect(),
    };
    let mut attributes = Vec::new();
    for name in names {
        let value = if is_link { xattr::get(&item.path, &name) } else { xattr::get_deref(&item.path, &name) }?;
        let name = name.into_string().map_err(|name| io::Error::other(format!("the name {name:?} is not UTF-8")))?;
        if is_data(&name, value.as_deref()) {
            attributes.push(json!({ "name": name, "value": value.map(|value| BASE64.encode(value)) }));
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_used_again_names_another_file() {
        let begun = Timestamp::now();
        let (before, after) = (begun - SignedDuration::from_hours(48), begun + SignedDuration::from_secs(1));
        assert_eq!(number(7, Some(before), begun), 7, "as restic has it, and the last backup");
        assert_eq!(number(7, Some(after), begun), number(7, Some(after), begun), "two names of one file");
        assert_ne!(number(7, Some(after), begun), 7);
        assert_ne!(number(7, Some(after), begun), number(7, Some(begun), begun));
    }
}
