//! Where backups lie: a folder or a bucket, behind one small set of operations.
//!
//! Three promises hold for both kinds. A partial write never looks like an object. A failure is an error and never an
//! empty list: what looks absent may be forgotten, pruned or initialised anew by those who ask. Errors name the
//! operation, the object and what the other side said, and never a key or a signature.

mod certificate;
pub mod disk;
mod failure;
mod local;
mod meter;
pub mod place;
mod retry;
mod s3;
pub mod shaper;
pub mod token;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::Result;
use crate::config::{self, Location};
use crate::secrets::Secrets;

pub use meter::Meter;

/// Why the storage's server cannot be reached, if it cannot: its name is not known, or nothing answers there.
pub fn unreachable(location: &Location) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let Location::S3(s3) = location else { return None };
    let endpoint = s3.endpoint();
    let away = |why: &dyn std::fmt::Display| Some(format!("the network ({endpoint}: {why})"));
    let url = match reqwest::Url::parse(&endpoint) {
        Ok(url) => url,
        Err(error) => return away(&error),
    };
    let addresses = match url.socket_addrs(|| None) {
        Ok(addresses) => addresses,
        Err(error) => return away(&error),
    };
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return None,
            Err(error) => last = Some(error),
        }
    }
    last.map_or_else(|| away(&"it has no address"), |error| away(&error))
}

/// A place in storage. Clones share connections and counts. Keys are relative to the place, with `/` between parts.
#[derive(Clone, Debug)]
pub enum Store {
    /// A folder.
    Local(local::Local),
    /// A prefix in a bucket.
    S3(s3::S3),
}

/// Bytes of an object that is read as a whole. Our largest have 4 MiB; restic makes packs of up to 128.
const LARGEST: usize = 160 << 20;
/// Bytes of a small document, of which each has less than a KiB.
pub const SMALL: usize = 64 << 10;

impl Store {
    /// Opens a place. Nothing is asked of the storage yet, but the CA file and the secrets are read.
    ///
    /// # Errors
    /// The CA file or the S3 keys cannot be read.
    pub fn open(storage: &config::Storage, location: &Location, secrets: &Secrets) -> Result<Self> {
        let meter = Arc::new(Meter::default());
        Ok(match location {
            Location::File(path) => {
                // The root must exist: where a disk is not mounted, no new repository may appear in its mount point.
                let root = match &storage.location {
                    Location::File(root) if path.starts_with(root) => root,
                    _ => path,
                };
                Self::Local(local::Local::new(root, path, meter))
            }
            Location::S3(s3) => Self::S3(s3::S3::open(storage, s3, &secrets.aws()?, meter)?),
        })
    }

