//! What a snapshot records of an entry besides its content: how a restore sets it, and how a restore and a restore test
//! compare it afterwards. Both compare the same: type, length, owner, mode, time of change, links, and extended attributes,
//! which also hold access lists and capabilities.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, geteuid};
use rustic_core::repofile::{Node, NodeType};

use super::attribute::{OF_NFS, is_data, is_made_by_itself};
use super::capabilities::{Capabilities, NotHeld};
use super::target::{Identity, Item, Place, identity};
use crate::monitor::Problem;

/// At most so many differences are named; all are counted.
const NAMED: usize = 50;

/// The attribute that holds an access list. Where there is one, the group's bits of the mode are its mask.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Attributes that grant something. One that was not recorded, such as a list inherited from the target, is a difference.
const GRANTING: [&str; 4] = [ACCESS_LIST, OF_NFS, "system.posix_acl_default", "security.capability"];

/// What could not be set, and why.
#[derive(Default)]
pub(super) struct Unset {
    owner: Option<io::Error>,
    mode: Option<io::Error>,
    times: Option<io::Error>,
    attributes: Vec<(String, io::Error)>,
}

impl Unset {
    /// The error of an attribute.
    fn attribute(&self, name: &str) -> Option<&io::Error> {
        self.attributes.iter().find(|(unset, _)| unset == name).map(|(_, why)| why)
    }

    /// The mode for an entry whose access list could not be set; `None`: it could, or there is none.
    fn mode_without_list(&self, node: &Node, mode: u32) -> Option<u32> {
        self.attribute(ACCESS_LIST)?;
        let list = node.meta.extended_attributes.iter().find(|attribute| attribute.name == ACCESS_LIST)?;
        Some(without_list(mode, list.value.as_deref().unwrap_or_default()))
    }
}

/// Sets everything that was recorded; what the target refuses is left as it is.
pub(super) fn set(item: &Item, node: &Node) -> Unset {
    let (meta, mut unset) = (&node.meta, Unset::default());
    let (uid, gid) = (meta.uid.map(Uid::from_raw), meta.gid.map(Gid::from_raw));
    // By number, as restic does: a container's files belong to numbers, whatever name the number has on another host.
    // First of all: it takes set-id bits and capabilities away.
    unset.owner = fchownat(&item.fd, "", uid, gid, AtFlags::AT_EMPTY_PATH).err().map(io::Error::from);
    unset.attributes = set_attributes(item, node);
    if let Some(mode) = meta.mode.map(unix_mode).filter(|_| !item.is_link()) {
        let mode = unset.mode_without_list(node, mode).unwrap_or(mode);
        unset.mode = fs::set_permissions(&item.path, Permissions::from_mode(mode)).err();
    }
    if let Some(modified) = meta.mtime {
        let (accessed, modified) = (spec(meta.atime.unwrap_or(modified)), spec(modified));
        let follow = if item.is_link() { UtimensatFlags::NoFollowSymlink } else { UtimensatFlags::FollowSymlink };
        unset.times = utimensat(AT_FDCWD, &item.path, &accessed, &modified, follow).err().map(io::Error::from);
    }
    unset
}

fn set_attributes(item: &Item, node: &Node) -> Vec<(String, io::Error)> {
    let recorded = &node.meta.extended_attributes;
    for name in item.attributes() {
        if !recorded.iter().any(|attribute| OsStr::new(&attribute.name) == name) {
            // The system's own labels stay; what grants something is compared afterwards.
            let _ = match item.is_link() {
                true => xattr::remove(&item.path, &name),
                false => xattr::remove_deref(&item.path, &name),
            };
        }
    }
    let mut unset = Vec::new();
    for attribute in recorded.iter().filter(|attribute| is_data(&attribute.name, attribute.value.as_deref())) {
        let (name, value) = (&attribute.name, attribute.value.as_deref().unwrap_or_default());
        if item.attribute(name).ok().flatten().as_deref() == Some(value) {
            continue;
        }
        let set = match item.is_link() {
            true => xattr::set(&item.path, name, value),
            false => xattr::set_deref(&item.path, name, value),
        };
        unset.extend(set.err().map(|error| (name.clone(), error)));
    }
    unset
}

/// It will be allowed more than its owner is: by a set-id bit, or by capabilities.
pub(super) fn grants_more(node: &Node) -> bool {
    let set_id = node.meta.mode.map(unix_mode).is_some_and(|mode| mode & 0o6000 != 0);
    node.is_file()
        && (set_id || node.meta.extended_attributes.iter().any(|attribute| attribute.name == "security.capability"))
}

