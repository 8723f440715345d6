//! Extended attributes that are data of a file, and those in which a file system only shows again what `stat` says.

use std::ffi::OsStr;

/// Owner, group, mode and device number as `ntfs3` keeps them on the disk. No other file system takes these names, and `ntfs3`
/// makes them itself when owner and mode are set.
const OF_NTFS: [&str; 4] = ["$LXUID", "$LXGID", "$LXMOD", "$LXDEV"];

/// The access list of NFS 4, which a server that has lists makes for each file.
pub(super) const OF_NFS: &str = "system.nfs4_acl";

/// Whether a file system makes attributes of that name by itself, whatever anybody sets.
pub(super) fn is_made_by_itself(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| OF_NTFS.contains(&name))
}

/// Whether an attribute says more than owner and mode, and so is backed up and restored.
pub(super) fn is_data(name: &str, value: Option<&[u8]>) -> bool {
    !is_made_by_itself(OsStr::new(name))
        && (name != OF_NFS || grants_beyond_mode(value.unwrap_or_default()).unwrap_or(true))
}

/// Whether a list names anybody but the owner, the group and everyone, is inherited, or grants what no mode does; `None`: it is
/// no such list.
/// RFC 7530, `nfsace4` in XDR: type, flags, mask and a name, of which all numbers have four bytes.
fn grants_beyond_mode(list: &[u8]) -> Option<bool> {
    /// This entry names a group: says nothing new of `GROUP@`.
    const OF_A_GROUP: u32 = 0x40;
    const ALLOW: u32 = 0;
    const DENY: u32 = 1;
    /// Read, write, append, execute, delete below; named attributes, attributes and the list to read; synchronize.
    const OF_MODE: u32 = 0x12_00ef;
    /// What servers let an owner do besides: write attributes and the list, give it away.
    const OF_OWNERS: u32 = OF_MODE | 0x0c_0110;
    let mut rest = list;
    for _ in 0..number(&mut rest)? {
        let (kind, flags, mask) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        let length = usize::try_from(number(&mut rest)?).ok()?;
        let (who, behind) = rest.split_at_checked(length)?;
        rest = behind.get(length.next_multiple_of(4) - length..)?;
        let usual = match (kind, who) {
            (DENY, b"OWNER@" | b"GROUP@" | b"EVERYONE@") => u32::MAX,
            (ALLOW, b"OWNER@") => OF_OWNERS,
            (ALLOW, b"GROUP@" | b"EVERYONE@") => OF_MODE,
            _ => return Some(true),
        };
        if flags & !OF_A_GROUP != 0 || mask & !usual != 0 {
            return Some(true);
        }
    }
    Some(false)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries that allow what a Linux server's own do, with these flags.
    fn list(entries: &[(u32, &str)]) -> Vec<u8> {
        let mut list = u32::try_from(entries.len()).unwrap_or(0).to_be_bytes().to_vec();
        for (flags, who) in entries {
            let length = u32::try_from(who.len()).unwrap_or(0);
            let mask = if *who == "OWNER@" { 0x16_01bf } else { 0x12_0089 };
            list.extend([0, *flags, mask, length].iter().flat_map(|number| number.to_be_bytes()));
            list.extend(who.bytes());
            list.resize(list.len().next_multiple_of(4), 0);
        }
        list
    }

    #[test]
    fn a_list_that_says_what_the_mode_says_is_no_data() {
        let of_mode = list(&[(0, "OWNER@"), (0x40, "GROUP@"), (0, "EVERYONE@")]);
        assert!(!is_data(OF_NFS, Some(&of_mode)));
        assert!(is_data("user.comment", Some(&of_mode)));
        assert!(is_data(OF_NFS, Some(&list(&[(0, "OWNER@"), (0, "anna@example.net")]))));
        assert!(is_data(OF_NFS, Some(&list(&[(3, "OWNER@")]))), "it is inherited by what is made there");
        let mut of_more = of_mode.clone();
        let mask_of_everyone = of_more.len() - 20;
        of_more[mask_of_everyone + 1] |= 0x04;
        assert!(is_data(OF_NFS, Some(&of_more)), "everyone may write the list");
        // What is cut short is kept as it is.
        assert!(is_data(OF_NFS, Some(&of_mode[..of_mode.len() - 1])) && is_data(OF_NFS, None));
        assert!(!is_data(OF_NFS, Some(&list(&[]))));
    }

    #[test]
    fn what_ntfs_makes_of_owner_and_mode_is_no_data() {
        assert!(!is_data("$LXUID", None) && is_made_by_itself(OsStr::new("$LXMOD")));
        assert!(is_data("user.$LXUID", None));
    }
}
