//! The one error type: what was being done to what, why it failed, and what a person can do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// Result with our [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller may do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Trying again unchanged cannot help (the default).
    Permanent,
    /// Network, 5xx, SlowDown, a lock held by another: trying again later may help.
    Transient,
    /// The configuration, a secret or the command line is wrong: exit code 2.
    Usage,
    /// Another run holds the lock: exit code 4.
    Locked,
    /// The object asked for does not exist.
    NotFound,
    /// Storage does not give it: the keys, a policy or an archive class. What lies there may be whole.
    Refused,
    /// Stopped at `max-duration`.
    OutOfTime,
}

/// Operation and object, lowercase, no full stop; the cause is in `source`, the advice in `hint`.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A permanent error. `message` is "operation object: what is wrong", never the text of a source.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: Kind::Permanent, message: message.into(), hint: None, source: None }
    }

    /// An error in the configuration, the secrets or the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).kind_of(Kind::Usage)
    }

    /// An error that may pass by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(message).kind_of(Kind::Transient)
    }

    /// Replaces the kind.
    #[must_use]
    pub fn kind_of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds what a tired person should do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// It may pass by itself.
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }

    /// Storage did not give what it was asked for. That says nothing of what lies there: it is not damage.
    pub fn is_unread(&self) -> bool {
        matches!(self.kind, Kind::Transient | Kind::Refused)
    }

    /// A disk was full, or a quota.
    pub fn is_for_lack_of_room(&self) -> bool {
        let mut cause = self.source();
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The advice: this error's, else that of the nearest cause which has one.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| {
            let mut cause = self.source();
            while let Some(error) = cause {
                if let Some(ours) = error.downcast_ref::<Self>() {
                    return ours.advice();
                }
                cause = error.source();
            }
            None
        })
    }

    /// The message and every cause, joined by ": ".
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Says what was being done when a foreign error arose.
pub trait Context<T> {
    /// Wraps the error as the cause of a permanent one.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| {
            let kind = (&source as &dyn StdError).downcast_ref::<Error>().map_or(Kind::Permanent, Error::kind);
            Error::new(message()).kind_of(kind).caused_by(source)
        })
    }
}
