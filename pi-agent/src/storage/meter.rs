//! Counts what goes to and from storage, for the report and as the sign of life of a slow line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::steps::Requests;

/// Requests by kind and bytes both ways; shared by every clone of a store.
#[derive(Debug, Default)]
pub struct Meter {
    get: AtomicU64,
    put: AtomicU64,
    list: AtomicU64,
    head: AtomicU64,
    delete: AtomicU64,
    retried: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Get,
    Put,
    List,
    Head,
    Delete,
}

impl Operation {
    /// The word an error message uses.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Get => "read",
            Self::Put => "write",
            Self::List => "list",
            Self::Head => "look at",
            Self::Delete => "delete",
        }
    }
}

impl Meter {
    /// The counts so far.
    pub fn requests(&self) -> Requests {
        Requests {
            get: self.get.load(Relaxed),
            put: self.put.load(Relaxed),
            list: self.list.load(Relaxed),
            head: self.head.load(Relaxed),
            delete: self.delete.load(Relaxed),
            retried: self.retried.load(Relaxed),
            bytes_up: self.bytes_up.load(Relaxed),
            bytes_down: self.bytes_down.load(Relaxed),
        }
    }

    /// Both ways.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_up.load(Relaxed) + self.bytes_down.load(Relaxed)
    }

    pub(super) fn request(&self, operation: Operation) {
        let counter = match operation {
            Operation::Get => &self.get,
            Operation::Put => &self.put,
            Operation::List => &self.list,
            Operation::Head => &self.head,
            Operation::Delete => &self.delete,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn retry(&self) {
        self.retried.fetch_add(1, Relaxed);
    }

    pub(super) fn up(&self, bytes: usize) {
        self.bytes_up.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn down(&self, bytes: usize) {
        self.bytes_down.fetch_add(bytes as u64, Relaxed);
    }
}