impl Item {
    /// It is what was made for the node, and nothing that somebody put into its place: no other type, no further name of
    /// another file, and no other file at all where `made` says which one it was.
    pub(super) fn may_become(&self, node: &Node, made: Option<Identity>) -> bool {
        let alone = node.is_dir() || self.found.nlink() <= 1 || link_key(node).is_some();
        let same = made.is_none_or(|made| made == identity(&self.found));
        same_type(&node.node_type, &self.found) && alone && same
    }

    fn is_link(&self) -> bool {
        self.found.is_symlink()
    }

    fn attributes(&self) -> Vec<std::ffi::OsString> {
        let names = if self.is_link() { xattr::list(&self.path) } else { xattr::list_deref(&self.path) };
        names.map(|names| names.filter(|name| !is_made_by_itself(name)).collect()).unwrap_or_default()
    }

    fn attribute(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        if self.is_link() { xattr::get(&self.path, name) } else { xattr::get_deref(&self.path, name) }
    }
}

/// The mode without the access list that belongs to it: the group gets what the list and its mask gave it, and not the mask.
fn without_list(mode: u32, list: &[u8]) -> u32 {
    /// Linux, `posix_acl_xattr.h`: a version of four bytes, then entries of tag, permissions and id.
    const GROUP: u16 = 0x04;
    let entries = list.get(4..).unwrap_or_default().chunks_exact(8);
    let number = |entry: &[u8], at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
    let group = entries.filter(|entry| number(entry, 0) == GROUP).map(|entry| u32::from(number(entry, 2))).next();
    // What cannot be read grants nothing.
    mode & !0o070 | (mode & (group.unwrap_or(0) & 0o7) << 3)
}

/// Compares what was restored with what was recorded.
#[derive(Default)]
pub(super) struct Compared {
    links: HashMap<(u64, u64), Identity>,
    named: Vec<Problem>,
    count: usize,
    /// What was not compared.
    pub not_held: NotHeld,
    /// For a test: what its disk cannot hold, or what it may not set, is counted and is no difference.
    holds: Option<Capabilities>,
}

impl Compared {
    /// For a test on a disk that holds so much.
    pub(super) fn forgiving(holds: Capabilities) -> Self {
        Self { holds: Some(holds), ..Self::default() }
    }

    /// It is a test, whose disk does not hold that.
    fn cannot_hold(&self, held: impl FnOnce(&Capabilities) -> bool) -> bool {
        self.holds.as_ref().is_some_and(|holds| !held(holds))
    }

    /// Compares an entry. `shown` is its path in messages, `unset` is what could not be set; `is_copy`: it is known not to be
    /// the hard link it was.
    pub(super) fn compare(
        &mut self,
        place: io::Result<Place<'_, '_>>,
        shown: &Path,
        node: &Node,
        unset: &Unset,
        is_copy: bool,
    ) {
        let differences = match place.and_then(|place| Ok((place, place.item()?))) {
            Ok((place, item)) => self.differences(&place, &item, node, unset, is_copy),
            Err(error) => vec![format!("was not restored: {error}")],
        };
        if !differences.is_empty() {
            self.count += 1;
            if self.named.len() < NAMED {
                let message = format!("{} {}", crate::shown(shown), differences.join(", "));
                self.named.push(Problem { message, hint: None });
            }
        }
    }