    /// The place `self/name`, over the same connections.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        match self {
            Self::Local(local) => Self::Local(local.join(name)),
            Self::S3(s3) => Self::S3(s3.join(name)),
        }
    }

    /// The counts of this store, its clones and its joined places.
    pub fn meter(&self) -> &Arc<Meter> {
        match self {
            Self::Local(local) => local.meter(),
            Self::S3(s3) => s3.meter(),
        }
    }

    /// Until when the certificate of the server is good that has answered; `None`: there is none, or nobody answered yet.
    pub fn certificate_end(&self) -> Option<Timestamp> {
        match self {
            Self::Local(_) => None,
            Self::S3(s3) => s3.certificate_end(),
        }
    }

    /// By how much our clock is before that of the server, as its last answer tells; `None`: there is none, or it did not
    /// say.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        match self {
            Self::Local(_) => None,
            Self::S3(s3) => s3.clock_ahead(),
        }
    }

    /// A whole object.
    ///
    /// # Errors
    /// Kind `NotFound` when there is none of that key; also when it is longer than any that is read as a whole.
    pub fn get(&self, key: &str) -> Result<Bytes> {
        self.get_small(key, LARGEST)
    }

    /// A whole object of so many bytes at most.
    ///
    /// # Errors
    /// Kind `NotFound` when there is none of that key; also when it is longer.
    pub fn get_small(&self, key: &str, most: usize) -> Result<Bytes> {
        match self {
            Self::Local(local) => local.get(key, most),
            Self::S3(s3) => s3.get(key, most),
        }
    }

    /// The same, `most` bytes of it at most, into an empty buffer. `buffer` gives one, and may wait until there is one: a server has
    /// begun to answer by then. It is called again when that has to be tried again.
    ///
    /// # Errors
    /// As of [`Self::get`].
    pub fn get_into(&self, key: &str, most: usize, mut buffer: impl FnMut() -> Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::Local(local) => local.get_into(key, most, buffer()),
            Self::S3(s3) => s3.get_into(key, most, buffer),
        }
    }

    /// Exactly `length` bytes of an object from `offset` on.
    ///
    /// # Errors
    /// Kind `NotFound` when there is none of that key; also when the object is too short.
    pub fn get_range(&self, key: &str, offset: u64, length: usize) -> Result<Bytes> {
        match self {
            Self::Local(local) => local.get_range(key, offset, length),
            Self::S3(s3) => s3.get_range(key, offset, length),
        }
    }

    /// Writes an object whose content is the parts in order. It appears whole and durable, or not at all.
    ///
    /// # Errors
    /// The write failed; an earlier object of that key is then still there.
    pub fn put(&self, key: &str, parts: &[Bytes]) -> Result<()> {
        match self {
            Self::Local(local) => local.put(key, parts),
            Self::S3(s3) => s3.put(key, parts),
        }
    }

    /// As [`Self::put`], for every user of this machine to read.
    ///
    /// # Errors
    /// As of [`Self::put`].
    pub fn put_for_all(&self, key: &str, parts: &[Bytes]) -> Result<()> {
        match self {
            Self::Local(local) => local.put_as(key, parts, 0o644),
            Self::S3(s3) => s3.put(key, parts),
        }
    }

    /// Deletes an object. That it was not there is no error.
    ///
    /// # Errors
    /// It may still be there.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(local) => local.delete(key),
            Self::S3(s3) => s3.delete(key),
        }
    }

    /// Gives an object another key without reading it; false: this is a bucket, which cannot.
    ///
    /// # Errors
    /// It may still have the old key.
    pub fn rename(&self, key: &str, to: &str) -> Result<bool> {
        match self {
            Self::Local(local) => local.rename(key, to).map(|()| true),
            Self::S3(_) => Ok(false),
        }
    }

    /// Every object below `prefix` (a directory: empty, or ending with `/`), as key and size in bytes, in no order.
    ///
    /// # Errors
    /// Anything that makes the list incomplete. A folder whose root is missing (an unmounted disk) is `NotFound`.
    pub fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>> {
        match self {
            Self::Local(local) => local.list(prefix, ""),
            Self::S3(s3) => s3.list(prefix, ""),
        }
    }

    /// As [`Self::list`], every object of the place whose key sorts behind `after`.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_after(&self, after: &str) -> Result<Vec<(String, u64)>> {
        match self {
            Self::Local(local) => local.list("", after),
            Self::S3(s3) => s3.list("", after),
        }
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// Kind `NotFound` when there is none of that key.
    pub fn size(&self, key: &str) -> Result<u64> {
        match self {
            Self::Local(local) => local.size(key),
            Self::S3(s3) => s3.size(key),
        }
    }

    /// Makes the folder of a new place, in a folder that exists; a bucket has no folders.
    ///
    /// # Errors
    /// The folder it would lie in does not exist, or it cannot be made.
    pub fn make_root(&self) -> Result<()> {
        match self {
            Self::Local(local) => local.make_root(),
            Self::S3(_) => Ok(()),
        }
    }

    /// What a folder's file system cannot do and others can, in words.
    pub fn lacks(&self) -> Vec<&'static str> {
        match self {
            Self::Local(local) => local.lacks(),
            Self::S3(_) => Vec::new(),
        }
    }

    /// Removes what interrupted writes left behind a day or more ago. A bucket has no such leftovers.
    ///
    /// # Errors
    /// The place cannot be read, or a leftover cannot be removed.
    pub fn remove_leftovers(&self) -> Result<()> {
        match self {
            Self::Local(local) => local.remove_leftovers(),
            Self::S3(_) => Ok(()),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(local) => local.fmt(f),
            Self::S3(s3) => s3.fmt(f),
        }
    }
}
