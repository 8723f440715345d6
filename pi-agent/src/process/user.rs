//! Operating-system users.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid};

use crate::error::{Context, Error, Result};

/// An operating-system user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name; of a container's user that has none here, its uid.
    pub name: String,
    /// uid.
    pub uid: u32,
    /// Primary gid.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

impl User {
    /// The owner of a path.
    ///
    /// # Errors
    /// The path cannot be looked at, or its owner has no name.
    pub fn owner_of(path: &Path) -> Result<Self> {
        let uid = path.metadata().context(|| format!("look at {}", path.display()))?.uid();
        Self::look_up(nix::unistd::User::from_uid(Uid::from_raw(uid)), &format!("uid {uid}"))
    }

    /// The owner of a container's path: with the path's own group and no other, and perhaps without a name here.
    ///
    /// # Errors
    /// The path cannot be looked at.
    pub fn in_container_owning(path: &Path) -> Result<Self> {
        let metadata = path.metadata().context(|| format!("look at {}", path.display()))?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).context(|| format!("look up user {uid}"))?;
        Ok(Self { name: known.map_or_else(|| uid.to_string(), |user| user.name), uid, gid, groups: vec![gid] })
    }

    /// It has no name on this machine.
    pub fn is_nameless(&self) -> bool {
        self.name == self.uid.to_string()
    }

    /// The user of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        Self::look_up(nix::unistd::User::from_name(name), name)
    }

    fn look_up(found: nix::Result<Option<nix::unistd::User>>, what: &str) -> Result<Self> {
        let user = found
            .context(|| format!("look up user {what}"))?
            .ok_or_else(|| Error::new(format!("there is no user for {what}")).hint("see getent passwd"))?;
        let name = CString::new(user.name.as_str()).context(|| format!("look up user {what}"))?;
        let groups =
            nix::unistd::getgrouplist(&name, user.gid).context(|| format!("look up the groups of {}", user.name))?;
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        })
    }
}