    fn differences(
        &mut self,
        place: &Place<'_, '_>,
        item: &Item,
        node: &Node,
        unset: &Unset,
        is_copy: bool,
    ) -> Vec<String> {
        let (found, meta) = (&item.found, &node.meta);
        if !same_type(&node.node_type, found) {
            return vec!["is of another type".into()];
        }
        let sizes = meta
            .extended_attributes
            .iter()
            .map(|attribute| attribute.name.len() + attribute.value.as_ref().map_or(0, Vec::len));
        let all = sizes.sum::<usize>();
        let no_room = self.holds.is_some_and(|holds| all > holds.attributes);
        let is_beyond = |why: &io::Error| is_beyond_the_test(why) || (no_room && is_no_room(why));
        let mut differences = Vec::new();
        let mut differs = |what: String, why: Option<&io::Error>| {
            differences.push(match why {
                Some(why) => format!("{what} ({why})"),
                None => what,
            });
        };
        if node.is_symlink() {
            let target = place.read_link().unwrap_or_default();
            if target != node.node_type.to_link() {
                differs(format!("points to {}", crate::shown(&target)), None);
            }
        }
        if node.is_file() && found.len() != meta.size {
            differs(format!("has {} bytes instead of {}", found.len(), meta.size), None);
        }
        if let Some(key) = link_key(node)
            && !is_copy
            && *self.links.entry(key).or_insert(identity(found)) != identity(found)
        {
            differs("is no longer the hard link it was".into(), None);
        }
        let (has, owner) =
            ((found.uid(), found.gid()), (meta.uid.unwrap_or(found.uid()), meta.gid.unwrap_or(found.gid())));
        // Only root can give files away; whoever else restores knows it.
        if geteuid().is_root() && owner != has {
            if self.cannot_hold(|holds| holds.owners) {
                self.not_held.owners += 1;
            } else {
                let what = format!("belongs to {}:{} instead of {}:{}", has.0, has.1, owner.0, owner.1);
                differs(what, unset.owner.as_ref());
            }
        }
        let mode = found.mode() & 0o7777;
        if let Some(recorded) = meta.mode.map(unix_mode).filter(|recorded| !node.is_symlink() && *recorded != mode) {
            let list_is_refused = unset.attribute(ACCESS_LIST).is_some_and(is_beyond);
            let lacks_list = list_is_refused && unset.mode_without_list(node, recorded) == Some(mode);
            if self.cannot_hold(|holds| holds.modes && !lacks_list) {
                self.not_held.modes += 1;
            } else {
                differs(format!("has mode {mode:04o} instead of {recorded:04o}"), unset.mode.as_ref());
            }
        }
        let modified = (i128::from(found.mtime()), i128::from(found.mtime_nsec()));
        if let Some(recorded) = meta.mtime.map(seconds).filter(|recorded| *recorded != modified) {
            if self.cannot_hold(|holds| holds.times && !holds.cut(recorded.0, modified.0)) {
                self.not_held.times += 1;
            } else {
                differs("has another modification time".into(), unset.times.as_ref());
            }
        }
        for attribute in
            meta.extended_attributes.iter().filter(|attribute| is_data(&attribute.name, attribute.value.as_deref()))
        {
            let value = attribute.value.as_deref().unwrap_or_default();
            let why = unset.attribute(&attribute.name);
            match item.attribute(&attribute.name).ok().flatten() {
                Some(found) if found == value => {}
                _ if self.holds.is_some() && why.is_some_and(is_beyond) => self.not_held.attributes += 1,
                Some(_) => differs(format!("has other {}", in_words(&attribute.name)), why),
                None => differs(format!("lacks its {}", in_words(&attribute.name)), why),
            }
        }
        for name in GRANTING {
            let recorded = meta.extended_attributes.iter().any(|attribute| attribute.name == name);
            let found = item.attribute(name).ok().flatten();
            if !recorded && found.is_some_and(|found| is_data(name, Some(&found))) {
                differs(format!("has {} that it did not have", in_words(name)), None);
            }
        }
        differences
    }

    pub(super) fn problems(mut self) -> Vec<Problem> {
        if self.count > self.named.len() {
            let message = format!("{} more are not as they were", self.count - self.named.len());
            self.named.push(Problem { message, hint: None });
        }
        self.named
    }
}

/// The disk of the test does not hold such attributes, or the test is not allowed to set them. That is said of each: one disk
/// holds some and not others.
fn is_beyond_the_test(error: &io::Error) -> bool {
    let errors = [Errno::EOPNOTSUPP, Errno::EPERM].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|found| errors.contains(&found))
}

/// Of a file with more attributes than fit beside one on that disk. Whatever fits must come back: then the disk is full, or fails.
fn is_no_room(error: &io::Error) -> bool {
    let errors = [Errno::ENOSPC, Errno::E2BIG, Errno::ERANGE].map(|errno| errno as i32);
    error.raw_os_error().is_some_and(|found| errors.contains(&found))
}

fn in_words(name: &str) -> String {
    match name {
        ACCESS_LIST => "access list (ACL)".into(),
        "system.posix_acl_default" => "access list for new files (default ACL)".into(),
        "security.capability" => "capabilities".into(),
        other => format!("attribute {other}"),
    }
}

/// The file that a node is one of several names of.
pub(super) fn link_key(node: &Node) -> Option<(u64, u64)> {
    let meta = &node.meta;
    (node.is_file() && meta.links > 1 && meta.device_id != 0).then_some((meta.device_id, meta.inode))
}

fn same_type(kind: &NodeType, found: &Metadata) -> bool {
    let found = found.file_type();
    match kind {
        NodeType::File => found.is_file(),
        NodeType::Dir => found.is_dir(),
        NodeType::Symlink { .. } => found.is_symlink(),
        NodeType::Dev { .. } => found.is_block_device(),
        NodeType::Chardev { .. } => found.is_char_device(),
        NodeType::Fifo => found.is_fifo(),
        NodeType::Socket => found.is_socket(),
    }
}

/// Whole seconds since 1970, also before it, and nanoseconds on top of them.
fn seconds(time: jiff::Timestamp) -> (i128, i128) {
    const SECOND: i128 = 1_000_000_000;
    (time.as_nanosecond().div_euclid(SECOND), time.as_nanosecond().rem_euclid(SECOND))
}

fn spec(time: jiff::Timestamp) -> TimeSpec {
    let (seconds, nanoseconds) = seconds(time);
    let ends = "jiff's times end in the year 9999";
    TimeSpec::new(seconds.try_into().expect(ends), nanoseconds.try_into().expect(ends))
}

/// restic stores Go's file modes: permissions as in Unix, the three special bits elsewhere (Go, package io/fs).
fn unix_mode(go: u32) -> u32 {
    let bit = |from: u32, to: u32| if go & (1 << from) == 0 { 0 } else { to };
    (go & 0o777) | bit(23, 0o4000) | bit(22, 0o2000) | bit(20, 0o1000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use jiff::Timestamp;
    use rustic_core::repofile::Metadata as Recorded;
    use serde_json::json;

    use super::super::target::Target;
    use super::*;

    /// A file of mode 0640 as it was recorded otherwise, compared on a disk that holds so much.
    fn compared(recorded: Recorded, unset: &Unset, holds: Option<Capabilities>) -> Compared {
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        let (mut walk, path) = (target.walk(), Path::new("file"));
        let file = walk.place(path).unwrap().create().unwrap();
        file.set_permissions(Permissions::from_mode(0o640)).unwrap();
        let node = Node::new_node(path.as_os_str(), NodeType::File, recorded);
        let mut compared = Compared { holds, ..Compared::default() };
        compared.compare(walk.place(path), path, &node, unset, false);
        compared
    }

    const EVERYTHING: Capabilities = Capabilities {
        owners: true,
        modes: true,
        times: true,
        between: [i64::MIN, i64::MAX],
        links: true,
        attributes: 4096,
    };
    const NOTHING: Capabilities =
        Capabilities { owners: false, modes: false, times: false, links: false, attributes: 0, ..EVERYTHING };

    #[test]
    fn a_test_forgives_a_time_that_its_disk_cuts_and_attributes_for_which_it_has_no_room() {
        let now = Timestamp::now().as_second();
        let recorded = |seconds| Recorded { mtime: Timestamp::from_second(seconds).ok(), ..Recorded::default() };
        let early = |between| {
            compared(recorded(-11_644_473_600), &Unset::default(), Some(Capabilities { between, ..EVERYTHING }))
        };
        let found = |compared: Compared| (compared.not_held.times, compared.problems().len());
        // The file is of now.
        let cut =
            (now - 5..now + 60).map(|earliest| found(early([earliest, i64::MAX]))).filter(|found| *found == (1, 0));
        assert_eq!(cut.count(), 1);
        assert_eq!(found(early([-2_147_483_648, i64::MAX])), (0, 1), "it is not the nearest");

        let of = |length: usize, errno: Errno| {
            // Zeros in base64.
            let attributes = json!([{ "name": "user.big", "value": "A".repeat(length / 3 * 4) }]);
            let extended_attributes = serde_json::from_value(attributes).unwrap();
            let recorded = Recorded { extended_attributes, ..Recorded::default() };
            let unset = Unset { attributes: vec![("user.big".into(), errno.into())], ..Unset::default() };
            let compared = compared(recorded, &unset, Some(EVERYTHING));
            (compared.not_held.attributes, compared.problems().len())
        };
        assert_eq!((of(12_000, Errno::ENOSPC), of(12_000, Errno::E2BIG)), ((1, 0), (1, 0)));
        assert_eq!((of(99, Errno::ENOSPC), of(12_000, Errno::EIO)), ((0, 1), (0, 1)));
    }

    #[test]
    fn a_test_forgives_what_its_disk_does_not_hold_and_nothing_else() {
        type Case = (fn(&mut Recorded), fn(&mut Capabilities, bool), fn(&NotHeld) -> u64);
        let cases: [Case; 3] = [
            (|meta| meta.uid = Some(1234), |holds, held| holds.owners = held, |not_held| not_held.owners),
            (|meta| meta.mode = Some(0o600), |holds, held| holds.modes = held, |not_held| not_held.modes),
            (|meta| meta.mtime = Some(Timestamp::UNIX_EPOCH), |holds, held| holds.times = held, |not| not.times),
        ];
        for (number, (record, set, count)) in cases.into_iter().enumerate() {
            let mut recorded = Recorded::default();
            record(&mut recorded);
            let mut lacking = EVERYTHING;
            set(&mut lacking, false);
            let forgiven = compared(recorded.clone(), &Unset::default(), Some(lacking));
            assert_eq!((count(&forgiven.not_held), forgiven.problems().len()), (1, 0), "{number}");
            // That it was refused says nothing of a disk that holds it.
            let refused = || Some(io::Error::from(Errno::EPERM));
            let unset = Unset { owner: refused(), mode: refused(), times: refused(), attributes: Vec::new() };
            let mut only_this = NOTHING;
            set(&mut only_this, true);
            for holds in [None, Some(EVERYTHING), Some(only_this)] {
                let told = compared(recorded.clone(), &unset, holds);
                assert_eq!((told.not_held, told.problems().len()), (NotHeld::default(), 1), "{number} {holds:?}");
            }
        }
    }

    #[test]
    fn a_test_forgives_the_mode_that_a_file_has_without_its_list_and_no_other() {
        // The group's bits of the mode are the list's mask: rw. By the list, the group itself may read.
        let list = json!([{ "name": ACCESS_LIST, "value": "AgAAAAQABAAAAAAA" }]);
        let extended_attributes: Vec<_> = serde_json::from_value(list).unwrap();
        let with_list = |mode: u32| Recorded {
            mode: Some(mode),
            extended_attributes: extended_attributes.clone(),
            ..Recorded::default()
        };
        let refused = |errno: Errno| Unset { attributes: vec![(ACCESS_LIST.into(), errno.into())], ..Unset::default() };
        let forgiven = compared(with_list(0o660), &refused(Errno::EOPNOTSUPP), Some(EVERYTHING));
        assert_eq!(forgiven.not_held, NotHeld { modes: 1, attributes: 1, ..NotHeld::default() });
        assert_eq!(forgiven.problems().len(), 0);
        for (mode, errno) in [(0o664, Errno::EOPNOTSUPP), (0o660, Errno::ENOSPC)] {
            let told = compared(with_list(mode), &refused(errno), Some(EVERYTHING)).problems();
            assert!(told.iter().any(|problem| problem.message.contains("has mode 0640")), "{mode:o} {told:?}");
        }
        assert_eq!(compared(with_list(0o660), &refused(Errno::EOPNOTSUPP), None).problems().len(), 1);
    }

    #[test]
    fn gos_special_bits_become_unix_ones() {
        assert_eq!(unix_mode(0o755), 0o755);
        assert_eq!(unix_mode(1 << 31 | 1 << 20 | 0o777), 0o1777);
        assert_eq!(unix_mode(1 << 23 | 1 << 22 | 0o4), 0o6004);
    }

    #[test]
    fn without_its_list_a_file_grants_the_group_no_more_than_the_list_did() {
        let entry =
            |tag: u16, permissions: u16| [tag.to_le_bytes(), permissions.to_le_bytes(), [0; 2], [0; 2]].concat();
        // Owner rw, user 1234 rw, group r, mask rw, others nothing.
        let list = [vec![2, 0, 0, 0], entry(1, 6), entry(2, 6), entry(4, 4), entry(0x10, 6), entry(0x20, 0)].concat();
        assert_eq!(without_list(0o660, &list), 0o640);
        // The mask takes from the group, too.
        assert_eq!(without_list(0o4620, &list), 0o4600);
        assert_eq!(without_list(0o666, b"damaged"), 0o606);
    }

    #[test]
    fn times_before_1970_are_whole_seconds_and_a_part_that_is_not_negative() {
        let time = "1969-12-31T23:59:58.5Z".parse().expect("a time");
        assert_eq!(seconds(time), (-2, 500_000_000));
    }
}
